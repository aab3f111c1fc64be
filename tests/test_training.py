"""Whole runs: compose, train, record, compare, on two codebooks, with the errors users make."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, toy_rows, write_rows
from hydra import compose, initialize_config_dir

from stance.codebook import Codebook
from stance.config import LabelConfig, TrainConfig, parameters, read_config, register_schemas
from stance.errors import UserError
from stance.labelling.checking import check
from stance.labelling.report import report_voters
from stance.labelling.suggesting import make_queue
from stance.model import load_model, point_alias
from stance.training import train


def write_corpus(folder: Path, codebook: Codebook) -> list[str]:
    """Write a toy corpus and its codebook, and return the overrides that use them."""
    (folder / "codebook").mkdir(parents=True)
    (folder / "codebook/own.yaml").write_text(yaml.safe_dump(codebook.to_mapping()))
    files = {"train": (0, 160), "validation": (1000, 96), "test": (2000, 80)}
    overrides = [f"hydra.searchpath=[file://{folder}]", "codebook=own", "data.name=toy"]
    for name, (offset, count) in files.items():
        path = write_rows(folder / f"{name}.jsonl", toy_rows(codebook, offset, count))
        overrides.append(f"data.{name}=[{path}]")
    return overrides


def configure(*overrides: str) -> TrainConfig:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return read_config(compose("train", overrides=list(overrides)), TrainConfig)


def settings(folder: Path, models_dir: Path, codebook: Codebook) -> list[str]:
    return [
        *write_corpus(folder, codebook),
        f"models_dir={models_dir}",
        "resamples=100",
        "behaviour=null",
    ]


def test_another_codebook_needs_none_of_the_files_that_ship(
    codebook: Codebook, tmp_path: Path
) -> None:
    own = [part for part in write_corpus(tmp_path, codebook) if not part.startswith("data.test")]
    folder, codebook_, _, *files = own
    rest = ["data=none", "model=rules", "tracking=none", "behaviour=null", "resamples=100"]
    train(configure(folder, codebook_, *files, *rest, f"models_dir={tmp_path}"))
    (tmp_path / "article.txt").write_text("The mayor praised the plan. The union left.")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        values = compose("label", overrides=[folder, codebook_, "data=none"])
    config = read_config(values, LabelConfig)
    config.input, config.output = str(tmp_path / "article.txt"), str(tmp_path / "queue.jsonl")
    assert len(make_queue(config).tasks) == 2
    config.input, config.check = None, "true"
    with pytest.raises(UserError, match=r"^report: no sentence"):
        report_voters(config)
    with pytest.raises(UserError, match=r"^check: true: data=none names no file"):
        check(config)


def runs(models_dir: Path) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{models_dir / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("stance")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.parametrize("which", ["codebook", "single_codebook"])
@pytest.mark.parametrize("model", ["tfidf", "encoder"])
def test_a_run_trains_judges_saves_and_records(
    which: str,
    model: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    models_dir: Path,
    tiny_encoder: Path,
) -> None:
    from mlflow.data import get_source

    codebook = request.getfixturevalue(which)
    overrides = settings(tmp_path, models_dir, codebook)
    if model == "encoder":
        overrides += [f"model.checkpoint={tiny_encoder}", "model.epochs=2", "model.max_length=32"]
    config = configure(*overrides, f"model={model}", "evaluate_on=[validation,test]")
    result = train(config)

    assert set(result.scores) == {"validation", "test"}
    loaded = load_model(result.directory)
    assert loaded.codebook == codebook
    assert loaded.record["data"]["train"]["rows"] == 160
    card = (result.directory / "README.md").read_text()
    assert all(name in card for name in codebook.names)

    (run,) = runs(models_dir)
    assert run.info.status == "FINISHED"
    assert run.data.tags["stance.model_digest"] == loaded.digest
    assert run.data.params["model"] == model
    assert len(run.data.params) <= 40
    assert run.data.metrics["test/f1_macro"] == pytest.approx(
        result.scores["test"]["f1_macro"].value
    )
    assert {i.dataset.name for i in run.inputs.dataset_inputs} == {
        "toy-train",
        "toy-validation",
        "toy-test",
    }
    sources = {get_source(i).uri for i in run.inputs.dataset_inputs}
    assert sources == {str(tmp_path / f"{n}.jsonl") for n in ("train", "validation", "test")}
    artifacts = {p.name for p in (models_dir / "mlruns" / run.info.run_id).rglob("*.*")}
    assert {
        "precision_recall.png",
        "label_sets.png",
        "worst_errors.json",
        "config.yaml",
    } <= artifacts
    if model == "encoder":
        assert "train/loss" in run.data.metrics


def test_the_test_split_is_not_looked_at_unless_asked(
    tmp_path: Path, models_dir: Path, codebook: Codebook
) -> None:
    train(configure(*settings(tmp_path, models_dir, codebook), "model=tfidf"))
    (run,) = runs(models_dir)
    assert not [name for name in run.data.metrics if name.startswith("test/")]


def test_without_tracking_nothing_is_recorded(tmp_path: Path, codebook: Codebook) -> None:
    models = tmp_path / "models"
    overrides = settings(tmp_path / "data", models, codebook)
    result = train(configure(*overrides, "model=tfidf", "tracking=none"))
    assert [path.name for path in models.iterdir()] == [result.directory.name]


@pytest.mark.parametrize(
    ("which", "counts"),
    [
        ("codebook", "praise 80, blame 80, none 40"),
        ("single_codebook", "praise 40, blame 40, plain 80"),
    ],
)
def test_a_run_says_how_many_sentences_carry_each_label_or_none(
    which: str,
    counts: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A column that nobody filled in would else pass unseen."""
    caplog.set_level("INFO")
    overrides = settings(tmp_path / "data", tmp_path / "models", request.getfixturevalue(which))
    train(configure(*overrides, "model=tfidf", "tracking=none"))
    assert f"train: 160 sentences, {counts}" in caplog.messages


