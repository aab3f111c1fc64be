"""Which sentences are worth somebody's reading time, and in which order.

A share is drawn at random, so that rates can be estimated from the answers. The rest is chosen for
what an answer would teach: a probability near its threshold, voters that contradict each other, a
label that is expected and rare; and spread over clusters of like sentences, so that the same
question is not asked twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RANDOM = "random"
_POOL = 10
"""So many times the budget, the best-scored sentences are clustered."""
_DIMENSIONS = 64

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Wishes:
    """How a queue is chosen; the weights are those of the three scores."""

    budget: int
    random_share: float = 0.2
    uncertainty: float = 1.0
    disagreement: float = 1.0
    rarity: float = 1.0
    diversity: bool = True
    seed: int = 1


@dataclass(frozen=True)
class Chosen:
    """A position among the sentences, why it was chosen, and its score."""

    position: int
    reason: str
    score: float


def choose(
    texts: Sequence[str],
    probabilities: _Floats,
    thresholds: _Floats,
    disagreement: _Floats,
    wishes: Wishes,
) -> list[Chosen]:
    """Choose at most `budget` sentences, in the order in which they should be read.

    Args:
        texts: n sentences.
        probabilities: of the labels, shape (n, labels).
        thresholds: where each label's decision falls, shape (labels,).
        disagreement: of the voters, from 0 to 1, shape (n,).
        wishes: the budget and what counts.
    """
    budget = min(wishes.budget, len(texts))
    random = np.random.default_rng(wishes.seed)
    drawn = random.permutation(len(texts))[: round(budget * wishes.random_share)]
    parts = {
        "uncertainty": wishes.uncertainty * uncertainty(probabilities, thresholds),
        "disagreement": wishes.disagreement * disagreement,
        "rarity": wishes.rarity * rarity(probabilities),
    }
    scores = np.sum(list(parts.values()), axis=0)
    left = np.setdiff1d(np.arange(len(texts)), drawn)
    ranked = left[np.argsort(-scores[left], kind="stable")]
    wanted = budget - len(drawn)
    if wishes.diversity and 1 < wanted < len(ranked):
        pool = ranked[: wanted * _POOL]
        ranked = _spread([texts[i] for i in pool], pool, wanted, wishes.seed)
    names = list(parts)
    best = [
        Chosen(int(i), names[int(np.argmax([parts[n][i] for n in names]))], float(scores[i]))
        for i in sorted(ranked[:wanted].tolist(), key=lambda i: (-scores[i], i))
    ]
    return _interleave(best, [Chosen(int(i), RANDOM, float(scores[i])) for i in drawn])


def uncertainty(probabilities: _Floats, thresholds: _Floats) -> _Floats:
    """Return how near some label's probability is to its threshold, from 0 to 1, shape (n,)."""
    reach = np.where(probabilities < thresholds, thresholds, 1 - thresholds)
    distance = np.abs(probabilities - thresholds) / np.maximum(reach, 1e-9)
    nearness: _Floats = 1 - np.clip(distance, 0, 1).min(axis=1)
    return nearness


def rarity(probabilities: _Floats) -> _Floats:
    """Return the surprise that a sentence's labels promise, from 0 to 1, shape (n,).

    A label counts with its probability times the information in its presence, -log(rate).
    """
    if not len(probabilities):
        return np.empty(0)
    rates = np.clip(probabilities.mean(axis=0), 1e-4, 1.0)
    promised = probabilities @ -np.log(rates)
    scaled: _Floats = promised / max(float(promised.max()), 1e-9)
    return scaled


def _spread(
    texts: Sequence[str], pool: NDArray[np.intp], wanted: int, seed: int
) -> NDArray[np.intp]:
    """Reorder a ranked pool: the best of each cluster first, then the second best of each."""
    from sklearn.cluster import KMeans

    vectors = _embed(texts, seed)
    kmeans = KMeans(min(wanted, len(texts)), n_init=1, max_iter=50, random_state=seed)
    clusters = kmeans.fit(vectors)
    place: dict[int, int] = {}
    rounds = []
    for label in clusters.labels_.tolist():
        place[label] = place.get(label, -1) + 1
        rounds.append(place[label])
    return pool[np.argsort(rounds, kind="stable")]


def _embed(texts: Sequence[str], seed: int) -> _Floats:
    """Return latent semantic vectors of length one: TF-IDF words, reduced."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    dimensions = min(_DIMENSIONS, min(words.shape) - 1)
    if dimensions < 1:
        return np.asarray(words.todense(), dtype=np.float64)
    reduced = TruncatedSVD(dimensions, random_state=seed).fit_transform(words)
    vectors: _Floats = normalize(reduced)
    return vectors


def _interleave(best: Sequence[Chosen], drawn: Sequence[Chosen]) -> list[Chosen]:
    """Mix two lists evenly, so that whoever stops early has read the same share of each."""
    keyed = [((i + 0.5) / len(best), 0, c) for i, c in enumerate(best)]
    keyed += [((i + 0.5) / len(drawn), 1, c) for i, c in enumerate(drawn)]
    return [chosen for _, _, chosen in sorted(keyed, key=lambda entry: entry[:2])]
