"""Sentences as an encoder reads them: normalised, cue names in front, as token ids.

A text that is longer than the encoder can take is read in windows that overlap by a quarter, and
each label gets the highest probability of any window. The cue rules that fire in the whole text are
then joined as a prior: their log odds, weighted, are added to the encoder's. Torch and ONNX share
this module, so that they see the same; it needs neither torch nor transformers.
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
_CUE_PRECISION = 0.8
"""What a cue rule that fires is taken to be worth before any sentence has been seen."""

_SURE = 0.999
"""Neither side of the sum may rule a label in or out alone."""

_SMALLEST = 4
"""Tokens of text in a window at least, whatever the cue names before it take."""


@dataclass(frozen=True)
class Windows:
    """Token ids of n texts in windows; `owners` says to which text each window belongs.

    `prior` holds the weighted log odds of the cue rules for each text, shape (n, labels).
    """

    ids: list[list[int]]
    owners: NDArray[np.int64]
    texts: int
    prior: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many windows each text has, shape (n,)."""
        return np.bincount(self.owners, minlength=self.texts)

    def highest(self, probabilities: Probabilities) -> Probabilities:
        """Reduce one row for each window to the highest for each text, shape (n, labels)."""
        result = np.zeros((self.texts, probabilities.shape[1]))
        np.maximum.at(result, self.owners, probabilities)
        return result

    def joined(self, probabilities: Probabilities, *, multi_label: bool) -> Probabilities:
        """Reduce to texts and join the prior of the cue rules, shape (n, labels)."""
        highest = self.highest(probabilities)
        if not self.prior.any():
            return highest
        scores = _log_odds(highest) + self.prior
        joined: Probabilities
        if multi_label:
            joined = 1 / (1 + np.exp(-scores))
        else:
            raised = np.exp(scores - scores.max(axis=1, keepdims=True))
            joined = raised / raised.sum(axis=1, keepdims=True)
        return joined


@dataclass(frozen=True)
class SentenceEncoder:
    """Turns sentences into token ids.

    `names` are the label names that may stand before a sentence; `matcher` says which, or is None
    if none ever do. `cue_prior` is the weight of the cue rules' log odds beside the encoder's.
    """

    tokenizer: "Tokenizer"
    matcher: CueMatcher | None
    names: Sequence[str]
    max_length: int
    cue_prior: float = 0.0

    def windows(self, texts: Sequence[str]) -> Windows:
        """Return the token ids of texts, special tokens included, in windows of `max_length`."""
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        cleaned = [normalize(text) for text in texts]
        fired = [fired_rules(text, self.matcher) for text in cleaned]
        whole = self.tokenizer.encode_batch(
            [with_cues(text, labels) for text, labels in zip(cleaned, fired, strict=True)]
        )
        ids: list[list[int]] = []
        owners: list[int] = []
        for owner, encoding in enumerate(whole):
            if len(encoding.ids) <= self.max_length:
                ids.append(encoding.ids)
                owners.append(owner)
                continue
            for piece in self._pieces(cleaned[owner]):
                with_names = with_cues(piece, fired_rules(piece, self.matcher))
                ids.append(self.tokenizer.encode(with_names).ids[: self.max_length])
                owners.append(owner)
        prior = self.cue_prior * self._cue_log_odds(fired)
        return Windows(ids, np.array(owners, dtype=np.int64), len(texts), prior)

    def _cue_log_odds(self, fired: Sequence[list[str] | None]) -> NDArray[np.float64]:
        """Noisy-or over the rules that fire for each label; zero for a label without rules."""
        odds = np.zeros((len(fired), len(self.names)))
        if self.matcher is None:
            return odds
        with_rules = {name.split("/")[0] for name in self.matcher.feature_names}
        for column, name in enumerate(self.names):
            if name in with_rules:
                times = np.array([(labels or []).count(name) for labels in fired])
                odds[:, column] = _log_odds(1 - (1 - _CUE_PRECISION) ** times)
        return odds

    def _pieces(self, text: str) -> list[str]:
        """Cut a long text where tokens end, so that each piece fits with all cue names before."""
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        before = f"{' '.join(self.names)} :" if self.matcher else ""
        width = max(_SMALLEST, self.max_length - len(self.tokenizer.encode(before).ids))
        overlap = width // 4
        starts = range(0, max(1, len(offsets) - overlap), width - overlap)
        ends = [min(start + width, len(offsets)) - 1 for start in starts]
        return [text[offsets[i][0] : offsets[j][1]] for i, j in zip(starts, ends, strict=True)]


def fired_rules(text: str, matcher: CueMatcher | None) -> list[str] | None:
    """Return the label of every cue rule that fires, once a rule; None without a matcher."""
    if matcher is None:
        return None
    rules = {(cue.label, cue.name) for cue in matcher.find(text) if cue.blocked is None}
    return [label for label, _ in sorted(rules, key=lambda rule: matcher.order[rule[0]])]


def with_cues(text: str, fired: Sequence[str] | None) -> str:
    """Put the names of the labels whose cue rules fire before a normalised sentence."""
    if fired is None:
        return text
    return f"{' '.join(dict.fromkeys(fired)) or _NO_CUE} : {text}"


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probabilities, 1 - _SURE, _SURE)
    odds: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return odds


def batches_by_length(encoded: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Group row numbers so that a batch holds rows of like length, at most `tokens` when padded."""
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    batches: list[list[int]] = []
    for row in order:
        if not batches or (len(batches[-1]) + 1) * len(encoded[row]) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
