"""Answers of annotators, held against the queue: read rightly, or refused with a reason.

Every tool's export becomes a list of entries, and every entry passes the same gate: its sentence
must be in the queue and unchanged, its labels in the codebook, and one annotator has one answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from stance.codebook import NONE, Codebook
from stance.corpus.examples import normal_form, sentence_key
from stance.labelling.files import distinct, read_rows
from stance.labelling.tasks import Task


@dataclass(frozen=True)
class Answer:
    """The label set that one annotator gave to one sentence, and when, if that is known."""

    id: str
    labels: tuple[str, ...]
    annotator: str
    at: str = ""


@dataclass(frozen=True)
class Entry:
    """What an export says in one place; `labels` is None where nothing has been answered yet.

    `problem` says why the entry cannot be understood at all.
    """

    row: int
    id: str | None
    text: str | None
    labels: Sequence[str] | None
    annotator: str = ""
    at: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Refusal:
    """An entry that was not taken: file, row, id and reason."""

    file: str
    row: int
    id: str | None
    reason: str


@dataclass
class Reading:
    """What was read of exports: answers, refusals, and how many entries are still open."""

    answers: list[Answer] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    unfinished: int = 0


@dataclass(frozen=True)
class _Placed:
    file: str
    row: int
    answer: Answer


def hold_against_queue(
    entries: Mapping[str, Iterable[Entry]],
    tasks: Sequence[Task],
    codebook: Codebook,
    annotator: str = "",
) -> Reading:
    """Turn entries of exports into answers to the tasks of a queue.

    Args:
        entries: file name to its entries.
        tasks: the queue.
        codebook: the labels that an answer may have.
        annotator: who answered where an entry does not say; else the file's name without suffix.
            A bare number names somebody within one file only.
    """
    reading = Reading()
    by_id = {task.id: task for task in tasks}
    by_key: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_key[sentence_key(task.text)].append(task)
    stems = {
        str(path): stem
        for stem, path in distinct([Path(file) for file in entries], attrgetter("stem")).items()
    }
    given: defaultdict[tuple[str, str], list[_Placed]] = defaultdict(list)
    for file, listed in entries.items():
        for entry in listed:
            found = _find(entry, by_id, by_key)
            reason = found if isinstance(found, str) else _objection(entry, found, codebook)
            if reason:
                reading.refusals.append(Refusal(file, entry.row, entry.id, reason))
            elif entry.labels is None:
                reading.unfinished += 1
            elif isinstance(found, Task):
                labels = tuple(name for name in codebook.names if name in entry.labels)
                who = entry.annotator or annotator or stems[file]
                if who.isdecimal() and len(entries) > 1:
                    who = f"{stems[file]}:{who}"  # each installation of a tool counts from one
                answer = Answer(found.id, labels, who, entry.at)
                given[found.id, who].append(_Placed(file, entry.row, answer))
    for placed in given.values():
        _settle(placed, reading)
    return reading


def read_answers(path: Path) -> list[Entry]:
    """Read the answers that the labelling page writes, with what was undone left out.

    Raises:
        UserError: the file cannot be read, or a line is no JSON object.
    """
    standing: dict[tuple[str, str], Entry] = {}
    for row, values in read_rows(path):
        entry = Entry(
            row=row,
            id=_text_or_none(values.get("id")),
            text=_text_or_none(values.get("text")),
            labels=values.get("labels"),
            annotator=str(values.get("annotator") or ""),
            at=str(values.get("at") or ""),
        )
        key = (entry.id or f"row {row}", entry.annotator)
        standing.pop(key, None)
        if not values.get("undone"):
            standing[key] = entry
    return list(standing.values())


def to_row(answer: Answer, text: str) -> dict[str, Any]:
    """Return an answer as `read_answers` reads it."""
    return {
        "id": answer.id,
        "labels": list(answer.labels),
        "annotator": answer.annotator,
        "at": answer.at,
        "text": text,
    }


def _find(entry: Entry, by_id: Mapping[str, Task], by_key: Mapping[str, list[Task]]) -> Task | str:
    """Return the task that an entry answers, or why there is none."""
    if entry.problem:
        return entry.problem
    if entry.id:
        return by_id.get(entry.id) or f"the id {entry.id!r} is not in the queue"
    if not entry.text:
        return "neither an id nor a sentence"
    same = by_key.get(sentence_key(entry.text), [])
    if len(same) != 1:
        return "no id, and the sentence is not in the queue"
    return same[0]


def _objection(entry: Entry, task: Task, codebook: Codebook) -> str:
    """Return what is wrong with an entry, or an empty text."""
    if entry.text is not None and not _same(entry.text, task.text):
        return f"the sentence was changed: {entry.text[:60]!r}"
    labels = entry.labels
    if labels is None:
        return ""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return f"labels must be a list of names, found {labels!r}"
    for label in labels:
        if label not in codebook.names and label != NONE:
            return (
                f"the codebook has no label {label!r}; its labels are {', '.join(codebook.names)}"
            )
    if NONE in labels and len(set(labels)) > 1:
        return f"{NONE!r} beside other labels: {', '.join(labels)}"
    if not codebook.multi_label and (len(set(labels)) != 1 or NONE in labels):
        return f"one label is needed, found {len(set(labels))}"
    return ""


def _same(returned: str, sent: str) -> bool:
    """Say whether a sentence came back as it went, but for what Excel does to it.

    A table saved in Windows' own encoding has a question mark for every letter that it lacks.
    """
    saved = sent.encode("cp1252", "replace").decode("cp1252")
    return normal_form(returned) in (normal_form(sent), normal_form(saved))


def _settle(placed: Sequence[_Placed], reading: Reading) -> None:
    """Take one annotator's answer to one sentence; of several, the latest, or none."""
    answers = [p.answer for p in placed]
    if len({answer.labels for answer in answers}) == 1:
        reading.answers.append(answers[-1])
        return
    by_time = {time: answer for answer in answers if (time := _time(answer.at))}
    if len(by_time) == len(answers):
        reading.answers.append(by_time[max(by_time)])
        return
    rows = ", ".join(f"{p.file}:{p.row}" for p in placed)
    for p in placed:
        reason = (
            f"{p.answer.annotator} answered differently at {rows}, and no time says which holds"
        )
        reading.refusals.append(Refusal(p.file, p.row, p.answer.id, reason))


def _time(at: str) -> datetime | None:
    """Read a time in ISO 8601, in UTC where no zone stands, or in seconds since 1970."""
    try:
        return datetime.fromtimestamp(float(at), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
