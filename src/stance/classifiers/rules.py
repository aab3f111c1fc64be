"""The floor under every trained classifier: the codebook's cue rules, weighed by their precision.

It needs no training data, says which words gave a stance away, and costs nothing to run. A trained
classifier that does not beat it has learnt nothing that the codebook did not already say.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from stance.classifiers.base import Log, Probabilities
from stance.classifiers.explanations import Explanation
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import Cue, CueMatcher
from stance.errors import UserError

_FILE = "rules.json"

_PRIOR = 0.8
"""Precision of a cue rule before any example is seen: rules are written to be right mostly."""

_PRIOR_WEIGHT = 2.0
"""Laplace smoothing: the prior counts as much as this many sentences in which the rule fired."""


class RulesClassifier:
    """Noisy-or over the cue rules that fire: each one gives its label away with its precision."""

    kind: ClassVar[str] = "rules"

    def __init__(self, codebook: Codebook) -> None:
        """Compile the cue rules of `codebook`; until `fit`, every rule has the same precision."""
        self._codebook = codebook
        self._matcher = CueMatcher(codebook)
        labels = {name: column for column, name in enumerate(codebook.names)}
        fired = [
            (column, name.removesuffix("/fired"))
            for column, name in enumerate(self._matcher.feature_names)
            if name.endswith("/fired")
        ]
        self._columns = [column for column, _ in fired]
        self._cues = [cue for _, cue in fired]
        self._label_of_cue = np.array([labels[cue.split("/")[0]] for cue in self._cues], dtype=int)
        self.precision: dict[str, float] = dict.fromkeys(self._cues, _PRIOR)

    def fit(self, train: Split, validation: Split, log: Log) -> None:
        """Learn each cue rule's precision on `train`; rules seldom seen stay near the prior."""
        fired = self._fired(train.texts)
        right = fired * train.gold[:, self._label_of_cue]
        times, hits = fired.sum(axis=0), right.sum(axis=0)
        learnt = (hits + _PRIOR * _PRIOR_WEIGHT) / (times + _PRIOR_WEIGHT)
        self.precision = dict(zip(self._cues, learnt.tolist(), strict=True))
        log(
            {
                "train/cue_precision": float(hits.sum() / max(times.sum(), 1)),
                "train/cue_recall": self._recall(right, train.gold),
                "validation/cue_recall": self._recall(
                    self._fired(validation.texts) * validation.gold[:, self._label_of_cue],
                    validation.gold,
                ),
            },
            0,
        )

    def predict_proba(self, texts: Sequence[str]) -> Probabilities:
        """Return the probability of every label for every sentence, shape (n, labels)."""
        precision = np.array([self.precision[cue] for cue in self._cues], dtype=np.float64)
        doubt = 1.0 - self._fired(texts) * precision
        probabilities = np.zeros((len(texts), len(self._codebook.names)))
        for column in range(probabilities.shape[1]):
            probabilities[:, column] = 1.0 - doubt[:, self._label_of_cue == column].prod(axis=1)
        return probabilities

    def explain(self, text: str, label: str) -> Explanation:
        """Give each word its share of the cues that it belongs to, exactly.

        A cue of precision q adds -log(1 - q), shared by its words; the sum is -log(1 - p).
        """
        words = list(re.finditer(r"\S+", text))
        shares = np.zeros(len(words))
        spans: dict[str, list[Cue]] = {}
        for cue in self._matcher.find(text):
            if cue.label == label and cue.blocked is None:
                spans.setdefault(f"{cue.label}/{cue.name}", []).append(cue)
        for name, found in spans.items():
            added = -math.log(max(1 - self.precision[name], 1e-12))
            within = np.array(
                [any(w.start() < c.end and c.start < w.end() for c in found) for w in words]
            )
            shares[within] += added / within.sum()
        return [(word.group(), float(share)) for word, share in zip(words, shares, strict=True)]

    def save(self, directory: Path) -> None:
        """Write the cue rules' precisions into `directory`; the codebook is saved by the model."""
        text = json.dumps({"precision": self.precision}, indent=2, ensure_ascii=False)
        (directory / _FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, codebook: Codebook) -> "RulesClassifier":
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or broken, or was learnt for other cue rules.
        """
        path = directory / _FILE
        classifier = cls(codebook)
        try:
            precision = json.loads(path.read_text(encoding="utf-8"))["precision"]
        except OSError as error:
            raise UserError(f"{path}: cannot read the cue precisions: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a file of cue precisions: {error}") from error
        classifier.precision = _checked(precision, classifier.precision, path)
        return classifier

    def _fired(self, texts: Sequence[str]) -> np.ndarray:
        return self._matcher.features(texts)[:, self._columns].astype(np.float64)

    def _recall(self, right: np.ndarray, gold: np.ndarray) -> float:
        """Return the share of gold labels that some cue found: what no weighing can exceed."""
        found = np.zeros(gold.shape, dtype=bool)
        for column in range(gold.shape[1]):
            found[:, column] = right[:, self._label_of_cue == column].any(axis=1)
        return float(found.sum() / max(gold.sum(), 1))


def _checked(precision: object, expected: Mapping[str, float], path: Path) -> dict[str, float]:
    if not isinstance(precision, dict) or precision.keys() != expected.keys():
        raise UserError(f"{path}: its cue rules are not those of the codebook")
    for cue, value in precision.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"{path}: the precision of {cue} must lie in 0 to 1, not {value!r}")
    return {cue: float(value) for cue, value in precision.items()}
