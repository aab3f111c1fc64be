"""Calibration, thresholds and operating points, fitted on validation."""

import json

import numpy as np
import pytest

from stance.codebook import Codebook
from stance.decision import METHODS, Calibrator, Decision, fit_decision
from stance.errors import UserError


def overconfident(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return probabilities whose logits are twice too large, with gold drawn from the true ones."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.5, size=(rows, 2))
    gold = (generator.random((rows, 2)) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    return 1 / (1 + np.exp(-2 * logits)), gold, [str(i // 4) for i in range(rows)]


def test_calibration_lowers_the_brier_score_on_new_data(codebook: Codebook) -> None:
    raw, gold, groups = overconfident(1200)
    decision = fit_decision(raw, gold, groups, codebook)
    fresh, truth, _ = overconfident(4000, seed=1)
    assert np.mean((decision.calibrate(fresh) - truth) ** 2) < np.mean((fresh - truth) ** 2)


def test_well_calibrated_probabilities_are_left_nearly_alone(codebook: Codebook) -> None:
    generator = np.random.default_rng(0)
    raw = generator.random((2000, 2))
    gold = (generator.random((2000, 2)) < raw).astype(np.int8)
    decision = fit_decision(raw, gold, [str(i) for i in range(2000)], codebook)
    assert np.abs(decision.calibrate(raw) - raw).mean() < 0.03


def test_few_positives_do_not_support_a_map(codebook: Codebook) -> None:
    raw, gold, groups = overconfident(60)
    gold[:, 0] = 0
    gold[:5, 0] = 1
    decision = fit_decision(raw, gold, groups, codebook)
    assert decision.calibrators[0].method == "identity"


@pytest.mark.parametrize("method", METHODS)
def test_every_map_is_monotone_and_stays_a_probability(codebook: Codebook, method: str) -> None:
    raw, gold, groups = overconfident(600)
    decision = fit_decision(raw, gold, groups, codebook, methods=[method])
    grid = np.linspace(0, 1, 101)
    for calibrator in decision.calibrators:
        mapped = calibrator(grid)
        assert (np.diff(mapped) >= -1e-12).all()
        assert mapped.min() >= 0
        assert mapped.max() <= 1


def test_max_f1_lies_within_a_standard_error_of_the_best_and_nearest_to_one_half(
    codebook: Codebook,
) -> None:
    raw, gold, groups = overconfident(800)
    decision = fit_decision(raw, gold, groups, codebook)
    calibrated = decision.calibrate(raw)

    def f1(column: int, cut: float) -> float:
        said = calibrated[:, column] >= cut
        positive = gold[:, column]
        return float(2 * (said & (positive == 1)).sum() / (said.sum() + positive.sum()))

    for column, threshold in enumerate(decision.thresholds()):
        best = max(f1(column, cut) for cut in np.unique(calibrated[:, column]))
        error = np.sqrt(best * (1 - best) / gold[:, column].sum())
        assert f1(column, threshold) >= best - 1.2 * error
        closer = threshold + (0.5 - threshold) / 2
        assert threshold == 0.5 or f1(column, closer) < best - 0.5 * error


def test_ties_do_not_widen_the_standard_error(codebook: Codebook) -> None:
    """Of 12 positives 6 score 0.9 alone, 5 share 0.55 with 30 negatives, 1 scores nought."""
    scores = np.repeat([0.9, 0.55, 0.0], [6, 35, 59])
    positive = np.zeros(100, dtype=np.int8)
    positive[[*range(11), 99]] = 1
    raw, gold = np.column_stack([scores, scores]), np.column_stack([positive, positive])
    decision = fit_decision(raw, gold, list(map(str, range(100))), codebook, methods=())
    assert decision.thresholds() == pytest.approx([0.725, 0.725])


def test_a_cut_of_one_half_is_taken_where_only_negatives_lie_below_the_best(
    codebook: Codebook,
) -> None:
    """Forty positives score 0.9 and one scores nought; of 60 negatives one scores 0.7."""
    scores = np.repeat([0.9, 0.7, 0.1, 0.0], [40, 1, 58, 2])
    positive = np.zeros(101, dtype=np.int8)
    positive[[*range(40), 100]] = 1
    raw, gold = np.column_stack([scores, scores]), np.column_stack([positive, positive])
    decision = fit_decision(raw, gold, list(map(str, range(101))), codebook, methods=())
    assert decision.thresholds() == pytest.approx([0.5, 0.5])
    assert decision.thresholds("precision@0.9") == pytest.approx([0.8, 0.8])
    assert decision.thresholds("recall@0.9") == pytest.approx([0.8, 0.8])


def test_operating_points_hold_what_they_promise(codebook: Codebook) -> None:
    raw, gold, groups = overconfident(800)
    decision = fit_decision(raw, gold, groups, codebook)
    calibrated = decision.calibrate(raw)
    precise = decision.decide(calibrated, "precision@0.8")
    complete = decision.decide(calibrated, "recall@0.95")
    for column in range(2):
        assert gold[:, column][precise[:, column] == 1].mean() >= 0.8
        assert complete[:, column][gold[:, column] == 1].mean() >= 0.95
        assert complete[:, column].sum() > precise[:, column].sum()


def test_an_unsupported_point_is_refused_with_the_reason(codebook: Codebook) -> None:
    generator = np.random.default_rng(0)
    raw = generator.random((300, 2))
    gold = (generator.random((300, 2)) < 0.2).astype(np.int8)
    raw[0] = 0.999
    gold[0] = 0
    decision = fit_decision(raw, gold, [str(i) for i in range(300)], codebook, methods=["identity"])
    with pytest.raises(UserError, match="'praise' reaches a precision of 0"):
        decision.thresholds("precision@0.99")


@pytest.mark.parametrize("point", ["f1", "precision@2", "recall@0", "precision@", "max_f2"])
def test_misspelt_points_are_refused(codebook: Codebook, point: str) -> None:
    raw, gold, groups = overconfident(200)
    with pytest.raises(UserError, match="operating point"):
        fit_decision(raw, gold, groups, codebook, operating_point=point)


def test_the_uncertain_band_surrounds_the_threshold(codebook: Codebook) -> None:
    raw, gold, groups = overconfident(400)
    decision = fit_decision(raw, gold, groups, codebook, methods=["identity"], band=0.05)
    first, second = decision.thresholds()
    rows = np.array([[first + 0.04, 0.0], [first + 0.06, 1.0], [0.0, second - 0.04]])
    assert decision.uncertain(rows).tolist() == [True, False, True]


def test_a_decision_survives_json(codebook: Codebook) -> None:
    raw, gold, groups = overconfident(400)
    decision = fit_decision(raw, gold, groups, codebook)
    again = Decision.from_mapping(json.loads(json.dumps(decision.to_mapping())))
    assert again == decision
    assert (again.calibrate(raw) == decision.calibrate(raw)).all()


def test_single_label_takes_the_most_probable_label(single_codebook: Codebook) -> None:
    raw = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.34, 0.33, 0.33]] * 20)
    gold = np.eye(3, dtype=np.int8)[[0, 2, 1] * 20]
    decision = fit_decision(raw, gold, [str(i) for i in range(60)], single_codebook)
    calibrated = decision.calibrate(raw)
    assert calibrated.sum(axis=1) == pytest.approx(1.0)
    assert decision.decide(calibrated)[:2].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert decision.uncertain(calibrated)[2]
    with pytest.raises(UserError, match="single-label"):
        decision.thresholds("recall@0.9")


def test_single_label_probabilities_sum_to_one_however_sharp_the_map(
    single_codebook: Codebook,
) -> None:
    raw = np.tile([[1e-5, 3e-5, 2e-5], [0.97, 0.01, 0.02]], (30, 1))
    gold = np.eye(3, dtype=np.int8)[[1, 0] * 30]
    decision = fit_decision(raw, gold, [str(i) for i in range(60)], single_codebook)
    calibrated = decision.calibrate(raw)
    assert calibrated.sum(axis=1) == pytest.approx(1.0)
    assert (calibrated.argmax(axis=1) == raw.argmax(axis=1)).all()


def test_single_label_temperature_is_that_of_the_normalised_rows(
    single_codebook: Codebook,
) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, size=(3000, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = np.eye(3, dtype=np.int8)[[generator.choice(3, p=row) for row in true]]
    flat = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    groups = [str(i) for i in range(3000)]

    def nll(decision: Decision) -> float:
        return -float(np.log(decision.calibrate(flat)[gold == 1]).mean())

    fitted = fit_decision(flat, gold, groups, single_codebook)
    others = [
        Decision(fitted.names, False, (Calibrator("temperature", (t,)),) * 3, ())
        for t in np.linspace(0.2, 2, 40)
    ]
    assert nll(fitted) <= min(map(nll, others)) + 1e-4
    kept = fit_decision(flat, gold, groups, single_codebook, methods=["identity"])
    assert {calibrator.method for calibrator in kept.calibrators} == {"identity"}


def test_an_unknown_map_is_a_defect() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Calibrator("magic")(np.array([0.5]))
