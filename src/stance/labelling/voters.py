"""Who has a say about a sentence: the codebook's cue rules, a trained model, an entailment model.

Each voter answers yes or no to a label, or is silent. A rule says yes where its cue counts, no
where its cue stands and is blocked, and is silent elsewhere; a model is silent near its threshold.
Reports show every rule by itself, but to the label model the rules of a label speak with one voice:
they were written to cover what the others leave out, and are anything but independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.corpus.examples import decode_labels
from stance.cues import CueMatcher
from stance.labelling.aggregate import NO, SILENT, YES, LabelModel, Votes, fit_label_model
from stance.model import StanceModel

_BATCH = 4096
EVEN = 0.5


@dataclass(frozen=True)
class Ballot:
    """What one kind of voter says of n sentences.

    `voters` and `labels` name the columns of `votes`, shape (n, columns): who speaks, and about
    which label. `probabilities` has shape (n, codebook labels) where the voter gives any.
    """

    voters: tuple[str, ...]
    labels: tuple[str, ...]
    rules: tuple[int | None, ...]
    votes: Votes
    probabilities: NDArray[np.float64] | None = None

    def on(self, label: str) -> Votes:
        """Return this voter's answer about one label, shape (n,): any yes, else any no."""
        votes = self.votes[:, [column for column, name in enumerate(self.labels) if name == label]]
        answer = np.full(len(votes), SILENT, dtype=np.int8)
        answer[(votes == NO).any(axis=1)] = NO
        answer[(votes == YES).any(axis=1)] = YES
        return answer


