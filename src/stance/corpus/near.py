"""Near-duplicate sentences: the wire copies itself, with a word changed here and there.

Two sentences are near when the Jaccard similarity of their word pairs reaches a threshold. Pairs
are found by MinHash (Broder 1997) with banding (Leskovec, Rajaraman and Ullman, "Mining of massive
datasets", ch. 3) and then compared exactly, so none is reported that is not near; a few may be
missed. The work is arrays and one sort per band: n log n, a million sentences in some minutes,
where an object and a dictionary entry per sentence and band would not fit in 2 GB.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stance.corpus.examples import normal_form

THRESHOLD = 0.7

_BANDS, _ROWS = 20, 3
"""Pairs of similarity 0.7 share a band with probability 0.9998, of 0.3 with 0.42."""
_CHUNK = 20_000
_REACH = 12
"""In a bucket, a sentence is compared with so many that follow it: boilerplate by the ten thousand
would otherwise take quadratic time."""
_SLACK = 0.25
"""Pairs whose signatures agree this much less than the threshold are not compared exactly."""
_MIX = np.uint64(0x9E3779B97F4A7C15)

_Hashes = NDArray[np.uint64]


@dataclass(frozen=True, order=True)
class NearPair:
    """Two positions in a list of sentences, `first < second`, and how alike the sentences are."""

    first: int
    second: int
    similarity: float


def near_pairs(texts: Sequence[str], threshold: float = THRESHOLD) -> list[NearPair]:
    """Find the pairs of sentences that are at least as alike as `threshold`, in order."""
    signatures = _signatures(texts)
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        rows = signatures[:, band * _ROWS : (band + 1) * _ROWS]
        for first, second in _candidates(rows):
            agree = (signatures[first] == signatures[second]).mean(axis=1)
            kept = agree >= threshold - _SLACK
            pairs.update(zip(first[kept].tolist(), second[kept].tolist(), strict=True))
    found = (NearPair(a, b, similarity(texts[a], texts[b])) for a, b in sorted(pairs))
    return [pair for pair in found if pair.similarity >= threshold]


def copies(texts: Sequence[str], threshold: float = THRESHOLD) -> dict[int, int]:
    """Map every sentence that is near an earlier one that stays to that one."""
    copied: dict[int, int] = {}
    for pair in sorted(near_pairs(texts, threshold), key=lambda pair: (pair.second, pair.first)):
        if pair.first not in copied and pair.second not in copied:
            copied[pair.second] = pair.first
    return copied


def similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of the word pairs of two sentences; both ends count as words.

    >>> similarity("The minister left.", "The minister left again.")
    0.5
    """
    one, two = _word_pairs(first), _word_pairs(second)
    return len(one & two) / len(one | two)


def _word_pairs(text: str) -> set[tuple[str, str]]:
    words = ["", *normal_form(text).split(), ""]
    return set(itertools.pairwise(words))


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the MinHash signatures, shape (n, bands * rows)."""
    random = np.random.default_rng(0)
    size = _BANDS * _ROWS
    factors = random.integers(1, 1 << 63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = random.integers(0, 1 << 63, size=size, dtype=np.uint64)
    hash_of: dict[str, int] = {}
    signatures = np.empty((len(texts), size), dtype=np.uint32)
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        pairs, starts = _hashed_pairs(chunk, hash_of)
        for column in range(size):
            hashed = (pairs * factors[column] + shifts[column]) >> np.uint64(32)
            signatures[start : start + len(chunk), column] = np.minimum.reduceat(hashed, starts)
    return signatures


def _hashed_pairs(
    texts: Sequence[str], hash_of: dict[str, int]
) -> tuple[_Hashes, NDArray[np.intp]]:
    """Return the hashes of all word pairs, and where each sentence's begin."""
    words: list[int] = []
    starts = []
    for text in texts:
        starts.append(len(words))
        for word in normal_form(text).split():
            known = hash_of.get(word)
            if known is None:
                known = hash_of[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
            words.append(known)
        words.append(0)  # ends this sentence, and begins the next
    array = np.array(words, dtype=np.uint64)
    before = np.concatenate([np.zeros(1, dtype=np.uint64), array[:-1]])
    pairs = (before * _MIX ^ array) * _MIX
    pairs ^= pairs >> np.uint64(29)
    return pairs, np.array(starts, dtype=np.intp)


def _candidates(rows: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield arrays of positions, first below second, that share all values of a band."""
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        keys = (keys ^ column.astype(np.uint64)) * _MIX
        keys ^= keys >> np.uint64(31)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for step in range(1, min(_REACH, len(rows) - 1) + 1):
        same = np.flatnonzero(ordered[step:] == ordered[:-step])
        if not same.size:
            return
        yield order[same], order[same + step]
