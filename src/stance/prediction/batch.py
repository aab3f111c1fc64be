"""The story of a prediction job: find the input, load the model, score window by window, write.

A window is a stretch of documents, cut by the number of their characters, so that memory does not
grow with the input. The output is written beside its place and renamed when it is whole.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stance.config import PredictConfig
from stance.errors import UserError
from stance.model import StanceModel, load_model
from stance.prediction.files import WholeFile
from stance.prediction.formats import Columns, carried_names, output_format
from stance.prediction.scoring import Scored, Settings, label_counts, score_texts
from stance.text.documents import (
    Blank,
    Document,
    Layout,
    Record,
    Reject,
    columns_of,
    read_documents,
)
from stance.text.sources import DamagedSource, Sources, find_sources

WINDOW = 250_000
"""Characters of text in a window: some two thousand sentences."""


@dataclass
class Window:
    """A stretch of the input: its documents, and the records that are none."""

    number: int
    documents: list[Document] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    blank: int = 0


@dataclass
class Counts:
    """What became of the records."""

    documents: int = 0
    sentences: int = 0
    rejects: int = 0
    blank: int = 0
    labels: dict[str, int] = field(default_factory=dict)

    def add(self, window: Window, scored: Scored, labels: dict[str, int]) -> None:
        """Count a scored window."""
        self.documents += len(window.documents)
        self.sentences += int(scored.counts.sum())
        self.rejects += len(window.rejects)
        self.blank += window.blank
        for name, count in labels.items():
            self.labels[name] = self.labels.get(name, 0) + count


@dataclass(frozen=True)
class Outcome:
    """Where a job's results lie and what became of its records."""

    output: Path
    rejects: Path | None
    counts: Counts


def predict(config: PredictConfig) -> Outcome:
    """Label every sentence of the input and write the output and its rejects.

    Raises:
        UserError: the input, the output, the model or a setting cannot be used.
    """
    output, layout = Path(str(config.output)), layout_of(config)
    rejected = rejects_path(output)
    sources = find_sources(config.input, skip=(output, rejected))
    names, types = carried_columns(sources, layout)
    counts = Counts()
    with WholeFile(output) as whole, WholeFile(rejected) as rejects:
        model = load(config)
        columns = Columns(
            model.codebook, model_name(model), carried_names(names, model.codebook), types
        )
        form = output_format(output, columns, defuse=config.defuse_formulas)
        windows = windows_of(read_documents(sources.files, layout))

        def pieces() -> Iterator[bytes]:
            for window, scored in score_windows(model, windows, settings_of(config)):
                counts.add(window, scored, label_counts(scored, model.codebook))
                for reject in window.rejects:
                    rejects.stream.write(_reject_line(reject))
                yield form.piece(window.documents, scored)

        form.join(pieces(), whole.stream)
        whole.keep()
        if counts.rejects:
            rejects.keep()
        else:
            rejected.unlink(missing_ok=True)
    return Outcome(output, rejected if counts.rejects else None, counts)


def layout_of(config: PredictConfig) -> Layout:
    """Return how the config says that records are read."""
    return Layout(
        text=config.text_column,
        id=config.id_column,
        longest=config.longest_record,
        tsv_quotes=config.tsv_quotes,
    )


def settings_of(config: PredictConfig) -> Settings:
    """Return how the config says that text is cut and labels are decided."""
    return Settings(config.unit, config.operating_point)


def load(config: PredictConfig) -> StanceModel:
    """Load the model and hold that it knows the operating point."""
    model = load_model(Path(config.model_dir))
    model.decision.thresholds(config.operating_point)
    return model


def model_name(model: StanceModel) -> str:
    """Return the name and digest by which predictions say who made them."""
    return f"{model.name}@{model.digest[:12]}"


def rejects_path(output: Path) -> Path:
    """Return where the rejects of an output lie."""
    return output.with_name(f"{output.name}.rejects.jsonl")


def carried_columns(sources: Sources, layout: Layout) -> tuple[list[str], dict[str, Any]]:
    """Return the columns that go along with the predictions, and Arrow types where they have one.

    Raises:
        UserError: a table lacks the text column, or a column's type differs between files.
    """
    names: dict[str, None] = {}
    types: dict[str, Any] = {}
    for source in sources.files:
        try:
            columns = columns_of(source, layout)
        except DamagedSource as error:
            if len(sources.files) == 1:
                raise UserError(f"{source.path}: {error}") from error
            continue
        for name, type_ in columns.items():
            if name in names and types.get(name) != type_:
                raise UserError(
                    f"{source.path}: the column {name!r} is {type_ or 'text'} here and "
                    f"{types.get(name) or 'text'} in another file; score them one by one"
                )
            names[name] = None
            if type_ is not None:
                types[name] = type_
    return list(names), types


def windows_of(records: Iterable[Record]) -> Iterator[Window]:
    """Cut records into windows; where the cuts fall depends on the records alone."""
    window, size = Window(0), 0
    for record in records:
        match record:
            case Document():
                window.documents.append(record)
                size += len(record.text)
            case Reject():
                window.rejects.append(record)
            case Blank():
                window.blank += 1
        size += 32
        if size >= WINDOW:
            yield window
            window, size = Window(window.number + 1), 0
    if window.documents or window.rejects or window.blank:
        yield window


def score_windows(
    model: StanceModel, windows: Iterable[Window], settings: Settings
) -> Iterator[tuple[Window, Scored]]:
    """Score windows in order."""
    for window in windows:
        yield window, score_texts(model, [d.text for d in window.documents], settings)


def _reject_line(reject: Reject) -> bytes:
    return f"{json.dumps(asdict(reject), ensure_ascii=False)}\n".encode()
