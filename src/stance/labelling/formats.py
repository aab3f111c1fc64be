"""Tasks out to annotation tools, and their exports back in.

Each format writes what the tool imports and reads what the tool exports. An empty answer and no
answer look alike in most of them, so `none` is offered as a choice of its own and must be chosen.
The ids of sentences travel in a field of their own: some tools put their own ids in place of `id`.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from stance.codebook import NONE, Codebook
from stance.corpus.tables import TABLE_SUFFIXES, read_table, read_ticks
from stance.errors import UserError
from stance.labelling.answers import Answer, Entry, read_answers
from stance.labelling.files import parse_rows, write_bytes
from stance.labelling.tables import write_table
from stance.labelling.tasks import Task

AUTO = "auto"
QUESTION = "labels"
"""Name of the one question that every tool asks."""

_Answers = Mapping[str, Sequence[Answer]]


@dataclass(frozen=True)
class Format:
    """How tasks are written for a tool, into files of which suffix, and how its export is read."""

    suffixes: tuple[str, ...]
    write: Callable[[Path, Sequence[Task], _Answers, Codebook], list[Path]]
    read: Callable[[Path, Codebook], Iterable[Entry]]


def write_tasks(
    path: Path, tasks: Sequence[Task], answers: Sequence[Answer], format_: str, codebook: Codebook
) -> list[Path]:
    """Write tasks, with the answers given so far, for a tool; return the files written.

    Raises:
        UserError: the suffix is not the format's, it cannot hold the answers, or a file stands
            there.
    """
    by_id: dict[str, list[Answer]] = {}
    for answer in answers:
        by_id.setdefault(answer.id, []).append(answer)
    if format_ == AUTO:
        format_ = "table" if path.suffix.lower() in TABLE_SUFFIXES else "label_studio"
    wanted = FORMATS[format_]
    if path.suffix.lower() not in wanted.suffixes:
        raise UserError(f"output: {path}: {format_} is written as {', '.join(wanted.suffixes)}")
    return wanted.write(path, tasks, by_id, codebook)


def read_export(path: Path, format_: str, codebook: Codebook) -> list[Entry]:
    """Read a tool's export, or the answers that the labelling page wrote.

    Raises:
        UserError: the file cannot be read, or is of no known format.
    """
    name = recognise(path) if format_ == AUTO else format_
    if name == "answers":
        return read_answers(path)
    return list(FORMATS[name].read(path, codebook))


def recognise(path: Path) -> str:
    """Tell a file's format from its suffix and its first record.

    Raises:
        UserError: it cannot be told.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        return "label_studio" if _is_label_studios_table(path) else "table"
    first = next(iter(_records(path)), (0, {}))[1]
    for name, keys in (
        ("label_studio", ("annotations", "annotation_id", "predictions")),
        ("argilla", ("responses",)),
        ("prodigy", ("_input_hash", "accept", "options")),
        ("answers", ("annotator",)),
        ("doccano", ("label",)),
    ):
        if any(key in first for key in keys):
            return name
    raise UserError(f"{path}: no export of a known tool: {', '.join(FORMATS)}")


def choices_of(codebook: Codebook) -> tuple[str, ...]:
    """Return what an annotator may choose from."""
    return (*codebook.names, NONE) if codebook.multi_label else codebook.names


def _or_none(answers: _Answers, task: Task) -> Sequence[Answer | None]:
    """Return the answers to a task, or one None where there are none: it needs a row."""
    return answers.get(task.id) or [None]


def _chosen(labels: Sequence[str]) -> list[str]:
    return list(labels) or [NONE]


def _data(task: Task) -> dict[str, Any]:
    """Return what a tool should carry along with a task's text."""
    return {
        "sentence_id": task.id,
        "document_id": task.document_id,
        "sentence": task.sentence,
        "start": task.start,
        "end": task.end,
        "before": task.before,
        "after": task.after,
        "evidence": describe(task),
    }


