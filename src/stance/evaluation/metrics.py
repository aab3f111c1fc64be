"""Scores on one definition for every split, model and report, each with a bootstrap interval.

Resampling draws *groups* (documents, minimal pairs), not rows: sentences of one document are not
independent, and intervals over rows would be too narrow. Every score is a function of sums over
rows, so the rows of each group are summed once, a resample is a vector of group weights, and all
resamples are matrix products (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

PRIMARY = "f1_macro"
"""The score by which runs are compared and models promoted: every label weighs the same, however
rare, and the cost of a missed and of a false stance is the same."""

CALIBRATION = "ece"
"""Expected calibration error; its flat names begin so."""

CONFIDENCE = 0.95
ECE_BINS = 10

_CHUNK = 250


@dataclass(frozen=True)
class Interval:
    """A score with its bootstrap interval at `CONFIDENCE`."""

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

    @cached_property
    def group_index(self) -> tuple[int, NDArray[np.int64]]:
        """The number of groups, and the group of each row as a number, shape (n,)."""
        names, index = np.unique(np.asarray(self.groups, dtype=str), return_inverse=True)
        return len(names), index

    def select(self, rows: NDArray[np.bool_]) -> "Judged":
        """Return the rows where the mask of shape (n,) is true."""
        groups = [group for group, taken in zip(self.groups, rows, strict=True) if taken]
        return Judged(
            self.gold[rows], self.probabilities[rows], self.predicted[rows], groups, self.names
        )


def score(judged: Judged, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Return every score with its interval, under flat names such as `f1/<label>`.

    A score that is not defined on the rows (no positive example) is left out.
    """
    drawn = resampled_scores(judged, resamples=resamples, seed=seed)
    return {
        name: score_interval(name, value, drawn[name])
        for name, value in point_scores(judged).items()
    }


def point_scores(judged: Judged) -> dict[str, float]:
    """Return every score that is defined, without intervals."""
    once = np.ones((1, judged.group_index[0]))
    values = _Sums(judged).scores(once)
    return {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}


