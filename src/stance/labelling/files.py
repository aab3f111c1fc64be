"""Files of the labelling wing: several paths in one setting, whole files or none, nothing lost."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stance.errors import UserError


def paths_of(key: str, value: str | None) -> list[Path]:
    """Read a setting that names one file, or several with commas between them.

    Raises:
        UserError: it names none, or one twice.
    """
    if not value:
        return []
    try:
        is_one = Path(value).exists()
    except OSError:  # a list may be longer than a file's name can be
        is_one = False
    names = [value] if is_one else [name.strip() for name in value.strip("[]").split(",")]
    paths = [Path(name) for name in names if name]
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"{key}: {value!r}: name one or more files, each once")
    return paths


def distinct(paths: Sequence[Path], part: Callable[[Path], str]) -> dict[str, Path]:
    """Key files by a part of their path, or by the whole where two have that part in common."""
    times = Counter(map(part, paths))
    return {part(path) if times[part(path)] == 1 else str(path): path for path in paths}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, replace: bool = True) -> None:
    """Write JSON Lines beside their place and put them there whole."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, "".join(lines).encode(), replace=replace)


def write_bytes(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file beside its place and put it there whole.

    Raises:
        UserError: it cannot be written, or stands there already and may not be replaced.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        beside = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            beside.chmod(0o644)
            if replace:
                os.replace(beside, path)
            else:
                os.link(beside, path)  # fails, unlike a rename, where a file stands
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError as error:
        raise UserError(f"output: {path}: stands there already and is not overwritten") from error
    except OSError as error:
        raise UserError(f"output: {path}: cannot be written: {error.strerror}") from error


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read JSON Lines: line numbers and objects.

    Raises:
        UserError: the file cannot be read, or a line is no JSON object.
    """
    try:
        return parse_rows(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def parse_rows(content: bytes, path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Parse the content of a file of JSON Lines, as `read_rows`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    rows = []
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{line}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{line}: expected a JSON object, found {written[:40]!r}")
        rows.append((line, row))
    return rows
