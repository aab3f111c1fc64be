"""Scores match scikit-learn and numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
)

from stance.evaluation import plots
from stance.evaluation.metrics import (
    Judged,
    point_scores,
    resample_weights,
    resampled_scores,
    score,
)

NAMES = ("a", "b", "c")


def judged(rows: int = 400, seed: int = 0) -> Judged:
    generator = np.random.default_rng(seed)
    gold = (generator.random((rows, 3)) < (0.1, 0.3, 0.6)).astype(np.int8)
    noise = generator.random((rows, 3))
    probabilities = np.round(np.clip(0.5 * gold + 0.6 * noise, 0, 1), 2)
    predicted = (probabilities >= 0.55).astype(np.int8)
    return Judged(gold, probabilities, predicted, [str(i // 5) for i in range(rows)], NAMES)


def test_scores_agree_with_scikit_learn() -> None:
    j = judged()
    scores = point_scores(j)
    for column, name in enumerate(NAMES):
        gold, said, p = j.gold[:, column], j.predicted[:, column], j.probabilities[:, column]
        assert scores[f"precision/{name}"] == pytest.approx(precision_score(gold, said))
        assert scores[f"recall/{name}"] == pytest.approx(recall_score(gold, said))
        assert scores[f"f1/{name}"] == pytest.approx(f1_score(gold, said))
        assert scores[f"average_precision/{name}"] == pytest.approx(
            average_precision_score(gold, p)
        )
        assert scores[f"brier/{name}"] == pytest.approx(brier_score_loss(gold, p))
    for average in ("macro", "micro"):
        assert scores[f"f1_{average}"] == pytest.approx(
            f1_score(j.gold, j.predicted, average=average)
        )
        assert scores[f"average_precision_{average}"] == pytest.approx(
            average_precision_score(j.gold, j.probabilities, average=average)
        )
    assert scores["hamming_loss"] == pytest.approx(hamming_loss(j.gold, j.predicted))


def test_hand_computed_case() -> None:
    gold = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.int8)
    probabilities = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3], [0.1, 0.1]])
    predicted = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=np.int8)
    scores = point_scores(Judged(gold, probabilities, predicted, list("wxyz"), ("a", "b")))
    assert scores["precision/a"] == 0.5
    assert scores["recall/a"] == 0.5
    assert scores["precision/b"] == 1.0
    assert scores["recall/b"] == 0.5
    assert scores["f1_macro"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert scores["exact_match"] == 0.5
    assert scores["label_cardinality"] == 0.75
    assert scores["label_cardinality_gold"] == 1.0
    # Label a: ranks 0.9 (hit), 0.6 (miss), 0.4 (hit): (1 + 2/3) / 2.
    assert scores["average_precision/a"] == pytest.approx((1 + 2 / 3) / 2)
    # Each probability of a has a bin of its own: |.9-1| + |.4-1| + |.6-0| + |.1-0|, over four.
    assert scores["ece/a"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)


def test_resampling_draws_as_many_groups_as_there_are_each_as_often_as_any_other() -> None:
    weights = np.concatenate(list(resample_weights(6, 3000, seed=3)))
    assert weights.shape == (3000, 6)
    assert (weights.sum(axis=1) == 6).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.06)
    assert weights.var(axis=0) == pytest.approx(np.full(6, 5 / 6), abs=0.08)


@pytest.mark.parametrize("size", [1, 5])
def test_a_resample_scores_as_its_rows_written_out_would(size: int) -> None:
    """Group weights are a short way to say which rows stand in a resample, and how often."""
    j = judged(rows=120, seed=4)
    j = Judged(j.gold, j.probabilities, j.predicted, [str(i // size) for i in range(120)], j.names)
    drawn = resampled_scores(j, resamples=3, seed=9)
    groups, index = j.group_index
    for number, weights in enumerate(next(iter(resample_weights(groups, 3, seed=9)))):
        rows = np.repeat(np.arange(120), weights[index].astype(int))
        written = Judged(
            j.gold[rows],
            j.probabilities[rows],
            j.predicted[rows],
            [str(row) for row in range(len(rows))],
            j.names,
        )
        for name, value in point_scores(written).items():
            assert drawn[name][number] == pytest.approx(value), name


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Rows of one document err together; intervals that resample rows would cover far less."""
    generator = np.random.default_rng(1)
    covered = {"documents": 0, "rows": 0}
    draws = 200
    for _ in range(draws):
        hard = np.repeat(generator.beta(2, 2, size=60), 8)  # expected accuracy 0.5
        gold = np.ones((480, 1), dtype=np.int8)
        predicted = (generator.random((480, 1)) < hard[:, None]).astype(np.int8)
        for what, groups in (
            ("documents", [str(i // 8) for i in range(480)]),
            ("rows", [str(i) for i in range(480)]),
        ):
            found = score(Judged(gold, predicted * 1.0, predicted, groups, ("a",)), resamples=300)[
                "exact_match"
            ]
            covered[what] += found.low <= 0.5 <= found.high
    assert 0.90 <= covered["documents"] / draws <= 0.985
    assert covered["rows"] / draws < 0.88


def test_the_interval_of_a_calibration_error_holds_it() -> None:
    """Resampling lifts the error of well-calibrated probabilities: percentiles lie too high."""
    generator = np.random.default_rng(0)
    probabilities = generator.random((2000, 1))
    gold = (generator.random((2000, 1)) < probabilities).astype(np.int8)
    j = Judged(gold, probabilities, gold, [str(i) for i in range(2000)], ("a",))
    found = score(j, resamples=300)["ece/a"]
    drawn = resampled_scores(j, resamples=300, seed=0)["ece/a"]
    assert np.median(drawn) > found.value
    assert found.high - found.value == pytest.approx(found.value - found.low)


def test_intervals_hold_the_value_and_widen_when_groups_are_larger() -> None:
    j = judged()
    narrow = score(
        Judged(j.gold, j.probabilities, j.predicted, [str(i) for i in range(400)], NAMES)
    )
    wide = score(
        Judged(
            np.repeat(j.gold[:80], 5, axis=0),
            np.repeat(j.probabilities[:80], 5, axis=0),
            np.repeat(j.predicted[:80], 5, axis=0),
            [str(i // 5) for i in range(400)],
            NAMES,
        )
    )
    for scores in (narrow, wide):
        assert scores["f1_macro"].low < scores["f1_macro"].value < scores["f1_macro"].high
    assert (
        wide["f1_macro"].high - wide["f1_macro"].low
        > narrow["f1_macro"].high - narrow["f1_macro"].low
    )


@pytest.mark.parametrize("claimed", [0, 1])
def test_a_label_without_positives_has_no_f1_and_leaves_the_means(claimed: int) -> None:
    j = judged()
    gold = j.gold.copy()
    gold[:, 0] = 0
    predicted = j.predicted.copy()
    predicted[:, 0] = claimed
    scores = point_scores(Judged(gold, j.probabilities, predicted, j.groups, NAMES))
    assert "f1/a" not in scores
    for metric in ("f1", "precision", "recall", "average_precision"):
        of_two = (scores[f"{metric}/b"] + scores[f"{metric}/c"]) / 2
        assert scores[f"{metric}_macro"] == pytest.approx(of_two)


def test_rows_with_one_score_are_one_step_of_the_precision_recall_curve() -> None:
    gold = np.array([[1], [0], [1], [0]], dtype=np.int8)
    probabilities = np.array([[0.9], [0.5], [0.5], [0.5]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        rows = Judged(gold[order], probabilities[order], gold[order], list("wxyz"), ("a",))
        curve = plots.precision_recall(rows).axes[0].lines[0].get_xydata()
        assert np.asarray(curve).tolist() == [[0.5, 1.0], [1.0, 0.5]]


def test_the_same_seed_gives_the_same_intervals() -> None:
    assert score(judged(), seed=5) == score(judged(), seed=5)
