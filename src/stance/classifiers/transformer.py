"""A pretrained encoder with a linear head over the mean of its tokens.

The head is that of token classification: it gives every token a logit per label, and a sentence's
logit is the mean over its tokens. As head and mean are both linear, this is the usual mean-pooled
classifier, with two gains: `AutoModelForTokenClassification.from_pretrained` reads the saved
directory without this project, and the tokens' logits are exact contributions to the sentence's.

Sentence encoders such as MiniLM are pretrained for the mean of their tokens; a head on the first
token learnt far less from the same sentences (docs/experiments.md). This module only predicts,
saves and loads; `stance.classifiers.finetuning` trains.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from stance.classifiers.base import Log, Probabilities
from stance.classifiers.encoding import (
    SentenceEncoder,
    batches_by_length,
    fired_rules,
    with_cues,
)
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import CueMatcher
from stance.errors import UserError
from stance.text.normalize import normalize

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it lists new weights

_SETTINGS = "transformer.json"
_PACKAGE = "package:"
_TOKENS_PER_BATCH = 1024


@dataclass(frozen=True)
class Finetuning:
    """How an encoder is fine-tuned; names and units as the field uses them.

    Training ends after `epochs`, and in any case after `max_steps` batches of `batch_size`
    sentences, so that its time does not grow with the corpus; the rate falls to nought by then.
    `cue_dropout` is the share of training sentences that are shown without the cue words before
    them, `mask_rate` the share of tokens that are hidden behind the mask token, both anew each
    epoch, so that the encoder learns to read the whole sentence. `freeze_embeddings` holds the word
    vectors as pretraining left them, `frozen_layers` all embeddings and that many of the lowest
    layers, which makes training faster.
    """

    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    layer_decay: float = 1.0
    epochs: int = 4
    max_steps: int = 1750
    batch_size: int = 16
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    patience: int = 2
    label_smoothing: float = 0.0
    cue_dropout: float = 0.0
    mask_rate: float = 0.0
    freeze_embeddings: bool = True
    frozen_layers: int = 0
    seed: int = 1


class TransformerClassifier:
    """Probabilities from a fine-tuned encoder: sigmoid per label, softmax if labels exclude.

    Args:
        codebook: the label scheme.
        checkpoint: where the pretrained encoder lies: a folder, a hub id, or
            `package:NAME/FOLDER` for weights inside an installed Python package.
        revision: commit of a hub id; required for hub ids, so that a run can be repeated.
        sha256: expected digest of the checkpoint's `model.safetensors`; empty for no check.
        max_length: longest sentence in tokens; a longer one is read in windows, and cut for
            training.
        cues: whether the names of the labels whose cue rules fire precede the sentence.
        cue_prior: weight of the cue rules' log odds, added to the encoder's; needs `cues`.
        finetuning: how to train.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self,
        codebook: Codebook,
        *,
        checkpoint: str,
        revision: str = "",
        sha256: str = "",
        max_length: int = 128,
        cues: bool = True,
        cue_prior: float = 0.0,
        finetuning: Finetuning | None = None,
    ) -> None:
        """Keep the settings; the checkpoint is read by `fit`."""
        self.codebook = codebook
        self.checkpoint = checkpoint
        self.revision = revision
        self.sha256 = sha256
        self.max_length = max_length
        self.cues = cues
        self.cue_prior = cue_prior
        self.finetuning = finetuning or Finetuning()
        self._matcher = CueMatcher(codebook) if cues else None
        self.model: Any = None
        self.tokenizer: Any = None

    def fit(self, train: Split, validation: Split, log: Log) -> None:
        """Fine-tune the checkpoint on `train`, keeping the epoch that is best on `validation`."""
        from stance.classifiers.finetuning import finetune

        torch.manual_seed(self.finetuning.seed)
        self.model, self.tokenizer = self.read_checkpoint()
        finetune(self, train, validation, log)

    def read_checkpoint(self) -> tuple[Any, Any]:
        """Read the pretrained encoder with a new head, and its tokenizer.

        Raises:
            UserError: the checkpoint cannot be had, its digest is not the expected one, or it has
                no positions for `max_length` tokens.
        """
        source, options = _locate(self.checkpoint, self.revision)
        if self.sha256:
            _check_digest(Path(source) / "model.safetensors", self.sha256)
        names = self.codebook.names
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForTokenClassification.from_pretrained(
                source,
                num_labels=len(names),
                id2label=dict(enumerate(names)),
                label2id={name: index for index, name in enumerate(names)},
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"checkpoint {self.checkpoint!r} cannot be read: {reason}") from error
        most = longest_input(model)
        if most is not None and most < self.max_length:
            raise UserError(
                f"model.max_length: {self.max_length} is above {most}, the longest input in tokens "
                f"that the checkpoint {self.checkpoint!r} reads"
            )
        return model, tokenizer

    def prepare(self, texts: Sequence[str]) -> list[str]:
        """Return sentences as the encoder reads them: normalised, cue names in front."""
        cleaned = [normalize(text) for text in texts]
        return [with_cues(text, fired_rules(text, self._matcher)) for text in cleaned]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence, special tokens included, cut at `max_length`."""
        return self.tokenize(self.prepare(texts))

    def tokenize(self, prepared: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts that `prepare` has been over."""
        encoded: list[list[int]] = self.tokenizer(
            list(prepared), truncation=True, max_length=self.max_length
        )["input_ids"]
        return encoded

    @property
    def encoder(self) -> SentenceEncoder:
        """How sentences become token ids when they are to be scored, in windows if need be."""
        return SentenceEncoder(
            self.tokenizer.backend_tokenizer,
            self._matcher,
            self.codebook.names,
            self.max_length,
            self.cue_prior,
        )

    def predict_proba(self, texts: Sequence[str]) -> Probabilities:
        """Return the probability of every label for every sentence, shape (n, labels)."""
        return self.predict_windows(texts)[0]

    def predict_windows(self, texts: Sequence[str]) -> tuple[Probabilities, NDArray[np.int64]]:
        """Return probabilities, and in how many windows each sentence was read."""
        if not texts:
            return np.empty((0, len(self.codebook.names))), np.empty(0, dtype=np.int64)
        windows = self.encoder.windows(texts)
        joined = windows.joined(
            self.probabilities_of(windows.ids), multi_label=self.codebook.multi_label
        )
        return joined, windows.counts

    def probabilities_of(self, encoded: Sequence[Sequence[int]]) -> Probabilities:
        """Score token ids, batched by like length, results in the order given."""
        self.model.eval()
        results = np.empty((len(encoded), len(self.codebook.names)))
        with torch.inference_mode():
            for rows in batches_by_length(encoded, _TOKENS_PER_BATCH):
                batch = pad([encoded[row] for row in rows], self.tokenizer)
                logits = sentence_logits(self.model, batch)
                results[rows] = self.to_probabilities(logits).double().numpy()
        return results

    def to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits of shape (n, labels) to probabilities."""
        return torch.sigmoid(logits) if self.codebook.multi_label else torch.softmax(logits, dim=-1)

    def save(self, directory: Path) -> None:
        """Write the model as `transformers` does (safetensors), with our settings beside it."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        settings = {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "sha256": self.sha256,
            "max_length": self.max_length,
            "cues": self.cues,
            "cue_prior": self.cue_prior,
            "finetuning": asdict(self.finetuning),
        }
        (directory / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, codebook: Codebook) -> "TransformerClassifier":
        """Read a classifier that `save` wrote: local files only, safetensors only, no code."""
        settings: dict[str, Any] = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        settings["finetuning"] = Finetuning(**settings["finetuning"])
        classifier = cls(codebook, **settings)
        options = {"local_files_only": True, "trust_remote_code": False}
        classifier.tokenizer = AutoTokenizer.from_pretrained(str(directory), **options)
        classifier.model = AutoModelForTokenClassification.from_pretrained(
            str(directory), use_safetensors=True, **options
        )
        return classifier


