"""A saved model is whole, verified before use, and says the same after loading."""

import json
import pickle
from pathlib import Path

import pytest
import skops.io

from stance.classifiers.tfidf import TfidfClassifier
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.decision import fit_decision
from stance.errors import UserError
from stance.model import MANIFEST, StanceModel, load_model, place_for, point_alias, seal


@pytest.fixture(scope="module")
def model(codebook: Codebook, toy: dict[str, Split]) -> StanceModel:
    classifier = TfidfClassifier(codebook, min_df=1)
    classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)
    validation = toy["validation"]
    raw = classifier.predict_proba(validation.texts)
    decision = fit_decision(raw, validation.gold, validation.groups, codebook)
    return StanceModel("toy", classifier, decision, codebook, {"seed": 1})


@pytest.fixture
def saved(model: StanceModel, tmp_path: Path) -> Path:
    model.save(tmp_path / "toy", "# card\n")
    return tmp_path / "toy"


def test_a_loaded_model_says_the_same(
    model: StanceModel, saved: Path, toy: dict[str, Split]
) -> None:
    loaded = load_model(saved)
    texts = toy["test"].texts
    before, after = model.predict(texts), loaded.predict(texts)
    assert (before.probabilities == after.probabilities).all()
    assert before.label_sets == after.label_sets
    assert loaded.codebook == model.codebook
    assert loaded.digest == model.digest
    assert loaded.record == {"seed": 1}


def test_saving_replaces_the_model_and_leaves_nothing_beside_it(
    model: StanceModel, saved: Path
) -> None:
    (saved / "stale").write_text("x")
    model.save(saved, "# card\n")
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]
    load_model(saved)


def test_a_failed_save_leaves_the_old_model(
    model: StanceModel, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise OSError("disk full")

    monkeypatch.setattr(model.classifier, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(saved, "# card\n")
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]
    load_model(saved)


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: change(d / "tfidf.skops"), "tfidf.skops: damaged"),
        (lambda d: change(d / "stance.json"), "stance.json: damaged"),
        (lambda d: (d / "tfidf.json").unlink(), "tfidf.json: the manifest lists this file"),
        (lambda d: (d / "evil.py").write_text("x"), "evil.py: this file is not in the manifest"),
        (lambda d: (d / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda d: (d / MANIFEST).write_text("[]"), "manifest.json: damaged"),
        (lambda d: (d / MANIFEST).write_text('{"files": 3}'), "manifest.json: damaged"),
    ],
)
def test_a_damaged_or_foreign_model_is_refused(saved: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(saved)
    with pytest.raises(UserError, match=message):
        load_model(saved)


def test_a_sealed_model_of_another_make_is_refused(saved: Path) -> None:
    description = json.loads((saved / "stance.json").read_text())
    for key, value in (("format", 99), ("kind", "oracle"), ("codebook", {}), ("decision", None)):
        (saved / "stance.json").write_text(json.dumps({**description, key: value}))
        seal(saved)
        with pytest.raises(UserError):
            load_model(saved)


def test_weights_that_ask_for_another_type_are_refused(saved: Path) -> None:
    from sklearn.svm import LinearSVC

    path = saved / "tfidf.skops"
    whole = skops.io.load(path, trusted=[])
    skops.io.dump({**whole, "regression": LinearSVC()}, path)
    assert skops.io.get_untrusted_types(file=path) == []
    seal(saved)
    with pytest.raises(UserError, match=r"asks for the type sklearn\.svm"):
        load_model(saved)
    path.write_bytes(pickle.dumps(whole))
    seal(saved)
    with pytest.raises(UserError, match="is no skops file"):
        load_model(saved)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no saved model here"):
        load_model(tmp_path / "nowhere")


def test_a_model_is_put_only_where_nothing_or_a_model_stands(saved: Path, tmp_path: Path) -> None:
    models = saved.parent
    assert place_for(models, saved.name) == saved
    assert place_for(models, "new") == models / "new"
    (tmp_path / "runs").mkdir()
    point_alias(tmp_path / "champion", saved)
    for name in ("runs", "champion"):
        with pytest.raises(UserError, match=f"{name} stands there already and is no saved model"):
            place_for(tmp_path, name)
    for name in ("", ".", "..", "a/b"):
        with pytest.raises(UserError, match="expected the name of one folder"):
            place_for(tmp_path, name)


def test_the_alias_moves_in_one_step(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    point_alias(tmp_path / "champion", tmp_path / "other")
    point_alias(tmp_path / "champion", saved)
    assert (tmp_path / "champion").resolve() == saved.resolve()
    assert load_model(tmp_path / "champion").name == "toy"
