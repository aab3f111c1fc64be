"""Tasks go out to annotation tools and answers come back whole; what is wrong is refused by row."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from stance.codebook import Codebook
from stance.corpus.tables import read_ticks
from stance.errors import UserError
from stance.labelling.answers import Answer, Entry, Reading, hold_against_queue, read_answers
from stance.labelling.formats import label_studio_config, read_export, recognise, write_tasks
from stance.labelling.tasks import Task, read_queue, write_queue

ARTICLE = (
    "The mayor praised the plan. "
    '"Ürümqi\'s delegates, who blamed it, left", he said; =SUM(A1) too. '
    "A union – “the league” – measured the bridge.\nNobody came.\nThe panel met."
)
PARTS = [
    "The mayor praised the plan.",
    '"Ürümqi\'s delegates, who blamed it, left", he said; =SUM(A1) too.',
    "A union – “the league” – measured the bridge.",
    "Nobody came.",
    "The panel met.",
]
FILES = {
    "label_studio": "tasks.json",
    "argilla": "tasks.json",
    "prodigy": "tasks.jsonl",
    "doccano": "tasks.jsonl",
    "table": "tasks.csv",
}
TOOLS = [*FILES.items(), ("table", "tasks.xlsx"), ("table", "tasks.tsv")]
ANSWERS = [
    Answer("=a.txt#0", ("praise",), "anna", "2026-01-02T10:00:00+00:00"),
    Answer("=a.txt#1", ("praise", "blame"), "anna", "2026-01-02T10:00:05+00:00"),
    Answer("=a.txt#2", (), "anna", "2026-01-02T10:00:09+00:00"),
    Answer("=a.txt#0", (), "ben", "2026-01-03T10:00:00+00:00"),
]


@pytest.fixture
def tasks() -> list[Task]:
    starts = [ARTICLE.index(part) for part in PARTS]
    return [
        Task(
            id=f"=a.txt#{number}",
            text=part,
            before=PARTS[number - 1] if number else "",
            document_id="=a.txt",
            sentence=number,
            start=start,
            end=start + len(part),
            suggested=("praise",) if number == 0 else (),
            probabilities={"praise": 0.9, "blame": 0.1},
            evidence=[
                {
                    "voter": "cue:praise/praise",
                    "label": "praise",
                    "vote": "yes",
                    "rule": 1,
                    "start": 10,
                    "end": 17,
                    "text": "praised",
                    "blocked": None,
                }
            ]
            if number == 0
            else [],
            chosen_for="random",
        )
        for number, (part, start) in enumerate(zip(PARTS, starts, strict=True))
    ]


Read = Callable[[Path], Reading]


@pytest.fixture
def read(tasks: list[Task], codebook: Codebook) -> Read:
    def reading(path: Path, **options: str) -> Reading:
        return hold_against_queue({path.name: read_export(path, "auto", codebook)}, tasks, codebook)

    return reading


def test_a_queue_is_read_back_as_it_was_and_never_overwritten(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / "queue.jsonl"
    write_queue(path, tasks)
    assert read_queue(path, codebook) == tasks
    with pytest.raises(UserError, match="not overwritten"):
        write_queue(path, tasks[:1])
    assert len(read_queue(path, codebook)) == 5


@pytest.mark.parametrize(("tool", "file"), TOOLS)
def test_answers_come_back_from_every_tool_as_they_went(
    tool: str, file: str, tasks: list[Task], read: Read, codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / file
    answers = ANSWERS[:3] if tool == "doccano" else ANSWERS
    write_tasks(path, tasks, answers, tool, codebook)
    assert recognise(path) == tool
    reading = hold_against_queue(
        {file: read_export(path, tool, codebook)}, tasks, codebook, annotator="anna"
    )
    assert reading.refusals == []
    assert reading.unfinished == 2
    given = {(a.id, a.annotator): a for a in reading.answers}
    for answer in answers:
        found = given.pop((answer.id, answer.annotator))
        assert found.labels == answer.labels
        assert found.at in (answer.at, "")
    assert not given
    with pytest.raises(UserError, match="not overwritten"):
        write_tasks(path, tasks, answers, tool, codebook)


@pytest.mark.parametrize(("tool", "file"), TOOLS)
def test_texts_and_offsets_go_out_unbent_and_suggestions_are_no_answers(
    tool: str, file: str, tasks: list[Task], read: Read, codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / file
    write_tasks(path, tasks, [], tool, codebook)
    entries = read_export(path, tool, codebook)
    assert [(e.id, e.text) for e in entries] == [(t.id, t.text) for t in tasks]
    reading = read(path)
    assert (reading.answers, reading.refusals, reading.unfinished) == ([], [], 5)
    if path.suffix != ".xlsx":
        content = path.read_text(encoding="utf-8")
        assert str(tasks[2].start) in content
        assert str(tasks[2].end) in content


def test_a_spreadsheet_runs_nothing_and_keeps_what_begins_like_a_formula(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    from openpyxl import load_workbook

    write_tasks(tmp_path / "t.csv", tasks, [], "table", codebook)
    write_tasks(tmp_path / "t.xlsx", tasks, [], "table", codebook)
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8-sig"))))
    assert all(not cell.startswith("=") for row in rows for cell in row)
    cells = [c for row in load_workbook(tmp_path / "t.xlsx").active.iter_rows() for c in row]
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    assert "=a.txt#0" in [cell.value for cell in cells]


def test_a_spreadsheet_says_what_counts_as_a_mark_and_that_none_must_be_marked(
    tasks: list[Task], codebook: Codebook, single_codebook: Codebook, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "t.csv", tasks, [], "table", codebook)
    header = (tmp_path / "t.csv").read_text(encoding="utf-8-sig").splitlines()[0]
    ticks, crosses, none = header.split(",")[7].split(". ")
    for marks, counts in ((ticks, True), (crosses, False)):
        words = marks.split(":")[0].split()
        assert set(read_ticks({word: word for word in words}, words).values()) == {counts}
    assert none == "mark none where no label applies: a row without a mark is not answered"
    write_tasks(tmp_path / "s.csv", tasks, [], "table", single_codebook)
    header = (tmp_path / "s.csv").read_text(encoding="utf-8-sig").splitlines()[0]
    assert "it does not. a row without a mark is not answered," in header


def saved_by_excel(path: Path, encoding: str, delimiter: str, order: list[int]) -> None:
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    kept = order + [i for i in range(len(rows[0])) if i not in order]
    writer.writerows([[row[i] for i in kept] for row in rows])
    path.write_bytes(stream.getvalue().encode(encoding))


@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [("cp1252", ";"), ("utf-16", "\t"), ("utf-8", ";"), ("utf-8-sig", ",")],
)
def test_what_excel_saves_is_read_whatever_encoding_delimiter_and_order(
    encoding: str, delimiter: str, tasks: list[Task], read: Read, codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / "anna.csv"
    write_tasks(path, tasks, ANSWERS, "table", codebook)
    saved_by_excel(path, encoding, delimiter, order=[5, 2, 4, 0])
    reading = read(path)
    assert reading.refusals == []
    assert sorted(reading.answers, key=str) == sorted(ANSWERS, key=str)


def test_letters_that_excel_saves_as_question_marks_are_no_change(codebook: Codebook) -> None:
    task = Task("t0", "Erdoğan praised Łódź’s mayor.")

    def reading(text: str) -> Reading:
        return hold_against_queue({"a.csv": [Entry(2, "t0", text, ["praise"])]}, [task], codebook)

    assert len(reading("Erdo?an praised ?ód?’s mayor.").answers) == 1
    assert reading("Erdo?an praised nobody’s mayor.").answers == []


def table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["sentence_id,text,praise,blame,none,annotator", *lines]))
    return path


def test_wrong_rows_of_a_table_are_refused_with_row_and_reason(read: Read, tmp_path: Path) -> None:
    path = table(
        tmp_path / "anna.csv",
        [
            "=a.txt#0,The mayor praised the plan.,x,,,",
            "=a.txt#9,The mayor praised the plan.,x,,,",
            "=a.txt#3,Nobody came yesterday.,x,,,",
            ",The panel met.,,TRUE,,",
            ",Somebody met.,,1,,",
            "=a.txt#2,,maybe,,,",
            "=a.txt#3,Nobody came.,1,,1,",
            "=a.txt#3,Nobody came.,1,,,ben,surplus",
            "",
            "=a.txt#3,Nobody came.,0,0,,ben",
        ],
    )
    reading = read(path)
    assert [(a.id, a.labels, a.annotator) for a in reading.answers] == [
        ("=a.txt#0", ("praise",), "anna"),
        ("=a.txt#4", ("blame",), "anna"),
        ("=a.txt#3", (), "ben"),
    ]
    assert [(r.row, r.reason.split(":")[0]) for r in reading.refusals] == [
        (3, "the id '=a.txt#9' is not in the queue"),
        (4, "the sentence was changed"),
        (6, "no id, and the sentence is not in the queue"),
        (7, "column 'praise'"),
        (8, "'none' beside other labels"),
        (9, "7 cells where the header has 6"),
    ]


def test_a_table_without_a_label_column_is_refused_as_a_whole(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "anna.csv"
    path.write_text("sentence_id,text,praise,none\na,b,1,\n")
    with pytest.raises(UserError, match=r"anna\.csv:1: no column 'blame'"):
        read(path)
    path.write_text("text,praise,praise,blame,none\na,b,1,,\n")
    with pytest.raises(UserError, match="stands there twice"):
        read(path)
    (tmp_path / "x.xlsx").write_bytes(b"no workbook")
    with pytest.raises(UserError, match="not an Excel workbook"):
        read(tmp_path / "x.xlsx")


def test_two_answers_of_one_annotator_are_the_latest_or_none(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    def reading(rows: list[dict[str, Any]]) -> Reading:
        path = tmp_path / "anna.jsonl"
        path.write_text("".join(json.dumps({"sentence_id": "=a.txt#0", **r}) + "\n" for r in rows))
        entries = read_export(path, "doccano", codebook)
        return hold_against_queue({"anna.jsonl": entries}, tasks, codebook)

    same = reading([{"label": ["praise"]}, {"label": ["praise"]}])
    assert [a.labels for a in same.answers] == [("praise",)]
    other = reading([{"label": ["praise"]}, {"label": ["blame"]}])
    assert other.answers == []
    assert [r.row for r in other.refusals] == [1, 2]
    assert "anna answered differently at anna.jsonl:1, anna.jsonl:2" in other.refusals[0].reason
    unknown = reading([{"label": ["praise", "scorn"]}])
    assert "no label 'scorn'" in unknown.refusals[0].reason


def test_the_later_answer_holds_however_its_time_is_written(
    tasks: list[Task], codebook: Codebook
) -> None:
    def entry(label: str, at: str) -> Entry:
        return Entry(1, "=a.txt#0", None, [label], "anna", at)

    for early, late in (
        ("2026-01-01T10:00:00+00:00", "1798761600"),
        ("2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z"),
        ("2026-01-01 09:00", "2026-01-01T10:00:00+00:00"),
    ):
        entries = {"a.jsonl": [entry("blame", late), entry("praise", early)]}
        (given,) = hold_against_queue(entries, tasks, codebook).answers
        assert given.labels == ("blame",)
    entries = {"a.jsonl": [entry("blame", "27/11/2026"), entry("praise", "28/11/2026")]}
    assert not hold_against_queue(entries, tasks, codebook).answers


def test_files_of_one_name_and_bare_numbers_are_different_people(
    tasks: list[Task], codebook: Codebook
) -> None:
    def who(files: list[str], annotator: str) -> list[str]:
        entries = {
            file: [Entry(1, "=a.txt#0", None, [label], annotator)]
            for file, label in zip(files, ("praise", "blame"), strict=False)
        }
        return [a.annotator for a in hold_against_queue(entries, tasks, codebook).answers]

    assert who(["anna/answers.csv", "ben/answers.csv"], "") == [
        "anna/answers.csv",
        "ben/answers.csv",
    ]
    assert who(["anna.json", "ben.json"], "1") == ["anna:1", "ben:1"]
    assert who(["anna.json"], "1") == ["1"]


def label_studio_task(task: Task, number: int, *annotations: dict[str, Any]) -> dict[str, Any]:
    """Return a task as Label Studio 1.23 exports it."""
    data = {"text": task.text, "sentence_id": task.id, "start": task.start, "end": task.end}
    return {
        "id": number,
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [number],
        "data": data,
        "meta": {},
        "created_at": "2026-11-24T16:26:28.964078Z",
        "updated_at": "2026-11-24T16:26:29.217847Z",
        "allow_skip": True,
        "inner_id": number,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
        "project": 1,
        "updated_by": 1,
        "comment_authors": [],
    }


def annotation(choices: list[str], by: Any = 1, **more: Any) -> dict[str, Any]:
    value = {"choices": choices}
    result = [{"from_name": "labels", "to_name": "text", "type": "choices", "value": value}]
    return {
        "id": 1,
        "completed_by": by,
        "result": result if choices else [],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-24T16:26:29.058196Z",
        "updated_at": "2026-11-24T16:26:29.058223Z",
        "lead_time": 4.2,
        "prediction": {"id": 1, "result": result, "model_version": "stance", "score": 0.99},
        **more,
    }


def test_label_studio_exports_are_read_skipped_and_unfinished_tasks_included(
    tasks: list[Task], read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "project-1.json"
    user = {"id": 2, "email": "ben@example.org", "first_name": "", "last_name": ""}
    rows = [
        label_studio_task(tasks[0], 1, annotation(["praise", "blame"]), annotation(["none"], user)),
        label_studio_task(tasks[1], 2, annotation([], was_cancelled=True)),
        label_studio_task(tasks[2], 3),
        label_studio_task(tasks[3], 4, annotation([])),
    ]
    path.write_text(json.dumps(rows))
    reading = read(path)
    assert [(a.id, a.labels, a.annotator) for a in reading.answers] == [
        ("=a.txt#0", ("praise", "blame"), "1"),
        ("=a.txt#0", (), "ben@example.org"),
    ]
    assert reading.unfinished == 2
    assert [(r.row, r.reason) for r in reading.refusals] == [
        (4, "submitted without a choice of 'labels'")
    ]


def test_label_studios_json_min_is_read(tasks: list[Task], read: Read, tmp_path: Path) -> None:
    """One choice stands there as a text, and `id` is Label Studio's own."""
    path = tmp_path / "min.json"
    chosen = [{"labels": {"choices": ["praise", "blame"]}}, {"labels": "none"}, {}]
    rows = [
        {
            "text": task.text,
            "sentence_id": task.id,
            "id": number,
            **labels,
            "annotator": 1 if labels else None,
            "annotation_id": number,
            "created_at": "2026-11-24T16:26:29.058196Z",
        }
        for number, (task, labels) in enumerate(zip(tasks, chosen, strict=False), start=1)
    ]
    path.write_text(json.dumps(rows))
    reading = read(path)
    assert [(a.labels, a.annotator) for a in reading.answers] == [
        (("praise", "blame"), "1"),
        ((), "1"),
    ]
    assert (reading.unfinished, reading.refusals) == (1, [])


