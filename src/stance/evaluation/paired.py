"""Which of several models is better on one file, by how much, and whether that may be luck.

Models are compared by the paired group bootstrap: every resample draws the same documents for all
models, so what is hard for all of them cancels out of the difference. Runs that differ only in
their seed are one model here: its score is their mean, and a resample draws seeds as well as
documents, so that its interval holds the luck of training too. Of S seeds S - 1 are drawn, with
which the variance of a mean comes out right (Rao and Wu 1988); S would make it too small.

Beside it stands a sign test that needs no score and hardly an assumption: in how many documents
does the one model label more sentences rightly, in how many the other? With several comparisons
against the reference, p-values are corrected by Holm's method.

Sources: Efron and Tibshirani (1993), chapter 16; Rao and Wu (1988), "Resampling inference with
complex survey data"; Holm (1979), "A simple sequentially rejective multiple test procedure";
Berg-Kirkpatrick, Burkett and Klein (2012) on the paired bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stance.evaluation.metrics import (
    CALIBRATION,
    PRIMARY,
    Floats,
    Interval,
    Judged,
    interval,
    point_scores,
    resampled_scores,
    score_interval,
)

ALPHA = 0.05
PRIMARY_TITLE = "macro F1"
FEW_DOCUMENTS = 30
"""Percentile intervals over fewer documents than this are too narrow to be relied on."""


@dataclass(frozen=True)
class SignTest:
    """Documents in which the second model labels more sentences rightly than the first, or fewer.

    `p_value` is exact and two-sided; documents in which both do alike do not count.
    """

    more: int
    fewer: int
    alike: int
    p_value: float


@dataclass(frozen=True)
class Difference:
    """How much the second model scores above the first, and whether that may be luck.

    `difference` is that of the primary score and `p_value` its two-sided p-value, both from the
    paired bootstrap; `adjusted_p_value` is `p_value` after Holm. `others` holds the differences of
    further scores, for orientation: their intervals are not corrected for their number.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    adjusted_p_value: float
    sign: SignTest
    others: dict[str, Interval]

    @property
    def verdict(self) -> str:
        """Say plainly which is better, or that no difference can be claimed."""
        if self.adjusted_p_value >= ALPHA or self.difference.low <= 0 <= self.difference.high:
            return "no difference can be claimed"
        return f"{self.second if self.difference.value > 0 else self.first} is better"


@dataclass(frozen=True)
class Comparison:
    """The scores of every model on one file, and the differences from the first.

    `seeds` says how many runs each model pools, and `spread` the standard deviation of each score
    over them where they are several.
    """

    data: str
    rows: int
    documents: int
    resamples: int
    scores: dict[str, dict[str, Interval]]
    seeds: dict[str, int]
    spread: dict[str, dict[str, float]]
    differences: list[Difference]

    @property
    def best(self) -> str:
        """The model with the highest primary score."""
        return max(self.scores, key=lambda name: self.scores[name][PRIMARY].value)


