"""The answers that one annotator gives on the labelling page, on disk before the next is asked.

The file is only ever appended to: an answer is a line, an undoing is a line, and a line that a
crash cut off is never read. A lock keeps a second page from writing to the same file.
"""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stance.errors import UserError
from stance.labelling.answers import Answer, to_row
from stance.labelling.files import parse_rows
from stance.labelling.tasks import Task

_BEGINNING = b'{"id": '


class Journal:
    """An annotator's file of answers; `standing` maps sentence ids to answers, oldest first.

    Args:
        path: the file; it is made if it is not there.
        annotator: whose answers are written. Those of others in the same file are left alone.

    Raises:
        UserError: the file cannot be written, is open in another page, or is no file of answers.
    """

    def __init__(self, path: Path, annotator: str) -> None:
        """Open the file, and take up where it was left."""
        self.path, self.annotator = path, annotator
        self.standing: dict[str, Answer] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab+")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            raise UserError(f"output: {path}: open in another labelling page") from error
        except OSError as error:
            raise UserError(f"output: {path}: cannot be written: {error.strerror}") from error

    def answer(self, task: Task, labels: tuple[str, ...]) -> None:
        """Write an answer and wait until it is on disk; a former one to the same task gives way."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append(to_row(Answer(task.id, labels, self.annotator, now), task.text))

    def undo(self) -> str | None:
        """Take the last standing answer back and return its sentence's id."""
        if not self.standing:
            return None
        last = next(reversed(self.standing))
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append({"id": last, "undone": True, "annotator": self.annotator, "at": now})
        return last

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def _append(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        self.standing.pop(row["id"], None)
        if not row.get("undone"):
            at = str(row.get("at", ""))
            self.standing[row["id"]] = Answer(row["id"], tuple(row["labels"]), self.annotator, at)

    def _read(self) -> None:
        """Take the answers; a last line that a crash cut off goes, if all before it are answers."""
        self._stream.seek(0)
        content = self._stream.read()
        whole = content.rfind(b"\n") + 1
        torn = _is_torn(content[whole:])
        for line, row in parse_rows(content[:whole] if torn else content, self.path):
            if "id" not in row or "annotator" not in row:
                raise UserError(f"{self.path}:{line}: no answer of a labelling page")
            if row["annotator"] == self.annotator:
                self._take(row)
        if torn:
            self._stream.truncate(whole)
        elif whole < len(content):
            self._stream.write(b"\n")
        self._stream.seek(0, os.SEEK_END)


def _is_torn(line: bytes) -> bool:
    """Say whether a line is the beginning of an answer, and no more."""
    if not line.startswith(_BEGINNING[: len(line)]):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
