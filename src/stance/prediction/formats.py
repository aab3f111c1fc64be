"""Predictions as JSON Lines, CSV or Parquet: one record per sentence, other columns carried along.

Each format writes the scored sentences of one window as a piece, and joins pieces to a file. A
piece depends on its window alone and joining adds nothing that varies, so the same input, model
and settings give the same bytes.
"""

import base64
import csv
import datetime
import decimal
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from stance.codebook import Codebook
from stance.errors import UserError
from stance.prediction.scoring import Scored
from stance.text.documents import Document, RawJson

OUTPUT_SUFFIXES = (".jsonl", ".csv", ".parquet")

_FORMULA = re.compile(r"[=@\t\r\n]|[+-](?!(?:\d+(?:[.,]\d+)*|\.\d+)(?:[eE][+-]?\d+)?\Z)")
"""How a cell begins that spreadsheet programs run as a formula; a signed number is none."""


@dataclass(frozen=True)
class Columns:
    """The columns of an output: ours, and those carried along from the input with their types.

    `carried` maps a column's name in the input to its name in the output; `types` gives Arrow
    types where the input has them.
    """

    codebook: Codebook
    model: str
    carried: Mapping[str, str]
    types: Mapping[str, Any]

    @property
    def own(self) -> list[str]:
        """Names of the columns that do not come from the input."""
        probabilities = [f"p_{name}" for name in self.codebook.names]
        head = ["document_id", "sentence", "start", "end", "text", "labels"]
        return [*head, *probabilities, "uncertain", "windows", "model"]


class Format(Protocol):
    """How predictions are written."""

    def piece(self, documents: Sequence[Document], scored: Scored) -> bytes:
        """Write the sentences of one window."""

    def join(self, pieces: Iterable[bytes], stream: IO[bytes]) -> None:
        """Write a whole file from its pieces."""


def carried_names(
    names: Sequence[str], codebook: Codebook, others: Iterable[str] = ()
) -> dict[str, str]:
    """Give input columns that bear the name of one of ours another one: `input_` before it.

    `others` are names that are as much taken as ours.
    """
    ours = {*Columns(codebook, "", {}, {}).own, *others}
    taken = {*names, *ours}
    renamed: dict[str, str] = {}
    for name in names:
        new = name
        if name in ours:
            while new in taken:
                new = f"input_{new}"
            taken.add(new)
        renamed[name] = new
    return renamed


def check_suffix(path: Path) -> None:
    """Hold that an output's suffix says in which format it is to be written.

    Raises:
        UserError: the suffix is unknown.
    """
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        known = ", ".join(OUTPUT_SUFFIXES)
        raise UserError(f"output: {path}: the suffix {path.suffix!r} says nothing; known: {known}")


def output_format(path: Path, columns: Columns, *, defuse: bool) -> Format:
    """Return the format of a path whose suffix has been checked."""
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines(columns)
        case ".csv":
            return Csv(columns, defuse=defuse)
    return Parquet(columns)


