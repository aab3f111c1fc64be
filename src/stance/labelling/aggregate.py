"""Combine voters that are often wrong: a Dawid-Skene model for every label, without gold.

Dawid and Skene (1979) estimate each voter's confusion matrix and the true labels together, by
expectation-maximisation. Here a voter's silence is an answer too: a cue rule that only ever says
yes tells something by not firing, and a model that took its silence for a missing answer would find
every sentence positive. A voter who was not asked is missing, and missing answers tell nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO, YES, SILENT = 0, 1, 2
MISSING = -1

Votes = NDArray[np.int8]
"""Array of shape (n, voters) of NO, YES, SILENT and MISSING, about one label."""

_ANSWERS = 3
_LEANING = np.array([[1.0, 0.1, 1.0], [0.4, 4.0, 1.0]])
"""Before any vote is seen, a yes is held forty times as likely where the label applies, and a no
less than half as likely: without that, a voter who is alone would teach the model nothing."""
_PRIOR_WEIGHT, _PRIOR_SHARE = 10.0, 0.02
"""The leaning is held as firmly as so many sentences, and this share of all, would teach it."""
_CLASS_PRIOR = (1.0, 3.0)
"""Beta prior of the share of positives: labels are rather rare."""
_ROUNDS = 200
_SETTLED = 1e-6
_FLOOR = 1e-9


@dataclass(frozen=True)
class LabelModel:
    """What was learnt about one label's voters.

    `rate` is the share of sentences that bear the label; `answers` has shape (voters, 2, 3): the
    probability of each answer of each voter where the label does not apply, and where it does.
    """

    rate: float
    answers: NDArray[np.float64]

    def probabilities(self, votes: Votes) -> NDArray[np.float64]:
        """Return the probability of the label for every row of votes, shape (n,)."""
        log_odds = np.full(len(votes), np.log(self.rate) - np.log1p(-self.rate))
        for voter, (without, with_) in enumerate(self.answers):
            weights = np.append(np.log(with_) - np.log(without), 0.0)  # the last for MISSING
            log_odds += weights[votes[:, voter]]
        result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))
        return result

    def accuracies(self) -> NDArray[np.float64]:
        """Return how often each voter is right when it speaks, shape (voters,)."""
        without, with_ = self.answers[:, 0], self.answers[:, 1]
        right = (1 - self.rate) * without[:, NO] + self.rate * with_[:, YES]
        wrong = (1 - self.rate) * without[:, YES] + self.rate * with_[:, NO]
        result: NDArray[np.float64] = right / np.maximum(right + wrong, _FLOOR)
        return result


def fit_label_model(votes: Votes) -> LabelModel:
    """Learn how far each voter of one label can be trusted, from the votes alone."""
    patterns, counts = _patterns(votes)
    anchors = _anchors(patterns, counts)
    spoken_for = ((patterns == YES).sum(axis=1) > (patterns == NO).sum(axis=1)).astype(float)
    model = LabelModel(_rate(spoken_for, counts), _normalised(anchors))
    positive = model.probabilities(patterns)
    for _ in range(_ROUNDS):
        totals = anchors.copy()
        for answer in (NO, YES, SILENT):
            given = (patterns == answer).astype(float)
            totals[:, 0, answer] += ((1 - positive) * counts) @ given
            totals[:, 1, answer] += (positive * counts) @ given
        model = LabelModel(_rate(positive, counts), _normalised(totals))
        before, positive = positive, model.probabilities(patterns)
        if np.abs(positive - before).max(initial=0.0) < _SETTLED:
            break
    return model


def _patterns(votes: Votes) -> tuple[Votes, NDArray[np.float64]]:
    """Return the different rows of votes and how often each stands there."""
    if not len(votes):
        return votes, np.empty(0)
    rows = np.ascontiguousarray(votes)
    packed = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
    _, first, counts = np.unique(packed, return_index=True, return_counts=True)
    return rows[first], counts.astype(float)


def _anchors(patterns: Votes, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return pseudo-counts of every voter's answers, shape (voters, 2, 3)."""
    shares = np.stack([counts @ (patterns == answer) for answer in range(_ANSWERS)], axis=1)
    shares = (shares + 0.5) / (shares + 0.5).sum(axis=1, keepdims=True)
    weight = _PRIOR_WEIGHT + _PRIOR_SHARE * counts.sum()
    anchors: NDArray[np.float64] = weight * _normalised(shares[:, np.newaxis, :] * _LEANING)
    return anchors


def _rate(positive: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    with_, without = _CLASS_PRIOR
    return float((positive @ counts + with_) / (counts.sum() + with_ + without))


def _normalised(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = totals / totals.sum(axis=-1, keepdims=True)
    return shares
