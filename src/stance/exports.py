"""What makes a saved transformer fast: ONNX exports and a cheap first stage, measured beside it.

Both are made after training, put into the model's directory, and kept only if they cost next to
nothing on the validation split.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.classifiers.base import Probabilities
from stance.classifiers.engines import EXPORTS
from stance.corpus.examples import Split
from stance.decision import Decision
from stance.errors import UserError
from stance.evaluation.metrics import PRIMARY, Judged, interval, point_scores, resampled_scores
from stance.model import ModelDescription, describe_model, replace_model, seal

TOLERANCE = 0.005
"""How much macro F1 an export or a first stage may lose on validation."""

LOST = 0.01
"""Share of the sentences with a label that a first stage may settle as having none."""

_RESAMPLES = 1000
_MEASURED = "measured"


@dataclass(frozen=True)
class Change:
    """A difference of macro F1 with its paired interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it with its sign."""
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True)
class Parity:
    """How far an export is from the model it was made from, on the validation split.

    `largest_change` is that of a calibrated probability, `other_labels` the share of sentences
    with another label set.
    """

    engine: str
    largest_change: float
    other_labels: float
    f1_macro: float
    f1_macro_change: Change
    kept: bool

    def __str__(self) -> str:
        """Write the figures in one line."""
        return (
            f"{self.engine}: macro F1 {self.f1_macro:.3f}, change {self.f1_macro_change}, label "
            f"sets that differ {self.other_labels:.2%}, largest change of a probability "
            f"{self.largest_change:.4f}"
            + ("" if self.kept else f"; left out: it loses more than {TOLERANCE}")
        )


@dataclass(frozen=True)
class Settling:
    """What a first stage does on the validation split.

    `settled` is the share of sentences without a label that it settles; `lost` the share of those
    with a label, and `lost_interval` its Wilson interval.
    """

    settled: float
    lost: float
    lost_interval: tuple[float, float]
    f1_macro_change: Change

    def __str__(self) -> str:
        """Write the figures in one line."""
        low, high = self.lost_interval
        return (
            f"first stage: settles {self.settled:.0%} of the sentences without a label, loses "
            f"{self.lost:.2%} [{low:.2%}, {high:.2%}] of those with one, changes macro F1 by "
            f"{self.f1_macro_change}"
        )


def speed_up(directory: Path, train: Split, validation: Split) -> tuple[str, list[Any]]:
    """Add ONNX exports and a first stage to a saved transformer.

    An export that loses more than `TOLERANCE` of macro F1 is left out; its figures are kept. A
    first stage learns from sentences without a label: where there are none, as under a
    single-label codebook, there is no first stage.

    Args:
        directory: the saved model.
        train: activation ranges and the first stage are learnt from it.
        validation: the split on which all is measured.

    Returns:
        The model's new digest, a `Parity` for each export, and a `Settling` of the first stage.

    Raises:
        UserError: the model is no transformer, or cannot be exported.
    """
    directory = directory.resolve()
    description = describe_model(directory)
    if description.kind != "transformer":
        raise UserError(f"{directory}: only transformers are exported, not {description.kind}")
    from stance.classifiers.transformer import TransformerClassifier

    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as folder:
        beside = Path(folder) / directory.name
        shutil.copytree(directory, beside)
        original = TransformerClassifier.load(beside, description.codebook)
        expected = original.predict_proba(validation.texts)
        found: list[Any] = _add_exports(
            original, beside, description, train.texts, validation, expected
        )
        if not train.gold.any(axis=1).all():
            found.append(
                _add_first_stage(beside, description.decision, train, validation, expected)
            )
        digest = seal(beside)
        replace_model(beside, directory)
    return digest, found


def measure(
    engine: str,
    expected: Probabilities,
    found: Probabilities,
    validation: Split,
    decision: Decision,
) -> Parity:
    """Compare the raw probabilities of an export with those of the original."""
    before, after = (_judge(raw, validation, decision) for raw in (expected, found))
    change = _change(before, after)
    return Parity(
        engine=engine,
        largest_change=float(np.abs(before.probabilities - after.probabilities).max(initial=0.0)),
        other_labels=float((before.predicted != after.predicted).any(axis=1).mean()),
        f1_macro=point_scores(after)[PRIMARY],
        f1_macro_change=change,
        kept=change.value >= -TOLERANCE,
    )


def choose_cutoff(scores: NDArray[np.float64], judged: Judged) -> tuple[float, Settling]:
    """Return the highest cut-off of a first stage that loses little, and what it does.

    Args:
        scores: of the first stage, shape (n,).
        judged: what the model says of the same rows without it.
    """
    carries = judged.gold.any(axis=1)
    ordered = np.sort(scores[carries])
    for allowed in range(int(LOST * len(ordered)), -1, -1):
        cutoff = float(ordered[allowed]) if len(ordered) else -math.inf
        settled = scores < cutoff
        change = _change(judged, _without(judged, settled))
        if change.value >= -TOLERANCE or not allowed:
            break
    lost = int((settled & carries).sum())
    return cutoff, Settling(
        settled=float(settled[~carries].mean()) if (~carries).any() else 0.0,
        lost=lost / max(1, len(ordered)),
        lost_interval=_wilson(lost, len(ordered)),
        f1_macro_change=change,
    )


def _add_exports(
    original: Any,
    directory: Path,
    description: ModelDescription,
    calibration: Sequence[str],
    validation: Split,
    expected: Probabilities,
) -> list[Parity]:
    from stance.classifiers.export import export_classifier
    from stance.classifiers.onnx import SETTINGS, OnnxClassifier

    export_classifier(original, directory, calibration)
    found = []
    for engine, file in EXPORTS.items():
        export = OnnxClassifier.load(directory, description.codebook, engine)
        raw = export.predict_proba(validation.texts)
        parity = measure(engine, expected, raw, validation, description.decision)
        if not parity.kept:
            (directory / file).unlink()
        found.append(parity)
    _add_figures(directory / SETTINGS, {parity.engine: asdict(parity) for parity in found})
    return found


def _add_first_stage(
    directory: Path, decision: Decision, train: Split, validation: Split, expected: Probabilities
) -> Settling:
    from stance.classifiers.cascade import FILE, fit_first_stage

    stage = fit_first_stage(train)
    scores = stage.scores(validation.texts)
    cutoff, settling = choose_cutoff(scores, _judge(expected, validation, decision))
    settled = validation.gold[scores < cutoff]
    rates = (settled.sum(axis=0) + 1) / (len(settled) + 2)
    replace(stage, cutoff=cutoff, rates=tuple(map(float, rates))).save(directory)
    _add_figures(directory / FILE, asdict(settling))
    return settling


def _add_figures(path: Path, figures: dict[str, Any]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps({_MEASURED: figures, **values}, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _judge(raw: Probabilities, split: Split, decision: Decision) -> Judged:
    calibrated = decision.calibrate(raw)
    return Judged(
        split.gold, calibrated, decision.decide(calibrated), split.groups, split.codebook.names
    )


def _without(judged: Judged, settled: NDArray[np.bool_]) -> Judged:
    """Take the labels from settled rows."""
    predicted = judged.predicted.copy()
    predicted[settled] = 0
    return Judged(judged.gold, judged.probabilities, predicted, judged.groups, judged.names)


def _change(before: Judged, after: Judged) -> Change:
    value = point_scores(after)[PRIMARY] - point_scores(before)[PRIMARY]
    drawn = [resampled_scores(j, resamples=_RESAMPLES, seed=0)[PRIMARY] for j in (before, after)]
    found = interval(value, drawn[1] - drawn[0])
    return Change(found.value, found.low, found.high)


def _wilson(count: int, total: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    found = binomtest(count, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