class Voter(Protocol):
    """What the label model asks of a voter."""

    def vote(self, texts: Sequence[str]) -> Ballot:
        """Say yes or no to labels of sentences, or be silent."""

    def evidence(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Return for every sentence what a reader should know of this voter's answers."""


class CueVoters:
    """The codebook's cue rules, each one a voter on its own label."""

    def __init__(self, codebook: Codebook) -> None:
        """Compile the rules."""
        self._matcher = CueMatcher(codebook)
        rules = [(label.name, cue) for label in codebook.labels for cue in label.cues]
        self._column = {(label, cue.name): column for column, (label, cue) in enumerate(rules)}
        self._voters = tuple(f"cue:{label}/{cue.name}" for label, cue in rules)
        self._labels = tuple(label for label, _ in rules)
        self._rules = tuple(cue.rule for _, cue in rules)

    def vote(self, texts: Sequence[str]) -> Ballot:
        """Say yes where a cue counts, no where it stands and is blocked."""
        votes = np.full((len(texts), len(self._voters)), SILENT, dtype=np.int8)
        for row, text in enumerate(texts):
            for cue in self._matcher.find(text):
                column = self._column[cue.label, cue.name]
                if cue.blocked is None:
                    votes[row, column] = YES
                elif votes[row, column] == SILENT:
                    votes[row, column] = NO
        return Ballot(self._voters, self._labels, self._rules, votes)

    def evidence(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Return the cues of every sentence: label, rule, span, and why one does not count."""
        return [
            [
                {
                    "voter": f"cue:{cue.label}/{cue.name}",
                    "label": cue.label,
                    "vote": "no" if cue.blocked else "yes",
                    "rule": cue.rule,
                    "start": cue.start,
                    "end": cue.end,
                    "text": cue.text,
                    "blocked": cue.blocked,
                }
                for cue in self._matcher.find(text)
            ]
            for text in texts
        ]


class ScoringVoter:
    """A voter that gives every label a probability: silent within a band around its thresholds.

    Args:
        name: of the voter, as reports show it.
        codebook: the labels.
        score: returns probabilities of shape (n, labels), NaN for a label it knows nothing of.
        low: below this it says no, shape (labels,).
        high: from this on it says yes, shape (labels,).
        margins: whether both are of a label's lead over the best of the others, as in a
            single-label codebook, and not of its probability.
    """

    def __init__(
        self,
        name: str,
        codebook: Codebook,
        score: Callable[[Sequence[str]], NDArray[np.float64]],
        *,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        margins: bool = False,
    ) -> None:
        """Keep the settings."""
        self._name, self._codebook, self._score = name, codebook, score
        self._low, self._high, self._margins = low, high, margins

    def vote(self, texts: Sequence[str]) -> Ballot:
        """Say yes or no where the probability is clear."""
        probabilities = self._probabilities(texts)
        votes = self._votes(probabilities)
        names = self._codebook.names
        return Ballot((self._name,) * len(names), names, (None,) * len(names), votes, probabilities)

    def evidence(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Return the yeses, and the silences of a voter in doubt, with their probabilities."""
        probabilities = self._probabilities(texts)
        votes = self._votes(probabilities)
        words = {YES: "yes", SILENT: "silent"}
        return [
            [
                {
                    "voter": self._name,
                    "label": label,
                    "vote": words[vote],
                    "probability": round(float(p), 4),
                }
                for label, p, vote in zip(self._codebook.names, row, answers, strict=True)
                if vote != NO and not np.isnan(p)
            ]
            for row, answers in zip(probabilities, votes.tolist(), strict=True)
        ]

    def _probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        parts = [self._score(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
        return np.vstack(parts) if parts else np.empty((0, len(self._codebook.names)))

    def _votes(self, probabilities: NDArray[np.float64]) -> Votes:
        clear = _leads(probabilities) if self._margins else probabilities
        votes = np.full(probabilities.shape, SILENT, dtype=np.int8)
        votes[clear >= self._high] = YES
        votes[clear < self._low] = NO
        return votes


def _leads(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each label lies above the best of the others, shape (n, labels)."""
    second, best = np.sort(probabilities, axis=1)[:, -2:].T[:, :, np.newaxis]
    leads: NDArray[np.float64] = probabilities - np.where(probabilities < best, best, second)
    return leads


def model_voter(model: StanceModel) -> ScoringVoter:
    """Let a trained model vote; it is silent where it calls itself uncertain."""
    single = not model.codebook.multi_label
    thresholds = np.zeros(len(model.codebook.names)) if single else model.decision.thresholds()
    band = model.decision.band
    return ScoringVoter(
        f"model:{model.name}",
        model.codebook,
        model.probabilities,
        low=thresholds - band,
        high=np.minimum(thresholds + band, 1.0),
        margins=single,
    )


@dataclass(frozen=True)
class Suggestions:
    """The label models over all ballots, and what they make of n sentences.

    `probabilities` has shape (n, labels).
    """

    codebook: Codebook
    ballots: tuple[Ballot, ...]
    models: tuple[LabelModel, ...]
    probabilities: NDArray[np.float64]

    @property
    def label_sets(self) -> list[tuple[str, ...]]:
        """The label set that is suggested for every sentence."""
        if self.codebook.multi_label:
            return decode_labels(self.probabilities >= EVEN, self.codebook)
        chosen = np.zeros(self.probabilities.shape, dtype=np.int8)
        chosen[np.arange(len(chosen)), self.probabilities.argmax(axis=1)] = 1
        return decode_labels(chosen, self.codebook)

    @property
    def disagreement(self) -> NDArray[np.float64]:
        """How evenly voters are split over some label, from 0 to 1, shape (n,)."""
        result = np.zeros(len(self.probabilities))
        for label in self.codebook.names:
            votes = votes_on(self.ballots, label)
            yes, no = (votes == YES).sum(axis=1), (votes == NO).sum(axis=1)
            result = np.maximum(result, 4 * yes * no / np.maximum(yes + no, 1) ** 2)
        return result


def votes_on(ballots: Sequence[Ballot], label: str) -> Votes:
    """Return the answers about one label, shape (n, ballots)."""
    return np.column_stack([ballot.on(label) for ballot in ballots])


def suggest(
    ballots: Sequence[Ballot], codebook: Codebook, models: Sequence[LabelModel] = ()
) -> Suggestions:
    """Combine the votes by one label model for each label, fitted on them where none are given."""
    votes = [votes_on(ballots, label) for label in codebook.names]
    models = models or [fit_label_model(said) for said in votes]
    probabilities = np.column_stack(
        [model.probabilities(said) for model, said in zip(models, votes, strict=True)]
    )
    if not codebook.multi_label:
        probabilities /= np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-9)
    return Suggestions(codebook, tuple(ballots), tuple(models), probabilities)
