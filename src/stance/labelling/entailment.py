"""Let a model of textual entailment vote: does the sentence entail the codebook's hypothesis?

Zero-shot classification as Yin, Hay and Roth (2019) describe it: entailment against contradiction,
the neutral class left out. It needs no example of ours, which makes it a voter of its own mind.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stance.codebook import Codebook
from stance.errors import UserError

_LONGEST = 512


class EntailmentScorer:
    """Probability that a sentence entails each label's hypothesis; NaN for labels without one.

    Args:
        codebook: gives the hypotheses.
        checkpoint: a folder, or a hub id.
        revision: the commit of a hub id, so that a queue can be made again.
        batch_size: pairs of sentence and hypothesis scored at once.

    Raises:
        UserError: the checkpoint cannot be had or has no class `entailment`, or the codebook has no
            hypothesis.
    """

    def __init__(
        self, codebook: Codebook, *, checkpoint: str, revision: str = "", batch_size: int = 16
    ) -> None:
        """Read the checkpoint."""
        self._hypotheses = [label.hypothesis for label in codebook.labels]
        if not any(self._hypotheses):
            raise UserError(f"entailment: the codebook {codebook.name!r} has no hypotheses")
        self._batch_size = batch_size
        options: dict[str, Any] = {"trust_remote_code": False}
        if Path(checkpoint).is_dir():
            options["local_files_only"] = True
        elif revision:
            options["revision"] = revision
        else:
            raise UserError(
                f"entailment.checkpoint: {checkpoint!r} is no folder here; to take it from a model "
                f"hub, name the commit in entailment.revision"
            )
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(checkpoint, **options)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                checkpoint, use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"entailment.checkpoint: {checkpoint!r}: {reason}") from error
        self._model.eval()
        classes = {name.lower(): index for index, name in self._model.config.id2label.items()}
        if "entailment" not in classes:
            known = ", ".join(classes)
            raise UserError(
                f"entailment.checkpoint: {checkpoint!r} has no class entailment but {known}"
            )
        against = [classes["contradiction"]] if "contradiction" in classes else None
        self._entailed = classes["entailment"]
        self._against = against or [i for i in classes.values() if i != self._entailed]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return probabilities of shape (n, labels)."""
        result = np.full((len(texts), len(self._hypotheses)), np.nan)
        pairs = [
            (row, column)
            for column, hypothesis in enumerate(self._hypotheses)
            if hypothesis
            for row in sorted(range(len(texts)), key=lambda row: len(texts[row]))
        ]
        for start in range(0, len(pairs), self._batch_size):
            batch = pairs[start : start + self._batch_size]
            encoded = self._tokenizer(
                [texts[row] for row, _ in batch],
                [self._hypotheses[column] for _, column in batch],
                truncation="only_first",
                max_length=min(_LONGEST, self._tokenizer.model_max_length),
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self._model(**encoded).logits.double()
            chosen = torch.softmax(logits[:, [self._entailed, *self._against]], dim=1)[:, 0]
            for (row, column), probability in zip(batch, chosen.tolist(), strict=True):
                result[row, column] = probability
        return result