def describe(task: Task) -> str:
    """Write a task's evidence in one line."""
    parts = []
    for item in task.evidence:
        why = f" ({item['blocked']})" if item.get("blocked") else ""
        rule = f", rule {item['rule']}" if item.get("rule") is not None else ""
        words = f" {item['text']!r}" if item.get("text") else ""
        share = f" {item['probability']:.2f}" if item.get("probability") is not None else ""
        parts.append(f"{item['vote']} {item['label']}: {item['voter']}{rule}{words}{share}{why}")
    return "; ".join(parts)


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records of a JSON array or of JSON Lines, whatever the suffix, numbered from 1."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from parse_rows(content, path)
        return
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not all(isinstance(value, dict) for value in values):
        raise UserError(f"{path}: expected a JSON array of objects")
    yield from enumerate(values, start=1)


def label_studio_config(codebook: Codebook) -> str:
    """Return the labelling configuration that a Label Studio project needs."""
    several = "multiple" if codebook.multi_label else "single"
    hints = {label.name: label.definition for label in codebook.labels}
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}{f' hotkey={quoteattr(key)}' if key else ''}"
        f" hint={quoteattr(' '.join(hints.get(name, 'No label applies.').split()))}/>"
        for name, key in zip(choices_of(codebook), _hotkeys(codebook), strict=True)
    )
    return f"""<View>
  <Text name="before" value="$before"/>
  <Header value="$text"/>
  <Text name="text" value="$text"/>
  <Text name="after" value="$after"/>
  <Choices name="{QUESTION}" toName="text" choice="{several}" required="true"
           requiredMessage="Choose at least one; none is a choice too.">
{choices}
  </Choices>
  <Text name="evidence" value="$evidence"/>
</View>
"""


def _hotkeys(codebook: Codebook) -> list[str]:
    """Return a key for each choice, empty for those that are too many for the keyboard."""
    keys = [*"123456789qwertyuiopasdfghjkl", *[""] * len(codebook.names)]
    hotkeys = keys[: len(codebook.names)]
    return [*hotkeys, "0"] if codebook.multi_label else hotkeys


def _write_label_studio(
    path: Path, tasks: Sequence[Task], answers: _Answers, codebook: Codebook
) -> list[Path]:
    def result(labels: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "from_name": QUESTION,
                "to_name": "text",
                "type": "choices",
                "value": {"choices": _chosen(labels)},
            }
        ]

    rows = []
    for task in tasks:
        score = max(task.probabilities.values(), default=0.0)
        row: dict[str, Any] = {
            "data": {"text": task.text, **_data(task)},
            "predictions": [
                {"model_version": "stance", "score": score, "result": result(task.suggested)}
            ],
        }
        given = [
            {
                "completed_by": {"email": answer.annotator},
                "created_at": answer.at,
                "was_cancelled": False,
                "result": result(answer.labels),
            }
            for answer in answers.get(task.id, [])
        ]
        if given:
            row["annotations"] = given
        rows.append(row)
    config = path.with_suffix(".xml")
    if config.exists():
        raise UserError(f"output: {config}: stands there already and is not overwritten")
    write_bytes(path, _json(rows), replace=False)
    write_bytes(config, label_studio_config(codebook).encode(), replace=False)
    return [path, config]


def _read_label_studio(path: Path, codebook: Codebook) -> Iterator[Entry]:
    if path.suffix.lower() in TABLE_SUFFIXES:
        yield from _label_studios_table(path)
        return
    for row, record in _records(path):
        if "data" not in record:
            yield _minimal_entry(row, record)
            continue
        data = _mapping(record["data"])
        unanswered = Entry(row, _text(data.get("sentence_id")), _text(data.get("text")), None)
        annotations = _mappings(record.get("annotations"))
        if not annotations:
            yield unanswered
        for annotation in annotations:
            labels, problem = _choices(annotation)
            yield replace(
                unanswered,
                labels=labels,
                annotator=_completed_by(annotation.get("completed_by")),
                at=str(annotation.get("updated_at") or annotation.get("created_at") or ""),
                problem=problem,
            )


def _choices(annotation: Mapping[str, Any]) -> tuple[list[str] | None, str]:
    """Return the choices of an annotation, None where it was skipped, and what is wrong."""
    if annotation.get("was_cancelled"):
        return None, ""
    chosen = [
        choice
        for item in _mappings(annotation.get("result"))
        if item.get("from_name") == QUESTION and item.get("type") == "choices"
        for choice in _mapping(item.get("value")).get("choices", [])
    ]
    if not chosen:
        return None, f"submitted without a choice of {QUESTION!r}"
    return chosen, ""


