"""What the tests share: codebooks, a toy corpus, a tiny random encoder, a ready MLflow store."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from stance.codebook import Codebook, read_codebook
from stance.corpus.examples import Example, Split

ROOT = Path(__file__).parent.parent

# A shell that runs the tests in the background leaves SIGINT ignored, and the scripts under test
# would inherit that: a Ctrl-C sent to them would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = {
    "praise": ["praised", "lauded", "welcomed", "applauded"],
    "blame": ["blamed", "faulted", "scolded", "rebuked"],
}
ACTORS = ["The mayor", "The union", "A minister", "The league", "The panel", "A delegate"]
OBJECTS = ["the harbour plan", "the new budget", "the old bridge", "the bus timetable"]
NEUTRAL = ["visited", "measured", "photographed", "described"]


@pytest.fixture(scope="session")
def codebook() -> Codebook:
    """A multi-label codebook with names that the package has never heard of."""
    return Codebook.from_mapping(
        {
            "name": "verdicts",
            "version": "0.1",
            "multi_label": True,
            "rules": {1: "The sentence decides."},
            "labels": [
                {
                    "name": name,
                    "definition": f"An actor voices {name}.",
                    "hypothesis": f"Somebody voices {name}.",
                    "cues": [{"name": name, "rule": 1, "pattern": "|".join(words[:2])}],
                }
                for name, words in WORDS.items()
            ],
        }
    )


@pytest.fixture(scope="session")
def single_codebook() -> Codebook:
    """A single-label codebook: exactly one of three labels."""
    return Codebook.from_mapping(
        {
            "name": "moods",
            "version": "0.1",
            "multi_label": False,
            "labels": [
                {"name": name, "definition": f"The sentence is {name}."}
                for name in ("praise", "blame", "plain")
            ],
        }
    )


@pytest.fixture(scope="session")
def stance_codebook() -> Codebook:
    """The codebook that ships."""
    return read_codebook(ROOT / "conf/codebook/stance.yaml")


def toy_rows(codebook: Codebook, offset: int, count: int) -> list[dict[str, object]]:
    """Return rows whose verb alone decides the label; every group holds four rows."""
    rows: list[dict[str, object]] = []
    for number in range(count):
        index = number + offset
        kind = ("praise", "blame", "plain", "both")[number % 4]
        if kind == "both" and not codebook.multi_label:
            kind = "plain"
        verbs = {
            "praise": WORDS["praise"][index % 4],
            "blame": WORDS["blame"][index % 4],
            "plain": NEUTRAL[index % 4],
            "both": f"{WORDS['praise'][index % 4]} and {WORDS['blame'][index % 4]}",
        }
        text = f"{ACTORS[index % 6]} {verbs[kind]} {OBJECTS[index % 4]} in report {index}."
        labels = {"both": ["praise", "blame"], "plain": []}.get(kind, [kind])
        if not codebook.multi_label:
            labels = [kind]
        rows.append({"id": f"r{index}", "text": text, "labels": labels, "group": f"g{index // 4}"})
    return rows


def toy_split(codebook: Codebook, name: str, offset: int, count: int) -> Split:
    """Return toy rows as a split."""
    rows = toy_rows(codebook, offset, count)
    examples = [
        Example(str(r["id"]), str(r["text"]), tuple(r["labels"]), str(r["group"]))  # type: ignore[arg-type]
        for r in rows
    ]
    return Split(name, tuple(examples), codebook)


@pytest.fixture(scope="session")
def toy(codebook: Codebook) -> dict[str, Split]:
    """A multi-label corpus that any classifier can learn."""
    return {
        "train": toy_split(codebook, "train", 0, 160),
        "validation": toy_split(codebook, "validation", 1000, 96),
        "test": toy_split(codebook, "test", 2000, 80),
    }


@pytest.fixture(scope="session")
def single_toy(single_codebook: Codebook) -> dict[str, Split]:
    """A single-label corpus that any classifier can learn."""
    return {
        "train": toy_split(single_codebook, "train", 0, 160),
        "validation": toy_split(single_codebook, "validation", 1000, 96),
        "test": toy_split(single_codebook, "test", 2000, 80),
    }


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two small layers, with a word-level tokenizer of the toy vocabulary."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {":", ".", "none"}
    for phrase in [*ACTORS, *OBJECTS, *NEUTRAL, "in report and", *WORDS]:
        words |= set(phrase.lower().split())
    for verbs in WORDS.values():
        words |= set(verbs)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*specials, *sorted(words - set(specials))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,  # the usual 0.02 gives so small a network nothing to start from
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow store: migrating one takes seconds, copying one does not."""
    from stance.tracking import Store, start_run

    folder = tmp_path_factory.mktemp("mlflow-template")
    with start_run(Store("mlflow", "", "unused", folder), "first"):
        pass
    return folder / "mlflow.db"


@pytest.fixture
def models_dir(tmp_path: Path, mlflow_template: Path) -> Path:
    """A models folder with a ready MLflow store."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same global random state."""
    np.random.seed(0)


@pytest.fixture(scope="session")
def rules_model(
    codebook: Codebook, toy: dict[str, Split], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved model that needs no numeric library: the cue rules of the toy codebook."""
    from stance.classifiers.rules import RulesClassifier
    from stance.decision import fit_decision
    from stance.model import StanceModel

    validation = toy["validation"]
    classifier = RulesClassifier(codebook)
    classifier.fit(toy["train"], validation, lambda metrics, step: None)
    raw = classifier.predict_proba(validation.texts)
    decision = fit_decision(raw, validation.gold, validation.groups, codebook)
    directory = tmp_path_factory.mktemp("models") / "rules"
    StanceModel("rules", classifier, decision, codebook).save(directory, "# card\n")
    return directory


@pytest.fixture(scope="session")
def encoder_model(
    codebook: Codebook,
    toy: dict[str, Split],
    tiny_encoder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A saved tiny transformer, fine-tuned on the toy corpus, with exports and first stage."""
    from stance.classifiers.transformer import Finetuning, TransformerClassifier
    from stance.decision import fit_decision
    from stance.exports import speed_up
    from stance.model import StanceModel

    settings = Finetuning(
        learning_rate=3e-3, head_learning_rate=1e-2, epochs=6, batch_size=8, freeze_embeddings=False
    )
    classifier = TransformerClassifier(
        codebook, checkpoint=str(tiny_encoder), max_length=24, cues=True, finetuning=settings
    )
    validation = toy["validation"]
    classifier.fit(toy["train"], validation, lambda metrics, step: None)
    raw = classifier.predict_proba(validation.texts)
    decision = fit_decision(raw, validation.gold, validation.groups, codebook)
    directory = tmp_path_factory.mktemp("models") / "encoder"
    StanceModel("encoder", classifier, decision, codebook).save(directory, "# card\n")
    speed_up(directory, toy["train"], validation)
    return directory
