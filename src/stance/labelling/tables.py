"""Spreadsheets as people open them: in Excel's encoding, and nothing in a cell run as a formula."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from stance.corpus.tables import FORMULA
from stance.labelling.files import write_bytes


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
    """Write a table to a file that does not exist yet.

    Raises:
        UserError: it stands there already, or cannot be written.
    """
    suffix = path.suffix.lower()
    content = _xlsx(header, rows) if suffix == ".xlsx" else _csv(header, rows, suffix)
    write_bytes(path, content, replace=False)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str | int]], suffix: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_quoted(cell) if isinstance(cell, str) else cell for cell in row])
    return stream.getvalue().encode("utf-8-sig")  # without the mark, Excel takes it for cp1252


def _quoted(cell: str) -> str:
    return f"'{cell}" if FORMULA.match(cell) else cell


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
