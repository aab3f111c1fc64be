"""Scores on one definition for every split, model and report, each with a bootstrap interval.

Resampling draws *groups* (documents, minimal pairs), not rows: sentences of one document are not
independent, and intervals over rows would be too narrow. Every score is a function of weighted
sums over rows, so that a resample is a vector of row weights and all resamples are computed
together (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

PRIMARY = "f1_macro"
"""The score by which runs are compared and models promoted: every label weighs the same, however
rare, and the cost of a missed and of a false stance is the same."""

CONFIDENCE = 0.95
ECE_BINS = 10

_CHUNK = 250


@dataclass(frozen=True)
class Interval:
    """A score with its percentile bootstrap interval at `CONFIDENCE`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write the score and its interval with three decimals."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Judged:
    """What a model said of labelled rows: all arrays of shape (n, labels), one group a row."""

    gold: Labels
    probabilities: Floats
    predicted: Labels
    groups: Sequence[str]
    names: tuple[str, ...]


def score(judged: Judged, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Return every score with its interval, under flat names such as `f1/<label>`.

    A score that no resample defines (no positive example) is left out.
    """
    point = scores_under_weights(judged, np.ones((1, len(judged.gold))))
    drawn = _concatenate(
        scores_under_weights(judged, weights)
        for weights in resample_weights(judged.groups, resamples, seed)
    )
    return {
        name: interval(float(values[0]), drawn[name])
        for name, values in point.items()
        if np.isfinite(values[0])
    }


def point_scores(judged: Judged) -> dict[str, float]:
    """Return every score that is defined, without intervals."""
    values = scores_under_weights(judged, np.ones((1, len(judged.gold))))
    return {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}


def interval(value: float, drawn: Floats) -> Interval:
    """Build the percentile interval of a score from its resampled values, shape (resamples,)."""
    finite = drawn[np.isfinite(drawn)]
    if not finite.size:
        return Interval(value, value, value)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def resample_weights(groups: Sequence[str], resamples: int, seed: int) -> Iterator[Floats]:
    """Yield chunks of row weights, shape (at most 250, n): how often each row's group was drawn."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    even = np.full(len(names), 1 / len(names))
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        yield generator.multinomial(len(names), even, size=count)[:, index].astype(np.float64)


def scores_under_weights(judged: Judged, weights: Floats) -> dict[str, Floats]:
    """Compute every score under row weights.

    Args:
        judged: gold, probabilities and predictions of n rows.
        weights: shape (resamples, n).

    Returns:
        For each score an array of shape (resamples,); NaN where it is not defined.
    """
    gold, predicted = judged.gold.astype(np.float64), judged.predicted.astype(np.float64)
    total = weights.sum(axis=1)
    hits = weights @ (gold * predicted)
    claimed, positive = weights @ predicted, weights @ gold
    scores: dict[str, Floats] = {}
    per_label = {
        "precision": _divide(hits, claimed, 0.0),
        "recall": _divide(hits, positive, np.nan),
        "f1": _divide(2 * hits, claimed + positive, np.nan),
        "average_precision": np.column_stack(
            [
                _average_precision(judged.gold[:, i], judged.probabilities[:, i], weights)
                for i in range(len(judged.names))
            ]
        ),
        "brier": weights @ (judged.probabilities - gold) ** 2 / total[:, None],
        "ece": np.column_stack(
            [
                _calibration_error(gold[:, i], judged.probabilities[:, i], weights)
                for i in range(len(judged.names))
            ]
        ),
    }
    for metric, values in per_label.items():
        for column, name in enumerate(judged.names):
            scores[f"{metric}/{name}"] = values[:, column]
    for metric, values in per_label.items():
        scores[f"{metric}_macro"] = _mean_of_defined(values)
    all_hits, all_claimed, all_positive = hits.sum(1), claimed.sum(1), positive.sum(1)
    scores["precision_micro"] = _divide(all_hits, all_claimed, 0.0)
    scores["recall_micro"] = _divide(all_hits, all_positive, np.nan)
    scores["f1_micro"] = _divide(2 * all_hits, all_claimed + all_positive, np.nan)
    scores["average_precision_micro"] = _average_precision(
        judged.gold.ravel(),
        judged.probabilities.ravel(),
        np.repeat(weights, len(judged.names), axis=1),
    )
    wrong = judged.gold != judged.predicted
    scores["exact_match"] = weights @ (~wrong.any(axis=1)).astype(np.float64) / total
    scores["hamming_loss"] = weights @ wrong.mean(axis=1) / total
    scores["label_cardinality"] = all_claimed / total
    return scores


def _average_precision(gold: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """Average precision as scikit-learn defines it: ties are one step of the curve."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, truth = probabilities[order], gold[order].astype(bool)
    if not truth.any():
        return np.full(len(weights), np.nan)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    weighted = weights[:, order]
    taken = np.cumsum(weighted, axis=1)[:, ends]
    hits = np.cumsum(weighted * truth, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0.0)
    precision = _divide(hits, taken, 0.0)
    return _divide((gained * precision).sum(axis=1), hits[:, -1], np.nan)


def _calibration_error(gold: Floats, probabilities: Floats, weights: Floats) -> Floats:
    """Expected calibration error over equally wide bins (Naeini et al. 2015)."""
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bins]
    gap = weights @ (member * (probabilities - gold)[:, None])
    error: Floats = np.abs(gap).sum(axis=1) / weights.sum(axis=1)
    return error


def _mean_of_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1), np.nan)


def _divide(numerator: Floats, denominator: Floats | NDArray[np.int64], empty: float) -> Floats:
    result = np.full(numerator.shape, empty)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _concatenate(chunks: Iterator[dict[str, Floats]]) -> dict[str, Floats]:
    collected: dict[str, list[Floats]] = {}
    for chunk in chunks:
        for name, values in chunk.items():
            collected.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in collected.items()}
