"""Where text to be scored comes from: files, folders, patterns, standard input, plain or packed.

A file's suffix says what it is; nothing is guessed from content. Packed files are unpacked as a
stream, and one that unpacks to absurdly more than it holds is given up.
"""

import glob
import gzip
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from stance.errors import UserError

STANDARD_INPUT = "-"
REJECTS = ".rejects.jsonl"
REPORT = ".html"
MANIFEST = ".manifest.json"
"""How the names end of what lies beside an output: none of it is input when its folder is read."""

FORMATS = {".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
PACKED = (".gz", ".zst")
_KNOWN = f"{', '.join(FORMATS)}, all but the last also with {' or '.join(PACKED)} behind it"

_EXPANSION = 200
"""Text shrinks three to ten times, very repetitive text perhaps fifty; a bomb a thousand."""
_EXPANSION_FREE = 16 << 20
_CHUNK = 1 << 20
_PACKED_CHUNK = 1 << 12
"""Bytes of a `.zst` file unpacked at once: a bomb makes some hundred megabytes of them."""


class DamagedSource(Exception):
    """The rest of a source cannot be read; the message says why."""


@dataclass(frozen=True)
class Source:
    """One file: its name in ids and messages, its path, its format and how it is packed."""

    name: str
    path: Path
    format: str
    packed: str = ""


@dataclass
class Meter:
    """How many bytes of the input files have been read."""

    read: int = 0


@dataclass(frozen=True)
class Sources:
    """The files of one input in order, and what of its folders is none.

    `ignored` are files whose suffix says nothing, `written` those that earlier jobs wrote.
    """

    files: tuple[Source, ...]
    ignored: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(source.path.stat().st_size for source in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of all files."""
        sha = hashlib.sha256()
        for source in self.files:
            try:
                with source.path.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"{source.path}: cannot be read: {error.strerror}") from error
            sha.update(f"{source.name}\0{source.format}\0{content}\n".encode())
        return sha.hexdigest()


def find_sources(where: str, skip: Sequence[Path] = ()) -> Sources:
    """Find the files that an input names: a file, a folder, or a pattern with `*`, `?`, `[...]`.

    What earlier jobs wrote into a folder is left out, unless a file of it is named alone.

    Args:
        where: the input as the user wrote it. What exists under that very name comes first, so
            names with brackets need no quoting.
        skip: files that are never input, such as the output that is to be written.

    Raises:
        UserError: nothing is there that can be read, a file named directly has an unknown suffix,
            or a folder cannot be listed.
    """
    try:
        return _sources(where, {path.resolve() for path in skip})
    except OSError as error:
        raise UserError(f"input: {error.filename or where}: {error.strerror}") from error


def printable(name: str) -> str:
    """Return a name that can be written: bytes of it that are not UTF-8 become escapes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def spool_standard_input(format_: str, path: Path) -> Sources:
    """Keep standard input in a file, so that it can be digested and read again."""
    if sys.stdin is None:
        raise UserError(f"input: {STANDARD_INPUT}: standard input is closed")
    try:
        with path.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
    except OSError as error:
        raise UserError(f"{path}: cannot keep standard input: {error.strerror}") from error
    return Sources((Source("standard-input", path, format_),))


def open_source(source: Source, meter: Meter) -> BinaryIO:
    """Open a source as a stream of unpacked bytes.

    Raises:
        DamagedSource: the file cannot be opened.
    """
    try:
        raw = io.BufferedReader(_Metered(source.path, meter), _CHUNK)
    except OSError as error:
        raise DamagedSource(f"cannot be read: {error.strerror}") from error
    if not source.packed:
        return raw
    return io.BufferedReader(_Unpacked(raw, source.packed), _CHUNK)


def lines_of(stream: IO[bytes], longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield line numbers and lines, ends kept; None for a line of more than `longest` bytes.

    Raises:
        DamagedSource: the rest cannot be read.
    """
    number = 0
    while line := _read(stream, longest + 1):
        number += 1
        if len(line) <= longest:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = _read(stream, _CHUNK)
        yield number, None


def _read(stream: IO[bytes], limit: int) -> bytes:
    try:
        return stream.readline(limit)
    except OSError as error:
        raise DamagedSource(f"cannot be read on: {error.strerror or error}") from error


class _Metered(io.FileIO):
    """A file that tells a meter how much of it has been read."""

    def __init__(self, path: Path, meter: Meter) -> None:
        super().__init__(path)
        self._meter = meter

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._meter.read += count or 0
        return count


class _Unpacked(io.RawIOBase):
    """Unpacked bytes of a `.gz` or `.zst` stream, with a guard against bombs."""

    def __init__(self, raw: BinaryIO, packed: str) -> None:
        self._raw = raw
        self._stream: Any
        self._errors: tuple[type[Exception], ...]
        self._count = 0
        if packed == ".gz":
            import zlib

            self._stream = gzip.GzipFile(fileobj=raw)
            self._errors = (OSError, EOFError, zlib.error)
        else:
            import zstandard

            self._stream = _Zstd(raw, zstandard.ZstdDecompressor().decompressobj)
            self._errors = (OSError, EOFError, zstandard.ZstdError)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read1(len(buffer))  # what precedes damage still comes out
        except self._errors as error:
            raise DamagedSource(f"damaged: {error}") from error
        self._count += len(content)
        if self._count > max(_EXPANSION_FREE, _EXPANSION * self._raw.tell()):
            raise DamagedSource(f"unpacks to more than {_EXPANSION} times its size; given up")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Zstd:
    """The frames of a `.zst` stream, one behind the other; zstandard's reader misses a cut end."""

    def __init__(self, raw: BinaryIO, begin_frame: Callable[[], Any]) -> None:
        self._raw = raw
        self._begin_frame = begin_frame
        self._frame: Any = None
        self._packed = b""
        self._content = io.BytesIO()

    def read1(self, size: int) -> bytes:
        while not (content := self._content.read(size)):
            packed = self._packed or self._raw.read(_PACKED_CHUNK)
            if not packed:
                if self._frame:
                    raise EOFError("ends inside a frame")
                return b""
            self._frame = self._frame or self._begin_frame()
            self._content = io.BytesIO(self._frame.decompress(packed))
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        return content


def _sources(where: str, skip: set[Path]) -> Sources:
    path = Path(where)
    if path.is_dir():
        found = {entry: entry.relative_to(path).as_posix() for entry in sorted(_visible(path))}
    elif path.exists():
        return Sources((_named(path),))
    else:
        found = {entry: entry.as_posix() for entry in sorted(_matching(where))}
    files: list[Source] = []
    ignored: list[str] = []
    written: list[str] = []
    for entry, name in found.items():
        if not entry.is_file() or entry.resolve() in skip:
            continue
        source = _recognise(entry, name)
        if _is_written(entry, where):
            written.append(printable(name))
        elif source:
            files.append(source)
        else:
            ignored.append(printable(name))
    if not files:
        earlier = f"; {len(written)} that earlier jobs wrote are left out" if written else ""
        raise UserError(f"input: {where}: no file to read{earlier}; known are {_KNOWN}")
    return Sources(tuple(files), tuple(ignored), tuple(written))


def _is_written(path: Path, where: str) -> bool:
    """Say whether an earlier job wrote a file of a folder or a pattern: a manifest tells.

    Spark writes folders, so those below the input may have one, too.
    """
    if path.name.endswith((REJECTS, MANIFEST)):
        return True
    outputs = [path, *(folder for folder in path.parents if not Path(where).is_relative_to(folder))]
    if path.name.endswith(REPORT):
        outputs.append(path.with_name(path.name.removesuffix(REPORT)))
    return any(os.path.exists(f"{output}{MANIFEST}") for output in outputs)


def _visible(folder: Path) -> Iterator[Path]:
    """Yield what a folder and its subfolders hold, hidden files and folders left out."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _matching(pattern: str) -> list[Path]:
    if not any(character in pattern for character in "*?["):
        raise UserError(f"input: {pattern}: no such file or folder")
    found = [Path(name) for name in glob.glob(pattern, recursive=True)]
    if not found:
        raise UserError(f"input: {pattern}: no file matches this pattern")
    return found


def _named(path: Path) -> Source:
    source = _recognise(path, path.name)
    if source is None:
        raise UserError(
            f"input: {path}: the suffix {path.suffix!r} says nothing; known are {_KNOWN}"
        )
    return source


def _recognise(path: Path, name: str) -> Source | None:
    suffix, packed = path.suffix.lower(), ""
    if suffix in PACKED:
        suffix, packed = Path(path.stem).suffix.lower(), suffix
    if suffix not in FORMATS or (packed and suffix == ".parquet"):
        return None
    return Source(printable(name), path, FORMATS[suffix], packed)
