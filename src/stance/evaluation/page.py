"""The error analysis as one HTML page that opens from a file: no network, no other files.

What it shows comes from `stance.evaluation.errors` and `paired`; here it is only set in type. All
text is escaped, and the page forbids itself every connection.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from stance.codebook import NONE
from stance.cues import Cue
from stance.evaluation.errors import FEW_DOCUMENTS, Analysis, Error, Slice, WrongLabel
from stance.evaluation.metrics import Interval
from stance.evaluation.paired import Comparison, describe
from stance.evaluation.plots import png

INTERCEPT = "[intercept]"
"""The part of a score that is the same for all sentences: nothing to see in it."""

_PART = re.compile(r"\[(intercept|.+/(fired|blocked)|(word|char)__.+)\]", re.DOTALL)
"""A part of a score that belongs to no word; news has words in square brackets too, as [sic]."""

_PARTS_SHOWN = 5
"""Parts of a score that belong to no word (cue rules) shown beside a sentence."""

_FAINT = 0.04
"""Words that moved a label by less than this share of the strongest word are left plain."""

_STYLE = """
:root { --ink: #1c2430; --soft: #5d6878; --line: #d9dee6; --for: 33,102,172; --against: 214,96,0; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 76rem;
  padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem;
  border-top: 3px solid var(--ink); padding-top: .5rem; } h3 { font-size: 1.05rem;
  margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; } .soft, figcaption { color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
nav a { margin-right: 1rem; } a { color: #1a5fb4; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } .pictures figure { margin: 0;
  flex: 1 1 22rem; max-width: 34rem; } .pictures img { width: 100%; height: auto; display: block; }
.bar { position: relative; display: inline-block; width: 9rem; height: .8rem;
  background: #eef1f5; vertical-align: middle; margin-right: .5rem; }
.bar i { position: absolute; top: 0; bottom: 0; background: rgba(var(--for), .28); }
.bar b { position: absolute; top: -1px; bottom: -1px; width: 3px; background: rgb(var(--for)); }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1rem; margin: .6rem 0; }
.filters label { color: var(--soft); font-size: .87rem; } select, input { font: inherit;
  padding: .1rem .3rem; max-width: 100%; }
article { border-top: 1px solid var(--line); padding: .6rem 0; } article[hidden] { display: none; }
.head { font-size: .87rem; color: var(--soft); overflow-wrap: anywhere; }
.head b { color: var(--ink); } .sentence { overflow-wrap: anywhere; }
.tag { font-size: .8rem; padding: .05rem .4rem; border-radius: .2rem; white-space: nowrap;
  margin-right: .4rem; border: 1px solid; } .missed { color: rgb(var(--against)); }
.false { color: rgb(var(--for)); } mark { color: inherit; padding: 0 .08rem;
  border-radius: .15rem; } .key mark { padding: 0 .4rem; }
@media (max-width: 40rem) { body { padding: .6rem; } .bar { width: 5rem; }
  .pictures figure { flex-basis: 100%; } }
@media print { .filters { display: none; } }
"""

_SCRIPT = """
for (const part of document.querySelectorAll('.errors')) {
  const kind = part.querySelector('.kind'), words = part.querySelector('.words');
  const count = part.querySelector('.count'), all = [...part.querySelectorAll('article')];
  const show = () => {
    const wanted = kind.value, text = words.value.toLowerCase();
    let shown = 0;
    for (const one of all) {
      one.hidden = !(one.dataset.kinds.includes('|' + wanted) &&
        one.textContent.toLowerCase().includes(text));
      shown += !one.hidden;
    }
    count.textContent = shown + ' of ' + all.length + ' shown';
  };
  kind.addEventListener('change', show);
  words.addEventListener('input', show);
  show();
}
"""


@dataclass(frozen=True)
class ModelPart:
    """What the page shows of one model."""

    name: str
    analysis: Analysis
    figures: Mapping[str, Figure]


def error_page(
    title: str,
    comparison: Comparison,
    scores: Mapping[str, Sequence[str]],
    parts: Sequence[ModelPart],
) -> str:
    """Write the page.

    Args:
        title: the file that was judged.
        comparison: what is said at the top.
        scores: columns of the table of scores, the first one naming them.
        parts: the models, each with its errors and pictures.
    """
    links = "".join(f'<a href="#model-{i}">{escape(p.name)}</a>' for i, p in enumerate(parts))
    body = "".join(_model(number, part) for number, part in enumerate(parts))
    lines = "".join(f"<p>{escape(line)}</p>" for line in describe(comparison))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Errors on {escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Errors on {escape(title)}</h1>"
        f'<p class="soft">{comparison.rows} sentences in {comparison.documents} documents. '
        f"All intervals are 95 % bootstrap intervals over documents.</p>"
        f"<nav>{links}</nav><h3>Scores</h3>{_table(scores)}{lines}{body}"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _model(number: int, part: ModelPart) -> str:
    analysis = part.analysis
    return (
        f'<h2 id="model-{number}">{escape(part.name)}</h2>'
        f'<div class="pictures">{"".join(_picture(t, f) for t, f in part.figures.items())}</div>'
        f"<h3>Scores by slice</h3>{_slices(analysis.slices)}"
        f'<p class="soft">Without an interval: fewer than {FEW_DOCUMENTS} documents.</p>'
        f"<h3>Errors</h3>{_KEY}{_errors(analysis.certain)}"
        "<h3>Suspected label errors</h3>"
        '<p class="soft">Here the models together contradict the gold label with more confidence '
        "than they have in that label elsewhere (confident learning). Read them against the "
        f"codebook before the model is blamed.</p>{_errors(analysis.suspected)}"
    )


_KEY = (
    '<p class="soft key">The most confident first. Words that spoke '
    '<mark style="background:rgba(33,102,172,.45)">for</mark> and '
    '<mark style="background:rgba(214,96,0,.45)">against</mark> the label named before the '
    "sentence; the contribution of each stands in its tooltip.</p>"
)


def _errors(errors: Sequence[Error]) -> str:
    if not errors:
        return '<p class="soft">None.</p>'
    kinds = sorted({_kind(wrong) for error in errors for wrong in error.wrong})
    options = "".join(f'<option value="{escape(k)}">{escape(k)}</option>' for k in kinds)
    return (
        '<div class="errors"><div class="filters">'
        f'<label>kind <select class="kind"><option value="">all</option>{options}</select></label>'
        '<label>with the words <input class="words" type="search"></label>'
        f'<span class="soft count">{len(errors)}</span></div>'
        f"{''.join(map(_error, errors))}</div>"
    )


def _error(error: Error) -> str:
    kinds = "|" + "|".join(_kind(wrong) for wrong in error.wrong)
    sentences = "".join(_sentence(error.text, wrong) for wrong in error.wrong)
    cues = "; ".join(map(_cue, error.cues))
    return (
        f'<article data-kinds="{escape(kinds)}"><p class="head">{escape(error.id)}: gold '
        f"<b>{_set(error.gold)}</b>, predicted <b>{_set(error.predicted)}</b>; "
        f"{_probabilities(error)}</p>{sentences}"
        + (f'<p class="soft">cues: {cues}</p>' if cues else "")
        + "</article>"
    )


def _probabilities(error: Error) -> str:
    return ", ".join(f"{escape(name)} {value:.2f}" for name, value in error.probabilities)


def _kind(wrong: WrongLabel) -> str:
    return f"{'missed' if wrong.missed else 'false'} {wrong.label}"


def _sentence(text: str, wrong: WrongLabel) -> str:
    tag = (
        f'<span class="tag {"missed" if wrong.missed else "false"}">{escape(_kind(wrong))} '
        f"{wrong.probability:.2f}</span>"
    )
    if not wrong.words:
        return f'<p class="sentence">{tag}{escape(text)}</p>'
    words = [(w, v) for w, v in wrong.words if not _PART.fullmatch(w)]
    parts = [(w, v) for w, v in wrong.words if _PART.fullmatch(w) and w != INTERCEPT and v]
    strongest = max((abs(v) for _, v in words), default=0.0)
    marked = " ".join(_word(w, v, strongest) for w, v in words)
    parts.sort(key=lambda item: -abs(item[1]))
    rest = ", ".join(f"{w.strip('[]')} {v:+.2f}" for w, v in parts[:_PARTS_SHOWN])
    return f'<p class="sentence">{tag}{marked}</p>' + (
        f'<p class="soft">also {escape(rest)}</p>' if rest else ""
    )


def _word(word: str, value: float, strongest: float) -> str:
    share = abs(value) / strongest if strongest else 0.0
    if share < _FAINT:
        return escape(word)
    colour = "33,102,172" if value > 0 else "214,96,0"
    return (
        f'<mark style="background:rgba({colour},{0.6 * share:.2f})" title="{value:+.3f}">'
        f"{escape(word)}</mark>"
    )


def _cue(cue: Cue) -> str:
    state = f" (blocked: {escape(cue.blocked)})" if cue.blocked else ""
    return f"{escape(cue.label)}/{escape(cue.name)} “{escape(cue.text)}”{state}"


def _set(labels: Sequence[str]) -> str:
    return escape(" + ".join(labels)) or NONE


def _slices(slices: Iterable[Slice]) -> str:
    rows, field = [], None
    for part in slices:
        shown = "" if part.field == field else escape(part.field)
        field = part.field
        rows.append(
            f"<tr><td>{shown}</td><td>{escape(part.value)}</td>"
            f'<td class="number">{part.rows}</td><td class="number">{part.documents}</td>'
            f'<td class="number">{part.positives}</td>'
            f'<td class="number">{_bar(part.f1_micro, part.few_documents)}</td>'
            f'<td class="number">{_bar(part.exact_match, part.few_documents)}</td></tr>'
        )
    return (
        '<div class="scroll"><table><tr><th>field</th><th>value</th><th>sentences</th>'
        "<th>documents</th><th>labels</th><th>micro F1</th><th>exact match</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _bar(found: Interval | None, without_interval: bool) -> str:
    if found is None:
        return ""
    value = f'<b style="left:calc({100 * found.value:.1f}% - 1px)"></b>'
    if without_interval:
        return f'<span class="bar">{value}</span>{found.value:.3f}'
    width = 100 * (found.high - found.low)
    reach = f'<i style="left:{100 * found.low:.1f}%;width:{width:.1f}%"></i>'
    return f'<span class="bar">{reach}{value}</span>{found}'


def _table(columns: Mapping[str, Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for cells in zip(*columns.values(), strict=True)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _picture(title: str, figure: Figure) -> str:
    data = base64.b64encode(png(figure)).decode()
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
