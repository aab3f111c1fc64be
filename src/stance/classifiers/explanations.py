"""Which words moved a label: exactly where a classifier can say so, else by leaving words out.

Contributions are in the classifier's own units (log odds, or what its class says) and bear its
sign: above zero a word spoke for the label, below zero against it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from stance.classifiers.base import Classifier, Probabilities
from stance.codebook import Codebook

Explanation = list[tuple[str, float]]
"""The words of a sentence in their order, each with its contribution.

Parts of a score that belong to no word follow in square brackets."""


@runtime_checkable
class SelfExplaining(Protocol):
    """A classifier whose score is a sum that can be taken apart."""

    def explain(self, text: str, label: str) -> Explanation:
        """Say what each word of a sentence added to the score of a label."""


def explain(classifier: Classifier, codebook: Codebook, text: str, label: str) -> Explanation:
    """Say what each word of a sentence added to the score of a label."""
    if isinstance(classifier, SelfExplaining):
        return classifier.explain(text, label)
    return occlude(classifier.predict_proba, text, codebook.names.index(label))


def occlude(
    predict_proba: Callable[[Sequence[str]], Probabilities], text: str, column: int
) -> Explanation:
    """Say how far a label's log odds fall without each word.

    It asks the whole classifier, cue rules and all: a word that only makes a cue fire counts too.
    """
    words = text.split()
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    probabilities = np.clip(predict_proba([text, *without])[:, column], 1e-6, 1 - 1e-6)
    scores = np.log(probabilities) - np.log1p(-probabilities)
    return [(word, float(scores[0] - rest)) for word, rest in zip(words, scores[1:], strict=True)]
