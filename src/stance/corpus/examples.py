"""Labelled sentences, read with every line checked.

A corpus is one file per split. JSON Lines holds one object a line with `text`, `labels` (a list of
names, empty for none), `id` (else it is called after file and line) and `group` (examples that no
split may part: one document, one minimal pair; else its id); further fields are kept as metadata.
Tables with named columns are read as they are. Both become a `datasets.Dataset` with `labels:
List(ClassLabel)`.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stance.codebook import NONE, Codebook
from stance.corpus.tables import TABLE_SUFFIXES, read_table, read_ticks, read_tsv
from stance.errors import UserError

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Example:
    """A sentence with its gold label set, and the group that a split must not part."""

    id: str
    text: str
    labels: tuple[str, ...]
    group: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the object that stands for it on a line of a labelled file."""
        head = {"id": self.id, "text": self.text, "labels": list(self.labels)}
        return {**head, "group": self.group, **self.metadata}


@dataclass(frozen=True)
class Split:
    """The examples of one split, in file order, with the arrays that classifiers learn from."""

    name: str
    examples: tuple[Example, ...]
    codebook: Codebook

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.examples)

    @cached_property
    def texts(self) -> list[str]:
        """The sentences."""
        return [example.text for example in self.examples]

    @cached_property
    def gold(self) -> NDArray[np.int8]:
        """Gold labels as a 0/1 matrix of shape (n, labels), columns in the codebook's order."""
        return encode_labels([example.labels for example in self.examples], self.codebook)

    @cached_property
    def groups(self) -> list[str]:
        """The group of each example; intervals resample groups."""
        return [example.group for example in self.examples]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, texts, label sets and groups in order."""
        sha = hashlib.sha256()
        for example in self.examples:
            row = [example.id, example.text, sorted(example.labels), example.group]
            sha.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return sha.hexdigest()

    def to_dataset(self) -> "datasets.Dataset":
        """Return the split as a `datasets.Dataset` of id, text, labels and group."""
        import datasets

        class_label = datasets.ClassLabel(names=list(self.codebook.names))
        features = datasets.Features(
            {
                "id": datasets.Value("string"),
                "text": datasets.Value("string"),
                "labels": datasets.List(class_label),
                "group": datasets.Value("string"),
            }
        )
        rows = [
            {"id": e.id, "text": e.text, "labels": list(e.labels), "group": e.group}
            for e in self.examples
        ]
        return datasets.Dataset.from_list(rows, features=features)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; an empty `id` or `group` means row number.

    `labels` is a column of label names with a separator between them; empty, every label has a
    column of its name, with 1 or 0. `quotes` says whether a quotation mark quotes the cells of a
    tab-separated file, or is a letter like any other.
    """

    text: str = "text"
    labels: str = "labels"
    id: str = ""
    group: str = ""
    separator: str = ","
    quotes: bool = False


def encode_labels(label_sets: Sequence[Sequence[str]], codebook: Codebook) -> NDArray[np.int8]:
    """Turn label sets into a 0/1 matrix of shape (n, labels) in the codebook's order."""
    position = {name: column for column, name in enumerate(codebook.names)}
    matrix = np.zeros((len(label_sets), len(position)), dtype=np.int8)
    for row, labels in enumerate(label_sets):
        for label in labels:
            matrix[row, position[label]] = 1
    return matrix


def decode_labels(matrix: NDArray[Any], codebook: Codebook) -> list[tuple[str, ...]]:
    """Turn a 0/1 matrix of shape (n, labels) into label sets."""
    return [
        tuple(name for name, value in zip(codebook.names, row, strict=True) if value)
        for row in matrix
    ]


def normal_form(text: str) -> str:
    """Reduce a sentence to what makes it the same sentence: letters and digits, case folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()


def sentence_key(text: str) -> str:
    """Return a short digest of a sentence's normal form, by which models know what they saw."""
    return hashlib.sha256(normal_form(text).encode()).hexdigest()[:16]


def read_split(path: Path, name: str, codebook: Codebook, columns: Columns | None = None) -> Split:
    """Read one labelled file: JSON Lines, or a table where its suffix is `.tsv`, `.csv` or `.xlsx`.

    Raises:
        UserError: the file is missing, empty, of another kind or encoding, or one of its lines is
            no example under the codebook; the message names the file and the line.
    """
    return Split(name, tuple(e for e, _ in _read_lines(path, codebook, columns)), codebook)


