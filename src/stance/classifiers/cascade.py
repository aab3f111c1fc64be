"""A cheap first stage that settles the sentences which surely carry no label.

Most news sentences carry none. A linear model over words, word pairs and cue rules tells in some
hundred microseconds which of them need no encoder; only the rest reach it. Which score is low
enough is chosen on validation, see `stance.exports`.
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
_CUE = 0.5
"""What a cue rule counts; all words of a sentence together have length one."""


@dataclass(frozen=True)
class FirstStage:
    """Scores how much a sentence looks as if it carried any label.

    `rarity` has the squared inverse document frequency of every known word and pair, `weights`
    the weight of these, of cues and of the constant. Sentences that score below `cutoff` are
    settled; `rates` then are their probabilities, one per label, as seen on validation.
    """

    matcher: CueMatcher
    rarity: Mapping[str, float]
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
        score = weights[""]
        for name in _cues(text, self.matcher):
            score += _CUE * weights.get(name, 0.0)
        length = total = 0.0
        for gram in _grams(text):
            rarity = self.rarity.get(gram)
            if rarity is not None:
                length += rarity
                total += weights[gram]
        return score + (total / math.sqrt(length) if length else 0.0)

    def save(self, directory: Path) -> None:
        """Write the stage into a model's directory."""
        values = {
            "cutoff": self.cutoff,
            "rates": self.rates,
            "rarity": self.rarity,
            "weights": self.weights,
        }
        (directory / FILE).write_text(
            json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, directory: Path, codebook: Codebook) -> "FirstStage":
        """Read a stage that `save` wrote."""
        values: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
        return cls(
            CueMatcher(codebook),
            values["rarity"],
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
    grams = [sorted(_grams(text)) for text in texts]
    cues = [sorted(_cues(text, matcher)) for text in texts]
    counts = Counter(gram for row in grams for gram in row)
    known = sorted(gram for gram, count in counts.items() if count >= _FEWEST)
    inverse = {gram: math.log((1 + len(texts)) / (1 + counts[gram])) + 1 for gram in known}
    names = [*known, *sorted({name for row in cues for name in row})]
    column = {name: number for number, name in enumerate(names)}
    matrix = sparse.lil_matrix((len(texts), len(names)))
    for number, (row, fired) in enumerate(zip(grams, cues, strict=True)):
        found = [gram for gram in row if gram in inverse]
        length = math.sqrt(sum(inverse[gram] ** 2 for gram in found))
        for gram in found:
            matrix[number, column[gram]] = inverse[gram] / length
        for name in fired:
            matrix[number, column[name]] = _CUE
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    model.fit(matrix.tocsr(), train.gold.any(axis=1))
    weights = {
        name: float(w) * inverse.get(name, 1.0)
        for name, w in zip(names, model.coef_[0], strict=True)
    }
    weights[""] = float(model.intercept_[0])
    return FirstStage(matcher, {gram: inverse[gram] ** 2 for gram in known}, weights)


def _grams(text: str) -> set[str]:
    words = _WORD.findall(text.lower())
    return {*words, *map(" ".join, pairwise(words))}


def _cues(text: str, matcher: CueMatcher) -> Iterator[str]:
    """Yield the names of the cue rules that fire or are blocked; words hold no stroke."""
    return (
        f"{cue.label}/{cue.name}/{'blocked' if cue.blocked else 'fired'}"
        for cue in {(c.label, c.name, bool(c.blocked)): c for c in matcher.find(text)}.values()
    )
