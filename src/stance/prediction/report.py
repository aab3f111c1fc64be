"""One HTML page to read predictions on: it opens from a file and needs no network.

The page is put together from one fragment for each window, so that it grows no memory. It shows
the first sentences up to `LONGEST`; its counts are those of all.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from string import Template

import numpy as np

from stance.codebook import NONE, Codebook
from stance.prediction.formats import to_text
from stance.prediction.scoring import Scored
from stance.text.documents import Document

LONGEST = 20_000
"""Sentences on a page at most; a browser shows twice as many in comfort."""

_MOST_VALUES = 40
_MOST_KEPT = 2_000
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}|\d{1,2}([./])\d{1,2}\1\d{4}(?!\d)")
_COLOURS = (
    "#d1495b", "#e39b1d", "#1f8a70", "#6a5acd", "#2b7fb8", "#8c564b", "#c44ea0", "#7a8b20",
)  # fmt: skip

Tally = dict[str, list[int]]
"""Value of a column to its sentences, and how many of them carry each label."""


def fragment(documents: Sequence[Document], scored: Scored, codebook: Codebook) -> str:
    """Write the documents of one window."""
    parts: list[str] = []
    row = 0
    for document, count in zip(documents, scored.counts, strict=True):
        rows = range(row, row + int(count))
        row += int(count)
        predicted = scored.predicted[rows.start : rows.stop]
        classes = [f"h{column}" for column in np.flatnonzero(predicted.any(axis=0))]
        classes += ["u"] if scored.uncertain[rows.start : rows.stop].any() else []
        classes += ["n"] if not predicted.any(axis=1).all() else []
        text = "".join(_sentences(document, scored, rows, codebook))
        parts.append(
            f'<article class="{" ".join(classes)}"><h3>{html.escape(document.id)}</h3>'
            f'<div class="text" dir="auto">{text}</div></article>\n'
        )
    return "".join(parts)


def tally(
    documents: Sequence[Document], scored: Scored, columns: Sequence[str]
) -> dict[str, Tally]:
    """Count the sentences of one window by the values of some input columns.

    A record that lacks a column counts like one whose value is empty.
    """
    found: dict[str, Tally] = {column: {} for column in columns}
    row = 0
    for document, count in zip(documents, scored.counts, strict=True):
        labels = scored.predicted[row : row + int(count)].sum(axis=0, dtype=int).tolist()
        row += int(count)
        for column in columns:
            value = _group(to_text(document.fields.get(column)))
            _add(found[column], value, [int(count), *labels])
    return found


def columns_seen(documents: Iterable[Document]) -> list[str]:
    """Return the names of all input columns that the documents of one window have."""
    return list(dict.fromkeys(name for document in documents for name in document.fields))


def merge(total: dict[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add the counts of a window; values beyond the first `_MOST_KEPT` are counted together.

    Days are all kept: a century has few of them, and one that is missing costs the chart over time.
    So is the empty value.
    """
    for column, values in more.items():
        kept = total.setdefault(column, {})
        for value, counts in values.items():
            known = value in kept or len(kept) < _MOST_KEPT or not value or _DAY.fullmatch(value)
            _add(kept, value if known else "other", counts)


def fit(sentences: Iterable[int]) -> tuple[int, int]:
    """Return how many windows a page shows, given the sentences of each, and their sentences."""
    windows = shown = 0
    for count in sentences:
        if windows and shown + count > LONGEST:
            break
        windows, shown = windows + 1, shown + count
    return windows, shown


def page(
    *,
    title: str,
    subtitle: str,
    codebook: Codebook,
    sentences: int,
    shown: int,
    labels: Mapping[str, int],
    tallies: Mapping[str, Tally],
    fragments: Iterable[str],
) -> Iterator[str]:
    """Write the page piece by piece.

    Args:
        title: its heading.
        subtitle: what model labelled what input.
        codebook: gives the labels.
        sentences: how many there are in all.
        shown: how many the fragments hold.
        labels: how many sentences carry each label.
        tallies: counts by column.
        fragments: the documents of the windows that are shown.
    """
    which = "All" if shown == sentences else f"The first {shown:,}"
    template = (files(__package__) / "report.html").read_text(encoding="utf-8")
    head, foot = map(Template, template.split("$documents"))
    yield head.substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        colours=_style(len(codebook.names)),
        labels="".join(
            _bar(column, name, labels[name], sentences)
            for column, name in enumerate(codebook.names)
        ),
        tallies="".join(_section(name, values, codebook) for name, values in tallies.items()),
        buttons=_buttons(codebook),
        shown=f"{which} sentences follow. Point at a sentence, or tap it, for its probabilities; "
        "a dotted line marks what the model is unsure of.",
    )
    yield from fragments
    names = "".join(f"<li>{html.escape(name)}</li>" for name in codebook.names)
    yield foot.substitute(names=names)


def _sentences(
    document: Document, scored: Scored, rows: range, codebook: Codebook
) -> Iterator[str]:
    end = 0
    for row in rows:
        start = int(scored.starts[row])
        gap = document.text[end:start]
        end = int(scored.ends[row])
        columns = [int(column) for column in np.flatnonzero(scored.predicted[row])]
        classes = ["s", *(["l"] if columns else []), *(f"l{column}" for column in columns)]
        classes += ["u"] if scored.uncertain[row] else []
        chips = "".join(
            f'<i class="l{column}">{html.escape(codebook.names[column])}</i>' for column in columns
        )
        probabilities = " ".join(f"{value:.2f}" for value in scored.probabilities[row])
        yield (
            f'{html.escape(gap)}<span class="{" ".join(classes)}" tabindex="0" '
            f'data-p="{probabilities}">{html.escape(document.text[start:end])}{chips}</span>'
        )


