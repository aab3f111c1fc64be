"""The protocol that all classifiers share.

A classifier turns sentences into one probability per label, in the codebook's order. It knows
nothing of thresholds (`stance.decision`), of tracking (it gets a plain callable) or of
configuration (`stance.classifiers.build` passes plain arguments).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stance.corpus.examples import Split

Probabilities = NDArray[np.float64]
"""Array of shape (n, labels) in [0, 1], columns in the codebook's order."""


class Log(Protocol):
    """Receive metrics while a classifier trains."""

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        """Take flat metric names with their values at a step (an epoch)."""


class Classifier(Protocol):
    """What training, evaluation and prediction ask of a classifier."""

    kind: ClassVar[str]

    def fit(self, train: Split, validation: Split, log: Log) -> None:
        """Learn from `train`; `validation` is for early stopping only."""

    def predict_proba(self, texts: Sequence[str]) -> Probabilities:
        """Return the probability of every label for every sentence, shape (n, labels)."""

    def save(self, directory: Path) -> None:
        """Write weights and settings into an existing directory, without pickle."""


@runtime_checkable
class Windowed(Protocol):
    """A classifier that reads long sentences in windows."""

    def predict_windows(self, texts: Sequence[str]) -> tuple[Probabilities, NDArray[np.int64]]:
        """Return probabilities, shape (n, labels), and the number of windows, shape (n,)."""
