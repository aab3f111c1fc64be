"""Judge saved models on one labelled file, and say which is better and whether that may be luck.

Models are compared by the paired group bootstrap: every resample draws the same documents for all
models, so what is hard for all of them cancels out of the difference. Beside it stands a
randomised sign test on the label sets of single rows. With several comparisons against the
reference, p-values are corrected by Holm's method.

Sources: Efron and Tibshirani (1993), chapter 16; Holm (1979), "A simple sequentially rejective
multiple test procedure"; Berg-Kirkpatrick, Burkett and Klein (2012) on the paired bootstrap.
"""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stance.config import EvaluateConfig, columns_of
from stance.corpus.examples import Split, read_split, sentence_key
from stance.errors import UserError
from stance.evaluation import plots
from stance.evaluation.metrics import (
    PRIMARY,
    Floats,
    Interval,
    Judged,
    interval,
    resample_weights,
    score,
    scores_under_weights,
)
from stance.model import StanceModel, load_model
from stance.tracking import DataSource, Run, open_store, start_run_if_possible

logger = logging.getLogger(__name__)

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """How much the second model scores above the first, and whether that may be luck.

    `p_value` is two-sided from the paired bootstrap, `sign_p_value` from the exact sign test on
    rows that only one model labels rightly; `adjusted_p_value` is `p_value` after Holm.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    sign_p_value: float
    adjusted_p_value: float

    @property
    def verdict(self) -> str:
        """Say plainly which is better, or that no difference can be claimed."""
        if self.adjusted_p_value >= ALPHA or self.difference.low <= 0 <= self.difference.high:
            return "no difference can be claimed"
        return f"{self.second if self.difference.value > 0 else self.first} is better"


@dataclass(frozen=True)
class Comparison:
    """The scores of every model on one file, and the differences from the first."""

    data: str
    rows: int
    scores: dict[str, dict[str, Interval]]
    differences: list[Difference]

    @property
    def best(self) -> str:
        """The model with the highest primary score."""
        return max(self.scores, key=lambda name: self.scores[name][PRIMARY].value)


@dataclass(frozen=True)
class Evaluation:
    """Models judged on one labelled file: where each lies, the file, and the comparison."""

    directories: dict[str, Path]
    models: dict[str, StanceModel]
    split: Split
    comparison: Comparison
    report: Path


def evaluate(config: EvaluateConfig, reference: Path | None = None) -> Evaluation:
    """Judge and compare the models that a config names; record it in MLflow and on disk.

    Args:
        config: the settings.
        reference: a saved model to compare all others with; the first one named if omitted.

    Raises:
        UserError: a model or the file cannot be used, models have different codebooks, or one of
            them was trained on sentences of the file.
    """
    directories = _directories(config.models, reference)
    models = load_models(directories)
    codebook = next(iter(models.values())).codebook
    split = read_split(
        Path(config.data_file), Path(config.data_file).stem, codebook, columns_of(config.columns)
    )
    if not config.allow_overlap:
        check_unseen(models, split, config.data_file)
    judged = {name: model.judge(split, config.operating_point) for name, model in models.items()}
    comparison = compare(judged, config.data_file, config.resamples, config.seed)
    report = Path(config.output or Path(config.models_dir) / "evaluations" / f"{split.name}.json")
    write_whole(report, json.dumps(asdict(comparison), indent=2) + "\n")
    store = open_store(config.tracking, config.models_dir)
    tags = {f"stance.model.{name}": model.digest for name, model in models.items()}
    with start_run_if_possible(store, f"compare on {split.name}", tags) as run:
        record_comparison(run, comparison, judged, split, config)
    return Evaluation(directories, models, split, comparison, report)


def check_unseen(models: Mapping[str, StanceModel], split: Split, path: str) -> None:
    """Hold that no model learnt from a sentence of the file.

    Raises:
        UserError: one did; the message counts the rows.
    """
    keys = [sentence_key(text) for text in split.texts]
    for name, model in models.items():
        known = sum(key in model.seen for key in keys)
        if known:
            raise UserError(
                f"{path}: {name!r} was trained or tuned on {known} of its {len(keys)} sentences; "
                f"allow_overlap=true judges all the same"
            )


def _directories(paths: Sequence[str], reference: Path | None) -> dict[str, Path]:
    """Name each saved model by its folder, the reference first."""
    if not paths:
        raise UserError("models: name at least one saved model, as in models=[models/NAME]")
    directories = {} if reference is None else {reference.resolve().name: reference}
    for path in paths:
        name = Path(path).resolve().name
        if name in directories and directories[name] != reference:
            raise UserError(f"models: {name!r} is named twice")
        directories[name] = Path(path)
    return directories


def load_models(directories: Mapping[str, Path]) -> dict[str, StanceModel]:
    """Load saved models.

    Raises:
        UserError: one cannot be loaded, or their codebooks differ.
    """
    models = {name: load_model(directory) for name, directory in directories.items()}
    reference, *others = models.values()
    for other in others:
        if other.codebook.digest != reference.codebook.digest:
            raise UserError(
                f"models: {reference.name!r} and {other.name!r} were trained under different "
                f"codebooks ({reference.codebook.name} {reference.codebook.version}, "
                f"{other.codebook.name} {other.codebook.version})"
            )
    return models


def compare(
    judged: dict[str, Judged], data: str, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Score every model, and compare each with the first one."""
    scores = {name: score(j, resamples=resamples, seed=seed) for name, j in judged.items()}
    reference, *others = judged
    drawn = {name: _primary_under_resamples(j, resamples, seed) for name, j in judged.items()}
    raw = []
    for other in others:
        gap = drawn[other] - drawn[reference]
        value = scores[other][PRIMARY].value - scores[reference][PRIMARY].value
        raw.append(
            (
                other,
                interval(value, gap),
                _bootstrap_p(gap),
                sign_test(judged[reference], judged[other]),
            )
        )
    adjusted = holm([p for _, _, p, _ in raw])
    return Comparison(
        data,
        len(next(iter(judged.values())).gold),
        scores,
        [
            Difference(reference, other, gap, p, sign_p, corrected)
            for (other, gap, p, sign_p), corrected in zip(raw, adjusted, strict=True)
        ],
    )


