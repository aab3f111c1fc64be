"""What parts the cells of a delimited table, and what tells that quotation marks enclose them.

Labelled tables and tables of articles come out of the same programs, so both are read by this.
"""

import re
from collections.abc import Sequence

QUOTES_HINT = "if quotation marks quote the cells, set tsv_quotes=true beside the columns' names"

_DELIMITERS = ",;\t"
_ANNOUNCED = re.compile(r"sep=([^\w\s\"]|\t)\r?\n?", re.IGNORECASE)
_WITHIN_QUOTES = re.compile(r'"[^"]*("|\Z)')
_QUOTED = re.compile(r'"([^"]|"")*"', re.DOTALL)


def delimiter_of(header: str) -> str:
    """Return the most frequent of comma, semicolon and tab outside quotation marks.

    Where the comma is a decimal mark, Excel saves `.csv` with semicolons.
    """
    return max(_DELIMITERS, key=_WITHIN_QUOTES.sub("", header).count)


def announced_delimiter(line: str) -> str | None:
    """Return what a line above the header says to Excel, as `sep=;`, if it is such a line."""
    found = _ANNOUNCED.fullmatch(line)
    return found[1] if found else None


def quoted_header(cells: Sequence[str]) -> bool:
    """Say whether any cell of a header that was read without quoting is quoted."""
    return any(map(_QUOTED.fullmatch, cells))


def quoted_row(cells: Sequence[str]) -> bool:
    """Say whether any cell that was read without quoting is quoted beyond doubt.

    A pair of quotation marks within tells; a cell that merely begins and ends with one may be
    speech.
    """
    return any('""' in cell[1:-1] and _QUOTED.fullmatch(cell) for cell in cells)
