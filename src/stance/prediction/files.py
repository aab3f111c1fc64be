"""Files that appear whole or not at all: written beside their place, then renamed."""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from stance.errors import UserError


class WholeFile:
    """A file that takes its place only when `keep` is called; otherwise what stood there stays.

    Raises:
        UserError: the place cannot be written, also later when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside `path`, which shows at once whether it can be written."""
        self.path = path
        if path.is_dir():
            raise UserError(f"{path}: a folder, where a file is to be written")
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}-", dir=path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._beside = Path(name)
        self.stream: BinaryIO = os.fdopen(handle, "wb")

    def keep(self) -> None:
        """Put the file in its place, safely on disk."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self._beside.chmod(0o644)
        os.replace(self._beside, self.path)

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the temporary file if it was not kept."""
        try:
            self.stream.close()
        except OSError as failure:
            error = error or failure
        self._beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(self.path, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written: {error.strerror or error}")
