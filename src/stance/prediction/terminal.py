"""Predictions as a coloured table in the terminal, for reading rather than for counting."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stance.codebook import Codebook
from stance.config import PredictConfig
from stance.prediction.batch import (
    Window,
    layout_of,
    load,
    model_name,
    score_windows,
    settings_of,
    windows_of,
)
from stance.prediction.scoring import Scored
from stance.text.documents import Reject, read_documents
from stance.text.sources import find_sources

PALETTE = ("red", "yellow", "green", "magenta", "cyan", "blue")
_WIDTH = 120


def show(config: PredictConfig) -> None:
    """Label every sentence of the input and print one table for each document.

    Raises:
        UserError: the input, the model or a setting cannot be used.
    """
    sources = find_sources(config.input)
    model = load(config)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    windows = windows_of(read_documents(sources.files, layout_of(config)))
    for window, scored in score_windows(model, windows, settings_of(config)):
        print_window(console, window, scored, model.codebook)
    console.print(f"model {model_name(model)}", style="dim")


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
