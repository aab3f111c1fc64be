"""Documents are read without bending a value, and what cannot be read is named."""

import errno
import gzip
import json
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from stance.errors import UserError
from stance.text.documents import (
    Blank,
    Document,
    Layout,
    RawJson,
    Record,
    Reject,
    columns_of,
    read_documents,
)
from stance.text.sources import Meter, find_sources


def read(path: Path, **layout: Any) -> list[Record]:
    return list(read_documents(find_sources(str(path)).files, Layout(**layout)))


def documents(records: Sequence[Record]) -> list[Document]:
    return [record for record in records if isinstance(record, Document)]


def rejects(records: Sequence[Record]) -> list[Reject]:
    return [record for record in records if isinstance(record, Reject)]


def test_csv_cells_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text,n\n007,"One, ""two"".\nThree.",NA\n1e5,Four.,1.0\n')
    first, second = documents(read(path, id="id"))
    assert (first.id, first.text, first.fields) == ("007", 'One, "two".\nThree.', {"n": "NA"})
    assert (second.id, second.fields) == ("1e5", {"n": "1.0"})


def test_json_values_keep_their_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "A.", "a": 1.10, "b": 1e5, "c": {"d": [1,  2]}, "e": "007", "f": null}\n'
    )
    (document,) = documents(read(path))
    assert document.id == "a.jsonl:1"
    assert document.fields == {
        "a": RawJson("1.10"),
        "b": RawJson("1e5"),
        "c": RawJson('{"d": [1,  2]}'),
        "e": "007",
        "f": RawJson("null"),
    }


def test_parquet_values_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["A.", None, "B."],
            "when": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
            "price": [Decimal("1.10"), Decimal("2.20"), None],
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    records = read(path)
    assert isinstance(records[1], Blank)
    first, second = documents(records)
    assert (first.id, second.id) == ("a.parquet:1", "a.parquet:3")
    assert first.fields["when"].type == pa.timestamp("ns", "UTC")
    assert first.fields["when"].value == 1
    assert not second.fields["price"].is_valid


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_packed_files_read_like_plain_ones(kind: str, suffix: str, tmp_path: Path) -> None:
    content = {
        "txt": "Grüße an alle.",
        "csv": "text\nGrüße an alle.\n",
        "tsv": "text\tn\nGrüße an alle.\t1\n",
        "jsonl": '{"text": "Grüße an alle."}\n',
    }[kind].encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"a.{kind}{suffix}"
    path.write_bytes(pack(content))
    (document,) = documents(read(path))
    assert document.text == "Grüße an alle."


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, content in (("a.txt", "A."), ("b.csv", "text\nA.\n"), ("c.jsonl", '{"text": "A."}')):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8-sig")
        assert [d.text for d in documents(read(path))] == ["A."]