@pytest.mark.parametrize("file", ["export.json", "export.min.json", "export.csv"])
def test_what_label_studio_itself_exported_is_read(file: str, read: Read) -> None:
    """These tasks went into Label Studio 1.23.2 by its API and came out again.

    The first two were answered there, the third skipped, the fourth has a draft, the last nothing.
    JSON-MIN and CSV leave the skipped task out.
    """
    reading = read(Path(__file__).parent / "data/label_studio" / file)
    assert [(a.id, a.labels, a.annotator) for a in reading.answers] == [
        ("=a.txt#0", ("praise", "blame"), "1"),
        ("=a.txt#1", (), "1"),
    ]
    assert all(a.at.startswith("2026-11-24T20:02") for a in reading.answers)
    assert reading.refusals == []
    assert reading.unfinished == (3 if file == "export.json" else 2)


def test_the_labelling_configuration_is_xml_with_every_choice(codebook: Codebook) -> None:
    view = ElementTree.fromstring(label_studio_config(codebook))
    choices = view.find("Choices")
    assert choices is not None
    assert choices.get("choice") == "multiple"
    assert [c.get("value") for c in choices] == ["praise", "blame", "none"]
    assert len({c.get("hotkey") for c in choices}) == 3
    names = {text.get("value") for text in view.iter("Text")}
    assert {"$text", "$before", "$after", "$evidence"} == names


