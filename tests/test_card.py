"""Every saved model carries a card that is true, and whose examples run as they stand."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, toy_rows, write_rows
from hydra import compose, initialize_config_dir

from stance.codebook import Codebook
from stance.config import TrainConfig, read_config, register_schemas
from stance.evaluation.card import EXAMPLE
from stance.model import StanceModel, load_model
from stance.training import train

SHIPPED = "The corpus that ships with the project was written by a language model"
FILES = {"train": (0, 160), "validation": (1000, 96), "test": (2000, 80)}


def trained(folder: Path, codebook: Codebook, *overrides: str) -> tuple[Path, str]:
    """Train on a toy corpus with a suite; return the model's directory and its card."""
    import yaml

    (folder / "codebook").mkdir()
    (folder / "codebook/own.yaml").write_text(yaml.safe_dump(codebook.to_mapping()))
    suite = folder / "suite"
    suite.mkdir()
    (suite / "actors.json").write_text('{"here": ["The mayor", "The union"]}')
    case = {"rule": 1, "construct": "odd", "has": [codebook.names[0]], "lacks": []}
    texts = ["The mayor praised the new budget.", "Rain | fell on the old bridge."]
    write_rows(
        suite / "cases.jsonl", [{**case, "id": t[:3], "text": t} for t in texts if codebook.rules]
    )
    settings = [
        f"data.{n}=[{write_rows(folder / f'{n}.jsonl', toy_rows(codebook, *span))}]"
        for n, span in FILES.items()
    ]
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = read_config(
            compose(
                "train",
                overrides=[
                    f"hydra.searchpath=[file://{folder}]",
                    "codebook=own",
                    "tracking=none",
                    "resamples=100",
                    "evaluate_on=[validation,test]",
                    f"models_dir={folder / 'models'}",
                    f"behaviour={suite if codebook.rules else 'null'}",
                    *settings,
                    *overrides,
                ],
            ),
            TrainConfig,
        )
    directory = train(config).directory
    return directory, (directory / "README.md").read_text()


def run_examples(card: str) -> str:
    """Run every Python example of a card and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for example in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            exec(compile(example, "card", "exec"), {})
    return printed.getvalue()


def encoder(tiny_encoder: Path) -> list[str]:
    return [
        "model=encoder",
        f"model.checkpoint={tiny_encoder}",
        "model.epochs=2",
        "model.max_length=32",
        "model.export=false",
    ]


def test_a_card_says_what_the_model_is_and_where_it_fails(
    tmp_path: Path, codebook: Codebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, card = trained(tmp_path, codebook, "model=tfidf")
    for label in codebook.labels:
        assert f"- **{label.name}**: {label.definition}" in card
    record = load_model(directory).record
    value, low, high = record["scores"]["test"]["f1/praise"]
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in card
    assert "| 1. The sentence decides |" in card
    assert "- odd: 1 of 2 test sentences kept; fails for instance: “Rain | fell on" in card
    assert re.search(r"- praise: on test, \d+ of 40 missed, \d+ given wrongly", card)
    assert "train: 160 sentences in 40 documents (praise 80, blame 80)" in card
    assert SHIPPED not in card
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (directory / picture).read_bytes().startswith(b"\x89PNG")
    assert "AutoModel" not in card
    monkeypatch.chdir(tmp_path)
    assert run_examples(card).startswith("[(")


@pytest.mark.parametrize("which", ["codebook", "single_codebook"])
@pytest.mark.parametrize("cues", ["true", "false"])
def test_plain_transformers_gives_the_encoders_own_probabilities(
    which: str,
    cues: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codebook = request.getfixturevalue(which)
    directory, card = trained(
        tmp_path, codebook, *encoder(tiny_encoder), f"model.cues={cues}", "model.cue_prior=0"
    )
    monkeypatch.chdir(tmp_path)
    *_, said = run_examples(card).strip().splitlines()
    model: StanceModel = load_model(directory)
    expected = model.classifier.predict_proba([EXAMPLE])[0]
    found = eval(said)
    assert list(found) == list(codebook.names)
    assert np.abs(np.array(list(found.values())) - expected).max() < 1e-6


def test_a_card_without_judged_splits_shows_no_picture(tmp_path: Path, codebook: Codebook) -> None:
    directory, card = trained(tmp_path, codebook, "model=rules", "evaluate_on=[]")
    assert "![" not in card
    assert not list(directory.glob("*.png"))


def test_a_card_warns_of_the_corpus_that_ships_where_it_was_learnt_from(
    tmp_path: Path, codebook: Codebook
) -> None:
    shipped = tmp_path / "data/stance"
    shipped.mkdir(parents=True)
    files = [write_rows(shipped / "a.jsonl", toy_rows(codebook, 0, 80)), tmp_path / "b.jsonl"]
    write_rows(files[1], toy_rows(codebook, 80, 80))
    settings = ["model=rules", f"data.train=[{files[0]},{files[1]}]", "data.name=mine"]
    assert SHIPPED in trained(tmp_path, codebook, *settings)[1]
