"""The words that give a stance away: applies a codebook's cue rules to sentences.

The rules classifier, the encoder's extra features, the review queue and the explanations all look
at sentences through this one module. Which words count, and what takes their meaning away, stands
in the codebook; here is only how its patterns act together:

- Patterns see a plain copy of the text: lower case, without double quotes, with one plain space,
  dash or apostrophe where typography has others. Spans refer to the text as given. `{name}` stands
  for the codebook's pattern of that name.
- `pattern` finds the cue, as whole words.
- The contexts of `requires` and `unless`, and the codebook's patterns `negated` and `speculative`,
  are looked for in the neighbourhood of the cue, where `@` stands in the cue's place. The first one
  that speaks against the cue is why it is blocked.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np

from stance.codebook import Codebook, CueRule
from stance.errors import UserError
from stance.text.normalize import INVISIBLE

NEGATED = "negated"
SPECULATIVE = "speculative"
"""Names of codebook patterns that block every cue which does not opt out; also their reasons."""

_REACH = 240
"""Characters on either side of a cue in which its context lies: about forty words, more than all
but the longest sentences have. The bound keeps the work linear in the length of the text."""

_PLAIN = str.maketrans(
    {char: " " for char in map(chr, range(0x3001)) if char.isspace()}
    | dict.fromkeys("‘’‛′`", "'")
    | dict.fromkeys("‐‑‒–—―−", "-")
    | {"@": "\uff20"}  # its own sign stands for the cue
)
# Quotation marks stand between words anywhere ('would "fight back" if'), soft hyphens and other
# invisible characters within them; no pattern should have to allow for them.
_QUOTES = '"“”„‟″«»'
_DROPPED = re.compile(f"[{_QUOTES}{INVISIBLE}]|(?<= ) |(?<= [{_QUOTES}]) ")
_BOUNDARY = re.compile(r"\b")
_LETTER = re.compile(r"\w")
_KEY = 4
"""Characters by which rules are looked up; with more, lookups cost what they save."""
_MOST_KEYS = 10_000
_WORD = "\0"
"""Stands in a beginning for any letter or digit."""
_REFERENCE = re.compile(r"\{([a-z_]\w*)\}")
_ESCAPE_OR_UPPER = re.compile(r"(\\.|\(\?P)|([A-Z]+)", re.DOTALL)
_BOUNDED = re.compile(r"(?:\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^*+{\\\[]|\{(?!\d*,\}))*", re.DOTALL)


@dataclass(frozen=True)
class Cue:
    """Words of a sentence, `text[start:end]`, that report a label unless `blocked` says why not."""

    label: str
    name: str
    rule: int
    start: int
    end: int
    text: str
    blocked: str | None

    @property
    def feature(self) -> str:
        """Name of the column of `CueMatcher.features` in which the cue counts."""
        return f"{self.label}/{self.name}/{'blocked' if self.blocked else 'fired'}"


@dataclass(frozen=True)
class _Condition:
    reason: str
    context: re.Pattern[str]
    wanted: bool


@dataclass(frozen=True)
class _CompiledRule:
    label: str
    name: str
    rule: int
    pattern: re.Pattern[str]
    conditions: tuple[_Condition, ...]

    def judge(self, plain: "_Plain", start: int, end: int) -> Cue:
        before, after = plain.copy[max(0, start - _REACH) : start], plain.copy[end : end + _REACH]
        around = f"{before}@{after}"
        blocked = next(
            (
                condition.reason
                for condition in self.conditions
                if (condition.context.search(around) is not None) != condition.wanted
            ),
            None,
        )
        start, end = plain.position(start), plain.position(end - 1) + 1
        return Cue(self.label, self.name, self.rule, start, end, plain.text[start:end], blocked)


class CueMatcher:
    """The cue rules of one codebook, compiled.

    Raises:
        UserError: a pattern is no regular expression, can match nothing, repeats without bound
            (which hostile text could make slow), or names a pattern that does not exist.
    """

    def __init__(self, codebook: Codebook) -> None:
        """Compile every cue rule of `codebook`; a codebook without cues finds nothing."""
        self._labels = codebook.names
        self.order = {name: place for place, name in enumerate(codebook.names)}
        self._rules = tuple(
            _compile_rule(cue, label.name, codebook)
            for label in codebook.labels
            for cue in label.cues
        )
        self.feature_names: tuple[str, ...] = tuple(
            chain.from_iterable(
                (f"{rule.label}/{rule.name}/fired", f"{rule.label}/{rule.name}/blocked")
                for rule in self._rules
            )
        )
        self._beginnings = tuple(_beginnings(rule.pattern) for rule in self._rules)
        self._candidates: dict[str, tuple[tuple[int, _CompiledRule], ...]] = {}
        self._column = {name: column for column, name in enumerate(self.feature_names)}

    def find(self, text: str) -> list[Cue]:
        """Return all cues in `text`, blocked ones too, in the order in which they begin."""
        if not self._rules:
            return []
        plain = _Plain(text)
        copy, candidates = plain.copy, self._candidates
        found = []
        ends = [0] * len(self._rules)  # a rule's cues do not overlap
        for boundary in _BOUNDARY.finditer(copy):
            start = boundary.start()
            key = copy[start : start + _KEY]
            rules = candidates.get(key)
            if rules is None:
                rules = self._beginning_with(key)
            for number, rule in rules:
                if start >= ends[number] and (match := rule.pattern.match(copy, start)):
                    ends[number] = match.end()
                    found.append(rule.judge(plain, start, match.end()))
        return found

    def _beginning_with(self, key: str) -> tuple[tuple[int, _CompiledRule], ...]:
        """Return the rules whose cues may begin with these letters; few do."""
        rules = tuple(
            (number, rule)
            for number, (rule, beginnings) in enumerate(
                zip(self._rules, self._beginnings, strict=True)
            )
            if key.startswith(beginnings) or (_WORD in beginnings and _LETTER.match(key))
        )
        if len(self._candidates) < _MOST_KEYS:  # hostile text has many
            self._candidates[key] = rules
        return rules

    def labels(self, text: str) -> tuple[str, ...]:
        """Return the labels that have a cue in `text` which counts, in the codebook's order."""
        reported = {cue.label for cue in self.find(text) if cue.blocked is None}
        return tuple(label for label in self._labels if label in reported)

    def features(self, texts: Sequence[str]) -> np.ndarray:
        """Say for each text which cue rules fired and which were blocked.

        Returns:
            0/1 values of shape (texts, features), float32, columns as in `feature_names`.
        """
        values = np.zeros((len(texts), len(self.feature_names)), dtype=np.float32)
        for row, text in enumerate(texts):
            for cue in self.find(text):
                values[row, self._column[cue.feature]] = 1
        return values