class JsonLines:
    """One JSON object a line; carried JSON values keep their own characters."""

    def __init__(self, columns: Columns) -> None:
        """Keep the columns."""
        self._columns = columns

    def piece(self, documents: Sequence[Document], scored: Scored) -> bytes:
        """Write the sentences of one window as lines."""
        names = self._columns.codebook.names
        model = _quoted(self._columns.model)
        label_sets = _LabelSets(names, lambda labels: json.dumps(labels, ensure_ascii=False))
        lines: list[str] = []
        for document, rows in _by_document(documents, scored):
            head = f'{{"document_id": {_quoted(document.id)}, "sentence": '
            tail = self._carried(document)
            for number, row in enumerate(rows):
                start, end = int(scored.starts[row]), int(scored.ends[row])
                probabilities = "".join(
                    f', "p_{name}": {float(value)!r}'
                    for name, value in zip(names, scored.probabilities[row], strict=True)
                )
                lines.append(
                    f'{head}{number}, "start": {start}, "end": {end}, '
                    f'"text": {_quoted(document.text[start:end])}, '
                    f'"labels": {label_sets[scored.predicted[row].tobytes()]}{probabilities}, '
                    f'"uncertain": {"true" if scored.uncertain[row] else "false"}, '
                    f'"windows": {int(scored.windows[row])}, "model": {model}{tail}}}\n'
                )
        return "".join(lines).encode()

    def join(self, pieces: Iterable[bytes], stream: IO[bytes]) -> None:
        """Put pieces one behind the other."""
        stream.writelines(pieces)

    def _carried(self, document: Document) -> str:
        names = self._columns.carried
        if more := [name for name in document.fields if name not in names]:
            known = {name: names[name] for name in document.fields if name in names}
            names = known | carried_names(more, self._columns.codebook, known.values())
        return "".join(
            f", {_quoted(names[name])}: {to_json(value)}" for name, value in document.fields.items()
        )


class Csv:
    """Comma-separated values with a header line.

    Rows end with carriage return and line feed: only then does csv quote a cell for either.

    With `defuse`, a text cell that a spreadsheet would run as a formula gets an apostrophe before
    it, as spreadsheets themselves write text.
    """

    def __init__(self, columns: Columns, *, defuse: bool) -> None:
        """Keep the columns."""
        self._columns = columns
        self._defuse = defuse

    def piece(self, documents: Sequence[Document], scored: Scored) -> bytes:
        """Write the sentences of one window as rows."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        codebook = self._columns.codebook
        label_sets = _LabelSets(codebook.names, codebook.show)
        for document, rows in _by_document(documents, scored):
            key = self._cell(document.id)
            carried = [
                self._cell(to_text(document.fields.get(name))) for name in self._columns.carried
            ]
            for number, row in enumerate(rows):
                start, end = int(scored.starts[row]), int(scored.ends[row])
                writer.writerow(
                    [
                        key,
                        number,
                        start,
                        end,
                        self._cell(document.text[start:end]),
                        label_sets[scored.predicted[row].tobytes()],
                        *map(float, scored.probabilities[row]),
                        "true" if scored.uncertain[row] else "false",
                        int(scored.windows[row]),
                        self._columns.model,
                        *carried,
                    ]
                )
        return stream.getvalue().encode()

    def join(self, pieces: Iterable[bytes], stream: IO[bytes]) -> None:
        """Put a header and pieces one behind the other."""
        header = io.StringIO(newline="")
        names = [*self._columns.own, *map(self._cell, self._columns.carried.values())]
        csv.writer(header).writerow(names)
        stream.write(header.getvalue().encode())
        stream.writelines(pieces)

    def _cell(self, text: str) -> str:
        return f"'{text}" if self._defuse and _FORMULA.match(text) else text


class Parquet:
    """Columns with types; one row group per window. Pieces are Arrow IPC streams."""

    def __init__(self, columns: Columns) -> None:
        """Lay down the schema."""
        import pyarrow as pa

        self._columns = columns
        own = {
            "document_id": pa.string(),
            "sentence": pa.int32(),
            "start": pa.int64(),
            "end": pa.int64(),
            "text": pa.string(),
            "labels": pa.list_(pa.string()),
            **{f"p_{name}": pa.float64() for name in columns.codebook.names},
            "uncertain": pa.bool_(),
            "windows": pa.int32(),
            "model": pa.string(),
        }
        carried = {
            new: columns.types.get(name) or pa.string() for name, new in columns.carried.items()
        }
        self._schema = pa.schema({**own, **carried})

    @property
    def schema(self) -> Any:
        """The Arrow schema of an output."""
        return self._schema

    def piece(self, documents: Sequence[Document], scored: Scored) -> bytes:
        """Write the sentences of one window as an Arrow stream."""
        import pyarrow as pa

        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, self._schema) as stream:
            stream.write_batch(self.batch(documents, scored))
        return sink.getvalue()

    def batch(self, documents: Sequence[Document], scored: Scored) -> Any:
        """Set the sentences of one window as an Arrow record batch."""
        import numpy as np
        import pyarrow as pa

        names = self._columns.codebook.names
        label_sets = _LabelSets(names, lambda labels: labels)
        origin = np.repeat(np.arange(len(documents)), scored.counts)
        texts = [
            documents[int(document)].text[start:end]
            for document, start, end in zip(origin, scored.starts, scored.ends, strict=True)
        ]
        numbers = [number for count in scored.counts for number in range(count)]
        own = [
            pa.array([d.id for d in documents], pa.string()).take(pa.array(origin)),
            numbers,
            scored.starts,
            scored.ends,
            texts,
            [label_sets[row.tobytes()] for row in scored.predicted],
            *scored.probabilities.T,
            scored.uncertain,
            scored.windows,
            [self._columns.model] * len(texts),
        ]
        carried = [
            self._carried(name, new, documents).take(pa.array(origin))
            for name, new in self._columns.carried.items()
        ]
        arrays = [
            value if isinstance(value, pa.Array) else pa.array(value, type=field.type)
            for value, field in zip([*own, *carried], self._schema, strict=True)
        ]
        return pa.record_batch(arrays, schema=self._schema)

    def join(self, pieces: Iterable[bytes], stream: IO[bytes]) -> None:
        """Write every piece as a row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetWriter(stream, self._schema, compression="zstd") as writer:
            for piece in pieces:
                for batch in pa.ipc.open_stream(piece):
                    if len(batch):
                        writer.write_batch(batch)

    def _carried(self, name: str, new: str, documents: Sequence[Document]) -> Any:
        import pyarrow as pa

        type_ = self._schema.field(new).type
        values = [document.fields.get(name) for document in documents]
        if name in self._columns.types:
            try:
                return pa.array(values, type=type_)
            except TypeError:  # pyarrow takes no scalars of nested types that are missing
                return pa.array([None if v is None else v.as_py() for v in values], type=type_)
        return pa.array([None if _is_null(v) else to_text(v) for v in values], type=type_)


