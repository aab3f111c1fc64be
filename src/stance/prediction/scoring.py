"""The work on one window of documents: split, score every distinct sentence once, decide.

What a window's sentences get depends on the window alone, not on what was scored before it or
beside it. That is what lets a killed job end with the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.model import StanceModel
from stance.text.sentences import split_sentences

DIGITS = 6
"""Probabilities are written with so many digits: batching alone moves them by 1e-7."""


@dataclass(frozen=True)
class Settings:
    """What decides, beside the model and the text, what is written of a sentence."""

    unit: str = "document"
    operating_point: str | None = None


@dataclass(frozen=True)
class Scored:
    """The sentences of n documents, one after the other, as arrays of length m.

    `counts` has length n and says how many sentences each document has. `document[start:end]` is
    the sentence. `probabilities` and `predicted` have shape (m, labels), in the codebook's order.
    `windows` says in how many windows the encoder read a sentence; a first stage settled it at 0.
    """

    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int8]
    uncertain: NDArray[np.bool_]
    windows: NDArray[np.int64]


def score_texts(model: StanceModel, texts: Sequence[str], settings: Settings) -> Scored:
    """Split the texts of documents into sentences and label them."""
    spans = [_spans(text, settings.unit) for text in texts]
    sentences = [text[i:j] for text, found in zip(texts, spans, strict=True) for i, j in found]
    place: dict[str, int] = {}
    index = np.array([place.setdefault(s, len(place)) for s in sentences], dtype=np.int64)
    scores, windows = model.score(list(place))
    probabilities = np.round(scores, DIGITS)
    point = settings.operating_point
    read = windows > 0  # what a first stage has settled carries no label and no doubt
    flat = np.array([span for found in spans for span in found], dtype=np.int64).reshape(-1, 2)
    return Scored(
        counts=np.array([len(found) for found in spans], dtype=np.int64),
        starts=flat[:, 0],
        ends=flat[:, 1],
        probabilities=probabilities[index],
        predicted=(model.decision.decide(probabilities, point) * read[:, None])[index],
        uncertain=(model.decision.uncertain(probabilities, point) & read)[index],
        windows=windows[index],
    )


def label_counts(scored: Scored, codebook: Codebook) -> dict[str, int]:
    """Count the sentences that carry each label."""
    totals = scored.predicted.sum(axis=0, dtype=np.int64)
    return dict(zip(codebook.names, map(int, totals), strict=True))


def _spans(text: str, unit: str) -> list[tuple[int, int]]:
    if unit == "sentence":
        return [(0, len(text))]
    found = [(sentence.start, sentence.end) for sentence in split_sentences(text)]
    # Text without a letter, such as a row of dots, is no sentence; still it is not to be lost.
    return found or [(len(text) - len(text.lstrip()), len(text.rstrip()))]
