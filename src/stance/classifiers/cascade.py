"""A cheap first stage that settles the sentences which surely carry no label.

Most news sentences carry none. A linear model over words, word pairs, runs of four characters and
cue rules tells in some hundred microseconds which of them need no encoder; only the rest reach it.
Which score is low enough is chosen on validation, see `stance.exports`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import CueMatcher
from stance.errors import UserError
from stance.text.normalize import normalize

FILE = "first-stage.json"

_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_FEWEST = 2
"""Sentences in which a word or pair must stand to be learnt."""
_RUN = 4
_FEWEST_RUNS = 3
"""Characters in a run, and sentences in which a run must stand to be learnt."""
_CUE = 0.5
"""What a cue rule counts; all words of a sentence together have length one, and all runs."""
_STRENGTH = 3.0
"""Inverse of the regularisation."""
_DIGITS = 5


Grams = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class FirstStage:
    """Scores how much a sentence looks as if it carried any label.

    `words` and `runs` have two numbers for every known word or pair, and every known run of
    characters: its squared inverse document frequency and its weight. `weights` has those of cues
    and of the constant. Sentences that score below `cutoff` are settled; `rates` then are their
    probabilities, one per label, as seen on validation.
    """

    matcher: CueMatcher
    words: Grams
    runs: Grams
    weights: Mapping[str, float]
    cutoff: float = -math.inf
    rates: tuple[float, ...] = ()

    def settled(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Say which sentences surely carry no label, shape (n,)."""
        return self.scores(texts) < self.cutoff

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return log odds that sentences carry any label, shape (n,)."""
        return np.array([self._score(normalize(text)) for text in texts], dtype=np.float64)

    def _score(self, text: str) -> float:
        weights = self.weights
        fired = dict.fromkeys(cue.feature for cue in self.matcher.find(text))
        score = weights[""] + _CUE * sum(weights.get(name, 0.0) for name in fired)
        lowered = text.lower()
        return score + _part(_words(lowered), self.words) + _part(_runs(lowered), self.runs)

    def save(self, directory: Path) -> None:
        """Write the stage into a model's directory."""
        values = {
            "cutoff": self.cutoff,
            "rates": self.rates,
            "weights": self.weights,
            "words": self.words,
            "runs": self.runs,
        }
        (directory / FILE).write_text(
            json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, directory: Path, codebook: Codebook) -> "FirstStage":
        """Read a stage that `save` wrote.

        Raises:
            UserError: another version wrote it.
        """
        values: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
        if not {"cutoff", "rates", "weights", "words", "runs"} <= values.keys():
            raise UserError(f"{directory / FILE}: of another version; train the model again")
        return cls(
            CueMatcher(codebook),
            values["words"],
            values["runs"],
            values["weights"],
            values["cutoff"],
            tuple(values["rates"]),
        )


def check_first_stage(directory: Path) -> None:
    """Hold that a saved model has a first stage.

    Raises:
        UserError: it has none.
    """
    if not (directory / FILE).exists():
        raise UserError(
            f"cascade: {directory} has no first stage; a transformer gets one when it is trained "
            f"with model.export=true on sentences of which some carry no label"
        )


def fit_first_stage(train: Split) -> FirstStage:
    """Learn from the training split which sentences carry any label."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    matcher = CueMatcher(train.codebook)
    texts = [normalize(text) for text in train.texts]
    # Sorted, since sets come in another order each time, and sums then differ in the last digit.
    words = TfidfVectorizer(analyzer=lambda text: sorted(_words(text)), min_df=_FEWEST)
    runs = TfidfVectorizer(analyzer=lambda text: sorted(_runs(text)), min_df=_FEWEST_RUNS)
    lowered = [text.lower() for text in texts]
    grams = [vectorizer.fit_transform(lowered) for vectorizer in (words, runs)]
    fired = sparse.csr_matrix(matcher.features(texts) * _CUE)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=2000)
    model.fit(sparse.hstack([*grams, fired]).tocsr(), train.gold.any(axis=1))
    learnt = iter(map(float, model.coef_[0]))
    return FirstStage(
        matcher=matcher,
        words=_weighted(words, learnt),
        runs=_weighted(runs, learnt),
        weights={name: next(learnt) for name in matcher.feature_names}
        | {"": float(model.intercept_[0])},
    )


def _weighted(vectorizer: Any, learnt: Iterator[float]) -> Grams:
    rarities = zip(vectorizer.get_feature_names_out(), map(float, vectorizer.idf_), strict=True)
    return {
        gram: (round(rarity**2, _DIGITS), round(next(learnt) * rarity, _DIGITS))
        for gram, rarity in rarities
    }


def _part(grams: set[str], known: Grams) -> float:
    found = [known[gram] for gram in grams if gram in known]
    if not found:
        return 0.0
    rarities, weights = zip(*found, strict=True)
    return math.fsum(weights) / math.sqrt(math.fsum(rarities))  # whatever order a set has


def _words(lowered: str) -> set[str]:
    words = _WORD.findall(lowered)
    return {*words, *map(" ".join, pairwise(words))}


def _runs(lowered: str) -> set[str]:
    return {lowered[place : place + _RUN] for place in range(len(lowered) - _RUN + 1)}