def to_json(value: Any) -> str:
    """Write a carried value as JSON."""
    if isinstance(value, RawJson):
        return value.text
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(_plain(value.as_py()), ensure_ascii=False, allow_nan=False)


def to_text(value: Any) -> str:
    """Write a carried value as the text of a cell; a missing one is empty."""
    if isinstance(value, str):
        return value
    if _is_null(value):
        return ""
    if isinstance(value, RawJson):
        return value.text
    plain = _plain(value.as_py())
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _is_null(value: Any) -> bool:
    if isinstance(value, RawJson):
        return value.text == "null"
    return value is None or (not isinstance(value, str) and not value.is_valid)


def _plain(value: Any) -> Any:
    """Turn a value of an Arrow column into what JSON can say, without rounding it."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if value - value == 0 else str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case decimal.Decimal() | datetime.timedelta():
            return str(value)
        case list() | tuple():
            return [_plain(element) for element in value]
        case dict():
            return {str(key): _plain(element) for key, element in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _by_document(documents: Sequence[Document], scored: Scored) -> Iterator[tuple[Document, range]]:
    row = 0
    for document, count in zip(documents, scored.counts, strict=True):
        yield document, range(row, row + int(count))
        row += int(count)


class _LabelSets(dict[bytes, Any]):
    """Label sets in written form, made once for each combination of labels."""

    def __init__(self, names: Sequence[str], write: Any) -> None:
        super().__init__()
        self._names = names
        self._write = write

    def __missing__(self, key: bytes) -> Any:
        self[key] = self._write([n for n, bit in zip(self._names, key, strict=True) if bit])
        return self[key]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
