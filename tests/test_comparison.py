"""Models are compared fairly, and only a model that holds every gate becomes champion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, toy_rows, toy_split, write_rows
from hydra import compose, initialize_config_dir

from stance.classifiers.rules import RulesClassifier
from stance.classifiers.tfidf import TfidfClassifier
from stance.codebook import Codebook
from stance.comparison import compare, evaluate, holm, sign_test
from stance.config import EvaluateConfig, read_config, register_schemas
from stance.corpus.examples import Split, sentence_key
from stance.decision import fit_decision
from stance.errors import UserError
from stance.evaluation.metrics import Judged
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
    assert strong.sign_p_value < 0.001
    assert alike.verdict == "no difference can be claimed"
    assert (
        compare({"strong": models["strong"], "weak": models["weak"]}, "toy").differences[0].verdict
        == "strong is better"
    )


def test_a_model_does_not_differ_from_itself() -> None:
    (difference,) = compare({"a": judged(0.8, 1), "b": judged(0.8, 1)}, "toy").differences
    assert difference.difference.value == 0
    assert difference.p_value == 1
    assert difference.sign_p_value == 1
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
    """Eight rows only the first gets right, none only the second: p = 2 * 0.5 ** 8."""
    gold = np.ones((20, 1), dtype=np.int8)
    first, second = gold.copy(), gold.copy()
    second[:8] = 0
    names, groups = ("praise",), [str(i) for i in range(20)]
    p = sign_test(
        Judged(gold, first, first, groups, names), Judged(gold, second, second, groups, names)
    )
    assert p == pytest.approx(2 * 0.5**8)


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

    _, granted = promote(configure(saved, data, models="rules"))
    assert granted.granted, granted.reason
    assert champion.resolve().name == "rules"

    _, better = promote(configure(saved, data, models="tfidf"))
    assert [gate.name for gate in better.gates][-1] == "beside the champion"
    assert champion.resolve().name == "tfidf"

    _, worse = promote(configure(saved, data, "gates.f1_floor=0", models="rules"))
    assert worse.reason.startswith("beside the champion")
    assert champion.resolve().name == "tfidf"


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
    ],
)
def test_a_mistake_ends_in_one_line(saved: Path, arguments: list[str], message: str) -> None:
    write_rows(saved / "other.jsonl", [{"id": "a", "text": "x", "labels": ["threat"]}])
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
