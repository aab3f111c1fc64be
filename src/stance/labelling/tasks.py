"""A task is a sentence that somebody should label, with its context, suggestion and evidence.

A queue is a file of tasks in reading order, JSON Lines. It is written once and never changed:
answers refer to it by id, and every text that comes back is held against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stance.codebook import Codebook
from stance.errors import UserError
from stance.labelling.files import read_rows, write_rows


@dataclass(frozen=True)
class Task:
    """One sentence to label: `document[start:end]`, its neighbours, and what voters say of it.

    `document_key` tells its document from others of that id, by the `sentence_key` of its text.
    """

    id: str
    text: str
    before: str = ""
    after: str = ""
    document_id: str = ""
    document_key: str = ""
    sentence: int = 0
    start: int = 0
    end: int = 0
    suggested: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    evidence: Sequence[Mapping[str, Any]] = ()
    chosen_for: str = ""


def write_queue(path: Path, tasks: Sequence[Task]) -> None:
    """Write a queue to a file that does not exist yet.

    Raises:
        UserError: it exists, or cannot be written.
    """
    write_rows(path, map(asdict, tasks), replace=False)


def read_queue(path: Path, codebook: Codebook) -> list[Task]:
    """Read a queue.

    Raises:
        UserError: the file cannot be read, or a line is no task under the codebook.
    """
    tasks: list[Task] = []
    seen: dict[str, int] = {}
    for line, row in read_rows(path):
        try:
            task = Task(**{**row, "suggested": tuple(row.get("suggested", ()))})
        except TypeError as error:
            raise UserError(f"{path}:{line}: not a task of a queue: {error}") from error
        for name, value in (("id", task.id), ("text", task.text)):
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{path}:{line}: {name!r} must be a text, found {value!r}")
        for label in task.suggested:
            if label not in codebook.names:
                raise UserError(f"{path}:{line}: the codebook has no label {label!r}")
        if task.id in seen:
            raise UserError(f"{path}:{line}: the id {task.id!r} is also in line {seen[task.id]}")
        seen[task.id] = line
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: no tasks in this queue")
    return tasks