def resampled_scores(judged: Judged, *, resamples: int, seed: int) -> dict[str, Floats]:
    """Return every score under each resample, shape (resamples,); NaN where it is not defined.

    Judgements of the same rows under the same seed see the same resamples: differences of the
    results are those of the paired bootstrap.
    """
    sums = _Sums(judged)
    chunks = [
        sums.scores(weights) for weights in resample_weights(judged.group_index[0], resamples, seed)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def score_interval(name: str, value: float, drawn: Floats) -> Interval:
    """Build the interval of a score by its name from its resampled values.

    Resampling adds noise to a calibration error, a sum of absolute values: its resampled values
    lie above it, and their percentiles with them. Its interval reaches as far below the value as
    above, and is rather too wide than too narrow.
    """
    found = interval(value, drawn)
    if not name.startswith(CALIBRATION):
        return found
    high = max(value, found.high)
    return Interval(value, max(0.0, min(found.low, 2 * value - high)), high)


def interval(value: float, drawn: Floats) -> Interval:
    """Build the percentile interval of a score from its resampled values, shape (resamples,)."""
    finite = drawn[np.isfinite(drawn)]
    if not finite.size:
        return Interval(value, value, value)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def resample_weights(groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield chunks of group weights, shape (at most 250, groups): how often each was drawn."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, groups, size=(count, groups))
        drawn += groups * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * groups)
        yield weights.reshape(count, groups).astype(np.float64)


class _Sums:
    """All that the scores need of judged rows, summed over the rows of each group."""

    def __init__(self, judged: Judged) -> None:
        self.names = judged.names
        groups, index = judged.group_index
        gold, predicted = judged.gold.astype(np.float64), judged.predicted.astype(np.float64)
        wrong = judged.gold != judged.predicted
        columns = {
            "rows": np.ones((len(gold), 1)),
            "hits": gold * predicted,
            "claimed": predicted,
            "positive": gold,
            "squared": (judged.probabilities - gold) ** 2,
            "right": ~wrong.any(axis=1, keepdims=True),
            "wrong": wrong.mean(axis=1, keepdims=True),
            "gaps": _calibration_gaps(gold, judged.probabilities),
        }
        from scipy import sparse  # a third of a second that prediction has no use for

        member = sparse.csr_array((np.ones(len(gold)), (index, np.arange(len(gold)))))
        self._sums = {name: member @ values for name, values in columns.items()}
        labels = range(len(judged.names))
        self._rankings = [
            _Ranking(judged.gold[:, i], judged.probabilities[:, i], index, groups) for i in labels
        ]
        self._pooled_ranking = _Ranking(
            judged.gold.ravel(), judged.probabilities.ravel(), np.repeat(index, len(labels)), groups
        )

    def scores(self, weights: Floats) -> dict[str, Floats]:
        """Compute every score under group weights.

        Args:
            weights: shape (resamples, groups).

        Returns:
            For each score an array of shape (resamples,); NaN where it is not defined. Recall, F1
            and average precision of a label without a positive row are not, whatever a model
            claims: else the label would count in the macro mean of one model and not of another.
            Its precision is, but the macro mean is over the same labels as theirs.
        """
        sums = {name: weights @ values for name, values in self._sums.items()}
        hits, claimed, positive = sums["hits"], sums["claimed"], sums["positive"]
        rows = sums["rows"]
        gaps = np.abs(sums["gaps"]).reshape(len(weights), len(self.names), ECE_BINS)
        # In this order they are shown wherever scores are listed: what runs are compared by first.
        per_label = {
            "f1": _divide(2 * hits, np.where(positive > 0, claimed + positive, 0), np.nan),
            "average_precision": np.column_stack(
                [ranking.average_precision(weights) for ranking in self._rankings]
            ),
            "precision": _divide(hits, claimed, 0.0),
            "recall": _divide(hits, positive, np.nan),
            "brier": sums["squared"] / rows,
            CALIBRATION: gaps.sum(axis=2) / rows,
        }
        scores: dict[str, Floats] = {}
        for metric, values in per_label.items():
            counted = np.where(positive > 0, values, np.nan) if metric == "precision" else values
            scores[f"{metric}_macro"] = _mean_of_defined(counted)
            for column, name in enumerate(self.names):
                scores[f"{metric}/{name}"] = values[:, column]
        all_hits, all_claimed, all_positive = hits.sum(1), claimed.sum(1), positive.sum(1)
        scores["precision_micro"] = _divide(all_hits, all_claimed, 0.0)
        scores["recall_micro"] = _divide(all_hits, all_positive, np.nan)
        scores["f1_micro"] = _divide(
            2 * all_hits, np.where(all_positive > 0, all_claimed + all_positive, 0), np.nan
        )
        scores["average_precision_micro"] = self._pooled_ranking.average_precision(weights)
        total = rows[:, 0]
        scores["exact_match"] = sums["right"][:, 0] / total
        scores["hamming_loss"] = sums["wrong"][:, 0] / total
        scores["label_cardinality"] = all_claimed / total
        scores["label_cardinality_gold"] = all_positive / total
        return scores


class _Ranking:
    """Rows ranked by probability, kept as what average precision needs of them.

    Average precision as scikit-learn defines it: ties are one step of the curve. Precision counts
    only at steps that hold a positive row, so the rows between two such steps are one sum.
    """

    def __init__(
        self, gold: Labels, probabilities: Floats, index: NDArray[np.int64], groups: int
    ) -> None:
        from scipy import sparse

        order = np.argsort(-probabilities, kind="stable")
        ranked, truth, owner = probabilities[order], gold[order].astype(bool), index[order]
        step = np.cumsum(np.append(False, ranked[1:] != ranked[:-1]))
        steps = np.unique(step[truth])  # the steps that hold a positive row
        place = np.searchsorted(steps, step)  # rows below the last of them do not count
        counted = place < len(steps)
        shape = (groups, len(steps))
        ones = np.ones(len(order))
        self._taken = sparse.csr_array((ones[counted], (owner[counted], place[counted])), shape)
        self._hits = sparse.csr_array((ones[truth], (owner[truth], place[truth])), shape)

    def average_precision(self, weights: Floats) -> Floats:
        """Return the average precision under group weights, shape (resamples,)."""
        taken = np.cumsum(weights @ self._taken, axis=1)
        gained = weights @ self._hits
        hits = np.cumsum(gained, axis=1)
        precision = _divide(hits, taken, 0.0)
        return _divide((gained * precision).sum(axis=1), gained.sum(axis=1), np.nan)


def _calibration_gaps(gold: Floats, probabilities: Floats) -> Floats:
    """Return each row's part in the calibration gap of its bins, shape (n, labels * bins).

    The error is the mean gap over equally wide bins (Naeini et al. 2015).
    """
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bins]
    gaps: Floats = (member * (probabilities - gold)[:, :, None]).reshape(len(gold), -1)
    return gaps


def _mean_of_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1), np.nan)


def _divide(numerator: Floats, denominator: Floats | NDArray[np.int64], empty: float) -> Floats:
    result = np.full(numerator.shape, empty)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
