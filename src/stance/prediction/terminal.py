"""Predictions as a coloured table in the terminal, for reading rather than for counting."""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stance.codebook import Codebook
from stance.config import PredictConfig
from stance.model import load_described
from stance.prediction.batch import (
    Outcome,
    carried_columns,
    describe,
    layout_of,
    model_name,
    read_windows,
    settings_of,
)
from stance.prediction.scoring import Scored, score_texts
from stance.prediction.windows import Window
from stance.text.documents import SAVE_AS_UTF8, Reject
from stance.text.sources import STANDARD_INPUT, Sources, find_sources, spool_standard_input

if TYPE_CHECKING:
    from stance.prediction.spark import SparkOutcome

PALETTE = ("red", "yellow", "green", "magenta", "cyan", "blue")
_WIDTH = 120


def show(config: PredictConfig, directory: Path | None = None) -> None:
    """Label every sentence of the input and print one table for each document.

    Args:
        config: what to predict, and how.
        directory: the model's folder, where it is not `model_dir` itself but was fetched from it.

    Raises:
        UserError: the input, the model or a setting cannot be used.
    """
    if config.input != STANDARD_INPUT:
        _show(config, find_sources(config.input), directory)
        return
    with tempfile.TemporaryDirectory(prefix="stance-") as folder:
        sources = spool_standard_input(config.input_format, Path(folder) / "input")
        _show(config, sources, directory)


def _show(config: PredictConfig, sources: Sources, directory: Path | None) -> None:
    layout = layout_of(config)
    carried_columns(sources, layout, fixed=False)  # refuses a table that lacks a column
    description = describe(config, directory)
    model = load_described(description, config.engine, cascade=config.cascade)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    documents = 0
    for window in read_windows(sources, layout, config.window_size):
        texts = [document.text for document in window.documents]
        scored = score_texts(model, texts, settings_of(config))
        print_window(console, window, scored, model.codebook)
        documents += len(texts)
    console.print(f"model {model_name(description)}", style="dim")
    _warn(documents, sources.ignored, sources.written)


def report_outcome(outcome: "Outcome | SparkOutcome") -> None:
    """Say where the results of a job lie and what became of its records."""
    counts = outcome.counts
    labels = ", ".join(f"{name} {count:,}" for name, count in counts.labels.items())
    print(f"predictions: {outcome.output}")
    print(
        f"             {counts.sentences:,} sentences of {counts.documents:,} documents: {labels}"
    )
    if outcome.rejects:
        print(f"rejects:     {outcome.rejects} ({counts.rejects:,} records)")
    if counts.blank:
        print(f"blank:       {counts.blank:,} records without text")
    if outcome.report:
        print(f"report:      {outcome.report}")
    print(f"manifest:    {outcome.manifest}")
    _warn(counts.documents, outcome.ignored, outcome.written)
    if count := counts.not_utf8:
        print(f"warning: {count:,} rejects are not UTF-8; {SAVE_AS_UTF8}", file=sys.stderr)
    if outcome.unreported:
        wanted, columns = ", ".join(map(repr, outcome.unreported)), _first(outcome.columns, 20)
        print(
            f"warning: report_by: no column {wanted}; the columns are {columns or 'none'}",
            file=sys.stderr,
        )


def print_window(console: Console, window: Window, scored: Scored, codebook: Codebook) -> None:
    """Print the tables of a window, then its rejects."""
    row = 0
    for document, count in zip(window.documents, scored.counts, strict=True):
        table = Table(title=Text(document.id, style="bold"), title_justify="left")
        for name in ("", "sentence", "labels"):
            table.add_column(name)
        for name in codebook.names:
            table.add_column(name, justify="right")
        for number in range(int(count)):
            text = document.text[scored.starts[row] : scored.ends[row]]
            table.add_row(str(number), *_cells(text, scored, row, codebook))
            row += 1
        console.print(table)
    _print_rejects(console, window.rejects)


def _warn(documents: int, ignored: Sequence[str], written: Sequence[str]) -> None:
    if not documents:
        print("warning: the input holds no text; the output is empty", file=sys.stderr)
    for files, which in ((ignored, "with other suffixes"), (written, "that earlier jobs wrote")):
        if files:
            names = _first(files, 3)
            print(f"warning: {len(files)} files {which} are left out: {names}", file=sys.stderr)


def _first(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _cells(text: str, scored: Scored, row: int, codebook: Codebook) -> list[Text]:
    colours = [PALETTE[column % len(PALETTE)] for column in range(len(codebook.names))]
    predicted = scored.predicted[row]
    labels = [name for name, bit in zip(codebook.names, predicted, strict=True) if bit]
    first = next((c for c, bit in zip(colours, predicted, strict=True) if bit), "")
    doubt = " ?" if scored.uncertain[row] else ""
    return [
        Text(" ".join(text.split()), style=first),
        Text(codebook.show(labels) + doubt, style=first or "dim"),
        *(
            Text(f"{value:.2f}", style=colour if bit else "dim")
            for value, bit, colour in zip(
                scored.probabilities[row], predicted, colours, strict=True
            )
        ),
    ]


def _print_rejects(console: Console, rejects: Iterable[Reject]) -> None:
    for reject in rejects:
        row = f":{reject.row}" if reject.row else ""
        console.print(Text(f"not scored: {reject.source}{row}: {reject.reason}", style="red"))
