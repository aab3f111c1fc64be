"""From raw probabilities to label sets: calibration, thresholds, operating points.

The same code serves every classifier, so that comparisons are fair. All is fitted on the validation
split and nothing else. Each label gets the calibration map with the lowest cross-fitted Brier
score among identity, temperature, Platt and isotonic, and a precision-recall curve from which an
operating point can be chosen again at prediction time. Labels that exclude each other share one
map, identity or temperature, after which each row is normalised to sum to one.

Sources: Platt (1999), "Probabilistic outputs for support vector machines"; Zadrozny and Elkan
(2002) for isotonic maps; Guo et al. (2017), "On calibration of modern neural networks", for
temperature.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.errors import UserError

Floats = NDArray[np.float64]

METHODS = ("identity", "temperature", "platt", "isotonic")
MAX_F1 = "max_f1"
MIN_POSITIVES = 20
"""Fewer positive validation examples than this do not support a calibration map."""

_HALF = 0.5
_EPSILON = 1e-6
_TINY = np.finfo(np.float64).tiny
_FOLDS = 5


@dataclass(frozen=True)
class Calibrator:
    """A monotone map of one label's probability: `method` and its parameters."""

    method: str = "identity"
    parameters: tuple[float, ...] = ()

    def __call__(self, probabilities: Floats) -> Floats:
        """Map raw probabilities of shape (n,) to calibrated ones."""
        match self.method:
            case "identity":
                return probabilities
            case "temperature":
                return _sigmoid(_logit(probabilities) / self.parameters[0])
            case "platt":
                slope, intercept = self.parameters
                return _sigmoid(slope * _logit(probabilities) + intercept)
            case "isotonic":
                half = len(self.parameters) // 2
                return np.interp(probabilities, self.parameters[:half], self.parameters[half:])
        raise ValueError(f"unknown calibration method {self.method!r}")


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one label on validation at falling thresholds."""

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    positives: int


@dataclass(frozen=True)
class Decision:
    """Everything that turns raw probabilities into label sets for one trained classifier."""

    names: tuple[str, ...]
    multi_label: bool
    calibrators: tuple[Calibrator, ...]
    curves: tuple[Curve, ...]
    operating_point: str = MAX_F1
    band: float = 0.1

    def calibrate(self, raw: Floats) -> Floats:
        """Return calibrated probabilities of shape (n, labels)."""
        calibrated = np.column_stack(
            [calibrator(raw[:, i]) for i, calibrator in enumerate(self.calibrators)]
        )
        if not self.multi_label:
            calibrated = _normalised(calibrated)
        return calibrated

    def thresholds(self, point: str | None = None) -> Floats:
        """Return the threshold of every label at an operating point, shape (labels,).

        Args:
            point: `max_f1`, `precision@X` or `recall@X` with 0 < X <= 1; the decision's own when
                omitted.

        Raises:
            UserError: the point is unknown, or validation cannot support it.
        """
        point = point or self.operating_point
        if not self.multi_label:
            if point != MAX_F1:
                raise UserError(
                    f"operating point {point!r}: a single-label codebook takes the most probable "
                    f"label, only {MAX_F1!r} applies"
                )
            return np.full(len(self.names), np.nan)
        return np.array(
            [
                _threshold(curve, point, name)
                for curve, name in zip(self.curves, self.names, strict=True)
            ]
        )

    def decide(self, calibrated: Floats, point: str | None = None) -> NDArray[np.int8]:
        """Return the predicted label sets as a 0/1 matrix of shape (n, labels)."""
        thresholds = self.thresholds(point)
        if self.multi_label:
            return (calibrated >= thresholds).astype(np.int8)
        predicted = np.zeros(calibrated.shape, dtype=np.int8)
        predicted[np.arange(len(calibrated)), calibrated.argmax(axis=1)] = 1
        return predicted

    def uncertain(self, calibrated: Floats, point: str | None = None) -> NDArray[np.bool_]:
        """Mark sentences for review, shape (n,).

        Multi-label: a probability lies within `band` of its threshold. Single-label: the two best
        labels lie within `band` of each other.
        """
        if self.multi_label:
            distance = np.abs(calibrated - self.thresholds(point)).min(axis=1)
            close: NDArray[np.bool_] = distance < self.band
            return close
        ordered = np.sort(calibrated, axis=1)
        margin: NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] < self.band
        return margin

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that `from_mapping` reads back."""
        return {
            "multi_label": self.multi_label,
            "operating_point": self.operating_point,
            "band": self.band,
            "labels": {
                name: {
                    "calibration": {"method": c.method, "parameters": list(c.parameters)},
                    "curve": {
                        "thresholds": list(curve.thresholds),
                        "precision": list(curve.precision),
                        "recall": list(curve.recall),
                        "positives": curve.positives,
                    },
                }
                for name, c, curve in zip(self.names, self.calibrators, self.curves, strict=True)
            },
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Decision":
        """Build a decision from the plain values of `to_mapping`."""
        labels = values["labels"]
        return cls(
            names=tuple(labels),
            multi_label=values["multi_label"],
            calibrators=tuple(
                Calibrator(v["calibration"]["method"], tuple(v["calibration"]["parameters"]))
                for v in labels.values()
            ),
            curves=tuple(
                Curve(
                    tuple(v["curve"]["thresholds"]),
                    tuple(v["curve"]["precision"]),
                    tuple(v["curve"]["recall"]),
                    # Models saved before this stood there have a cut for every positive, or fewer.
                    v["curve"].get("positives", len(v["curve"]["thresholds"])),
                )
                for v in labels.values()
            ),
            operating_point=values["operating_point"],
            band=values["band"],
        )


def fit_decision(
    raw: Floats,
    gold: NDArray[np.int8],
    groups: Sequence[str],
    codebook: Codebook,
    *,
    operating_point: str = MAX_F1,
    methods: Sequence[str] = METHODS,
    band: float = 0.1,
) -> Decision:
    """Fit calibration and curves on the validation split.

    Args:
        raw: the classifier's probabilities, shape (n, labels).
        gold: the gold labels, shape (n, labels).
        groups: the group of each row; folds of the cross-fitting keep groups whole.
        codebook: gives names and whether labels exclude each other.
        operating_point: the point that `decide` takes by default.
        methods: calibration methods to choose from; `identity` is always among them. Labels that
            exclude each other take `temperature` or none.
        band: half-width of the uncertain band, in probability.

    Raises:
        UserError: validation cannot support the operating point.
    """
    folds = _group_folds(groups)
    if codebook.multi_label:
        calibrators = tuple(
            _choose_calibrator(raw[:, i], gold[:, i], folds, methods) for i in range(gold.shape[1])
        )
    else:
        calibrators = (_choose_shared(raw, gold, folds, methods),) * gold.shape[1]
    decision = Decision(
        codebook.names, codebook.multi_label, calibrators, (), operating_point, band
    )
    calibrated = decision.calibrate(raw)
    curves = tuple(_curve(calibrated[:, i], gold[:, i]) for i in range(gold.shape[1]))
    decision = Decision(
        codebook.names, codebook.multi_label, calibrators, curves, operating_point, band
    )
    decision.thresholds()
    return decision


def check_operating_point(point: str) -> None:
    """Hold that an operating point is written as this module reads it.

    Raises:
        UserError: it is not `max_f1`, `precision@X` or `recall@X` with 0 < X <= 1.
    """
    _parse_point(point)


def _parse_point(point: str) -> tuple[str, float]:
    if point == MAX_F1:
        return MAX_F1, 0.0
    found = re.fullmatch(r"(precision|recall)@(0?\.\d+|1(?:\.0*)?)", point)
    if not found or float(found[2]) <= 0:
        raise UserError(
            f"operating point {point!r}: known are max_f1, precision@X and recall@X with 0 < X <= 1"
        )
    return found[1], float(found[2])


def _threshold(curve: Curve, point: str, name: str) -> float:
    what, wanted = _parse_point(point)
    if not curve.thresholds:
        raise UserError(f"operating point {point!r}: validation has no positive {name!r}")
    precision, recall = np.array(curve.precision), np.array(curve.recall)
    if what == MAX_F1:
        return _steady_max_f1(curve)
    reached = np.flatnonzero((precision if what == "precision" else recall) >= wanted)
    if not reached.size:
        best = float((precision if what == "precision" else recall).max())
        raise UserError(
            f"operating point {point!r}: on validation the label {name!r} reaches a {what} of "
            f"{best:.3f} at most"
        )
    # Cuts fall along the curve: the last one that holds the precision gives the most recall, the
    # first one that has a recall gives the most precision.
    least = recall[reached[-1]] if what == "precision" else wanted
    return curve.thresholds[int(np.flatnonzero(recall >= least)[0])]


def _steady_max_f1(curve: Curve) -> float:
    """Cut nearest to one half among the cuts whose F1 is within one standard error of the best.

    Where a model knows its own corpus well, F1 is flat over a wide range of cuts, and the highest
    point of the plateau is chance; on other text a cut in the middle does better. The rule is that
    of Breiman et al. (1984), section 3.4.3, for choosing among equals.
    """
    precision, recall = np.array(curve.precision), np.array(curve.recall)
    f1 = 2 * precision * recall / np.maximum(precision + recall, _EPSILON)
    best = float(f1.max())
    error = np.sqrt(best * (1 - best) / curve.positives)
    admissible = np.array(curve.thresholds)[f1 >= best - error]
    return float(admissible[np.abs(admissible - _HALF).argmin()])


def _curve(probabilities: Floats, gold: NDArray[np.int8]) -> Curve:
    positives = int(gold.sum())
    if not positives:
        return Curve((), (), (), 0)
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    hits = np.cumsum(gold[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    # A cut halfway to the next lower score decides alike on validation and is furthest from both.
    cuts = (ranked[ends] + np.append(ranked[ends[1:]], 0.0)) / 2
    # Only where recall rises is a lower cut worth taking; one half is what `max_f1` asks for first.
    points = [
        (float(cut), int(end) + 1)
        for cut, end, rise in zip(cuts, ends, np.diff(hits[ends], prepend=0) > 0, strict=True)
        if rise
    ]
    said = int((ranked >= _HALF).sum())
    if said and hits[said - 1]:
        points.append((_HALF, said))
    points.sort(reverse=True)
    return Curve(
        tuple(cut for cut, _ in points),
        tuple(float(hits[rows - 1] / rows) for _, rows in points),
        tuple(float(hits[rows - 1] / positives) for _, rows in points),
        positives,
    )


def _choose_calibrator(
    raw: Floats, gold: NDArray[np.int8], folds: NDArray[np.int64], methods: Sequence[str]
) -> Calibrator:
    positives = int(gold.sum())
    if min(positives, len(gold) - positives) < MIN_POSITIVES or folds.max() == 0:
        return Calibrator()
    best, lowest = "identity", float(np.mean((raw - gold) ** 2))
    for method in methods:
        if method == "identity":
            continue
        crossed = _cross_fitted(partial(_fit_calibrator, method), raw, gold, folds)
        brier = float(np.mean((crossed - gold) ** 2))
        if brier < lowest:
            best, lowest = method, brier
    return _fit_calibrator(best, raw, gold)


def _cross_fitted(
    fit: Callable[[Floats, NDArray[np.int8]], Calibrator],
    raw: Floats,
    gold: NDArray[np.int8],
    folds: NDArray[np.int64],
) -> Floats:
    """Map the rows of each fold by what is fitted on the other folds."""
    crossed = np.empty_like(raw)
    for fold in range(folds.max() + 1):
        inside = folds == fold
        crossed[inside] = fit(raw[~inside], gold[~inside])(raw[inside])
    return crossed


def _choose_shared(
    raw: Floats, gold: NDArray[np.int8], folds: NDArray[np.int64], methods: Sequence[str]
) -> Calibrator:
    """Choose one map for labels that exclude each other, by the Brier score of whole rows."""
    if "temperature" not in methods or folds.max() == 0:
        return Calibrator()
    crossed = _normalised(_cross_fitted(_fit_shared, raw, gold, folds))
    if np.mean((crossed - gold) ** 2) < np.mean((_normalised(raw) - gold) ** 2):
        return _fit_shared(raw, gold)
    return Calibrator()


def _fit_shared(raw: Floats, gold: NDArray[np.int8]) -> Calibrator:
    """Fit a temperature to the likelihood of the gold labels, after normalising."""
    from scipy.optimize import minimize_scalar

    logits, held = _logit(raw), gold.astype(bool)

    def loss(log_temperature: float) -> float:
        rows = _normalised(_sigmoid(logits / np.exp(log_temperature)))
        return -float(np.mean(np.log(np.maximum(rows[held], _TINY))))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
    return Calibrator("temperature", (float(np.exp(found)),))


def _normalised(rows: Floats) -> Floats:
    sums: Floats = rows.sum(axis=1, keepdims=True)
    return rows / np.maximum(sums, _TINY)


def _fit_calibrator(method: str, raw: Floats, gold: NDArray[np.int8]) -> Calibrator:
    from scipy.optimize import minimize, minimize_scalar

    if method == "identity" or gold.min() == gold.max():
        return Calibrator()
    logits = _logit(raw)
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        # Clipped away from 0 and 1: a finite sample never proves certainty.
        floor = 1 / (len(gold) + 2)
        fitted = IsotonicRegression(y_min=floor, y_max=1 - floor).fit(raw, gold)
        knots = [*map(float, fitted.X_thresholds_), *map(float, fitted.y_thresholds_)]
        return Calibrator("isotonic", tuple(knots))

    def loss(slope: float, intercept: float) -> float:
        scores = slope * logits + intercept
        return float(np.mean(np.logaddexp(0.0, scores) - gold * scores))

    if method == "temperature":
        log_temperature = minimize_scalar(
            lambda t: loss(float(np.exp(-t)), 0.0), bounds=(-3, 3), method="bounded"
        ).x
        return Calibrator("temperature", (float(np.exp(log_temperature)),))
    if method == "platt":
        # The slope is fitted as an exponential, so that the map stays increasing.
        found = minimize(lambda w: loss(float(np.exp(w[0])), float(w[1])), np.zeros(2)).x
        return Calibrator("platt", (float(np.exp(found[0])), float(found[1])))
    raise UserError(f"unknown calibration method {method!r}; known are {', '.join(METHODS)}")


def _group_folds(groups: Sequence[str]) -> NDArray[np.int64]:
    """Deal groups to folds at random, the same way every time."""
    names, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    folds: NDArray[np.int64] = np.random.default_rng(0).permutation(len(names)) % min(
        _FOLDS, len(names)
    )
    return folds[index]


def _logit(probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def _sigmoid(logits: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return values
