"""Pictures of a judged split. Each function returns a matplotlib figure and shows nothing."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stance.codebook import NONE
from stance.evaluation.behaviour import PassRate
from stance.evaluation.metrics import ECE_BINS, PRIMARY, Judged
from stance.evaluation.paired import PRIMARY_TITLE, Comparison

_COMMON_SETS = 12
_FEWEST_IN_BIN = 5


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def precision_recall(judged: Judged) -> Figure:
    """Draw precision over recall for every label, with the decision's own point marked."""
    figure, axes = _square("Precision and recall", "recall", "precision")
    for column, name in enumerate(judged.names):
        gold, predicted = judged.gold[:, column], judged.predicted[:, column]
        if not gold.any():
            continue
        order = np.argsort(-judged.probabilities[:, column], kind="stable")
        ranked = judged.probabilities[order, column]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # ties are one step
        hits = np.cumsum(gold[order])[ends]
        recall, precision = hits / gold.sum(), hits / (ends + 1)
        (line,) = axes.plot(recall, precision, label=name)
        found = int((gold & predicted).sum())
        axes.plot(
            found / gold.sum(),
            found / max(int(predicted.sum()), 1),
            "o",
            color=line.get_color(),
            markersize=8,
        )
    axes.legend(loc="lower left")
    return figure


def reliability(judged: Judged) -> Figure:
    """Draw the observed rate of each label over its predicted probability, in bins.

    Whiskers are 95 % intervals: few sentences lie between the extremes, and their rates vary much.
    """
    figure, axes = _square("Reliability", "predicted probability", "observed rate")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for column, name in enumerate(judged.names):
        probabilities, gold = judged.probabilities[:, column], judged.gold[:, column]
        bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
        filled = [b for b in range(ECE_BINS) if (bins == b).sum() >= _FEWEST_IN_BIN]
        rates = [PassRate(int(gold[bins == b].sum()), int((bins == b).sum())) for b in filled]
        axes.errorbar(
            [probabilities[bins == b].mean() for b in filled],
            [rate.rate for rate in rates],
            yerr=[[r.rate - r.low for r in rates], [r.high - r.rate for r in rates]],
            marker="o",
            linewidth=1,
            elinewidth=0.8,
            capsize=2,
            label=name,
        )
    axes.legend(loc="lower right")
    return figure


