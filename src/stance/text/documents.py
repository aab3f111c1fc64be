"""Documents from articles and tables, record by record, with no value bent on the way.

Cells of CSV stay text, values of JSON keep the very characters in which they were written, values
of Parquet keep their Arrow type: a reader that guesses types turns `007` into 7 and `NA` into
nothing. A record that cannot be read becomes a `Reject` with its reason, and reading goes on.
"""

import csv
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from stance.errors import UserError
from stance.text.delimited import (
    QUOTES_HINT,
    announced_delimiter,
    delimiter_of,
    quoted_header,
    quoted_row,
)
from stance.text.sources import DamagedSource, Meter, Source, lines_of, open_source

SAVE_AS_UTF8 = "save the file as UTF-8"
"""How the reason ends for which text in another encoding is rejected."""


@dataclass(frozen=True, slots=True)
class RawJson:
    """A JSON value that is no string, in the characters in which it was written."""

    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its id, and the other columns of its record.

    Values in `fields` are `str`, `RawJson`, or Arrow scalars where the source is Parquet.
    """

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be used: where it stands, its id if that could be read, and why."""

    source: str
    row: int | None
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Blank:
    """A record without text."""


Record = Document | Reject | Blank


@dataclass(frozen=True)
class Layout:
    """How records are read: the columns of text and id, and the longest record in bytes.

    With an empty `id` a record's id is its file's name and its row. `tsv_quotes` says whether a
    quotation mark at the beginning of a cell of a `.tsv` file quotes the cell.

    Raises:
        UserError: one column is to hold both.
    """

    text: str = "text"
    id: str = ""
    longest: int = 10_000_000
    tsv_quotes: bool = False

    def __post_init__(self) -> None:
        if self.id == self.text:
            raise UserError(f"id_column: {self.id!r} is the text_column as well")


def read_documents(
    sources: Sequence[Source], layout: Layout, meter: Meter | None = None
) -> Iterator[Record]:
    """Read all records of all sources in order, telling `meter` how far reading has come."""
    for source in sources:
        try:
            yield from _READERS[source.format](source, layout, meter or Meter())
        except DamagedSource as error:
            yield Reject(source.name, None, None, str(error))


def columns_of(source: Source, layout: Layout) -> dict[str, Any]:
    """Return the carried columns of a table with their Arrow types, or None where text is meant.

    JSON Lines are free in their columns: those of the first record are returned.

    Raises:
        UserError: the table has no text column or no id column; the columns found are named.
        DamagedSource: the head of the file cannot be read.
    """
    match source.format:
        case "txt":
            return {}
        case "parquet":
            with _parquet(source) as file:
                found = {f.name: f.type for f in file.schema_arrow}
                duplicates = len(found) < len(file.schema_arrow)
            if layout.text in found and not _is_text(found[layout.text]):
                raise UserError(
                    f"{source.path}: the column {layout.text!r} is {found[layout.text]}, not text"
                )
        case "jsonl":
            first = _first_object(source, layout)
            if first is None:
                return {}
            found, duplicates = dict.fromkeys(first), False
        case _:
            header = _header(source, layout)
            if header is None:
                return {}
            found, duplicates = dict.fromkeys(header), len(set(header)) < len(header)
    if duplicates:
        raise UserError(f"{source.path}: two columns bear the same name")
    for key, column in (("text_column", layout.text), ("id_column", layout.id)):
        if column and column not in found:
            names = ", ".join(found)
            raise UserError(f"{source.path}: {key}: no column {column!r}; the columns are {names}")
    return {name: type_ for name, type_ in found.items() if name not in (layout.text, layout.id)}


def _read_txt(source: Source, layout: Layout, meter: Meter) -> Iterator[Record]:
    with open_source(source, meter) as stream:
        try:
            content = stream.read(layout.longest + 1)
        except OSError as error:
            raise DamagedSource(f"cannot be read: {error.strerror or error}") from error
    if len(content) > layout.longest:
        yield Reject(source.name, 1, source.name, _too_long(layout))
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Reject(source.name, 1, source.name, f"{_not_utf8(error)}; {SAVE_AS_UTF8}")
        return
    yield _record(source.name, 1, source.name, text, {})


def _read_jsonl(source: Source, layout: Layout, meter: Meter) -> Iterator[Record]:
    with open_source(source, meter) as stream:
        for row, line in lines_of(stream, layout.longest):
            if line is None:
                yield Reject(source.name, row, None, _too_long(layout))
            elif line.strip():
                yield _json_record(source, row, line, layout)


def _json_record(source: Source, row: int, line: bytes, layout: Layout) -> Record:
    try:
        members = _members(_decode(line, row))
    except _BadRecord as error:
        return Reject(source.name, row, None, str(error))
    id_ = members.pop(layout.id, None) if layout.id else f"{source.name}:{row}"
    id_ = id_.text if isinstance(id_, RawJson) and id_.text != "null" else id_
    if not isinstance(id_, str) or not id_:
        return Reject(source.name, row, None, f"no id in {layout.id!r}")
    if layout.text not in members:
        return Reject(source.name, row, id_, f"no column {layout.text!r}")
    text = members.pop(layout.text)
    if isinstance(text, RawJson):
        if text.text == "null":
            return Blank()
        shown = text.text[:40]
        return Reject(source.name, row, id_, f"{layout.text!r} is no string but {shown}")
    return _record(source.name, row, id_, text, members)