def _minimal_entry(row: int, record: Mapping[str, Any]) -> Entry:
    """Read a record of Label Studio's JSON-MIN, where one choice stands as a text."""
    value = record.get(QUESTION)
    labels = value.get("choices") if isinstance(value, dict) else value
    labels = [labels] if isinstance(labels, str) else labels
    return Entry(
        row=row,
        id=_text(record.get("sentence_id")),
        text=_text(record.get("text")),
        labels=labels,
        annotator=_completed_by(record.get("annotator")),
        at=str(record.get("updated_at") or record.get("created_at") or ""),
    )


def _is_label_studios_table(path: Path) -> bool:
    first = next(iter(read_table(path, needed=())), None)
    return first is not None and {"annotation_id", QUESTION} <= first[1].keys()


def _label_studios_table(path: Path) -> Iterator[Entry]:
    """Read Label Studio's CSV: one choice stands there as a text, several as JSON."""
    for row, values, problem in read_table(path, needed=("text", QUESTION)):
        cell: Any = values[QUESTION].strip() if QUESTION in values else ""
        if cell.startswith("{"):
            try:
                cell = json.loads(cell)
            except ValueError:
                problem = f"column {QUESTION!r}: not JSON: {cell[:40]!r}"
        entry = _minimal_entry(row, {**values, QUESTION: cell or None})
        yield replace(entry, problem=problem)