def read_corpus(
    files: Mapping[str, Sequence[Path]], codebook: Codebook, columns: Columns | None = None
) -> dict[str, Split]:
    """Read the files of each split and hold that no id, group or sentence stands in two splits.

    Raises:
        UserError: as `read_split`; or an id is used twice, or a group or a sentence (compared by
            `normal_form`) stands in two splits; the message names both lines.
    """
    ids: dict[str, str] = {}
    groups: dict[str, tuple[str, str]] = {}
    sentences: dict[str, tuple[str, str]] = {}
    corpus = {}
    names = names_of_files(files)
    for name, paths in files.items():
        examples = []
        for path in paths:
            for example, line in _read_lines(path, codebook, columns, source=names[path]):
                where = f"{path}:{line}"
                if example.id in ids:
                    raise UserError(
                        f"{where}: the id {example.id!r} stands also at {ids[example.id]}"
                    )
                ids[example.id] = where
                for what, key, seen in (
                    ("group", example.group, groups),
                    ("sentence", normal_form(example.text), sentences),
                ):
                    split, place = seen.setdefault(key, (name, where))
                    if split != name:
                        raise UserError(
                            f"{where}: the {what} {key[:80]!r} of split {name!r} stands also in "
                            f"split {split!r}, at {place}"
                        )
                examples.append(example)
        corpus[name] = Split(name, tuple(examples), codebook)
    return corpus


def names_of_files(files: Mapping[str, Sequence[Path]]) -> dict[Path, str]:
    """Name the files for the ids of rows without one: by their stems, where two clash by path."""
    paths = {path for group in files.values() for path in group}
    stems = Counter(path.stem for path in paths)
    return {path: path.stem if stems[path.stem] == 1 else str(path) for path in paths}


def survey_file(
    path: Path, codebook: Codebook, columns: Columns | None = None, *, source: str = ""
) -> tuple[list[tuple[Example, int]], list[str]]:
    """Read a labelled file to the end: the examples with their lines, and what is wrong elsewhere.

    Raises:
        UserError: the file cannot be read at all, or holds no line.
    """
    wrong: list[UserError] = []
    examples = list(_read_lines(path, codebook, columns, wrong, source=source))
    return examples, [str(error) for error in wrong]


def check_learnable(train: Split) -> None:
    """Hold that every label has a positive and a negative example to learn from.

    Raises:
        UserError: a label has no positive example, or no negative one.
    """
    counts = train.gold.sum(axis=0)
    for name, count in zip(train.codebook.names, counts, strict=True):
        if count == 0:
            raise UserError(f"split {train.name!r}: the label {name!r} has no positive example")
        if count == len(train):
            raise UserError(f"split {train.name!r}: every example carries the label {name!r}")


def check_scorable(split: Split, where: str) -> None:
    """Hold that a split carries a label at all; without one, F1 is not defined.

    Raises:
        UserError: no example carries a label.
    """
    if not split.gold.any():
        raise UserError(f"{where}: no sentence carries a label, so there is no F1 to measure")


def _read_lines(
    path: Path,
    codebook: Codebook,
    columns: Columns | None,
    wrong: list[UserError] | None = None,
    *,
    source: str = "",
) -> Iterator[tuple[Example, int]]:
    """Yield examples with their lines; a bad line is raised, or put into `wrong` if it is given.

    Rows without an id are called after `source`, the file's stem if omitted, and their line.
    """
    suffix, source = path.suffix.lower(), source or path.stem
    if suffix in _JSON_SUFFIXES:
        rows = _json_rows(path, source)
    elif suffix in TABLE_SUFFIXES:
        rows = _table_rows(path, codebook, columns or Columns(), source)
    else:
        kinds = ", ".join(TABLE_SUFFIXES)
        raise UserError(f"{path}: a labelled file is JSON Lines (.jsonl) or a table ({kinds})")
    first_use: dict[str, int] = {}
    for line, values in rows:
        try:
            example = _example(values, codebook, f"{path}:{line}")
            if example.id in first_use:
                raise UserError(
                    f"{path}:{line}: the id {example.id!r} stands also in line "
                    f"{first_use[example.id]}"
                )
        except UserError as error:
            if wrong is None:
                raise
            wrong.append(error)
            continue
        first_use[example.id] = line
        yield example, line
    if not first_use and not wrong:
        raise UserError(f"{path}: no examples in this file")


