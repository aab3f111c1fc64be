"""A cheap first stage that settles the sentences which surely carry no label.

Most news sentences carry none. A linear model over words, word pairs, runs of four characters and
cue rules tells in some hundred microseconds which of them need no encoder; only the rest reach it.
Which score is low enough is chosen on validation, see `stance.exports`.
"""

import json
import math
import re
from collections import Counter
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
        score = weights[""] + _CUE * sum(
            weights.get(name, 0.0) for name in _cues(text, self.matcher)
        )
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
            f"cascade: {directory} has no first stage; multi-label transformers get one when they "
            f"are trained with model.export=true"
        )


def fit_first_stage(train: Split) -> FirstStage:
    """Learn from the training split which sentences carry any label."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    matcher = CueMatcher(train.codebook)
    texts = [normalize(text) for text in train.texts]
    cues = [sorted(set(_cues(text, matcher))) for text in texts]
    names = sorted({name for row in cues for name in row})
    place = {name: number for number, name in enumerate(names)}
    fired = sparse.lil_matrix((len(texts), len(names)))
    for number, row in enumerate(cues):
        fired[number, [place[name] for name in row]] = _CUE
    lowered = [text.lower() for text in texts]
    words, word_rarity = _matrix([_words(text) for text in lowered], _FEWEST)
    runs, run_rarity = _matrix([_runs(text) for text in lowered], _FEWEST_RUNS)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=2000)
    model.fit(sparse.hstack([words, runs, fired]).tocsr(), train.gold.any(axis=1))
    learnt = iter(map(float, model.coef_[0]))
    return FirstStage(
        matcher=matcher,
        words=_weighted(word_rarity, learnt),
        runs=_weighted(run_rarity, learnt),
        weights={name: next(learnt) for name in names} | {"": float(model.intercept_[0])},
    )


def _matrix(rows: Sequence[set[str]], fewest: int) -> tuple[Any, dict[str, float]]:
    """Return tf-idf rows of length one, and the inverse document frequencies of the columns."""
    from scipy import sparse

    counts = Counter(gram for row in rows for gram in row)
    inverse = {
        gram: math.log((1 + len(rows)) / (1 + count)) + 1
        for gram, count in sorted(counts.items())
        if count >= fewest
    }
    column = {gram: number for number, gram in enumerate(inverse)}
    values: list[float] = []
    columns: list[int] = []
    ends = [0]
    for row in rows:
        found = sorted(gram for gram in row if gram in inverse)
        length = math.sqrt(sum(inverse[gram] ** 2 for gram in found))
        values += [inverse[gram] / length for gram in found]
        columns += [column[gram] for gram in found]
        ends.append(len(columns))
    return sparse.csr_matrix((values, columns, ends), (len(rows), len(inverse))), inverse


def _weighted(inverse: Mapping[str, float], learnt: Iterator[float]) -> Grams:
    return {
        gram: (round(rarity**2, _DIGITS), round(next(learnt) * rarity, _DIGITS))
        for gram, rarity in inverse.items()
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


def _cues(text: str, matcher: CueMatcher) -> Iterator[str]:
    """Yield the names of the cue rules that fire or are blocked; words hold no stroke."""
    return (
        f"{cue.label}/{cue.name}/{'blocked' if cue.blocked else 'fired'}"
        for cue in {(c.label, c.name, bool(c.blocked)): c for c in matcher.find(text)}.values()
    )
