"""A fine-tuned encoder exported to ONNX: predicts without torch, starts in a fraction of the time.

`stance.classifiers.export` writes the files. The int8 export has activation ranges fixed when it
was made, so a sentence's probabilities do not depend on its neighbours in a batch, as they do
where ranges are taken from whatever stands in the batch.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stance.classifiers.base import Log, Probabilities
from stance.classifiers.encoding import SentenceEncoder, batches_by_length
from stance.classifiers.engines import EXPORTS, TORCH
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import CueMatcher
from stance.errors import UserError

SETTINGS = "onnx.json"
"""What the exports need to know of the sentences that they read."""

TOKENIZER = "tokenizer.json"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"

_TOKENS_PER_BATCH = 512
"""What a layer computes of so many tokens stays in a core's own cache; eight times as many made it
a fifth slower."""

_SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
"""ONNX Runtime's fused kernels of these are slower than their parts: a fifth of the whole time."""


class OnnxClassifier:
    """Probabilities from an exported encoder: sigmoid per label, softmax if labels exclude."""

    kind: ClassVar[str] = "transformer"

    def __init__(
        self, codebook: Codebook, session: Any, encoder: SentenceEncoder, pad: int
    ) -> None:
        """Keep the parts; `load` puts them together, `pad` is the id of the padding token."""
        self.codebook = codebook
        self._session = session
        self._encoder = encoder
        self._pad = pad

    def fit(self, train: Split, validation: Split, log: Log) -> None:
        """Refuse: an export only predicts."""
        raise UserError(f"an ONNX export cannot be trained; engine {TORCH!r} can")

    def predict_proba(self, texts: Sequence[str]) -> Probabilities:
        """Return the probability of every label for every sentence, shape (n, labels)."""
        return self.predict_windows(texts)[0]

    def predict_windows(self, texts: Sequence[str]) -> tuple[Probabilities, NDArray[np.int64]]:
        """Return probabilities, and in how many windows each sentence was read."""
        if not texts:
            return np.empty((0, len(self.codebook.names))), np.empty(0, dtype=np.int64)
        windows = self._encoder.windows(texts)
        joined = windows.joined(
            self._probabilities(windows.ids), multi_label=self.codebook.multi_label
        )
        return joined, windows.counts

    def save(self, directory: Path) -> None:
        """Refuse: an export is a part of a saved model."""
        raise UserError(f"an ONNX export is not saved on its own; engine {TORCH!r} saves the model")

    @classmethod
    def load(cls, directory: Path, codebook: Codebook, engine: str) -> "OnnxClassifier":
        """Load one of the exports that a saved model holds."""
        settings: dict[str, Any] = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_wanted()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(directory / EXPORTS[engine]),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOW_FUSIONS,
        )
        encoder = SentenceEncoder(
            Tokenizer.from_file(str(directory / TOKENIZER)),
            CueMatcher(codebook) if settings["cues"] else None,
            codebook.names,
            settings["max_length"],
            settings["cue_prior"],
        )
        return cls(codebook, session, encoder, settings["pad"])

    def _probabilities(self, encoded: Sequence[Sequence[int]]) -> Probabilities:
        logits = np.empty((len(encoded), len(self.codebook.names)))
        for rows in batches_by_length(encoded, _TOKENS_PER_BATCH):
            batch = pad_batch([encoded[row] for row in rows], self._pad)
            (logits[rows],) = self._session.run([OUTPUT], batch)
        if self.codebook.multi_label:
            sigmoid: Probabilities = 1 / (1 + np.exp(-logits))
            return sigmoid
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: Probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        return softmax


def threads_wanted() -> int:
    """Return the threads that OMP_NUM_THREADS asks for, the first of a list; 0 takes all cores."""
    found = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    return int(found[1]) if found else 0


def pad_batch(rows: Sequence[Sequence[int]], pad: int) -> dict[str, NDArray[np.int64]]:
    """Pad token ids to one array of shape (rows, longest), with its attention mask."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return dict(zip(INPUTS, (ids, mask), strict=True))