def compare(
    judged: Mapping[str, Judged | Sequence[Judged]],
    data: str,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Score every model, and compare each with the first one.

    Args:
        judged: what each model said of the same rows; several judgements are those of its seeds.
        data: the file's name, for the report.
        resamples: bootstrap resamples of every interval and difference.
        seed: seed of the resampling.
    """
    runs = {name: [j] if isinstance(j, Judged) else list(j) for name, j in judged.items()}
    points, drawn, scores, spread = {}, {}, {}, {}
    for number, (name, seeds) in enumerate(runs.items()):
        each = [point_scores(run) for run in seeds]
        keys = [key for key in each[0] if all(key in point for point in each)]
        points[name] = {key: float(np.mean([point[key] for point in each])) for key in keys}
        drawn[name] = _drawn_over_seeds(seeds, resamples, seed, number)
        scores[name] = {
            key: score_interval(key, value, drawn[name][key]) for key, value in points[name].items()
        }
        if len(each) > 1:
            spread[name] = {
                key: float(np.std([point[key] for point in each], ddof=1)) for key in keys
            }

    reference, *others = runs
    gaps = {
        other: {
            key: interval(value - points[reference][key], drawn[other][key] - drawn[reference][key])
            for key, value in points[other].items()
            if key in points[reference]
        }
        for other in others
    }
    p_values = [_bootstrap_p(drawn[other][PRIMARY] - drawn[reference][PRIMARY]) for other in others]
    first = runs[reference][0]
    return Comparison(
        data=data,
        rows=len(first.gold),
        documents=first.group_index[0],
        resamples=resamples,
        scores=scores,
        seeds={name: len(seeds) for name, seeds in runs.items()},
        spread=spread,
        differences=[
            Difference(
                first=reference,
                second=other,
                difference=gaps[other][PRIMARY],
                p_value=p_value,
                adjusted_p_value=adjusted,
                sign=sign_test(runs[reference], runs[other]),
                others={key: gap for key, gap in gaps[other].items() if _of_interest(key)},
            )
            for other, p_value, adjusted in zip(others, p_values, holm(p_values), strict=True)
        ],
    )


def sign_test(first: Sequence[Judged], second: Sequence[Judged]) -> SignTest:
    """Count the documents in which one model's mean share of right label sets is the higher."""
    from scipy.stats import binomtest

    documents, index = first[0].group_index
    right = [
        np.bincount(
            index,
            np.mean([(j.gold == j.predicted).all(axis=1) for j in runs], axis=0),
            minlength=documents,
        )
        for runs in (first, second)
    ]
    gap = np.round(right[1] - right[0], 9)
    more, fewer = int((gap > 0).sum()), int((gap < 0).sum())
    p_value = float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0
    return SignTest(more, fewer, documents - more - fewer, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def describe(comparison: Comparison) -> list[str]:
    """Write the comparison as sentences: differences and verdicts, scores, and their limits."""
    lines = [_describe_difference(d, len(comparison.differences)) for d in comparison.differences]
    for name, scores in comparison.scores.items():
        seeds = comparison.seeds[name]
        luck = (
            f"mean of {seeds} seeds, standard deviation {comparison.spread[name][PRIMARY]:.3f}; "
            f"interval over documents and seeds"
            if seeds > 1
            else "one seed; interval over documents"
        )
        lines.append(f"{name}: {PRIMARY_TITLE} {scores[PRIMARY]} ({luck}).")
    alone = [name for name, seeds in comparison.seeds.items() if seeds == 1]
    if comparison.differences and alone:
        lines.append(
            f"{' and '.join(alone)}: one seed each, so the luck of training is in no interval."
        )
    if comparison.documents < FEW_DOCUMENTS:
        lines.append(
            f"Only {comparison.documents} documents: intervals over so few are too narrow."
        )
    return lines


def _describe_difference(d: Difference, comparisons: int) -> str:
    correction = (
        f", {_p(d.adjusted_p_value)} after Holm's correction for {comparisons} comparisons"
        if comparisons > 1
        else ""
    )
    claimed = d.verdict != "no difference can be claimed"
    gap = d.difference
    return (
        f"{d.second} - {d.first}: {PRIMARY_TITLE} {gap.value:+.3f}, 95 % interval "
        f"[{gap.low:+.3f}, {gap.high:+.3f}], paired bootstrap over documents, "
        f"{_p(d.p_value)}{correction}; it labels more sentences rightly in {d.sign.more} documents "
        f"and fewer in {d.sign.fewer} (sign test, {_p(d.sign.p_value)}): {d.verdict}"
        + (
            "."
            if claimed
            else f"; differences from {gap.low:+.3f} to {gap.high:+.3f} remain possible."
        )
    )


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _of_interest(key: str) -> bool:
    return key.startswith("f1") or key in (
        "average_precision_macro",
        f"{CALIBRATION}_macro",
        "brier_macro",
        "exact_match",
    )


def _drawn_over_seeds(
    runs: Sequence[Judged], resamples: int, seed: int, number: int
) -> dict[str, Floats]:
    """Return the mean score over drawn seeds and documents, shape (resamples,) for each score."""
    each = [resampled_scores(run, resamples=resamples, seed=seed) for run in runs]
    if len(each) == 1:
        return each[0]
    generator = np.random.default_rng([seed, number])
    picked = generator.integers(0, len(each), size=(len(each) - 1, resamples))
    return {
        key: np.stack([scores[key] for scores in each])[picked, np.arange(resamples)].mean(axis=0)
        for key in each[0]
    }


def _bootstrap_p(gap: Floats) -> float:
    """Two-sided p-value: twice the smaller share of resamples on one side of zero, plus one."""
    defined = gap[np.isfinite(gap)]
    below = (np.sum(defined <= 0) + 1) / (len(defined) + 1)
    above = (np.sum(defined >= 0) + 1) / (len(defined) + 1)
    return float(min(1.0, 2 * min(below, above)))