def sign_test(first: Judged, second: Judged) -> float:
    """Exact two-sided sign test on the rows whose label set only one of two models gets right."""
    from scipy.stats import binomtest

    right = [(j.gold == j.predicted).all(axis=1) for j in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def record_comparison(
    run: Run,
    comparison: Comparison,
    judged: dict[str, Judged],
    split: Split,
    config: EvaluateConfig,
) -> None:
    """Record scores, differences and pictures."""
    run.log_data(DataSource(split.name, config.data_file, split.digest, len(split), "evaluation"))
    for name, scores in comparison.scores.items():
        run.log_metrics({f"{name}/{key}": value.value for key, value in scores.items()})
        run.log_figure(plots.precision_recall(judged[name]), f"{name}/precision_recall.png")
        run.log_figure(plots.label_set_confusion(judged[name]), f"{name}/label_sets.png")
    run.log_table(difference_table(comparison), "differences.json")
    run.log_text(json.dumps(asdict(comparison), indent=2), "comparison.json")


def difference_table(comparison: Comparison) -> dict[str, list[Any]]:
    """Return the differences as columns."""
    return {
        "comparison": [f"{d.second} - {d.first}" for d in comparison.differences],
        PRIMARY: [str(d.difference) for d in comparison.differences],
        "p": [round(d.p_value, 4) for d in comparison.differences],
        "p (Holm)": [round(d.adjusted_p_value, 4) for d in comparison.differences],
        "p (sign test)": [round(d.sign_p_value, 4) for d in comparison.differences],
        "verdict": [d.verdict for d in comparison.differences],
    }


def print_comparison(comparison: Comparison) -> None:
    """Print the scores of every model and the differences as tables in the terminal."""
    from rich.console import Console
    from rich.table import Table

    labels = [key for key in next(iter(comparison.scores.values())) if key.startswith("f1/")]
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title=f"{comparison.data}: {comparison.rows} sentences, 95 % intervals")
    table.add_column("F1")
    for model in comparison.scores:
        table.add_column(model)
    for title, key in [
        *((key.removeprefix("f1/"), key) for key in labels),
        ("macro F1", PRIMARY),
        ("micro F1", "f1_micro"),
        ("macro average precision", "average_precision_macro"),
        ("calibration error", "ece_macro"),
        ("exact match", "exact_match"),
    ]:
        cells = [str(scores[key]) if key in scores else "" for scores in comparison.scores.values()]
        table.add_row(title, *cells)
    console.print(table)
    for d in comparison.differences:
        console.print(
            f"{d.second} - {d.first}: macro F1 {d.difference.value:+.3f} "
            f"\\[{d.difference.low:+.3f}, {d.difference.high:+.3f}], p = {d.adjusted_p_value:.3f}, "
            f"sign test p = {d.sign_p_value:.3f}: [bold]{d.verdict}[/bold]",
            soft_wrap=True,
            highlight=False,
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that it appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as stream:
            stream.write(text)
        Path(stream.name).chmod(0o644)
        Path(stream.name).replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _primary_under_resamples(judged: Judged, resamples: int, seed: int) -> Floats:
    return np.concatenate(
        [
            scores_under_weights(judged, weights)[PRIMARY]
            for weights in resample_weights(judged.groups, resamples, seed)
        ]
    )


def _bootstrap_p(gap: Floats) -> float:
    """Two-sided p-value: twice the smaller share of resamples on one side of zero, plus one."""
    below = (np.sum(gap <= 0) + 1) / (len(gap) + 1)
    above = (np.sum(gap >= 0) + 1) / (len(gap) + 1)
    return float(min(1.0, 2 * min(below, above)))
