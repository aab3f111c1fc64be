"""Exports say what their model says, whatever stands beside a sentence, or they are left out."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ACTORS, OBJECTS, ROOT
from test_prediction import configure, rows

from stance import exports
from stance.classifiers.cascade import FirstStage
from stance.classifiers.encoding import SentenceEncoder
from stance.classifiers.engines import EXPORTS, ONNX, ONNX_INT8, TORCH
from stance.classifiers.onnx import threads_wanted
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import CueMatcher
from stance.decision import fit_decision
from stance.errors import UserError
from stance.evaluation.metrics import Judged
from stance.exports import choose_cutoff, measure, speed_up
from stance.model import load_model, seal, verify
from stance.prediction.batch import predict


@pytest.fixture(scope="module")
def texts(toy: dict[str, Split]) -> list[str]:
    long = " ".join(f"{actor} praised {thing}" for actor in ACTORS for thing in OBJECTS)
    return [*toy["test"].texts, long, "?", "A", "é🙂", "word " * 500]


def test_the_fp32_export_says_what_the_model_says(encoder_model: Path, texts: list[str]) -> None:
    expected, windows = load_model(encoder_model, TORCH).score(texts)
    found, found_windows = load_model(encoder_model, ONNX).score(texts)
    assert np.abs(expected - found).max() < 1e-5
    assert (windows == found_windows).all()


@pytest.mark.parametrize("value", ["2,1", "", " 2", "all"])
def test_an_export_loads_whatever_the_number_of_threads_is_said_to_be(
    value: str, encoder_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_wanted() == (2 if "2" in value else 0)
    load_model(encoder_model, ONNX)


def test_the_int8_export_is_close_and_small(encoder_model: Path, texts: list[str]) -> None:
    expected = load_model(encoder_model, TORCH).probabilities(texts)
    found = load_model(encoder_model, ONNX_INT8).probabilities(texts)
    assert np.abs(expected - found).max() < 0.2
    weights = {t.name: t for t in onnx.load(encoder_model / EXPORTS[ONNX_INT8]).graph.initializer}
    large = [t.data_type for t in weights.values() if np.prod(t.dims) >= 1024]
    assert set(large) <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert ((expected > 0.5) == (found > 0.5)).mean() > 0.97


@pytest.mark.parametrize("engine", [TORCH, ONNX, ONNX_INT8])
def test_what_a_sentence_gets_does_not_depend_on_its_neighbours(
    engine: str, encoder_model: Path, texts: list[str]
) -> None:
    model = load_model(encoder_model, engine)
    texts = texts[-15:]
    alone = np.vstack([model.probabilities([text]) for text in texts])
    shuffled = list(range(len(texts)))
    random.Random(0).shuffle(shuffled)
    together = model.probabilities([texts[row] for row in shuffled])
    assert np.abs(together - alone[shuffled]).max() < 1e-6
    assert (model.decision.decide(together) == model.decision.decide(alone[shuffled])).all()


def test_the_parity_is_written_into_the_sealed_model(encoder_model: Path) -> None:
    verify(encoder_model)
    parity = json.loads((encoder_model / "onnx.json").read_text())["measured"]
    assert set(parity) == set(EXPORTS)
    assert parity[ONNX]["largest_change"] < 1e-5
    assert parity[ONNX]["f1_macro_change"]["value"] == 0
    assert all(figures["kept"] for figures in parity.values())


def test_an_export_that_loses_too_much_is_left_out_with_its_figures(
    encoder_model: Path, tmp_path: Path, toy: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder_model, copy)
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    digest, found = speed_up(copy, toy["train"], toy["validation"])
    assert [parity.kept for parity in found[:2]] == [False, False]
    assert "left out" in str(found[0])
    assert verify(copy) == digest
    assert not (copy / EXPORTS[ONNX_INT8]).exists()
    with pytest.raises(UserError, match="holds no export 'onnx_int8'; it has torch"):
        load_model(copy, ONNX_INT8)
    assert type(load_model(copy, "auto").classifier).__name__ == "TransformerClassifier"


def test_a_loss_of_macro_f1_is_measured(codebook: Codebook, toy: dict[str, Split]) -> None:
    validation = toy["validation"]
    right = validation.gold * 0.8 + 0.1
    decision = fit_decision(right, validation.gold, validation.groups, codebook)
    wrong = right.copy()
    wrong[:20] = 1 - wrong[:20]
    parity = measure("onnx_int8", right, wrong, validation, decision)
    assert not parity.kept
    change = parity.f1_macro_change
    assert change.low <= change.value <= change.high < 0


def test_auto_takes_the_fastest_export(encoder_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised the harbour plan.")
    config = configure(
        input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=encoder_model
    )
    predict(config)
    manifest = json.loads((tmp_path / "o.jsonl.manifest.json").read_text())
    assert manifest["model"]["engine"] == ONNX_INT8


def test_onnx_needs_neither_torch_nor_transformers(encoder_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised the harbour plan.")
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['predict.py', 'input={tmp_path / 'a.txt'}', 'model={encoder_model}']\n"
        "runpy.run_path('predict.py', run_name='__main__')\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'transformers', 'mlflow', 'sklearn', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_all_engines_predict_alike_in_bulk(
    encoder_model: Path, tmp_path: Path, toy: dict[str, Split]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in toy["test"].texts * 3))
    labels = {}
    for engine in (TORCH, ONNX, ONNX_INT8):
        output = tmp_path / f"{engine}.jsonl"
        config = configure(
            input=source, output=output, model_dir=encoder_model, engine=engine, window_size=8000
        )
        predict(config)
        labels[engine] = [record["labels"] for record in rows(output)]
    assert labels[TORCH] == labels[ONNX]
    differing = sum(a != b for a, b in zip(labels[TORCH], labels[ONNX_INT8], strict=True))
    assert differing < len(labels[TORCH]) * 0.03


class TestWindows:
    """Long sentences are read whole, in windows that fit."""

    @pytest.fixture
    def encoder(self, encoder_model: Path, codebook: Codebook) -> SentenceEncoder:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(encoder_model / "tokenizer.json"))
        return SentenceEncoder(tokenizer, CueMatcher(codebook), codebook.names, 24)

    def test_every_word_is_in_a_window(self, encoder: SentenceEncoder) -> None:
        words = [f"{a} {b}" for a in ("mayor", "union", "league") for b in ("visited", "measured")]
        text = " ".join(random.Random(1).choices(words, k=200))
        windows = encoder.windows([text, "The mayor waited."])
        assert max(map(len, windows.ids)) <= 24
        assert windows.counts[1] == 1
        bare = encoder.tokenizer.encode(text, add_special_tokens=False).ids
        parts = [ids for ids, owner in zip(windows.ids, windows.owners, strict=True) if owner == 0]
        assert windows.counts[0] == len(parts) > 10
        position = 0
        for ids in parts:
            piece = ids[3:-1]  # without [CLS], `none :` and [SEP]
            assert _position(bare, piece) <= position
            position = _position(bare, piece) + len(piece)
        assert position == len(bare)

    def test_a_cue_counts_in_the_window_where_it_stands(self, encoder: SentenceEncoder) -> None:
        text = "The union visited " * 20 + "and praised the budget"
        windows = encoder.windows([text])
        praise = encoder.tokenizer.token_to_id("praise")
        assert [praise in ids for ids in windows.ids] == [False] * (len(windows.ids) - 1) + [True]

    def test_the_highest_probability_wins(self, encoder: SentenceEncoder) -> None:
        windows = encoder.windows(["The mayor waited.", "The union visited " * 20])
        probabilities = np.random.default_rng(0).random((len(windows.ids), 2))
        highest = windows.highest(probabilities)
        assert (highest[0] == probabilities[0]).all()
        assert (highest[1] == probabilities[1:].max(axis=0)).all()


def _position(whole: list[int], part: list[int]) -> int:
    return next(i for i in range(len(whole)) if whole[i : i + len(part)] == part)


def test_long_sentences_are_marked(encoder_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The mayor waited. " + "The union visited " * 20)
    config: Any = configure(
        input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=encoder_model
    )
    outcome = predict(config)
    windows = [record["windows"] for record in rows(outcome.output)]
    assert windows[0] == 1 and windows[1] > 1
    assert outcome.counts.windowed == 1


class TestFirstStage:
    """A cheap first stage settles sentences that surely carry no label."""

    def test_what_it_settles_carries_no_label_and_reaches_no_encoder(
        self, encoder_model: Path, toy: dict[str, Split]
    ) -> None:
        model = load_model(encoder_model, ONNX_INT8, cascade=True)
        assert model.first_stage
        gold = toy["test"].gold.any(axis=1)
        settled = model.first_stage.settled(toy["test"].texts)
        assert settled[~gold].mean() > 0.9
        assert settled[gold].mean() < 0.05
        scores, windows = model.score(toy["test"].texts)
        assert ((windows == 0) == settled).all()
        assert (scores[settled] < 0.1).all()
        whole = load_model(encoder_model, ONNX_INT8).probabilities(toy["test"].texts)
        assert (scores[~settled] == whole[~settled]).all()

    def test_it_is_switched_on_in_bulk(
        self, encoder_model: Path, tmp_path: Path, toy: dict[str, Split]
    ) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in toy["test"].texts))
        config = configure(
            input=source,
            output=tmp_path / "o.jsonl",
            model_dir=encoder_model,
            cascade=True,
            operating_point="recall@0.99",
        )
        outcome = predict(config)
        settled = [record for record in rows(outcome.output) if record["windows"] == 0]
        assert len(settled) == outcome.counts.settled > 0
        assert not any(record["labels"] or record["uncertain"] for record in settled)

    def test_its_figures_are_written_into_the_model(self, encoder_model: Path) -> None:
        figures = json.loads((encoder_model / "first-stage.json").read_text())["measured"]
        assert figures["lost"] <= 0.01
        assert figures["lost_interval"][0] <= figures["lost"] <= figures["lost_interval"][1]
        assert figures["f1_macro_change"]["value"] >= -0.005

    def test_the_cut_off_loses_no_more_than_it_may(self) -> None:
        gold = np.zeros((2000, 2), dtype=np.int8)
        gold[:400, 0] = gold[400:600, 1] = 1
        scores = np.concatenate([np.arange(600), np.arange(-1398, 2)]).astype(float)
        judged = Judged(gold, gold.astype(float), gold, [str(n) for n in range(2000)], ("a", "b"))
        cutoff, settling = choose_cutoff(scores, judged)
        assert (cutoff, settling.lost) == (6.0, 0.01)
        assert settling.settled == 1.0
        assert settling.lost_interval[0] < 0.01 < settling.lost_interval[1]
        assert -0.005 <= settling.f1_macro_change.value < 0

    def test_there_is_none_where_every_sentence_carries_a_label(
        self, encoder_model: Path, tmp_path: Path, toy: dict[str, Split]
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(encoder_model, copy)
        (copy / "first-stage.json").unlink()
        seal(copy)
        train = toy["train"]
        labelled = tuple(example for example in train.examples if example.labels)
        _, found = speed_up(copy, Split("train", labelled, train.codebook), toy["validation"])
        assert [parity.engine for parity in found] == [ONNX, ONNX_INT8]
        assert load_model(copy, ONNX_INT8).probabilities(["A."]).shape == (1, 2)
        with pytest.raises(UserError, match="has no first stage"):
            load_model(copy, ONNX_INT8, cascade=True)

    def test_one_of_another_version_is_refused(self, codebook: Codebook, tmp_path: Path) -> None:
        (tmp_path / "first-stage.json").write_text('{"weights": {}, "cutoff": 0.0, "rates": []}')
        with pytest.raises(UserError, match="of another version; train the model again"):
            FirstStage.load(tmp_path, codebook)

    def test_a_model_without_one_says_so(self, rules_model: Path, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("A.")
        config = configure(
            input=tmp_path / "a.txt", output=tmp_path / "o.csv", model_dir=rules_model, cascade=True
        )
        with pytest.raises(UserError, match="has no first stage"):
            predict(config)