def test_training_anew_over_the_champion_is_said(
    tmp_path: Path, codebook: Codebook, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "models"
    config = configure(
        *settings(tmp_path / "data", models, codebook), "model=rules", "tracking=none"
    )
    point_alias(models / "champion", train(config).directory)
    assert "champion" not in caplog.text
    train(config)
    assert f"{models / 'champion'} was replaced by this model" in caplog.text
    assert f"models=[{models / 'rules-seed1'}] data=FILE promote=true" in caplog.text


def test_behaviour_is_recorded_by_construct_and_by_rule(
    tmp_path: Path, models_dir: Path, codebook: Codebook
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "actors.json").write_text('{"here": ["The mayor", "The union"]}')
    case = {"id": "1", "rule": 1, "construct": "plain", "has": ["praise"], "lacks": ["blame"]}
    write_rows(suite / "cases.jsonl", [{**case, "text": "The mayor praised the new budget."}])
    overrides = settings(tmp_path / "data", models_dir, codebook)
    result = train(configure(*overrides, "model=tfidf", f"behaviour={suite}"))
    (run,) = runs(models_dir)
    assert run.data.metrics["behaviour/plain"] == 1
    assert run.data.metrics["behaviour/rule/01"] == 1
    record = load_model(result.directory).record
    assert record["behaviour"]["all"]["total"] == record["behaviour_by_rule"]["1"]["total"] == 1


def test_a_suite_for_another_codebook_stops_a_run_before_it_starts(
    tmp_path: Path, models_dir: Path, codebook: Codebook
) -> None:
    overrides = settings(tmp_path / "data", models_dir, codebook)
    with pytest.raises(UserError, match="no behaviour case: the codebook 'verdicts' has no"):
        train(configure(*overrides, "model=tfidf", "behaviour=data/behaviour"))
    assert not runs(models_dir)


@pytest.mark.parametrize(
    ("which", "point", "message"),
    [
        ("codebook", "max_f1", "data.validation: the label 'blame' has no positive example"),
        ("single_codebook", "recall@0.9", "decision.operating_point: 'recall@0.9'"),
    ],
)
def test_thresholds_that_nothing_can_support_stop_a_run_before_it_starts(
    which: str,
    point: str,
    message: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    models_dir: Path,
) -> None:
    codebook = request.getfixturevalue(which)
    overrides = settings(tmp_path / "data", models_dir, codebook)
    rows = [row for row in toy_rows(codebook, 1000, 96) if "blame" not in row["labels"]]  # type: ignore[operator]
    write_rows(tmp_path / "data/validation.jsonl", rows)
    with pytest.raises(UserError, match=message):
        train(configure(*overrides, "model=tfidf", f"decision.operating_point={point}"))
    assert not runs(models_dir)


def test_a_failing_run_is_recorded_as_failed(
    tmp_path: Path, models_dir: Path, codebook: Codebook
) -> None:
    overrides = settings(tmp_path, models_dir, codebook)
    with pytest.raises(UserError, match="checkpoint 'nobody/nothing'"):
        train(configure(*overrides, "model=encoder", "model.checkpoint=nobody/nothing"))
    (run,) = runs(models_dir)
    assert run.info.status == "FAILED"
    assert not (models_dir / "encoder-seed1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_is_recorded_as_killed(
    number: signal.Signals, tmp_path: Path, models_dir: Path, codebook: Codebook, tiny_encoder: Path
) -> None:
    overrides = settings(tmp_path, models_dir, codebook)
    long = [f"model.checkpoint={tiny_encoder}", "model.max_length=64"]
    long += [f"model.{name}=100000" for name in ("epochs", "max_steps", "patience")]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *overrides, "model=encoder", *long],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not any("train/loss" in run.data.metrics for run in runs(models_dir)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in errors
    if number == signal.SIGKILL:  # nobody could write it down: the next run does
        train(configure(*overrides, "model=tfidf"))
    statuses = {run.data.params["model"]: run.info.status for run in runs(models_dir)}
    assert statuses.pop("encoder") == "KILLED"
    assert set(statuses.values()) <= {"FINISHED"}
    assert not (models_dir / "encoder-seed1").exists()


def test_parameters_are_few_and_flat() -> None:
    for model in ("rules", "tfidf", "minilm"):
        values = parameters(configure(f"model={model}"))
        assert len(values) <= 40
        assert all(isinstance(value, str | int | float | bool) for value in values.values())


def test_every_shipped_choice_composes() -> None:
    for name in sorted((ROOT / "conf/experiment").glob("*.yaml")):
        configure(f"experiment={name.stem}")
    for model in ("rules", "tfidf", "minilm"):
        configure(f"model={model}", "tracking=none")


def test_each_script_takes_the_choices_of_this_machine_from_a_file_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "local").mkdir()
    choices = {
        "train": "threads: 3",
        "evaluate": "resamples: 101",
        "predict": "workers: 3",
        "label": "port: 0",
    }
    register_schemas()
    for name, line in choices.items():
        (tmp_path / f"local/{name}.yaml").write_text(f"# @package _global_\n{line}\n")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name, line in choices.items():
            values = compose(name, overrides=[f"hydra.searchpath=[file://{tmp_path}]"])
            key, _, value = line.partition(": ")
            assert values[key] == int(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=tfidf"], "modle"),
        (["model=tfidff"], "tfidff"),
        (["model=tfidf", "model.epochs=3"], "model.epochs"),
        (["model=tfidf", "model.C=high"], "model.C"),
        (["model.learning_rate=-1"], "model.learning_rate: -1.0 must be greater than 0"),
        (["model.learning_rate=nan"], "model.learning_rate"),
        (["seed=-3"], "seed: -3 is below 0"),
        (["seed=4294967296", "model=tfidf"], "seed: 4294967296 is above 4294967295"),
        (["data.label_separator=''", "model=tfidf"], "label_separator: '': expected what stands"),
        (["name=''"], "name: '': expected the name of one folder"),
        (["data.test=[]", "evaluate_on=[test]"], "evaluate_on: 'test': data.test names no file"),
        (["evaluate_on=[tset]"], "evaluate_on: 'tset' is not among validation, test"),
        (["model=encoder"], "model.checkpoint: this key needs a value"),
        (["decision.operating_point=precision"], "decision.operating_point"),
        (["data.train=[nowhere.jsonl]", "model=tfidf"], "nowhere.jsonl: cannot read"),
        (["data.validation=[]", "model=tfidf"], "data.validation: name at least one file"),
        (["tracking=mlflow", "tracking.kind=wandb"], "tracking.kind: 'wandb'"),
    ],
)
def test_a_mistake_ends_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *arguments, f"models_dir={models}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(models.glob("*seed*"))