def _group(value: str) -> str:
    """Count moments by day, everything else by its value."""
    day = _DAY.match(value)
    return day[0] if day else value[:100]


def _add(counts: Tally, value: str, more: Sequence[int]) -> None:
    before = counts.get(value)
    counts[value] = [a + b for a, b in zip(before, more, strict=True)] if before else list(more)


def _style(labels: int) -> str:
    rules = []
    for column in range(labels):
        colour = _COLOURS[column % len(_COLOURS)]
        rules += [
            f".l{column} {{ --c: {colour}; }}",
            f'body[data-f="{column}"] .s:not(.l{column}) {{ opacity: .3; }}',
            f'body[data-f="{column}"] article:not(.h{column}) {{ display: none; }}',
        ]
    return "\n".join(rules)


def _bar(column: int, name: str, count: int, total: int) -> str:
    share = count / total if total else 0
    return (
        f'<div class="bar l{column}"><span>{html.escape(name)}</span><span class="track">'
        f'<span class="fill" style="width:{share:.2%}"></span></span>'
        f"<span>{count:,} <small>({share:.1%})</small></span></div>\n"
    )


def _buttons(codebook: Codebook) -> str:
    choices = [("", "all", "plain")]
    choices += [(str(column), name, f"l{column}") for column, name in enumerate(codebook.names)]
    choices += [("n", NONE, "plain")] if codebook.multi_label else []
    choices += [("u", "uncertain", "plain")]
    return "".join(
        f'<button class="{kind}" data-f="{key}" aria-pressed="{"false" if key else "true"}">'
        f"{html.escape(text)}</button>"
        for key, text, kind in choices
    )


def _section(column: str, counts: Tally, codebook: Codebook) -> str:
    days = _days(counts)
    if any(days.values()) and len(days) <= 2 * sum(map(bool, days.values())):
        dated: Tally = {}
        for value, numbers in counts.items():
            _add(dated, days.get(value, ""), numbers)
        body = _columns_chart(_periods(dated), codebook)
    else:
        body = _table(counts, codebook)
    return f'<h2>By {html.escape(column)}</h2>\n<div class="wide">{body}</div>\n'


def _days(values: Iterable[str]) -> dict[str, str]:
    """Return the day of each value, but for the empty one: as ISO writes it, or none.

    A day with slashes is read only where all others put the day first as well, and one of them
    cannot be read otherwise.
    """
    given = [value for value in values if value]
    slashed = [value.split("/") for value in given if "/" in value and _DAY.fullmatch(value)]
    day_first = any(int(first) > 12 for first, _, _ in slashed)
    day_first &= all(int(second) <= 12 for _, second, _ in slashed)
    return {value: _day(value) if day_first or "/" not in value else "" for value in given}


def _day(value: str) -> str:
    if not _DAY.fullmatch(value):
        return ""
    parts = [int(part) for part in re.split("[-./]", value)]
    year, month, day = parts if "-" in value else reversed(parts)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""


def _periods(counts: Tally) -> Tally:
    """Count by day, month or year, whichever gives a chart that can be read."""
    periods: Tally = {}
    for length in (10, 7, 4):
        periods = {}
        for value, numbers in sorted(counts.items()):
            _add(periods, value[:length] or "unknown", numbers)
        if len(periods) <= _MOST_VALUES:
            break
    return periods


def _columns_chart(counts: Tally, codebook: Codebook) -> str:
    width, height, foot = 900, 180, 30
    highest = max(max(sum(numbers[1:]) for numbers in counts.values()), 1)
    step = width / len(counts)
    every = -(-len(counts) * 76 // width)
    parts = []
    for place, (value, numbers) in enumerate(counts.items()):
        bottom = float(height)
        title = f"{value}: {numbers[0]:,} sentences; " + ", ".join(
            f"{name} {number:,}" for name, number in zip(codebook.names, numbers[1:], strict=True)
        )
        parts.append(f"<g><title>{html.escape(title)}</title>")
        for column, number in enumerate(numbers[1:]):
            tall = number / highest * (height - 16)
            bottom -= tall
            parts.append(
                f'<rect class="l{column}" fill="var(--c)" x="{place * step + 1:.1f}" '
                f'y="{bottom:.1f}" width="{max(step - 2, 1):.1f}" height="{tall:.1f}"/>'
            )
        if place % every == 0:
            parts.append(
                f'<text x="{place * step + 1:.1f}" y="{height + 18}">{html.escape(value)}</text>'
            )
        parts.append("</g>")
    return (
        f'<svg viewBox="0 0 {width} {height + foot}" role="img" '
        f'aria-label="sentences with a label over time">{"".join(parts)}'
        f'<text x="{width - 4}" y="10" text-anchor="end">highest: {highest:,}</text></svg>'
    )


def _table(counts: Tally, codebook: Codebook) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("sentences", *codebook.names))
    rows = "".join(
        f"<tr><td>{html.escape(value) or '<i>empty</i>'}</td>"
        + "".join(f"<td>{number:,}</td>" for number in numbers)
        + "</tr>"
        for value, numbers in ordered[:_MOST_VALUES]
    )
    rest = len(ordered) - _MOST_VALUES
    note = f'<p class="quiet">and {rest:,} more values</p>' if rest > 0 else ""
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"