def test_line_separators_within_a_record_do_not_cut_it(tmp_path: Path) -> None:
    text = "One\u2028two\u0085three\x1cfour."
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text}, ensure_ascii=False).replace("\x1c", "\\u001c")
    )
    (tmp_path / "b.csv").write_text(f"text\n{text}\n")
    for name in ("a.jsonl", "b.csv"):
        assert [d.text for d in documents(read(tmp_path / name))] == [text]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_is_parted_by_what_parts_its_header(
    delimiter: str, mark: str, tmp_path: Path
) -> None:
    header = delimiter.join(["id", '"a,b,c;d;e\t\t"', "text"])
    row = delimiter.join(["7", "1.5", '"One, two;\tthree.\nFour."'])
    path = tmp_path / "a.csv"
    path.write_text(f"{mark}\n{header}\n{row}\n")
    (document,) = documents(read(path))
    assert (document.id, document.text) == ("a.csv:3", "One, two;\tthree.\nFour.")
    assert document.fields == {"id": "7", "a,b,c;d;e\t\t": "1.5"}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_line_that_tells_excel_the_delimiter_is_no_header(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{mark}sep=|\r\ntext|n\r\nOne, two.|1\r\n", newline="")
    assert list(columns_of(find_sources(str(path)).files[0], Layout())) == ["n"]
    (document,) = documents(read(path))
    assert (document.id, document.text, document.fields) == ("a.csv:3", "One, two.", {"n": "1"})


def test_an_open_quotation_mark_costs_only_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,n\nA.,1\n"B.,2\nC.,3\nD.,4\n')
    records = read(path)
    assert [d.text for d in documents(records)] == ["A.", "C.", "D."]
    (reject,) = rejects(records)
    assert (reject.row, "CSV" in reject.reason) == (3, True)


def test_quotation_marks_in_tsv_are_text_unless_said_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tn\n"We will act," he said.\t1\n')
    assert [d.text for d in documents(read(path))] == ['"We will act," he said.']
    path.write_text('text\tn\n"One\ttwo."\t1\n')
    assert [d.text for d in documents(read(path, tsv_quotes=True))] == ["One\ttwo."]


def test_a_tsv_whose_cells_are_quoted_is_not_read_as_if_they_were_not(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tn\n"He said ""no""."\t1\n"Yes," he said.\t""\nSo ""he"" said.\t3\n')
    records = read(path)
    assert [d.text for d in documents(records)] == ['"Yes," he said.', 'So ""he"" said.']
    (reject,) = rejects(records)
    assert (reject.row, "tsv_quotes=true" in reject.reason) == (2, True)
    assert documents(read(path, tsv_quotes=True))[0].text == 'He said "no".'
    path.write_text('"text"\t"n"\n"A."\t1\n')
    with pytest.raises(UserError, match=r"a\.tsv:1: the header's cells are quoted; .*tsv_quotes"):
        columns_of(find_sources(str(path)).files[0], Layout())
    assert [d.text for d in documents(read(path, tsv_quotes=True))] == ["A."]


def test_records_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"One\ntwo."\n\nThree.\n')
    assert [d.id for d in documents(read(path))] == ["a.csv:2", "a.csv:5"]


def test_folders_are_read_whole_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a/.hidden.txt", ".git/x.txt", "note.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name}.")
    sources = find_sources(str(tmp_path))
    assert [source.name for source in sources.files] == ["a/c.txt", "b.txt"]
    assert sources.ignored == ("note.md",)


def test_a_pattern_finds_files_and_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("A.")
    (tmp_path / "b1.txt").write_text("B.")
    assert len(find_sources(str(tmp_path / "*.txt")).files) == 2
    assert find_sources(str(tmp_path / "a[1].txt")).files[0].path.name == "a[1].txt"
    with pytest.raises(UserError, match="no file matches"):
        find_sources(str(tmp_path / "*.csv"))


@pytest.mark.parametrize("where", [".", "./", "*", "**", "**/*.parquet"])
def test_a_folder_that_spark_wrote_is_left_out_unless_it_is_named(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "x/o.parquet/part-0.parquet", "x/o.parquet.manifest.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")
    assert [source.name for source in find_sources(where).files] == ["a.parquet"]
    assert len(find_sources("x/o.parquet").files) == 1
    assert len(find_sources("x/o.parquet/*").files) == 1


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.txt").write_text("A.")
    scandir = os.scandir

    def refuse(path: Path | str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"input: .*/locked: Permission denied"):
        find_sources(str(tmp_path))


def test_the_digest_knows_names_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A.")
    before = find_sources(str(path)).digest
    assert find_sources(str(path)).digest == before
    path.write_text("B.")
    assert find_sources(str(path)).digest != before


def test_the_meter_ends_at_the_size_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A." * 1000)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text\n" + b"B.\n" * 1000))
    pq.write_table(pa.table({"text": ["C."] * 1000}), tmp_path / "c.parquet")
    sources, meter = find_sources(str(tmp_path)), Meter()
    assert len(list(read_documents(sources.files, Layout(), meter))) == 2001
    assert 0.95 * sources.bytes <= meter.read <= sources.bytes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"body,date\nA.,1\n", "no column 'text'; the columns are body, date"),
        ("a.jsonl", b'{"body": "A."}\n', "no column 'text'; the columns are body"),
        ("a.csv", b"text,text\nA.,B.\n", "two columns bear the same name"),
        ("a.csv", b"te\xffxt\nA.\n", "the header cannot be read: not UTF-8: byte 0xff"),
    ],
)
def test_a_table_without_its_columns_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        columns_of(find_sources(str(tmp_path / name)).files[0], Layout())


def test_a_text_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="the column 'text' is int64, not text"):
        columns_of(find_sources(str(tmp_path / "a.parquet")).files[0], Layout())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.array([b"a", b"\xe9"], pa.binary()).view(pa.string()), "not UTF-8: byte 0xe9 at 1"),
        (pa.array([0, 4_000_000], pa.date32()), "out of range"),
        (pa.array([0, 1 << 60], pa.timestamp("us")), "out of range"),
        (pa.array([[0], [4_000_000]], pa.list_(pa.date32())), "out of range"),
    ],
)
def test_a_row_with_a_value_that_cannot_be_read_names_its_column(
    values: pa.Array, reason: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["A.", "B."], "odd": values}), tmp_path / "a.parquet")
    document, reject = read(tmp_path / "a.parquet")
    assert isinstance(document, Document)
    assert isinstance(reject, Reject)
    assert reject.row == 2
    assert reject.reason.startswith("'odd' cannot be read: ")
    assert reason in reject.reason