def thresholds(judged: Judged, chosen: Sequence[float]) -> Figure:
    """Draw precision, recall and F1 of every label over its threshold, the chosen one marked."""
    columns = min(len(judged.names), 2)
    rows = -(-len(judged.names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    cuts = np.linspace(0, 1, 201)
    for column, (name, axes) in enumerate(zip(judged.names, grid, strict=False)):
        gold = judged.gold[:, column] == 1
        claimed = judged.probabilities[:, column] >= cuts[:, None]
        hits, said = (claimed & gold).sum(axis=1), claimed.sum(axis=1)
        precision = np.where(said > 0, hits / np.maximum(said, 1), np.nan)
        recall = hits / max(int(gold.sum()), 1)
        axes.plot(cuts, precision, label="precision", color="tab:blue")
        axes.plot(cuts, recall, label="recall", color="tab:orange")
        axes.plot(cuts, 2 * hits / np.maximum(said + gold.sum(), 1), label="F1", color="black")
        axes.set_title(name, fontsize=10)
        if np.isfinite(chosen[column]):
            axes.axvline(chosen[column], color="grey", linestyle="--", linewidth=1)
            axes.set_title(f"{name}, threshold {chosen[column]:.2f}", fontsize=10)
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
    for axes in grid[len(judged.names) :]:
        axes.set_visible(False)
    grid[0].legend(loc="lower left", fontsize=8)
    figure.supxlabel("threshold on the calibrated probability")
    return figure


def learning_curve(history: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draw what a classifier logged at each epoch: losses on the left, scores on the right."""
    losses = {name: points for name, points in history.items() if "loss" in name}
    scores = {name: points for name, points in history.items() if "loss" not in name}
    shown = [group for group in (losses, scores) if group]
    figure = Figure(figsize=(5 * len(shown), 3.6), layout="constrained")
    for axes, group in zip(
        np.atleast_1d(figure.subplots(1, len(shown))).ravel(), shown, strict=True
    ):
        for name, points in group.items():
            axes.plot([step for step, _ in points], [v for _, v in points], "o-", label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def comparison(compared: Comparison) -> Figure:
    """Draw F1 of every label and of their mean for each model, with intervals."""
    first = next(iter(compared.scores.values()))
    keys = [*(key for key in first if key.startswith("f1/")), PRIMARY]
    titles = [*(key.removeprefix("f1/") for key in keys[:-1]), PRIMARY_TITLE]
    height = 0.9 + len(keys) * (0.3 + 0.16 * len(compared.scores))
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    models = list(compared.scores)
    for number, name in enumerate(models):
        offset = 0.7 * ((number + 0.5) / len(models) - 0.5)
        for row, key in enumerate(keys):
            found = compared.scores[name].get(key)
            if found is None:
                continue
            axes.errorbar(
                found.value,
                row + offset,
                xerr=[[found.value - found.low], [found.high - found.value]],
                fmt="o",
                color=f"C{number % 10}",
                capsize=2,
                markersize=4,
                label=name if row == 0 else None,
            )
    axes.set_yticks(range(len(keys)), titles)
    axes.invert_yaxis()
    axes.axhline(len(keys) - 1.5, color="grey", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3, axis="x")
    axes.set_xlabel("F1, 95 % interval")
    axes.legend(fontsize=8, loc="lower left")
    return figure


def label_set_confusion(judged: Judged) -> Figure:
    """Draw counts of gold label sets (rows) against predicted ones (columns)."""
    pairs = Counter(
        zip(label_sets(judged.gold, judged), label_sets(judged.predicted, judged), strict=True)
    )
    seen: Counter[str] = Counter()
    for (gold, predicted), count in pairs.items():
        seen[gold] += count
        seen[predicted] += count
    sets = [name for name, _ in seen.most_common(_COMMON_SETS)]
    counts = np.array([[pairs[gold, predicted] for predicted in sets] for gold in sets])
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.log1p(counts), cmap="Blues")
    axes.set_xticks(range(len(sets)), sets, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(sets)), sets, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    axes.set_title("Label sets")
    for row, column in np.argwhere(counts > 0):
        dark = counts[row, column] > counts.max() ** 0.5
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    return figure


def behaviour(rates: Mapping[str, PassRate]) -> Figure:
    """Draw the pass rate of each construct with its interval."""
    figure = Figure(figsize=(7, 1.5 + 0.3 * len(rates)), layout="constrained")
    axes = figure.subplots()
    names = list(rates)[::-1]
    values = np.array([rates[name].rate for name in names])
    low = values - np.array([rates[name].low for name in names])
    high = np.array([rates[name].high for name in names]) - values
    axes.barh(names, values, xerr=[low, high], color="steelblue", ecolor="grey", capsize=2)
    for row, name in enumerate(names):
        axes.text(
            0.01, row, f"{rates[name].passed}/{rates[name].total}", va="center", color="white"
        )
    axes.set_xlim(0, 1.02)
    axes.margins(y=0.01)
    axes.set_xlabel("share of cases kept, 95 % interval")
    axes.set_title("Behaviour by construct")
    return figure


def sweep_effects(effects: Mapping[str, Sequence[tuple[str, float]]], score: str) -> Figure:
    """Draw the score of every run over each parameter that varied, widest spread first."""

    def spread(name: str) -> float:
        means = [np.mean([s for v, s in effects[name] if v == value]) for value in _values(name)]
        return float(max(means) - min(means))

    def _values(name: str) -> list[str]:
        return sorted({value for value, _ in effects[name]})

    names = sorted(effects, key=spread, reverse=True)[:8]
    figure = Figure(figsize=(3.2 * len(names) + 1, 4), layout="constrained")
    for axes, name in zip(
        np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True
    ):
        values = _values(name)
        axes.plot([values.index(v) for v, _ in effects[name]], [s for _, s in effects[name]], "o")
        axes.set_xticks(range(len(values)), values, rotation=30, ha="right")
        axes.set_title(f"{name} (spread {spread(name):.3f})", fontsize=9)
        axes.grid(alpha=0.3)
    figure.supylabel(score)
    return figure


def label_sets(matrix: NDArray[np.int8], judged: Judged) -> list[str]:
    """Write each row of a 0/1 matrix as names joined by ` + `."""
    return [
        " + ".join(name for name, value in zip(judged.names, row, strict=True) if value) or NONE
        for row in matrix
    ]


def _square(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes
