"""What a job has done so far, kept beside its output until the output is whole.

The folder `.NAME.stance` holds one piece of output and one note for every finished window. A note
is written after its piece and names the piece's digest, so a window counts as finished only when
both are whole. A job that was killed finds its finished windows here, provided that input, model
and settings are the same; otherwise it starts anew. A lock keeps two jobs on one output apart.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from stance.errors import UserError

_KEY = "key.json"
_LOCK = "lock"
_WHOLE = "whole"

SPOOL = "standard-input"
"""Name of the file in the journal that keeps standard input, so that it can be read twice."""


class Journal:
    """The finished windows of the job that writes `output`."""

    def __init__(self, output: Path, folder: Path) -> None:
        """Point to the folder; `open_journal` makes and locks it."""
        self.output = output
        self.folder = folder
        self._finished: set[int] = set()

    def resume(self, key: Mapping[str, Any]) -> int:
        """Take up the finished windows of a job with the same key; return how many there are."""
        written = f"{json.dumps(key, sort_keys=True)}\n".encode()
        path = self.folder / _KEY
        if not path.exists() or path.read_bytes() != written:
            self._clear(keep=(_LOCK, SPOOL))
            self._write(path, written)
        for note in self.folder.glob("*.note"):
            self._take_up(note)
        return len(self._finished)

    def has(self, number: int) -> bool:
        """Say whether a window is finished."""
        return number in self._finished

    def finish(self, number: int, piece: bytes, note: Mapping[str, Any]) -> None:
        """Keep a window's piece of output and what is to be remembered of it."""
        self._write(self._piece(number), piece)
        whole = {**note, "sha256": hashlib.sha256(piece).hexdigest()}
        self._write(self._note(number), json.dumps(whole).encode())
        self._finished.add(number)

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces of all windows in order."""
        for number in sorted(self._finished):
            yield self._piece(number).read_bytes()

    def notes(self) -> Iterator[Mapping[str, Any]]:
        """Yield what was noted of all windows in order."""
        for number in sorted(self._finished):
            yield json.loads(self._note(number).read_bytes())

    @contextlib.contextmanager
    def whole_file(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file that takes the place of `path` when the block ends well."""
        beside = self.folder / _WHOLE
        try:
            with beside.open("wb") as stream:
                yield stream
                _to_disk(stream)
            os.replace(beside, path)
            _folder_to_disk(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            beside.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the journal, its key first, so that half of it is never taken up."""
        (self.folder / _KEY).unlink(missing_ok=True)
        self._clear(keep=(_LOCK,))
        (self.folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another job has already opened a new lock here
            self.folder.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the journal unless it holds a window that this job or an earlier one finished."""
        if self.folder.exists() and not any(self.folder.glob("*.note")):
            self.remove()

    def _piece(self, number: int) -> Path:
        return self.folder / f"{number:08}.piece"

    def _note(self, number: int) -> Path:
        return self.folder / f"{number:08}.note"

    def _take_up(self, path: Path) -> None:
        number = int(path.stem)
        try:
            note = json.loads(path.read_bytes())
            piece = self._piece(number).read_bytes()
            if hashlib.sha256(piece).hexdigest() == note["sha256"]:
                self._finished.add(number)
        except (OSError, ValueError, KeyError):
            return  # torn by a power cut: the window is scored again

    def _write(self, path: Path, content: bytes) -> None:
        beside = self.folder / f"{path.name}.new"
        try:
            with beside.open("wb") as stream:
                stream.write(content)
                _to_disk(stream)
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _unwritable(self.output, error, beside) from error

    def _clear(self, keep: Sequence[str]) -> None:
        self._finished.clear()
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()


@contextlib.contextmanager
def open_journal(output: Path) -> Iterator[Journal]:
    """Lock and open the journal of an output; leave it if anything in it is worth keeping.

    Raises:
        UserError: the output's folder cannot be written, or another job writes this output.
    """
    journal = Journal(output, output.with_name(f".{output.name}.stance"))
    with _locked(journal):
        try:
            yield journal
        finally:
            journal.remove_if_empty()


@contextlib.contextmanager
def _locked(journal: Journal) -> Iterator[None]:
    path = journal.folder / _LOCK
    while True:
        try:
            journal.folder.mkdir(exist_ok=True)
            lock = path.open("a")
        except FileNotFoundError as error:
            if not journal.output.parent.is_dir():
                raise _unwritable(journal.output, error) from error
            continue  # removed by the job that just ended
        except OSError as error:
            raise _unwritable(journal.output, error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"output: {journal.output}: another job is writing it") from error
            if not _same_file(lock, path):
                continue  # the lock of a journal that has gone
            yield
            return


def _same_file(lock: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _to_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _folder_to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(output: Path, error: OSError, path: Path | None = None) -> UserError:
    where = f" (at {path})" if path else ""
    return UserError(f"output: {output}: cannot be written: {error.strerror or error}{where}")
