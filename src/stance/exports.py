"""ONNX exports of a saved transformer, each measured beside the original before it is kept."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stance.classifiers.base import Probabilities
from stance.classifiers.engines import EXPORTS
from stance.corpus.examples import Split
from stance.decision import Decision
from stance.errors import UserError
from stance.evaluation.metrics import (
    PRIMARY,
    Judged,
    interval,
    point_scores,
    resampled_scores,
)
from stance.model import describe_model, replace_model, seal

TOLERANCE = 0.005
"""How much macro F1 an export may lose on validation."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Parity:
    """How far an export is from the model it was made from, on the validation split.

    `largest_change` is that of a calibrated probability, `other_labels` the share of sentences
    with another label set; `f1_macro_change` has its paired interval beside it.
    """

    engine: str
    largest_change: float
    other_labels: float
    f1_macro: float
    f1_macro_change: float
    f1_macro_change_interval: tuple[float, float]
    kept: bool

    def __str__(self) -> str:
        """Write the figures in one line."""
        low, high = self.f1_macro_change_interval
        return (
            f"{self.engine}: macro F1 {self.f1_macro:.3f}, change {self.f1_macro_change:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], label sets that differ {self.other_labels:.2%}, largest "
            f"change of a probability {self.largest_change:.4f}"
            + ("" if self.kept else f"; left out: it loses more than {TOLERANCE}")
        )


def export_model(
    directory: Path, calibration: Sequence[str], validation: Split
) -> tuple[str, list[Parity]]:
    """Add ONNX exports to a saved transformer, and return its new digest and their parity.

    An export that loses more than `TOLERANCE` of macro F1 is left out; its figures are kept.

    Args:
        directory: the saved model.
        calibration: sentences of the training split, for the activation ranges of int8.
        validation: the split on which the exports are measured.

    Raises:
        UserError: the model is no transformer, or cannot be exported.
    """
    directory = directory.resolve()
    description = describe_model(directory)
    if description.kind != "transformer":
        raise UserError(f"{directory}: only transformers are exported, not {description.kind}")
    from stance.classifiers.export import export_classifier
    from stance.classifiers.onnx import SETTINGS, OnnxClassifier
    from stance.classifiers.transformer import TransformerClassifier

    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as folder:
        beside = Path(folder) / directory.name
        shutil.copytree(directory, beside)
        original = TransformerClassifier.load(beside, description.codebook)
        export_classifier(original, beside, calibration)
        expected = original.predict_proba(validation.texts)
        found = []
        for engine, file in EXPORTS.items():
            export = OnnxClassifier.load(beside, description.codebook, engine)
            parity = measure(
                engine,
                expected,
                export.predict_proba(validation.texts),
                validation,
                description.decision,
            )
            found.append(parity)
            if not parity.kept:
                (beside / file).unlink()
        settings = json.loads((beside / SETTINGS).read_text(encoding="utf-8"))
        settings["parity"] = {parity.engine: asdict(parity) for parity in found}
        (beside / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
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
    judged = [_judge(raw, validation, decision) for raw in (expected, found)]
    before, after = (point_scores(j)[PRIMARY] for j in judged)
    drawn = [resampled_scores(j, resamples=_RESAMPLES, seed=0)[PRIMARY] for j in judged]
    change = interval(after - before, drawn[1] - drawn[0])
    return Parity(
        engine=engine,
        largest_change=float(
            np.abs(judged[0].probabilities - judged[1].probabilities).max(initial=0.0)
        ),
        other_labels=float((judged[0].predicted != judged[1].predicted).any(axis=1).mean()),
        f1_macro=after,
        f1_macro_change=change.value,
        f1_macro_change_interval=(change.low, change.high),
        kept=before - after <= TOLERANCE,
    )


def _judge(raw: Probabilities, split: Split, decision: Decision) -> Judged:
    calibrated = decision.calibrate(raw)
    return Judged(
        split.gold, calibrated, decision.decide(calibrated), split.groups, split.codebook.names
    )