def test_jobs_of_a_sweep_do_not_save_over_one_another(tmp_path: Path, codebook: Codebook) -> None:
    models = tmp_path / "models"
    overrides = settings(tmp_path / "data", models, codebook)
    overrides += ["model=rules", "tracking=none", "name=same", "seed=1,2"]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--multirun", *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "two jobs of this sweep would both be saved as 'same'" in done.stderr.splitlines()[-1]
    assert load_model(models / "same").record["seed"] == 1


def test_scripts_say_what_they_take_without_loading_the_libraries() -> None:
    for script in ("train.py", "evaluate.py"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", ROOT / script, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0
        assert "python " + script in done.stdout
        loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert not loaded & {"torch", "transformers", "mlflow", "sklearn", "datasets"}


def test_the_recorded_config_repeats_the_run(
    tmp_path: Path, models_dir: Path, codebook: Codebook
) -> None:
    config = configure(*settings(tmp_path, models_dir, codebook), "model=tfidf")
    first = train(config)
    digest = load_model(first.directory).record["data"]
    (run,) = runs(models_dir)
    saved = yaml.safe_load(
        (models_dir / "mlruns" / run.info.run_id / "artifacts/config.yaml").read_text()
    )
    assert saved["seed"] == 1
    assert saved["codebook"]["name"] == codebook.name
    second = train(config)
    assert load_model(second.directory).record["data"] == digest
    assert json.dumps(first.scores["validation"]["f1_macro"].value) == json.dumps(
        second.scores["validation"]["f1_macro"].value
    )
    assert os.listdir(models_dir).count("tfidf-seed1") == 1
