"""One contract for all classifiers, under a multi-label and a single-label codebook."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from stance.classifiers.base import Classifier
from stance.classifiers.build import load_classifier
from stance.classifiers.explanations import explain, occlude
from stance.classifiers.rules import RulesClassifier
from stance.classifiers.tfidf import TfidfClassifier
from stance.classifiers.transformer import Finetuning, TransformerClassifier, longest_input
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.errors import UserError

Build = Callable[[Codebook], Classifier]


@pytest.fixture(scope="session", params=["rules", "tfidf", "transformer"])
def build(request: pytest.FixtureRequest, tiny_encoder: Path) -> Build:
    def transformer(codebook: Codebook) -> Classifier:
        settings = Finetuning(
            learning_rate=3e-3,
            head_learning_rate=1e-2,
            epochs=15,
            batch_size=8,
            freeze_embeddings=False,
            patience=15,
        )
        return TransformerClassifier(
            codebook, checkpoint=str(tiny_encoder), max_length=32, cues=False, finetuning=settings
        )

    builders: dict[str, Build] = {
        "rules": RulesClassifier,
        "tfidf": lambda codebook: TfidfClassifier(codebook, min_df=1),
        "transformer": transformer,
    }
    return builders[request.param]


@pytest.fixture(scope="session")
def fitted(build: Build, codebook: Codebook, toy: dict[str, Split]) -> Classifier:
    classifier = build(codebook)
    classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)
    return classifier


def test_probabilities_have_the_right_shape_and_range(
    fitted: Classifier, toy: dict[str, Split]
) -> None:
    probabilities = fitted.predict_proba(toy["test"].texts)
    assert probabilities.shape == (80, 2)
    assert probabilities.dtype == np.float64
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


def test_no_sentences_give_no_rows(fitted: Classifier) -> None:
    assert fitted.predict_proba([]).shape == (0, 2)


def test_odd_sentences_are_scored(fitted: Classifier) -> None:
    odd = ["?", "é\u200b🙂", "word " * 3000, "\x00", "A" * 20_000]
    assert np.isfinite(fitted.predict_proba(odd)).all()


def test_the_toy_corpus_is_learnt(fitted: Classifier, toy: dict[str, Split]) -> None:
    probabilities = fitted.predict_proba(toy["test"].texts)
    gold = toy["test"].gold.astype(bool)
    for column in range(2):
        assert probabilities[gold[:, column], column].mean() > (
            probabilities[~gold[:, column], column].mean() + 0.25
        )


def test_a_sentence_is_scored_alike_in_any_company(
    fitted: Classifier, toy: dict[str, Split]
) -> None:
    texts = toy["test"].texts
    together = fitted.predict_proba(texts)
    alone = np.vstack([fitted.predict_proba([text]) for text in texts[:10]])
    assert np.abs(together[:10] - alone).max() < 1e-6


def test_an_explanation_has_every_word_in_its_place(fitted: Classifier, codebook: Codebook) -> None:
    text = "The union praised the old bridge in report 7."
    found = explain(fitted, codebook, text, "praise")
    assert [word for word, _ in found[:9]] == text.split()
    assert np.isfinite([value for _, value in found]).all()
    assert all(word.startswith("[") for word, _ in found[9:])


def test_left_out_words_show_what_they_did() -> None:
    """Log odds of 2 with `good` and `very`, of 1 with `good` alone, and of 0 without it."""

    def predict(texts: Sequence[str]) -> np.ndarray:
        scores = [("good" in text) * (1 + ("very" in text)) for text in texts]
        return np.array([[0.5, 1 / (1 + np.exp(-score))] for score in scores])

    found = occlude(predict, "a very good day", 1)
    assert [word for word, _ in found] == ["a", "very", "good", "day"]
    assert [value for _, value in found] == pytest.approx([0, 1, 2, 0])


@pytest.mark.parametrize(
    "text",
    [
        "The union praised the old bridge, the OLD bridge.",
        "praised-and blamed 'the union' ... -- İstanbul",
        "?",
    ],
)
@pytest.mark.parametrize("label", ["praise", "blame"])
def test_exact_explanations_add_up_to_the_score(
    codebook: Codebook, toy: dict[str, Split], text: str, label: str
) -> None:
    column = codebook.names.index(label)
    linear, rules = TfidfClassifier(codebook, min_df=1), RulesClassifier(codebook)
    for classifier in (linear, rules):
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)
    p = linear.predict_proba([text])[0, column]
    assert sum(v for _, v in linear.explain(text, label)) == pytest.approx(np.log(p / (1 - p)))
    p = rules.predict_proba([text])[0, column]
    assert sum(v for _, v in rules.explain(text, label)) == pytest.approx(-np.log(1 - p))


def test_n_grams_that_no_sentences_share_are_asked_for_in_one_line(
    codebook: Codebook, toy: dict[str, Split]
) -> None:
    classifier = TfidfClassifier(codebook, min_df=10_000)
    with pytest.raises(UserError, match=r"^model\.min_df=10000: .* training sentences; lower it$"):
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)


def test_training_twice_gives_the_same(
    build: Build, fitted: Classifier, codebook: Codebook, toy: dict[str, Split]
) -> None:
    again = build(codebook)
    again.fit(toy["train"], toy["validation"], lambda metrics, step: None)
    texts = toy["test"].texts
    assert np.abs(again.predict_proba(texts) - fitted.predict_proba(texts)).max() < 1e-6


def test_saving_and_loading_changes_nothing(
    fitted: Classifier, codebook: Codebook, toy: dict[str, Split], tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    loaded = load_classifier(fitted.kind, tmp_path, codebook)
    texts = toy["test"].texts
    assert (loaded.predict_proba(texts) == fitted.predict_proba(texts)).all()
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pkl", ".pt", ".joblib")]


def test_a_single_label_codebook_is_learnt_too(
    build: Build, single_codebook: Codebook, single_toy: dict[str, Split]
) -> None:
    classifier = build(single_codebook)
    if classifier.kind == "rules":
        pytest.skip("this codebook has no cue rules")
    classifier.fit(single_toy["train"], single_toy["validation"], lambda metrics, step: None)
    probabilities = classifier.predict_proba(single_toy["test"].texts)
    right = probabilities.argmax(axis=1) == single_toy["test"].gold.argmax(axis=1)
    assert right.mean() > 0.8


def test_the_transformer_reports_its_epochs(
    tiny_encoder: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    seen: dict[str, list[int]] = {}

    def log(metrics: dict[str, float], step: int) -> None:
        for name in metrics:
            seen.setdefault(name, []).append(step)

    classifier = TransformerClassifier(
        codebook,
        checkpoint=str(tiny_encoder),
        max_length=32,
        cues=False,
        finetuning=Finetuning(epochs=2),
    )
    classifier.fit(toy["train"], toy["validation"], log)
    assert seen["train/loss"] == [1, 2]
    assert seen["validation/epoch_average_precision_macro"] == [1, 2]


def test_steps_end_the_training_within_an_epoch(
    tiny_encoder: Path,
    codebook: Codebook,
    toy: dict[str, Split],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = math.ceil(len(toy["train"]) / 8)
    settings = Finetuning(epochs=3, batch_size=8, max_steps=whole + 1)
    classifier = TransformerClassifier(
        codebook, checkpoint=str(tiny_encoder), max_length=64, cues=False, finetuning=settings
    )
    epochs: list[int] = []
    with caplog.at_level("INFO"):
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: epochs.append(step))
    assert set(epochs) == {1, 2}
    assert f"ends at step {whole + 1} of the {3 * whole}" in caplog.text


def test_a_share_of_tokens_is_masked_anew_and_special_ones_never(
    tiny_encoder: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    from stance.classifiers.finetuning import Encoded

    classifier = TransformerClassifier(
        codebook, checkpoint=str(tiny_encoder), max_length=64, cues=False
    )
    classifier.model, classifier.tokenizer = classifier.read_checkpoint()
    mask, special = classifier.tokenizer.mask_token_id, set(classifier.tokenizer.all_special_ids)
    torch.manual_seed(0)
    rows = Encoded(classifier, toy["train"], mask_rate=0.5)
    passes = [[rows[i]["input_ids"] for i in range(len(rows))] for _ in range(2)]
    assert passes[0] != passes[1]
    ordinary = masked = 0
    for before, after in zip(rows.ids * 2, [*passes[0], *passes[1]], strict=True):
        for old, new in zip(before, after, strict=True):
            assert new == old or (new == mask and old not in special)
            ordinary += old not in special
            masked += new != old
    assert abs(masked / ordinary - 0.5) < 0.05
    plain = Encoded(classifier, toy["train"])
    assert [plain[i]["input_ids"] for i in range(len(plain))] == plain.ids


def test_masking_needs_a_mask_token(
    tiny_encoder: Path, codebook: Codebook, toy: dict[str, Split], tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny_encoder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("mask_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    classifier = TransformerClassifier(
        codebook,
        checkpoint=str(folder),
        max_length=64,
        finetuning=Finetuning(mask_rate=0.15),
    )
    with pytest.raises(UserError, match=r"no mask token; set model\.mask_rate=0"):
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)


def test_frozen_layers_keep_what_pretraining_gave_them(
    tiny_encoder: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    def trained(frozen_layers: int) -> dict[str, torch.Tensor]:
        settings = Finetuning(learning_rate=3e-3, epochs=1, frozen_layers=frozen_layers)
        classifier = TransformerClassifier(
            codebook, checkpoint=str(tiny_encoder), max_length=64, cues=False, finetuning=settings
        )
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)
        assert all(parameter.requires_grad for parameter in classifier.model.parameters())
        return dict(classifier.model.base_model.named_parameters())

    before = dict(
        TransformerClassifier(codebook, checkpoint=str(tiny_encoder), max_length=64)
        .read_checkpoint()[0]
        .base_model.named_parameters()
    )
    for frozen_layers in (0, 1):
        after = trained(frozen_layers)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        in_layer = {
            layer: {name for name in after if f"layer.{layer}." in name} for layer in (0, 1)
        }
        assert in_layer[1] <= moved
        assert bool(in_layer[0] & moved) == (frozen_layers == 0)
        assert ("embeddings.LayerNorm.weight" in moved) == (frozen_layers == 0)
        assert "embeddings.word_embeddings.weight" not in moved


def test_a_layer_must_be_left_to_train(
    tiny_encoder: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    classifier = TransformerClassifier(
        codebook,
        checkpoint=str(tiny_encoder),
        max_length=64,
        finetuning=Finetuning(frozen_layers=2),
    )
    with pytest.raises(UserError, match=r"model\.frozen_layers=2: the encoder has 2 layers"):
        classifier.fit(toy["train"], toy["validation"], lambda metrics, step: None)


def test_checkpoints_are_refused_with_a_reason(tmp_path: Path, codebook: Codebook) -> None:
    def refuse(**settings: str) -> str:
        with pytest.raises(UserError) as caught:
            TransformerClassifier(codebook, **settings).read_checkpoint()
        return str(caught.value)

    assert "name the commit in model.revision" in refuse(checkpoint="nobody/nothing")
    assert "is not installed" in refuse(checkpoint="package:no_such_package/model")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert "cannot be read" in refuse(checkpoint=str(tmp_path))
    assert "its SHA-256 is" in refuse(checkpoint=str(tmp_path), sha256="0" * 64)


def test_plain_transformers_reads_a_saved_model(
    tiny_encoder: Path, codebook: Codebook, tmp_path: Path
) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    classifier = TransformerClassifier(
        codebook, checkpoint=str(tiny_encoder), max_length=64, cues=False
    )
    classifier.model, classifier.tokenizer = classifier.read_checkpoint()
    classifier.save(tmp_path)
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert plain.config.id2label == {0: "praise", 1: "blame"}
    text = "The mayor praised the harbour plan in report 1."
    with torch.inference_mode():
        logits = plain(**tokenizer(text, return_tensors="pt")).logits.mean(dim=1)
    assert torch.sigmoid(logits)[0].tolist() == pytest.approx(classifier.predict_proba([text])[0])


def test_sentences_longer_than_an_encoder_reads_are_refused_with_the_checkpoint(
    codebook: Codebook, tiny_encoder: Path
) -> None:
    checkpoint = str(tiny_encoder)
    TransformerClassifier(codebook, checkpoint=checkpoint, max_length=64).read_checkpoint()
    with pytest.raises(UserError, match=r"model\.max_length: 65 is above 64, the longest input"):
        TransformerClassifier(codebook, checkpoint=checkpoint, max_length=65).read_checkpoint()


def test_the_longest_input_of_an_encoder_is_what_it_has_positions_for() -> None:
    from transformers import ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    small |= {"intermediate_size": 8, "pad_token_id": 1}
    assert longest_input(RobertaModel(RobertaConfig(max_position_embeddings=66, **small))) == 64
    assert longest_input(ModernBertModel(ModernBertConfig(**small))) is None
