"""How far annotators agree, beyond what chance would give, for every label.

Krippendorff's alpha takes any number of annotators and missing answers; Cohen's kappa is of two,
Fleiss' kappa of sentences that equally many have answered. Intervals of alpha and of Fleiss' kappa
come from resampling sentences, those of Cohen's kappa from its asymptotic variance.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import krippendorff
import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

MISSING = -1

Answers = NDArray[np.signedinteger[Any]]
"""Array of shape (sentences, annotators) of 0, 1, ... and MISSING, about one question."""

_LOW, _HIGH = 2.5, 97.5
_YES_AND_NO = 2


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all NaN where nothing can be said."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Show value and interval."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class PairTable:
    """What two annotators said of one label where both answered: kappa and the four counts."""

    first: str
    second: str
    kappa: Estimate
    both: int
    only_first: int
    only_second: int
    neither: int


@dataclass(frozen=True)
class LabelAgreement:
    """How far all annotators agree about one question; `pairs` are there for yes and no only."""

    alpha: Estimate
    fleiss: Estimate
    pairs: tuple[PairTable, ...]
    positives: int
    answers: int


def alpha(answers: Answers) -> float:
    """Return Krippendorff's nominal alpha; NaN where all answers are alike or none are paired."""
    return _alpha_of(_counts(answers))


def agree(
    answers: Answers, annotators: Sequence[str], *, resamples: int, seed: int
) -> LabelAgreement:
    """Measure how far annotators agree about one label.

    Args:
        answers: 1 where an annotator gave the label, 0 where not, shape (sentences, annotators).
        annotators: their names.
        resamples: bootstrap resamples of sentences.
        seed: of the resampling.
    """
    counts = _counts(answers)
    full = counts[counts.sum(axis=1) == answers.shape[1]] if answers.shape[1] > 1 else counts[:0]
    pairs = tuple(
        _pair(answers[:, [first, second]], annotators[first], annotators[second])
        for first, second in itertools.combinations(range(answers.shape[1]), 2)
        if counts.shape[1] == _YES_AND_NO
    )
    return LabelAgreement(
        alpha=_resampled(counts[counts.sum(axis=1) > 1], _alpha_of, resamples, seed),
        fleiss=_resampled(full, _fleiss_of, resamples, seed),
        pairs=pairs,
        positives=int((answers == 1).sum()),
        answers=int((answers != MISSING).sum()),
    )


def _counts(answers: Answers) -> NDArray[np.int64]:
    """Return how many annotators gave each value to each sentence, shape (sentences, values)."""
    values = max(int(answers.max(initial=1)) + 1, 2)
    return np.stack([(answers == value).sum(axis=1) for value in range(values)], axis=1)


def _alpha_of(counts: NDArray[np.int64]) -> float:
    paired = counts[counts.sum(axis=1) > 1]
    if (paired.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=paired, level_of_measurement="nominal"))


def _fleiss_of(counts: NDArray[np.int64]) -> float:
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(fleiss_kappa(counts))


def _resampled(
    counts: NDArray[np.int64],
    measure: Callable[[NDArray[np.int64]], float],
    resamples: int,
    seed: int,
) -> Estimate:
    value = measure(counts)
    if math.isnan(value):
        return Estimate(value, value, value)
    random = np.random.default_rng(seed)
    drawn = [
        measure(counts[random.integers(len(counts), size=len(counts))]) for _ in range(resamples)
    ]
    kept = [sample for sample in drawn if not math.isnan(sample)]
    low, high = np.percentile(kept, [_LOW, _HIGH]) if kept else (value, value)
    return Estimate(value, float(low), float(high))


def _pair(answers: Answers, first: str, second: str) -> PairTable:
    both = answers[(answers != MISSING).all(axis=1)]
    table = np.zeros((2, 2), dtype=int)
    np.add.at(table, (both[:, 0], both[:, 1]), 1)
    nan = float("nan")
    kappa = Estimate(nan, nan, nan)
    if len(both) not in (0, table[0, 0], table[1, 1]):  # else chance agrees always
        with np.errstate(all="ignore"):  # empty cells leave its tests, not asked for, undefined
            found = cohens_kappa(table)
        low, high = np.clip([found.kappa_low, found.kappa_upp], -1, 1)  # kappa's own bounds
        kappa = Estimate(float(found.kappa), float(low), float(high))
    return PairTable(
        first, second, kappa, int(table[1, 1]), int(table[1, 0]), int(table[0, 1]), int(table[0, 0])
    )
