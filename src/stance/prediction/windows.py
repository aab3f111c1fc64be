"""Windows: the stretches of input that are scored, written and remembered as one.

Where the cuts fall depends on the records alone, so a job that is taken up again cuts alike.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stance.text.documents import Blank, Document, Record, Reject
from stance.text.sources import Meter

_RECORD = 32
"""What a record counts beside its text, so that windows of empty records end too."""


@dataclass
class Window:
    """A stretch of the input: its documents, and the records that are none.

    `read` says how many bytes of the input had been read at its end.
    """

    number: int
    documents: list[Document] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    blank: int = 0
    read: int = 0


def windows_of(records: Iterable[Record], meter: Meter, size: int) -> Iterator[Window]:
    """Cut records into windows of at least `size` characters, but for the last one.

    Args:
        records: what a reader yields.
        meter: what that reader tells how far it has come.
        size: characters in a window; two hundred thousand are some two thousand sentences.
    """
    window, filled = Window(0), 0
    for record in records:
        match record:
            case Document():
                window.documents.append(record)
                filled += len(record.text)
            case Reject():
                window.rejects.append(record)
            case Blank():
                window.blank += 1
        filled += _RECORD
        if filled >= size:
            window.read = meter.read
            yield window
            window, filled = Window(window.number + 1), 0
    if window.documents or window.rejects or window.blank:
        window.read = meter.read
        yield window