class _Plain:
    """A sentence as patterns see it, and the way back from its positions to the text's own."""

    def __init__(self, text: str) -> None:
        self.text = text
        lowered = text.lower()
        if len(lowered) != len(text):  # a few letters, such as the Turkish dotted I, become two
            lowered = "".join(low if len(low := char.lower()) == 1 else char for char in text)
        lowered = lowered.translate(_PLAIN)
        dropped = [match.start() for match in _DROPPED.finditer(lowered)]
        self.copy = _DROPPED.sub("", lowered) if dropped else lowered
        self._dropped_before = [place - earlier for earlier, place in enumerate(dropped)]

    def position(self, place: int) -> int:
        return place + bisect_right(self._dropped_before, place)


def _beginnings(pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return what a match may begin with: strings of up to `_KEY` characters, all that may be.

    A shorter string stands for everything that begins with it, the empty one for anything, `_WORD`
    for any word.
    """
    found = _extended({("", True)}, _parser.parse(pattern.pattern))
    return tuple(sorted({text.split(_WORD)[0] or text[:1] for text, _ in found}))


def _extended(begun: set[tuple[str, bool]], items: Any) -> set[tuple[str, bool]]:
    """Lengthen beginnings by the items of a parsed pattern; False marks those that are at an end.

    Conditions on what stands around are passed over: then more may seem possible than is, never
    less.
    """
    for operation, value in items:
        open_ = {text for text, goes_on in begun if goes_on and len(text) < _KEY}
        if not open_:
            break
        done = {(text, goes_on) for text, goes_on in begun if text not in open_ or not goes_on}
        match str(operation):
            case "LITERAL":
                more = {(chr(value), True)}
            case "IN" if (characters := _characters(value)) is not None:
                more = {(character, True) for character in characters}
            case "BRANCH":
                more = set().union(*(_extended({("", True)}, branch) for branch in value[1]))
            case "SUBPATTERN":
                more = _extended({("", True)}, value[3])
            case "MAX_REPEAT" | "MIN_REPEAT":
                once = _extended({("", True)}, value[2])
                # What follows the first time is left open: it may be the same again.
                more = {(text, goes_on and value[1] == 1) for text, goes_on in once}
                more |= {("", True)} if value[0] == 0 else set()
            case "AT" | "ASSERT" | "ASSERT_NOT":
                more = {("", True)}
            case _:
                more = {("", False)}
        begun = done | {(f"{text}{m}"[:_KEY], goes_on) for text in open_ for m, goes_on in more}
    return begun


def _characters(members: Any) -> set[str] | None:
    """Return the characters of a class, or None if they are too many to name."""
    found: set[str] = set()
    for kind, value in members:
        match str(kind):
            case "LITERAL":
                found.add(chr(value))
            case "RANGE" if value[1] - value[0] < 64:
                found.update(map(chr, range(value[0], value[1] + 1)))
            case "CATEGORY" if str(value) == "CATEGORY_WORD":
                found.add(_WORD)
            case _:
                return None
    return found


def _compile_rule(cue: CueRule, label: str, codebook: Codebook) -> _CompiledRule:
    where = f"codebook {codebook.name} {codebook.version}: cue {label}/{cue.name}"
    named = codebook.patterns

    def compiled(source: str, key: str) -> re.Pattern[str]:
        return _compile_pattern(source, named, f"{where}: {key}")

    pattern = compiled(f"(?:{cue.pattern})(?!\\w)", "pattern")
    if pattern.match(""):
        raise UserError(f"{where}: pattern: it matches where no word is")
    conditions = [
        *(
            _Condition(reason, compiled(source, f"requires {reason!r}"), wanted=True)
            for reason, source in cue.requires.items()
        ),
        *(
            _Condition(reason, compiled(source, f"unless {reason!r}"), wanted=False)
            for reason, source in cue.unless.items()
        ),
        *(
            _Condition(reason, compiled(named[reason], reason), wanted=False)
            for reason, applies in ((NEGATED, cue.negatable), (SPECULATIVE, cue.speculative))
            if applies and reason in named
        ),
    ]
    return _CompiledRule(label, cue.name, cue.rule, pattern, tuple(conditions))


def _compile_pattern(source: str, named: Mapping[str, str], where: str) -> re.Pattern[str]:
    expanded = _expand(source, named, where, ())
    lowered = _ESCAPE_OR_UPPER.sub(lambda found: found[1] or found[2].lower(), expanded)
    try:
        pattern = re.compile(lowered)
    except re.error as error:
        raise UserError(f"{where}: no regular expression: {error}") from error
    if pattern.groups:
        raise UserError(f"{where}: groups must be written (?:...)")  # cues are searched together
    bounded = _BOUNDED.match(lowered)
    end = bounded.end() if bounded else 0
    if end < len(lowered):
        shown = lowered[max(0, end - 12) : end + 4]
        raise UserError(f"{where}: repeats without bound at {shown!r}; write {{0,20}} or so")
    return pattern


def _expand(source: str, named: Mapping[str, str], where: str, within: tuple[str, ...]) -> str:
    def expanded(reference: re.Match[str]) -> str:
        name = reference[1]
        if name not in named:
            raise UserError(f"{where}: no pattern is named {name!r}")
        if name in within:
            raise UserError(f"{where}: the pattern {name!r} contains itself")
        return f"(?:{_expand(named[name], named, where, (*within, name))})"

    return _REFERENCE.sub(expanded, source)