def longest_input(model: Any) -> int | None:
    """Return how many tokens an encoder has learnt positions for; None if it has no such bound.

    RoBERTa and its kin count positions from behind that of the padding token.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return None


def sentence_logits(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean of the tokens' logits, padding left out: shape (n, labels)."""
    mask = batch["attention_mask"].unsqueeze(-1)
    logits: torch.Tensor = model(**batch).logits
    return (logits * mask).sum(dim=1) / mask.sum(dim=1)


def pad(rows: Sequence[Sequence[int]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Pad token ids to one tensor of shape (rows, longest), with its attention mask."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), int(tokenizer.pad_token_id), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _locate(checkpoint: str, revision: str) -> tuple[str, dict[str, Any]]:
    """Return what `from_pretrained` needs for a package, a folder or a hub id."""
    local = {"local_files_only": True, "trust_remote_code": False}
    if checkpoint.startswith(_PACKAGE):
        package, _, folder = checkpoint.removeprefix(_PACKAGE).partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"checkpoint {checkpoint!r}: the package {package!r} is not installed")
        return str(Path(spec.submodule_search_locations[0]) / folder), local
    if Path(checkpoint).is_dir():
        return checkpoint, local
    if not revision:
        raise UserError(
            f"checkpoint {checkpoint!r} is no folder here; to take it from a model hub, name the "
            f"commit in model.revision"
        )
    return checkpoint, {"revision": revision, "trust_remote_code": False}


def _check_digest(path: Path, expected: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    if found != expected:
        raise UserError(f"{path}: its SHA-256 is {found}, expected {expected}")
