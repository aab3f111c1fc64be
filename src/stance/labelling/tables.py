"""Spreadsheets as people save them: any column order, any of Excel's encodings and delimiters.

Nothing in a cell is ever run as a formula, and no value is bent: all cells are text to us.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from stance.corpus.examples import numbered_rows
from stance.errors import UserError
from stance.labelling.files import write_bytes

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

_DELIMITERS = ",;\t"
_FORMULA = re.compile(r"'?[=+\-@\t\r]")
"""How a cell begins that spreadsheet programs may run; an apostrophe before it makes it a text."""


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
    """Write a table to a file that does not exist yet.

    Raises:
        UserError: its suffix is none of a table's, or it stands there already.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise UserError(f"output: {path}: a table ends in {', '.join(TABLE_SUFFIXES)}")
    content = _xlsx(header, rows) if suffix == ".xlsx" else _csv(header, rows, suffix)
    write_bytes(path, content, replace=False)


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


def _check_header(path: Path, row: int, header: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in header:
            found = ", ".join(filter(None, header))
            raise UserError(f"{path}:{row}: no column {name!r}; the columns are {found}")
    for name in filter(None, header):
        if header.count(name) > 1:
            raise UserError(f"{path}:{row}: the column {name!r} stands there twice")


def _csv(header: Sequence[str], rows: Sequence[Sequence[str | int]], suffix: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_quoted(cell) if isinstance(cell, str) else cell for cell in row])
    return stream.getvalue().encode("utf-8-sig")  # without the mark, Excel takes it for cp1252


def _quoted(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = _decoded(path)
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return numbered_rows(reader, path, "CSV")


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


def _xlsx(header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> bytes:
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook()
    sheet = book.active
    for number, row in enumerate([header, *rows], start=1):
        for column, value in enumerate(row, start=1):
            if value == "":
                continue
            cell = sheet.cell(number, column)
            cell.value = ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = "s"  # a text that begins with = is none of Excel's formulas
    sheet.freeze_panes = "A2"
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


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