def _completed_by(value: Any) -> str:
    """Name an annotator: Label Studio gives a number, or the whole user."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)


def _write_doccano(
    path: Path, tasks: Sequence[Task], answers: _Answers, codebook: Codebook
) -> list[Path]:
    annotators = {answer.annotator for given in answers.values() for answer in given}
    if len(annotators) > 1:
        raise UserError(
            f"format: doccano keeps one file for each annotator, and these answers are of "
            f"{', '.join(sorted(annotators))}; name one in annotator="
        )
    # A suggestion in `label` would be an answer: doccano knows no other kind.
    rows = (
        {
            "text": task.text,
            "label": [name for a in answers.get(task.id, []) for name in _chosen(a.labels)],
            "suggested": codebook.show(task.suggested),
            **_data(task),
        }
        for task in tasks
    )
    write_bytes(path, _json_lines(rows), replace=False)
    return [path]


def _read_doccano(path: Path, codebook: Codebook) -> Iterator[Entry]:
    for row, record in _records(path):
        labels = record.get("label", record.get("labels"))
        yield Entry(
            row=row,
            id=_text(record.get("sentence_id")),
            text=_text(record.get("text") or record.get("data")),
            labels=labels or None,
            annotator=str(record.get("annotator") or ""),
        )


def _write_argilla(
    path: Path, tasks: Sequence[Task], answers: _Answers, codebook: Codebook
) -> list[Path]:
    rows = [
        {
            "id": task.id,
            "fields": {"text": task.text},
            "metadata": _data(task),
            "suggestions": {
                QUESTION: {
                    "value": _chosen(task.suggested),
                    "score": [task.probabilities.get(n, 0.0) for n in task.suggested] or None,
                    "agent": "stance",
                }
            },
            "responses": {
                QUESTION: [
                    {"value": _chosen(answer.labels), "user_id": answer.annotator}
                    for answer in answers.get(task.id, [])
                ]
            },
            "vectors": {},
        }
        for task in tasks
    ]
    write_bytes(path, _json(rows), replace=False)
    return [path]


def _read_argilla(path: Path, codebook: Codebook) -> Iterator[Entry]:
    for row, record in _records(path):
        metadata = _mapping(record.get("metadata"))
        key = _text(metadata.get("sentence_id")) or _text(record.get("id"))
        unanswered = Entry(row, key, _text(_mapping(record.get("fields")).get("text")), None)
        responses = _mappings(_mapping(record.get("responses")).get(QUESTION))
        if not responses:
            yield unanswered
        for response in responses:
            value = response.get("value")
            labels = [value] if isinstance(value, str) else value
            who = str(response.get("user_id") or "")
            yield replace(unanswered, labels=labels or None, annotator=who)


def _write_prodigy(
    path: Path, tasks: Sequence[Task], answers: _Answers, codebook: Codebook
) -> list[Path]:
    options = [{"id": name, "text": name} for name in codebook.names]

    def row(task: Task, answer: Answer | None) -> dict[str, Any]:
        accepted = answer.labels if answer else task.suggested
        values: dict[str, Any] = {
            "text": task.text,
            "options": options,
            "accept": list(accepted),
            "meta": _data(task),
            "config": {"choice_style": "multiple" if codebook.multi_label else "single"},
        }
        if answer:
            values |= {"answer": "accept", "_annotator_id": answer.annotator, "at": answer.at}
        return values

    rows = (row(task, answer) for task in tasks for answer in _or_none(answers, task))
    write_bytes(path, _json_lines(rows), replace=False)
    return [path]


def _read_prodigy(path: Path, codebook: Codebook) -> Iterator[Entry]:
    for row, record in _records(path):
        meta, answer = _mapping(record.get("meta")), record.get("answer")
        accepted = record.get("accept")
        problem = ""
        if answer == "reject":
            problem = "rejected as a whole, which says nothing of its labels"
        elif answer == "accept" and not isinstance(accepted, list):
            problem = f"'accept' must be a list, found {accepted!r}"
        yield Entry(
            row=row,
            id=_text(meta.get("sentence_id")),
            text=_text(record.get("text")),
            labels=accepted if answer == "accept" else None,
            annotator=str(record.get("_annotator_id") or record.get("_session_id") or ""),
            at=str(record.get("at") or record.get("_timestamp") or ""),
            problem=problem,
        )


def _write_table(
    path: Path, tasks: Sequence[Task], answers: _Answers, codebook: Codebook
) -> list[Path]:
    choices = choices_of(codebook)
    note = _note(codebook)
    header = ["sentence_id", "before", "text", "after", *choices, note, "annotator", "answered_at"]
    header += ["suggested", "evidence", "document_id", "sentence", "start", "end"]
    rows = []
    for task in tasks:
        for answer in _or_none(answers, task):
            chosen = _chosen(answer.labels) if answer else []
            values: dict[str, str | int] = {
                **_data(task),
                "text": task.text,
                "suggested": codebook.show(task.suggested),
                "annotator": answer.annotator if answer else "",
                "answered_at": answer.at if answer else "",
                **{name: 1 if name in chosen else "" for name in choices},
                note: "",
            }
            rows.append([values[name] for name in header])
    write_table(path, header, rows)
    return [path]


def _note(codebook: Codebook) -> str:
    """Return the header of an empty column: who fills in a spreadsheet sees no other instruction.

    It holds no comma or semicolon, since by these a reader guesses what separates the columns.
    """
    none = f"mark {NONE} where no label applies: " if codebook.multi_label else ""
    marks = "1 x y yes true: it applies. 0 n no false: it does not."
    return f"{marks} {none}a row without a mark is not answered"


def _read_table(path: Path, codebook: Codebook) -> Iterator[Entry]:
    choices = choices_of(codebook)
    for row, values, problem in read_table(path, needed=("text", *choices)):
        labels, wrong = (None, "") if problem else _ticks(values, choices)
        yield Entry(
            row=row,
            id=values.get("sentence_id") or None,
            text=values.get("text") or None,
            labels=labels,
            annotator=values.get("annotator", ""),
            at=values.get("answered_at", ""),
            problem=problem or wrong,
        )


def _ticks(values: Mapping[str, str], choices: Sequence[str]) -> tuple[list[str] | None, str]:
    """Read the cells of the label columns: ticked ones, or None where all are empty."""
    try:
        cells = read_ticks(values, choices)
    except ValueError as error:
        return None, str(error)
    ticked = [name for name, is_ticked in cells.items() if is_ticked]
    if ticked:
        return ticked, ""
    crossed = all(is_ticked is False for name, is_ticked in cells.items() if name != NONE)
    return ([NONE], "") if crossed and NONE in cells else (None, "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


FORMATS = {
    "label_studio": Format((".json",), _write_label_studio, _read_label_studio),
    "doccano": Format((".jsonl",), _write_doccano, _read_doccano),
    "argilla": Format((".json",), _write_argilla, _read_argilla),
    "prodigy": Format((".jsonl",), _write_prodigy, _read_prodigy),
    "table": Format(TABLE_SUFFIXES, _write_table, _read_table),
}