_JSON_SUFFIXES = ("", ".jsonl", ".ndjson", ".json")

_Row = tuple[int, "dict[str, Any] | UserError"]


def _json_rows(path: Path, source: str) -> Iterator[_Row]:
    for line, content in enumerate(_read_utf8(path).split("\n"), start=1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield line, UserError(f"{path}:{line}: not JSON: {error}")
            continue
        if not isinstance(values, dict):
            shown = content[:40]
            yield line, UserError(f"{path}:{line}: expected a JSON object, found {shown!r}")
            continue
        yield line, {"id": f"{source}:{line}", **values}


def _table_rows(path: Path, codebook: Codebook, columns: Columns, source: str) -> Iterator[_Row]:
    own = [columns.labels] if columns.labels else codebook.names
    named = list(filter(None, (columns.text, *own, columns.id, columns.group)))
    rows = (
        read_tsv(_read_utf8(path), path, named, quotes=columns.quotes)
        if path.suffix.lower() == ".tsv"
        else read_table(path, named)
    )
    for number, cells, problem in rows:
        absent = [name for name in named if name not in cells]
        try:
            if problem or absent:
                raise ValueError(problem or f"the row ends before the column {absent[0]!r}")
            labels = _labels_of(cells, codebook, columns)
        except ValueError as error:
            yield number, UserError(f"{path}:{number}: {error}")
            continue
        key = cells[columns.id] if columns.id else f"{source}:{number}"
        group = cells[columns.group] if columns.group else key
        others = {name: cell for name, cell in cells.items() if name not in named}
        read = {"id": key, "text": cells[columns.text], "labels": labels, "group": group}
        yield number, {**others, **read}


def _labels_of(cells: Mapping[str, str], codebook: Codebook, columns: Columns) -> list[str]:
    """Return the labels that a row of a table names, or ticks where every label has a column.

    Raises:
        ValueError: a cell is neither 1 nor 0, or the row's cells say nothing, or contradict each
            other.
    """
    if columns.labels:
        names = [name.strip() for name in cells[columns.labels].split(columns.separator)]
        labels = list(filter(None, names))
        return [] if codebook.multi_label and labels == [NONE] else labels
    ticks = read_ticks(cells, (*codebook.names, NONE))
    if all(is_ticked is None for is_ticked in ticks.values()):
        raise ValueError("no label is marked with 1 or 0, so nobody has answered this row")
    labels = [name for name in codebook.names if ticks[name]]
    if labels and ticks[NONE]:
        raise ValueError(f"{NONE!r} is marked beside {codebook.show(labels)}")
    return labels


def _read_utf8(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the labelled file: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: byte 0x{raw[error.start]:02x}") from error


def _example(values: dict[str, Any] | UserError, codebook: Codebook, where: str) -> Example:
    if isinstance(values, UserError):
        raise values
    for key in ("text", "labels"):
        if key not in values:
            raise UserError(f"{where}: the field {key!r} is missing")
    key, text, labels = values["id"], values["text"], values["labels"]
    group = values.get("group", key)
    for name, value in (("id", key), ("text", text), ("group", group)):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: {name!r} must be a text that is not empty, found {value!r}")
        if half := re.search("[\ud800-\udfff]", value):
            raise UserError(f"{where}: {name!r}: {half[0]!r} is half a character")
    if not isinstance(labels, list):
        raise UserError(f"{where}: 'labels' must be a list of names, found {labels!r}")
    for label in labels:
        if label not in codebook.names:
            raise UserError(
                f"{where}: the codebook {codebook.name!r} has no label {label!r}; "
                f"its labels are {', '.join(codebook.names)}"
            )
    if len(set(labels)) != len(labels):
        raise UserError(f"{where}: a label stands twice in {labels!r}")
    if not codebook.multi_label and len(labels) != 1:
        raise UserError(
            f"{where}: {codebook.name!r} is a single-label codebook, found {len(labels)} labels"
        )
    metadata = {k: v for k, v in values.items() if k not in ("id", "text", "labels", "group")}
    ordered = tuple(name for name in codebook.names if name in labels)
    return Example(key, text, ordered, group, metadata)