def test_labels_beyond_the_keyboard_have_no_key(codebook: Codebook) -> None:
    many = replace(
        codebook, labels=tuple(replace(codebook.labels[0], name=f"n{i}") for i in range(30))
    )
    choices = ElementTree.fromstring(label_studio_config(many)).find("Choices")
    assert choices is not None
    keys = [choice.get("hotkey") for choice in choices]
    assert len(set(keys[:28])) == 28
    assert keys[28:] == [None, None, "0"]


def test_label_studios_settings_are_not_overwritten(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    (tmp_path / "tasks.xml").write_text("mine")
    for name in ("tasks.json", "tasks.xml"):
        with pytest.raises(UserError, match="output: "):
            write_tasks(tmp_path / name, tasks, [], "label_studio", codebook)
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.xml"]
    assert (tmp_path / "tasks.xml").read_text() == "mine"


def test_prodigy_and_doccano_exports_are_read(
    tasks: list[Task], read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "prodigy.jsonl"
    base = {"_input_hash": 1, "_task_hash": 2, "_view_id": "choice", "_annotator_id": "s-anna"}
    rows: list[dict[str, Any]] = [
        {"text": tasks[0].text, "accept": ["praise"], "answer": "accept", "_timestamp": 1700000000},
        {"text": tasks[1].text, "accept": [], "answer": "accept"},
        {"text": tasks[2].text, "accept": ["praise"], "answer": "ignore"},
        {"text": tasks[3].text, "accept": ["praise"], "answer": "reject"},
    ]
    path.write_text("".join(json.dumps({**base, **row}) + "\n" for row in rows))
    reading = read(path)
    assert [(a.labels, a.annotator) for a in reading.answers] == [
        (("praise",), "s-anna"),
        ((), "s-anna"),
    ]
    assert reading.unfinished == 1
    assert [r.row for r in reading.refusals] == [4]

    path = tmp_path / "ben.jsonl"
    rows = [
        {
            "id": 7,
            "text": tasks[0].text,
            "label": ["praise"],
            "Comments": [],
            "sentence_id": tasks[0].id,
        },
        {
            "id": 8,
            "text": tasks[1].text,
            "label": [],
            "Comments": ["?"],
            "sentence_id": tasks[1].id,
        },
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read(path)
    assert [(a.labels, a.annotator) for a in reading.answers] == [(("praise",), "ben")]
    assert reading.unfinished == 1


@pytest.mark.parametrize("tool", FILES)
def test_records_of_any_shape_are_refused_or_left_open_and_never_crash(
    tool: str, tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    if tool == "table":
        return
    path = tmp_path / "odd.json"
    odd: list[Any] = [None, 3, "x", [], ["x"], {}, {"a": 1}]
    keys = [
        "data",
        "annotations",
        "labels",
        "label",
        "meta",
        "accept",
        "answer",
        "fields",
        "metadata",
        "responses",
        "text",
    ]
    rows = [{key: value} for key in keys for value in odd]
    rows += [{"responses": {"labels": [{"value": v}]}, "id": "=a.txt#0"} for v in odd]
    rows += [{"sentence_id": "=a.txt#0", "label": v} for v in odd]
    rows += [
        {"data": {}, "annotations": [{"result": [{"value": v}], "completed_by": v}]} for v in odd
    ]
    path.write_text(json.dumps(rows))
    entries = {"odd.json": read_export(path, tool, codebook)}
    assert hold_against_queue(entries, tasks, codebook).answers == []


@pytest.mark.parametrize("tool", FILES)
def test_a_file_is_written_under_the_suffix_of_its_format_and_read_under_any(
    tool: str, tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    suffix = {"table": ".csv, .tsv, .xlsx"}.get(tool, Path(FILES[tool]).suffix)
    other = tmp_path / ("tasks.json" if suffix == ".jsonl" else "tasks.jsonl")
    with pytest.raises(UserError, match=f"{other.name}: {tool} is written as {suffix}$"):
        write_tasks(other, tasks, [], tool, codebook)
    assert list(tmp_path.iterdir()) == []
    write_tasks(tmp_path / FILES[tool], tasks, ANSWERS[:3], tool, codebook)
    if tool != "table":
        (tmp_path / FILES[tool]).rename(other)
        assert recognise(other) == tool
        labels = [entry.labels for entry in read_export(other, tool, codebook)]
        assert labels[:2] == [["praise"], ["praise", "blame"]]


def test_what_was_undone_on_the_page_is_no_answer(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / "anna.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": "=a.txt#0", "labels": ["praise"], "annotator": "anna", "at": "1"},
        {"id": "=a.txt#1", "labels": [], "annotator": "anna", "at": "2"},
        {"id": "=a.txt#1", "undone": True, "annotator": "anna", "at": "3"},
        {"id": "=a.txt#0", "labels": ["blame"], "annotator": "anna", "at": "4"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = hold_against_queue({"anna.jsonl": read_answers(path)}, tasks, codebook)
    assert [(a.id, a.labels) for a in reading.answers] == [("=a.txt#0", ("blame",))]
    assert recognise(path) == "answers"


def test_a_file_of_no_tool_and_answers_of_two_for_doccano_are_refused(
    tasks: list[Task], codebook: Codebook, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text('[{"sentence": "a"}]')
    with pytest.raises(UserError, match="no export of a known tool"):
        read_export(tmp_path / "x.json", "auto", codebook)
    (tmp_path / "y.json").write_text('["no object"]')
    with pytest.raises(UserError, match="expected a JSON array"):
        read_export(tmp_path / "y.json", "label_studio", codebook)
    with pytest.raises(UserError, match="anna, ben"):
        write_tasks(tmp_path / "z.jsonl", tasks, ANSWERS, "doccano", codebook)