class _BadRecord(Exception):
    """Why a record cannot be read."""


def _decode(line: bytes, row: int) -> str:
    try:
        return line.decode("utf-8-sig" if row == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise _BadRecord(f"{_not_utf8(error)}; {SAVE_AS_UTF8}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


# Numbers stay text: nothing is rounded, and no digit count is too much.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)
_SPACE = re.compile(r"[ \t\n\r]*")
_VISIBLE = re.compile(r"[^\s\u200b-\u200f\u2060\ufeff]")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _members(text: str) -> dict[str, str | RawJson]:
    """Read the members of a JSON object, values that are no strings in their own characters."""
    try:
        return _scan_object(text)
    except RecursionError as error:
        raise _BadRecord("not JSON that can be read: nested too deep") from error
    except (IndexError, StopIteration) as error:
        raise _BadRecord("not a JSON object: ends early") from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise _BadRecord(f"not a JSON object: {reason}") from error


def _scan_object(text: str) -> dict[str, str | RawJson]:
    members: dict[str, str | RawJson] = {}
    position = _expect(text, 0, "{")
    if text[position] == "}":
        _expect_end(text, position + 1)
        return members
    while True:
        start = _expect(text, position, '"', consume=False)
        key, position = scanstring(text, start + 1)
        position = _expect(text, position, ":")
        value: str | RawJson
        if text[position] == '"':
            value, end = scanstring(text, position + 1)
        else:
            _, end = _DECODER.raw_decode(text, position)
            value = RawJson(text[position:end])
        if key in members:
            raise ValueError(f"the key {key[:40]!r} stands there twice")
        if "\\u" in text and _LONE_SURROGATE.search(
            key + (value if isinstance(value, str) else "")
        ):
            raise ValueError(
                f"half a surrogate pair in {key[:40]!r}".encode(errors="replace").decode()
            )
        members[key] = value
        position = _skip(text, end)
        if text[position] == "}":
            _expect_end(text, position + 1)
            return members
        position = _expect(text, position, ",")


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _expect(text: str, position: int, character: str, *, consume: bool = True) -> int:
    """Return the place of what follows `character`, or of `character` itself."""
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise ValueError(f"expected {character!r} at character {position + 1}")
    return _skip(text, position + 1) if consume else position


def _expect_end(text: str, position: int) -> None:
    if _skip(text, position) != len(text):
        raise ValueError(f"something follows the object at character {position + 1}")


def _first_object(source: Source, layout: Layout) -> dict[str, str | RawJson] | None:
    with open_source(source, Meter()) as stream:
        for row, line in lines_of(stream, layout.longest):
            if line is None or not line.strip():
                continue
            try:
                return _members(_decode(line, row))
            except _BadRecord:
                continue
    return None


def _read_csv(source: Source, layout: Layout, meter: Meter) -> Iterator[Record]:
    with open_source(source, meter) as stream:
        rows = _CsvRows(lines_of(stream, layout.longest), source, layout)
        header = next(iter(rows), None)
        if header is None or isinstance(header.cells, _BadRecord):
            return
        names = header.cells
        for row in rows:
            if isinstance(row.cells, _BadRecord):
                yield Reject(source.name, row.line, None, str(row.cells))
                continue
            yield _csv_record(
                source,
                row.line,
                dict(zip(names, row.cells, strict=False)),
                len(row.cells) - len(names),
                layout,
            )


def _csv_record(
    source: Source, line: int, values: dict[str, Any], surplus: int, layout: Layout
) -> Record:
    id_ = values.pop(layout.id, None) if layout.id else f"{source.name}:{line}"
    if surplus:
        cells = f"{abs(surplus)} {'more' if surplus > 0 else 'fewer'}"
        return Reject(source.name, line, id_, f"ragged: {cells} cells than the header")
    if not id_:
        return Reject(source.name, line, None, f"no id in {layout.id!r}")
    return _record(source.name, line, id_, values.pop(layout.text), values)


@dataclass(frozen=True, slots=True)
class _CsvRow:
    line: int
    cells: list[str] | _BadRecord


class _CsvRows:
    """Rows of a CSV stream, each with the line on which it begins.

    An open quotation mark swallows what follows; then only the line on which it stands is given
    up, and reading starts anew on the next one.
    """

    def __init__(
        self, lines: Iterator[tuple[int, bytes | None]], source: Source, layout: Layout
    ) -> None:
        self._lines = lines
        self._ahead: deque[tuple[int, bytes | None]] = deque()
        self._taken: list[tuple[int, bytes | None]] = []
        self._length = 0
        self._doubled = False
        self._layout = layout
        self.quotes = source.format == "csv" or layout.tsv_quotes
        self._options: dict[str, Any] = {
            "strict": True,
            "quoting": csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            "delimiter": "\t" if source.format == "tsv" else self._delimiter(),
        }
        csv.field_size_limit(layout.longest)

    def __iter__(self) -> Iterator[_CsvRow]:
        reader = csv.reader(self._feed(), **self._options)
        while True:
            self._taken, self._length, self._doubled = [], 0, False
            try:
                row = next(reader)
                if self._doubled and quoted_row(row):
                    raise _BadRecord(f"a cell is quoted; {QUOTES_HINT}")
                cells: list[str] | _BadRecord = row
            except StopIteration:
                return
            except (csv.Error, _BadRecord) as error:
                cells = self._give_up(error)
                reader = csv.reader(self._feed(), **self._options)
            if cells:
                yield _CsvRow(self._taken[0][0], cells)

    def _delimiter(self) -> str:
        """Find out what parts the cells, and put the header back."""
        for number, line in self._lines:
            text = (line or b"").decode("utf-8-sig", errors="replace")
            announced = announced_delimiter(text) if number == 1 else None
            if announced:
                return announced
            if line is None or text.strip("\r\n"):
                self._ahead.append((number, line))
                return delimiter_of(text)
        return ","

    def _feed(self) -> Iterator[str]:
        while True:
            item = self._ahead.popleft() if self._ahead else next(self._lines, None)
            if item is None:
                return
            self._taken.append(item)
            number, line = item
            if line is None:
                raise _BadRecord(_too_long(self._layout))
            self._length += len(line)
            if self._length > self._layout.longest:
                raise _BadRecord("a quotation mark is opened and not closed")
            if b"\0" in line:
                raise _BadRecord("the row holds a NUL character (in UTF-16? save it as UTF-8)")
            self._doubled = not self.quotes and b'""' in line  # fast, and a row is one line then
            yield _decode(line, number)

    def _give_up(self, error: Exception) -> _BadRecord:
        self._ahead.extendleft(reversed(self._taken[1:]))
        if isinstance(error, csv.Error):
            return _BadRecord(f"not CSV: {error}")
        return _BadRecord(str(error))


def _header(source: Source, layout: Layout) -> list[str] | None:
    with open_source(source, Meter()) as stream:
        rows = _CsvRows(lines_of(stream, layout.longest), source, layout)
        row = next(iter(rows), None)
    if row is None:
        return None
    if isinstance(row.cells, _BadRecord):
        raise UserError(f"{source.path}:{row.line}: the header cannot be read: {row.cells}")
    if not rows.quotes and quoted_header(row.cells):
        raise UserError(f"{source.path}:{row.line}: the header's cells are quoted; {QUOTES_HINT}")
    return row.cells


def _read_parquet(source: Source, layout: Layout, meter: Meter) -> Iterator[Record]:
    import pyarrow as pa

    row, size = 0, source.path.stat().st_size
    with _parquet(source) as file:
        batches = file.iter_batches(batch_size=128, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise DamagedSource(f"damaged after row {row}: {_brief(error)}") from error
            if batch is None:
                return
            meter.read += size * len(batch) // max(1, file.metadata.num_rows)
            for index in range(len(batch)):
                row += 1
                values = {
                    name: column[index]
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                yield parquet_record(source.name, row, values, layout)


def parquet_record(name: str, row: int, values: dict[str, Any], layout: Layout) -> Record:
    """Read one row of a Parquet file, all of it, so that every output rejects the same rows.

    Args:
        name: the file's name in ids and messages.
        row: the row's number in the file, from 1.
        values: the row's Arrow scalars by column.
        layout: which columns hold text and id.
    """
    plain: dict[str, Any] = {}
    for column, value in values.items():
        try:
            plain[column] = value.as_py()
        except (ValueError, OverflowError) as error:
            reason = _not_utf8(error) if isinstance(error, UnicodeDecodeError) else _brief(error)
            return Reject(name, row, None, f"{column!r} cannot be read: {reason}")
    id_ = plain[layout.id] if layout.id else f"{name}:{row}"
    text = plain[layout.text]
    if id_ is None or id_ == "":
        return Reject(name, row, None, f"no id in {layout.id!r}")
    if text is None:
        return Blank()
    if len(text) > layout.longest:
        return Reject(name, row, str(id_), _too_long(layout))
    fields = {column: v for column, v in values.items() if column not in (layout.id, layout.text)}
    return _record(name, row, str(id_), text, fields)


def _parquet(source: Source) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(pa.OSFile(os.fsencode(source.path)))  # a str would have to be UTF-8
    except (pa.ArrowException, OSError) as error:
        raise DamagedSource(f"not a Parquet file that can be read: {_brief(error)}") from error


def _is_text(type_: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)
    )


def _record(name: str, row: int, id_: str, text: str, fields: Mapping[str, Any]) -> Record:
    if "\0" in text:
        return Reject(name, row, id_, "the text holds a NUL character")
    if not _VISIBLE.search(text):
        return Blank()
    return Document(id_, text, fields)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start + 1}"


def _too_long(layout: Layout) -> str:
    return f"longer than {layout.longest:,} bytes"


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


_READERS = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": _read_parquet,
}
