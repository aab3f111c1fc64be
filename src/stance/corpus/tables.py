"""Spreadsheets as people save them: any column order, any of Excel's encodings and delimiters.

Nothing in a cell is ever run as a formula, and no value is bent: all cells are text to us.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stance.errors import UserError
from stance.text.delimited import QUOTES_HINT, delimiter_of, quoted_header, quoted_row

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

FORMULA = re.compile(r"'?[=+\-@\t\r]")
"""How a cell begins that spreadsheet programs may run; an apostrophe before it makes it a text."""

_TICKED = frozenset({"1", "1.0", "x", "y", "yes", "true", "✓", "✔"})
_CROSSED = frozenset({"0", "0.0", "n", "no", "false"})


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str], str]]:
    """Yield the row number, the cells by column, and what is wrong with the row, if anything.

    Raises:
        UserError: the file cannot be read, or lacks a needed column or has one twice.
    """
    rows = _xlsx_rows(path) if path.suffix.lower() == ".xlsx" else _csv_rows(path)
    header: list[str] = []
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            _check_header(path, number, header, needed)
            continue
        surplus = [cell for cell in cells[len(header) :] if cell]
        values = {name: _unquoted(cell) for name, cell in zip(header, cells, strict=False) if name}
        problem = f"{len(cells)} cells where the header has {len(header)}" if surplus else ""
        yield number, values, problem
    if not header:
        raise UserError(f"{path}: no rows in this table")


def read_tsv(
    text: str, path: Path, needed: Sequence[str], *, quotes: bool
) -> Iterator[tuple[int, dict[str, str], str]]:
    """Yield what `read_table` does, of tab-separated text in which every row must be whole.

    Args:
        text: the content of the file.
        path: its name, for messages.
        needed: columns that it must have.
        quotes: whether quotation marks quote the cells, or are letters like any other.

    Raises:
        UserError: it lacks a needed column or has one twice, or its quotation marks do not match.
    """
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=quoting, strict=True)
    rows = _numbered_rows(reader, path, "tab-separated")
    _, header = next(rows, (1, None))
    if header is None:
        return
    if not quotes and quoted_header(header):
        raise UserError(f"{path}:1: the header's cells are quoted; {QUOTES_HINT}")
    _check_header(path, 1, header, needed)
    for number, cells in rows:
        if not any(cells):
            continue
        problem = ""
        if len(cells) != len(header):
            problem = f"{len(cells)} cells where the header has {len(header)}"
        elif not quotes and quoted_row(cells):
            problem = f"a cell is quoted; {QUOTES_HINT}"
        yield number, dict(zip(header, cells, strict=False)), problem


def read_ticks(values: Mapping[str, str], names: Sequence[str]) -> dict[str, bool | None]:
    """Read cells that say yes or no, as 1 and 0 or x; an empty or missing one says nothing: None.

    Raises:
        ValueError: a cell is none of these.
    """
    ticks: dict[str, bool | None] = {}
    for name in names:
        cell = values.get(name, "").strip().casefold()
        if cell and cell not in _TICKED | _CROSSED:
            raise ValueError(f"column {name!r}: {cell[:40]!r} is neither 1 nor 0")
        ticks[name] = cell in _TICKED if cell else None
    return ticks


def _check_header(path: Path, row: int, header: Sequence[str], needed: Sequence[str]) -> None:
    """Hold that a header has the needed columns, and no column twice.

    Raises:
        UserError: it lacks one, or has one twice.
    """
    for name in needed:
        if name not in header:
            found = ", ".join(filter(None, header))
            raise UserError(f"{path}:{row}: no column {name!r}; the columns are {found}")
    for name in filter(None, header):
        if header.count(name) > 1:
            raise UserError(f"{path}:{row}: the column {name!r} stands there twice")


def _numbered_rows(reader: Any, path: Path, kind: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row of a CSV reader begins, and its cells.

    Raises:
        UserError: the file is not of the kind, as "CSV", that the reader expects.
    """
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not {kind}: {error}") from error


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = _decoded(path)
    delimiter = delimiter_of(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return _numbered_rows(reader, path, "CSV")


def _decoded(path: Path) -> str:
    """Decode what Excel saves: UTF-8 with or without its mark, UTF-16, or Windows' own."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    encodings = (
        ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    )
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: neither UTF-8, UTF-16 nor Windows-1252")


def _xlsx_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (OSError, zipfile.BadZipFile, InvalidFileException, KeyError, ValueError) as error:
        raise UserError(f"{path}: not an Excel workbook: {error}") from error
    try:
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            yield number, ["" if value is None else _shown(value) for value in row]
    finally:
        book.close()


def _shown(value: object) -> str:
    """Write a cell's value as its reader sees it: 1, not 1.0; TRUE as true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
