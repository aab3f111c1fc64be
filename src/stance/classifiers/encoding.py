"""Sentences as an encoder reads them: normalised, cue names in front, as token ids.

A text that is longer than the encoder can take is read in windows that overlap by a quarter, and
each label gets the highest probability of any window. Torch and ONNX share this module, so that
they see the same tokens; it needs neither torch nor transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stance.classifiers.base import Probabilities
from stance.cues import CueMatcher
from stance.text.normalize import normalize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NO_CUE = "none"
_SMALLEST = 4
"""Tokens of text in a window at least, whatever the cue names before it take."""


@dataclass(frozen=True)
class Windows:
    """Token ids of n texts in windows; `owners` says to which text each window belongs."""

    ids: list[list[int]]
    owners: NDArray[np.int64]
    texts: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many windows each text has, shape (n,)."""
        return np.bincount(self.owners, minlength=self.texts)

    def highest(self, probabilities: Probabilities) -> Probabilities:
        """Reduce one row for each window to the highest for each text, shape (n, labels)."""
        result = np.zeros((self.texts, probabilities.shape[1]))
        np.maximum.at(result, self.owners, probabilities)
        return result


@dataclass(frozen=True)
class SentenceEncoder:
    """Turns sentences into token ids.

    `names` are the label names that may stand before a sentence; `matcher` says which, or is None
    if none ever do.
    """

    tokenizer: "Tokenizer"
    matcher: CueMatcher | None
    names: Sequence[str]
    max_length: int

    def windows(self, texts: Sequence[str]) -> Windows:
        """Return the token ids of texts, special tokens included, in windows of `max_length`."""
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        cleaned = [normalize(text) for text in texts]
        whole = self.tokenizer.encode_batch([with_cues(text, self.matcher) for text in cleaned])
        ids: list[list[int]] = []
        owners: list[int] = []
        for owner, encoding in enumerate(whole):
            if len(encoding.ids) <= self.max_length:
                ids.append(encoding.ids)
                owners.append(owner)
                continue
            for piece in self._pieces(cleaned[owner]):
                with_names = with_cues(piece, self.matcher)
                ids.append(self.tokenizer.encode(with_names).ids[: self.max_length])
                owners.append(owner)
        return Windows(ids, np.array(owners, dtype=np.int64), len(texts))

    def _pieces(self, text: str) -> list[str]:
        """Cut a long text where tokens end, so that each piece fits with all cue names before."""
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        before = f"{' '.join(self.names)} :" if self.matcher else ""
        width = max(_SMALLEST, self.max_length - len(self.tokenizer.encode(before).ids))
        overlap = width // 4
        starts = range(0, max(1, len(offsets) - overlap), width - overlap)
        ends = [min(start + width, len(offsets)) - 1 for start in starts]
        return [text[offsets[i][0] : offsets[j][1]] for i, j in zip(starts, ends, strict=True)]


def with_cues(text: str, matcher: CueMatcher | None) -> str:
    """Put the names of the labels whose cue rules fire before a normalised sentence."""
    if matcher is None:
        return text
    return f"{' '.join(matcher.labels(text)) or _NO_CUE} : {text}"


def batches_by_length(encoded: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Group row numbers so that a batch holds rows of like length, at most `tokens` when padded."""
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    batches: list[list[int]] = []
    for row in order:
        if not batches or (len(batches[-1]) + 1) * len(encoded[row]) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
