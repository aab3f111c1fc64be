"""Where the layout of a text ends a sentence, whatever its punctuation says.

News reaches us as paragraphs on one line each, as hard-wrapped wire copy, as lists, as headlines
without a stop, and with remains of HTML. This module cuts a text into stretches in which a line
break is mere white space; `stance.text.sentences` then looks at punctuation only.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

Span = tuple[int, int]

_BLOCK_TAG = re.compile(
    r"</?(?:address|article|aside|blockquote|body|br|caption|center|dd|div|dl|dt|figcaption|figure"
    r"|footer|form|h[1-6]|head|header|hr|html|li|main|nav|ol|option|p|pre|section|table|tbody|td"
    r"|tfoot|th|thead|title|tr|ul)(?:[\s/][^<>]{0,400})?>",
    re.IGNORECASE,
)
_INLINE_BULLET = re.compile(r"(?<=\s)[•●▪◦■►‣](?=\s)")
_ITEM = re.compile(
    r"[•●▪◦■►‣*·–—-]\s"
    r"|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,5})\)\s"
    r"|(?:\d{1,3}|[ivx]{1,4})\.\s"
)
_STOP_AT_END = re.compile(r"[.!?…:][\"'“”’»)\]*]{0,3}\Z")
_TITLE_AT_END = re.compile(
    r"(?:\A|[\s(-])(?:Gen|Lt|Col|Maj|Capt|Cmdr|Adm|Sgt|Brig|Mr|Mrs|Ms|Dr|Prof|Rev|Sen|Rep|Gov|Amb"
    r"|Messrs|Msgr|St|Mt|No|Nos|[A-Z])\.\Z",
    re.IGNORECASE,
)
_FUNCTION_WORD_AT_END = re.compile(
    r"\s(?:the|a|an|of|in|and|or|to|for|with|by|that|from|on|at|its|his|her|their)\Z", re.IGNORECASE
)
_FIRST_CHARACTER = re.compile(r"[\s\"'“‘«„(\[*]{0,4}(\S)")
_FIRST_WORD = re.compile(r"\S{1,40}")
_HARD_BREAKS = ("\x0c", "\x1c", "\x1d", "\x1e", "\u2029")

MIN_WIDTH = 45
MAX_WIDTH = 132
"""Hard-wrapped text has lines of such widths; a longer line is a paragraph of its own."""

_FULL = 0.85
"""A wrapped line with the next word added is at least this part of the width."""

_TAIL = 24
"""So many last characters of a line tell how it ends."""


def stretches(text: str) -> Iterator[Span]:
    """Yield the spans of `text` that no sentence may leave, in order, blank ones left out."""
    for start, end in _between_tags(text):
        lines = text[start:end].splitlines(keepends=True)
        if len(lines) < 2:
            yield from _between_bullets(text, start, end)
            continue
        block: list[Span] = []
        for line in lines:
            content = line.strip()
            if content:
                left = start + len(line) - len(line.lstrip())
                block.append((left, left + len(content)))
            if block and (not content or line.endswith(_HARD_BREAKS)):
                yield from _Block.read(text, block).stretches()
                block = []
            start += len(line)
        if block:
            yield from _Block.read(text, block).stretches()


def _between_tags(text: str) -> Iterator[Span]:
    start = 0
    if "<" in text:
        for tag in _BLOCK_TAG.finditer(text):
            if tag.start() > start:
                yield start, tag.start()
            start = tag.end()
    if start < len(text):
        yield start, len(text)


def _between_bullets(text: str, start: int, end: int) -> Iterator[Span]:
    for bullet in _INLINE_BULLET.finditer(text, start, end):
        if bullet.start() > start:
            yield start, bullet.start()
        start = bullet.start()
    yield start, end


@dataclass(frozen=True)
class _Block:
    """Lines without a blank one between them, and whether they are hard-wrapped."""

    text: str
    lines: list[Span]
    width: int
    caseless: bool
    wrapped: bool

    @classmethod
    def read(cls, text: str, lines: list[Span]) -> "_Block":
        """Look at the lines once to see whether an editor or a writer broke them."""
        width = max(end - start for start, end in lines)
        sample = text[lines[0][0] : min(lines[-1][1], lines[0][0] + 4000)]
        caseless = sample.isupper() or sample.islower()
        block = cls(text, lines, width, caseless, wrapped=False)
        return replace(block, wrapped=block._looks_wrapped())

    def stretches(self) -> Iterator[Span]:
        """Yield the spans of lines that belong together."""
        start, end = self.lines[0]
        if len(self.lines) == 1:
            yield from _between_bullets(self.text, start, end)
            return
        item = self._is_item(self.lines[0])
        for previous, line in itertools.pairwise(self.lines):
            next_item = self._is_item(line)
            if not self._continues(previous, line, item, next_item):
                yield from _between_bullets(self.text, start, end)
                start, item = line[0], next_item
            end = line[1]
        yield from _between_bullets(self.text, start, end)

    def _continues(self, previous: Span, line: Span, item: bool, next_item: bool) -> bool:
        full = self._is_full(previous, line)
        if next_item and (item or not self.wrapped or not full or self._stops(previous)):
            return False
        lower = not self.caseless and self._starts_lower(line)
        if self.wrapped:
            return lower or full
        if lower and not self._stops(previous):
            return True
        return self._tail(previous, _TITLE_AT_END)

    def _looks_wrapped(self) -> bool:
        """Judge by the breaks that no punctuation explains: are they where a line was full?"""
        if len(self.lines) < 2 or not MIN_WIDTH <= self.width <= MAX_WIDTH:
            return False
        unexplained = continued = 0
        for previous, line in itertools.pairwise(self.lines):
            if self._is_item(line):
                continue
            lower = not self.caseless and self._starts_lower(line)
            title = self._tail(previous, _TITLE_AT_END)
            if self._stops(previous) and not lower and not title:
                continue
            unexplained += 1
            continued += self._is_full(previous, line) and (
                self.caseless or lower or title or self._tail(previous, _FUNCTION_WORD_AT_END)
            )
        if self.caseless:
            return 0 < unexplained == continued and self._stops(self.lines[-1])
        return 0 < unexplained <= 2 * continued

    def _is_item(self, line: Span) -> bool:
        return _ITEM.match(self.text, *line) is not None

    def _is_full(self, line: Span, following: Span) -> bool:
        word = _FIRST_WORD.match(self.text, *following)
        length = line[1] - line[0] + 1 + (len(word.group()) if word else 0)
        return length > _FULL * self.width

    def _starts_lower(self, line: Span) -> bool:
        first = _FIRST_CHARACTER.match(self.text, *line)
        return first is not None and first.group(1).islower()

    def _stops(self, line: Span) -> bool:
        return self._tail(line, _STOP_AT_END)

    def _tail(self, line: Span, pattern: re.Pattern[str]) -> bool:
        return pattern.search(self.text, max(line[0], line[1] - _TAIL), line[1]) is not None
