"""Models are compared fairly, and only a model that holds every gate becomes champion."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, toy_rows, toy_split, write_rows
from hydra import compose, initialize_config_dir

from stance.classifiers.rules import RulesClassifier
from stance.classifiers.tfidf import TfidfClassifier
from stance.codebook import Codebook
from stance.comparison import evaluate, pool_seeds
from stance.config import EvaluateConfig, read_config, register_schemas
from stance.corpus.examples import Split, sentence_key
from stance.decision import fit_decision
from stance.errors import UserError
from stance.evaluation.metrics import Judged
from stance.evaluation.paired import compare, describe, holm, sign_test
from stance.model import StanceModel, load_model
from stance.promotion import promote


def judged(accuracy: float, seed: int, rows: int = 400) -> Judged:
    """Return predictions on the same gold, right in a share of the cells."""
    gold = (np.random.default_rng(0).random((rows, 2)) < 0.4).astype(np.int8)
    right = np.random.default_rng(seed).random((rows, 2)) < accuracy
    predicted = np.where(right, gold, 1 - gold).astype(np.int8)
    groups = [str(i // 4) for i in range(rows)]
    return Judged(gold, predicted * 0.8 + 0.1, predicted, groups, ("praise", "blame"))


def test_a_clear_difference_is_claimed_and_a_small_one_is_not() -> None:
    models = {"weak": judged(0.7, 1), "strong": judged(0.9, 2), "alike": judged(0.7, 3)}
    strong, alike = compare(models, "toy").differences
    assert strong.verdict == "strong is better"
    assert strong.difference.low > 0
    assert strong.sign.p_value < 0.001
    assert alike.verdict == "no difference can be claimed"
    assert (
        compare({"strong": models["strong"], "weak": models["weak"]}, "toy").differences[0].verdict
        == "strong is better"
    )


def test_a_model_does_not_differ_from_itself() -> None:
    (difference,) = compare({"a": judged(0.8, 1), "b": judged(0.8, 1)}, "toy").differences
    assert difference.difference.value == 0
    assert difference.p_value == 1
    assert difference.sign.p_value == 1
    assert difference.verdict == "no difference can be claimed"


def test_the_interval_is_that_of_the_paired_difference() -> None:
    """Two models that err together differ with far less doubt than their own intervals have."""
    first = judged(0.8, 1)
    predicted = first.predicted.copy()
    predicted[:10] = first.gold[:10]
    second = Judged(first.gold, first.probabilities, predicted, first.groups, first.names)
    comparison = compare({"first": first, "second": second}, "toy")
    gap = comparison.differences[0].difference
    own = comparison.scores["first"]["f1_macro"]
    assert gap.high - gap.low < 0.5 * (own.high - own.low)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_sign_test_by_hand() -> None:
    """Eight documents only the first gets right, none only the second: p = 2 * 0.5 ** 8."""
    gold = np.ones((40, 1), dtype=np.int8)
    first, second = gold.copy(), gold.copy()
    second[:16:2] = 0
    names, groups = ("praise",), [str(i // 2) for i in range(40)]
    found = sign_test(
        [Judged(gold, first, first, groups, names)], [Judged(gold, second, second, groups, names)]
    )
    assert (found.more, found.fewer, found.alike) == (0, 8, 12)
    assert found.p_value == pytest.approx(2 * 0.5**8)


def test_one_document_however_long_is_one_piece_of_evidence() -> None:
    gold = np.ones((40, 1), dtype=np.int8)
    wrong = np.zeros((40, 1), dtype=np.int8)
    names, groups = ("praise",), ["only"] * 40
    found = sign_test(
        [Judged(gold, gold, gold, groups, names)], [Judged(gold, wrong, wrong, groups, names)]
    )
    assert found.p_value == 1


def test_seeds_are_pooled_into_their_mean_and_spread() -> None:
    seeds = [judged(0.85, seed) for seed in (2, 3, 4)]
    alone = [compare({"one": run}, "toy").scores["one"]["f1_macro"] for run in seeds]
    comparison = compare({"weak": judged(0.7, 1), "pooled": seeds}, "toy")
    values = [interval.value for interval in alone]
    pooled = comparison.scores["pooled"]["f1_macro"]
    assert pooled.value == pytest.approx(np.mean(values))
    assert comparison.spread["pooled"]["f1_macro"] == pytest.approx(np.std(values, ddof=1))
    assert comparison.seeds == {"weak": 1, "pooled": 3}
    assert comparison.differences[0].verdict == "pooled is better"


def test_the_interval_over_seeds_holds_the_luck_of_training() -> None:
    """Seeds that differ much make the interval wider than that of any one of them."""
    runs = [judged(accuracy, seed) for seed, accuracy in enumerate((0.7, 0.8, 0.9))]
    pooled = compare({"m": runs}, "toy").scores["m"]["f1_macro"]
    widths = [
        found.high - found.low
        for found in (compare({"m": run}, "toy").scores["m"]["f1_macro"] for run in runs)
    ]
    assert pooled.high - pooled.low > 1.5 * max(widths)


def test_luck_is_seldom_called_a_difference() -> None:
    """Two models of the same worth: at most about one comparison in twenty claims otherwise."""
    claims = 0
    for trial in range(100):
        pair = {"a": judged(0.8, 2 * trial + 10, 200), "b": judged(0.8, 2 * trial + 11, 200)}
        claims += "better" in compare(pair, "toy", resamples=200).differences[0].verdict
    assert claims <= 10


def test_the_comparison_in_words() -> None:
    models = {"weak": judged(0.7, 1), "strong": [judged(0.9, 2), judged(0.9, 5)]}
    lines = describe(compare({**models, "alike": judged(0.7, 3)}, "toy", resamples=500))
    assert "p = 0.004, p = 0.008 after Holm's correction for 2 comparisons" in lines[0]
    assert lines[0].endswith("): strong is better.")
    assert "no difference can be claimed; differences from -0.0" in lines[1]
    assert lines[3].startswith("strong: macro F1 0.8")
    assert "mean of 2 seeds, standard deviation 0.0" in lines[3]
    assert lines[5].startswith("weak and alike: one seed each")
    few = describe(compare({"weak": judged(0.7, 1, rows=40)}, "toy", resamples=100))
    assert few[-1] == "Only 10 documents: intervals over so few are too narrow."


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, codebook: Codebook, toy: dict[str, Split]
) -> Path:
    """Two saved models, a test file, and a behaviour suite."""
    folder = tmp_path_factory.mktemp("saved")
    validation = toy["validation"]
    for classifier in (RulesClassifier(codebook), TfidfClassifier(codebook, min_df=1)):
        classifier.fit(toy["train"], validation, lambda metrics, step: None)
        raw = classifier.predict_proba(validation.texts)
        decision = fit_decision(raw, validation.gold, validation.groups, codebook)
        seen = frozenset(map(sentence_key, toy["train"].texts))
        model = StanceModel(classifier.kind, classifier, decision, codebook, {}, seen)
        model.save(folder / "models" / classifier.kind, "# card\n")
    write_rows(folder / "test.jsonl", toy_rows(codebook, 2000, 80))
    write_rows(folder / "seen.jsonl", toy_rows(codebook, 156, 8))
    (folder / "suite").mkdir()
    (folder / "suite/actors.json").write_text('{"here": ["The mayor", "The union", "A minister"]}')
    common = {"rule": 1, "construct": "plain"}
    cases = [
        {
            **common,
            "id": "1",
            "text": "The mayor praised it.",
            "has": ["praise"],
            "lacks": ["blame"],
        },
        {**common, "id": "2", "text": "{A} scolded {B}.", "same_under": "actors"},
    ]
    (folder / "suite/cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    return folder


def configure(folder: Path, *overrides: str, models: str = "rules,tfidf") -> EvaluateConfig:
    register_schemas()
    paths = ",".join(str(folder / "models" / name) for name in models.split(","))
    values = [
        f"models=[{paths}]",
        f"models_dir={folder / 'models'}",
        f"gates.behaviour={folder / 'suite'}",
        "gates.behaviour_floor=0.4",
        "resamples=200",
        "tracking=none",
        *overrides,
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return read_config(compose("evaluate", overrides=values), EvaluateConfig)


def test_saved_models_are_judged_on_a_file_and_the_report_lies_on_disk(saved: Path) -> None:
    evaluation = evaluate(configure(saved, f"data_file={saved / 'test.jsonl'}"))
    assert list(evaluation.comparison.scores) == ["rules", "tfidf"]
    report = json.loads(evaluation.report.read_text())
    assert report["rows"] == 80
    assert report["scores"]["tfidf"]["f1_macro"]["value"] > 0.9


def test_a_report_page_is_written_and_recorded_when_asked_for(
    saved: Path, models_dir: Path
) -> None:
    output = saved / "reports/mine.json"
    options = [f"data_file={saved / 'test.jsonl'}", "report=true", f"output={output}"]
    evaluation = evaluate(configure(saved, *options, "tracking=mlflow", f"models_dir={models_dir}"))
    assert evaluation.page == output.with_suffix(".html")
    page = evaluation.page.read_text()
    errors = int((evaluation.judged["rules"].gold != evaluation.judged["rules"].predicted).sum())
    assert errors
    assert page.count('class="tag') >= errors
    (logged,) = (models_dir / "mlruns").rglob("mine.html")
    assert logged.read_text() == page
    assert evaluate(configure(saved, *options[:1])).page is None


def test_a_single_label_model_has_a_report_page_too(
    saved: Path, single_codebook: Codebook, single_toy: dict[str, Split]
) -> None:
    train, validation = single_toy["train"], single_toy["validation"]
    classifier = TfidfClassifier(single_codebook, min_df=1)
    classifier.fit(train, validation, lambda metrics, step: None)
    raw = classifier.predict_proba(validation.texts)
    decision = fit_decision(raw, validation.gold, validation.groups, single_codebook)
    StanceModel("moods", classifier, decision, single_codebook).save(
        saved / "models/moods", "# card\n"
    )
    path = write_rows(saved / "moods.jsonl", toy_rows(single_codebook, 2000, 80))
    evaluation = evaluate(configure(saved, f"data_file={path}", "report=true", models="moods"))
    assert evaluation.page
    assert "Scores by slice" in evaluation.page.read_text()


def test_models_that_differ_only_in_their_seed_are_one_model(saved: Path) -> None:
    model = load_model(saved / "models/tfidf")
    other = load_model(saved / "models/rules")
    settings = {"model": "tfidf", "C": 4}
    models = {}
    for name, seed, base in (("a-seed1", 1, model), ("a-seed2", 2, model), ("b", 1, other)):
        extra = {} if name != "b" else {"C": 2}
        record = {"parameters": {**settings, "seed": seed, **extra}, "data": {"train": "x"}}
        models[name] = replace(base, record=record)
    assert pool_seeds(models) == {"a-2-seeds": ["a-seed1", "a-seed2"], "b": ["b"]}
    spare = replace(model.codebook, patterns={**model.codebook.patterns, "spare": "rain"})
    models["a-seed2"] = replace(models["a-seed2"], codebook=spare)
    models["again"] = models["a-seed1"]
    assert pool_seeds(models) == {name: [name] for name in models}


def test_an_evaluation_pools_seeds_unless_told_otherwise(saved: Path) -> None:
    model = load_model(saved / "models/tfidf")
    for seed in (1, 2):
        record = {"parameters": {"model": "tfidf", "seed": seed}, "data": {}}
        replace(model, record=record).save(saved / f"models/lin-seed{seed}", "# card\n")
    config = configure(
        saved, f"data_file={saved / 'test.jsonl'}", models="rules,lin-seed1,lin-seed2"
    )
    evaluation = evaluate(config)
    assert list(evaluation.comparison.scores) == ["rules", "lin-2-seeds"]
    report = json.loads(evaluation.report.read_text())
    assert report["pooled"]["lin-2-seeds"] == ["lin-seed1", "lin-seed2"]
    assert set(report["models"]) == {"rules", "lin-seed1", "lin-seed2"}
    assert report["text"] == describe(evaluation.comparison)
    config.pool_seeds = False
    assert list(evaluate(config).comparison.scores) == ["rules", "lin-seed1", "lin-seed2"]


def test_a_file_without_any_label_is_refused(saved: Path, codebook: Codebook) -> None:
    rows = [{**row, "labels": []} for row in toy_rows(codebook, 3000, 8)]
    path = write_rows(saved / "bare.jsonl", rows)
    with pytest.raises(UserError, match=r"bare\.jsonl: no sentence carries a label"):
        evaluate(configure(saved, f"data_file={path}"))


def test_a_report_does_not_take_the_place_of_the_labelled_file(saved: Path) -> None:
    path = saved / "test.jsonl"
    before = path.read_bytes()
    with pytest.raises(UserError, match="this is the labelled file"):
        evaluate(configure(saved, f"data_file={path}", f"output={path}"))
    assert path.read_bytes() == before


def test_files_of_one_name_keep_their_own_reports(saved: Path, tmp_path: Path) -> None:
    options = ["tracking=none", f"models_dir={tmp_path}"]
    paths = [tmp_path / name for name in ("a/gold.jsonl", "b/gold.jsonl", "b/gold.json")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(saved / "test.jsonl", path)
    reports = [evaluate(configure(saved, f"data_file={p}", *options)).report for p in paths]
    assert [report.name for report in reports[:2]] == ["gold.json", "b-gold.json"]
    assert [json.loads(report.read_text())["data"] for report in reports] == list(map(str, paths))
    assert evaluate(configure(saved, f"data_file={paths[1]}", *options)).report == reports[1]


def test_sentences_that_a_model_learnt_from_are_refused(saved: Path) -> None:
    with pytest.raises(UserError, match="'rules' was trained or tuned on 4 of its 8 sentences"):
        evaluate(configure(saved, f"data_file={saved / 'seen.jsonl'}"))
    evaluate(configure(saved, f"data_file={saved / 'seen.jsonl'}", "allow_overlap=true"))


def test_a_tracking_server_that_is_away_does_not_stop_an_evaluation(
    saved: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = ["tracking=mlflow", "tracking.uri=http://user:secret@127.0.0.1:9"]
    evaluation = evaluate(configure(saved, f"data_file={saved / 'test.jsonl'}", *away))
    assert evaluation.report.exists()
    warnings = [r.getMessage() for r in caplog.records if "MLflow cannot start" in r.getMessage()]
    assert len(warnings) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "uri",
    ["127.0.0.1:5000", "file:./mlruns", "foo://bar", "sqlite:///file:{db}?mode=ro&uri=true"],
)
def test_a_store_that_cannot_be_used_does_not_stop_an_evaluation(
    uri: str, saved: Path, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = uri.format(db=models_dir / "mlflow.db")
    config = configure(saved, f"data_file={saved / 'test.jsonl'}", "tracking=mlflow")
    config.tracking.uri, config.tracking.experiment = uri, "unused"  # it is in the store already
    assert evaluate(config).report.exists()
    (warning,) = (r for r in caplog.records if r.name == "stance.tracking")
    assert warning.getMessage().startswith(f"tracking.uri: MLflow cannot start at {uri}")
    assert not [r for r in caplog.records if r.exc_info]


def test_promotion_moves_the_alias_or_says_why_not(saved: Path) -> None:
    data = f"data_file={saved / 'test.jsonl'}"
    champion = saved / "models/champion"
    champion.unlink(missing_ok=True)

    _, refused = promote(configure(saved, data, "gates.latency_ceiling_ms=0.000001"))
    assert not refused.granted
    assert refused.reason.startswith("latency: wanted <= 0 ms a sentence")
    assert not champion.exists()
    record = json.loads((saved / "models/tfidf.promotion.json").read_text())
    assert record["granted"] is False

    _, unruly = promote(configure(saved, data, "gates.behaviour_rule_floor=0.99"))
    assert unruly.reason == "behaviour, every rule: wanted >= 0.990, found 0.500 for rule 1"

    _, granted = promote(configure(saved, data, models="rules"))
    assert granted.granted, granted.reason
    assert champion.resolve().name == "rules"

    _, better = promote(configure(saved, data, models="tfidf"))
    assert [gate.name for gate in better.gates][-1] == "beside the champion"
    assert champion.resolve().name == "tfidf"

    _, worse = promote(configure(saved, data, "gates.f1_floor=0", models="rules"))
    assert worse.reason.startswith("beside the champion")
    assert champion.resolve().name == "tfidf"


def test_a_folder_in_the_champions_place_is_left_there(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "models/rules", tmp_path / "champion")
    config = configure(saved, f"data_file={saved / 'test.jsonl'}", models="tfidf")
    config.models_dir = str(tmp_path)
    with pytest.raises(UserError, match="champion: not a link to a model"):
        promote(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion"]


def test_a_label_that_the_file_does_not_show_is_not_above_its_floor(
    saved: Path, codebook: Codebook
) -> None:
    rows = [row for row in toy_rows(codebook, 2000, 80) if "blame" not in row["labels"]]  # type: ignore[operator]
    path = write_rows(saved / "praise-only.jsonl", rows)
    _, refused = promote(configure(saved, f"data_file={path}", models="tfidf"))
    assert "f1/blame: wanted >= 0.500, found no sentence with this label" in refused.reason


def test_what_is_found_later_is_recorded_in_the_run_of_the_model(
    saved: Path, models_dir: Path
) -> None:
    import mlflow

    from stance.tracking import Store, start_run

    store = Store("mlflow", "", "stance", models_dir)
    with start_run(store, "training") as run:
        pass
    model = replace(load_model(saved / "models/tfidf"), record={"run": run.id})
    model.save(saved / "models/recorded", "# card\n")
    data = [f"data_file={saved / 'test.jsonl'}", "tracking=mlflow", f"models_dir={models_dir}"]
    promote(configure(saved, *data, "gates.f1_floor=1.0", models="recorded"))
    client = mlflow.MlflowClient(f"sqlite:///{models_dir / 'mlflow.db'}")
    found = client.get_run(run.id)
    assert found.data.metrics["test/f1_macro"] > 0.9
    assert found.data.tags["stance.promotion"] in ("granted", "refused")
    kinds = [r.data.tags.get("stance.kind") for r in client.search_runs([found.info.experiment_id])]
    assert sorted(kind for kind in kinds if kind) == ["compare", "promote"]


@pytest.mark.parametrize("own", [True, False])
def test_only_the_split_itself_changes_the_scores_that_a_run_has_of_it(
    own: bool, saved: Path, models_dir: Path, toy: dict[str, Split]
) -> None:
    import mlflow

    from stance.tracking import Store, start_run

    with start_run(Store("mlflow", "", "stance", models_dir), "training") as run:
        run.log_metrics({"validation/f1_macro": 0.5})
    digest = toy["test"].digest if own else "of another file"
    record = {"run": run.id, "data": {"validation": {"digest": digest}}}
    replace(load_model(saved / "models/tfidf"), record=record).save(saved / "models/a", "# card\n")
    path = shutil.copy(saved / "test.jsonl", models_dir / "validation.jsonl")
    store = ["tracking=mlflow", f"models_dir={models_dir}"]
    evaluate(configure(saved, f"data_file={path}", *store, models="a"))
    client = mlflow.MlflowClient(f"sqlite:///{models_dir / 'mlflow.db'}")
    assert (client.get_run(run.id).data.metrics["validation/f1_macro"] != 0.5) is own


def _predicted_with(name: str, models_dir: Path, text: str) -> dict[str, str]:
    """Label a sentence by the script with a model of the registry; return the first record."""
    (models_dir / "in.txt").write_text(text)
    output = models_dir / "out.jsonl"
    subprocess.run(
        [
            sys.executable,
            ROOT / "predict.py",
            f"input={models_dir}/in.txt",
            f"output={output}",
            f"model={name}",
        ],
        cwd=ROOT,
        check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{models_dir / 'mlflow.db'}"},
    )
    record: dict[str, str] = json.loads(output.read_text().splitlines()[0])
    return record


def test_a_promoted_model_is_registered_and_answers_as_a_pyfunc(
    saved: Path, models_dir: Path, toy: dict[str, Split]
) -> None:
    import mlflow
    import pandas as pd

    (saved / "models/champion").unlink(missing_ok=True)
    overrides = [f"data_file={saved / 'test.jsonl'}", "tracking=mlflow", f"models_dir={models_dir}"]
    _, promotion = promote(configure(saved, *overrides, models="tfidf"))
    assert promotion.granted
    mlflow.set_tracking_uri(f"sqlite:///{models_dir / 'mlflow.db'}")
    served = mlflow.pyfunc.load_model("models:/news-stance@champion")
    table = served.predict(pd.DataFrame({"text": toy["test"].texts[:8]}))
    assert list(table.columns) == ["p_praise", "p_blame", "labels", "uncertain"]
    model = load_model(saved / "models/tfidf")
    expected = model.predict(toy["test"].texts[:8])
    assert np.abs(table[["p_praise", "p_blame"]].to_numpy() - expected.probabilities).max() < 1e-6
    assert list(table["labels"]) == [",".join(labels) for labels in expected.label_sets]
    assert served.metadata.get_output_schema().input_names() == list(table.columns)
    texts = pd.DataFrame({"text": toy["test"].texts[:8]})
    asked = served.predict(texts, params={"operating_point": "recall@1"})
    expected = model.predict(toy["test"].texts[:8], "recall@1")
    assert list(asked["labels"]) == [",".join(labels) for labels in expected.label_sets]
    for name in ("models:/news-stance@champion", "models:/news-stance/1"):
        assert _predicted_with(name, models_dir, toy["test"].texts[0])["model"].startswith("tfidf@")
        manifest = json.loads((models_dir / "out.jsonl.manifest.json").read_text())
        assert manifest["model"]["path"] == manifest["settings"]["model_dir"] == name
    version = mlflow.MlflowClient().get_model_version_by_alias("news-stance", "champion")
    assert "`tfidf` becomes champion" in version.description


@pytest.mark.parametrize("value", [None, float("nan"), ["One.", "Two."], 7])
def test_a_pyfunc_refuses_what_is_no_text(value: object, saved: Path) -> None:
    import pandas as pd

    from stance.serving import StancePyfunc

    pyfunc = StancePyfunc()
    pyfunc.load_context(SimpleNamespace(artifacts={"model": saved / "models/rules"}))
    with pytest.raises(UserError, match="row 1: 'text' must be a text, found"):
        pyfunc.predict(None, pd.DataFrame({"text": ["It rained.", value]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=x.jsonl"], "models: this key needs a value"),
        (["models=[]", "data=x.jsonl"], "models: name at least one saved model"),
        (["models=[nowhere]", "data=x.jsonl"], "nowhere: no saved model here"),
        (["models=[{tfidf}]", "data={saved}/no such, file=.jsonl"], "cannot read"),
        (["models=[{tfidf}]", "data={saved}/other.jsonl"], "no label 'threat'"),
        (
            ["models=[{tfidf}]", "data={saved}/test.jsonl", "operating_point=best"],
            "operating_point",
        ),
        (["models=[{tfidf},{tfidf}]", "data={saved}/test.jsonl"], "named twice"),
        (
            [
                "models=[{tfidf}]",
                "data={saved}/test.jsonl",
                "promote=true",
                "operating_point=recall@0.9",
            ],
            "a champion predicts at its own operating point",
        ),
        (["models=[{tfidf}]", "data={saved}/bare.jsonl"], "bare.jsonl:1: the field 'labels' is"),
        (["models=[{saved}/damaged]", "data={saved}/test.jsonl"], "damaged: its SHA-256 is not"),
    ],
)
def test_a_mistake_ends_in_one_line(saved: Path, arguments: list[str], message: str) -> None:
    write_rows(saved / "other.jsonl", [{"id": "a", "text": "x", "labels": ["threat"]}])
    write_rows(saved / "bare.jsonl", [{"id": "a", "text": "x"}])
    shutil.copytree(saved / "models/tfidf", saved / "damaged", dirs_exist_ok=True)
    (saved / "damaged/README.md").write_text("# Another card\n")
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", "tracking=none"]
        + [argument.format(saved=saved, tfidf=saved / "models/tfidf") for argument in arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_refusal_exits_with_3_and_names_the_gate(saved: Path) -> None:
    (saved / "models/champion").unlink(missing_ok=True)
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "evaluate.py",
            f"models=[{saved / 'models/tfidf'}]",
            f"data={saved / 'test.jsonl'}",
            f"models_dir={saved / 'models'}",
            "tracking=none",
            "promote=true",
            "gates.behaviour=null",
            "gates.latency_ceiling_ms=0.000001",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("refused: tfidf does not become champion: latency: wanted <= 0 ms")
    assert not (saved / "models/champion").exists()


def test_models_that_differ_in_their_cue_rules_are_compared(saved: Path) -> None:
    model = load_model(saved / "models/tfidf")
    codebook = replace(model.codebook, patterns={**model.codebook.patterns, "spare": "rain"})
    other = StanceModel("other", model.classifier, model.decision, codebook)
    other.save(saved / "models/other", "# card\n")
    config = configure(saved, f"data_file={saved / 'test.jsonl'}", models="tfidf,other")
    (difference,) = evaluate(config).comparison.differences
    assert (difference.first, difference.second) == ("tfidf", "other")
    assert difference.difference.value == 0


def test_models_of_different_codebooks_are_not_compared(
    saved: Path, single_codebook: Codebook, tmp_path: Path
) -> None:
    train = toy_split(single_codebook, "train", 0, 120)
    classifier = TfidfClassifier(single_codebook, min_df=1)
    classifier.fit(train, train, lambda metrics, step: None)
    raw = classifier.predict_proba(train.texts)
    decision = fit_decision(raw, train.gold, train.groups, single_codebook)
    other = saved / "models/other"
    StanceModel("other", classifier, decision, single_codebook).save(other, "# card\n")
    with pytest.raises(UserError, match="trained under different codebooks"):
        evaluate(configure(saved, f"data_file={saved / 'test.jsonl'}", models="tfidf,other"))
