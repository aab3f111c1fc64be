"""Labelled files are read with every line checked."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml
from conftest import ROOT, toy_rows, toy_split, write_rows
from openpyxl import Workbook

from stance.codebook import Codebook
from stance.corpus.examples import (
    Columns,
    Split,
    check_learnable,
    decode_labels,
    encode_labels,
    normal_form,
    read_corpus,
    read_split,
)
from stance.corpus.quality import read_located
from stance.errors import UserError

GOOD = '{"id": "a", "text": "The mayor praised it.", "labels": ["praise"], "group": "g"}'


def test_a_good_file_is_read_with_its_metadata(tmp_path: Path, codebook: Codebook) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        "\ufeff" + GOOD + '\n\n{"id": "b", "text": "X\u2028Y é.", "labels": [], "genre": "wire"}\n',
        encoding="utf-8",
    )
    split = read_split(path, "train", codebook)
    assert [e.id for e in split.examples] == ["a", "b"]
    assert split.examples[1].text == "X\u2028Y é."
    assert split.examples[1].group == "b"
    assert split.examples[1].metadata == {"genre": "wire"}
    assert split.gold.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"text"', "expected a JSON object"),
        ('{"id": "b", "labels": []}', "'text' is missing"),
        ('{"id": "b", "text": " ", "labels": []}', "'text' must be a text that is not empty"),
        ('{"id": 7, "text": "x", "labels": []}', "'id' must be a text"),
        ('{"id": "b", "text": "x", "labels": "praise"}', "'labels' must be a list"),
        ('{"id": "b", "text": "x", "labels": ["prase"]}', "no label 'prase'"),
        ('{"id": "b", "text": "x", "labels": [["praise"]]}', "no label"),
        ('{"id": "b", "text": "x", "labels": ["praise", "praise"]}', "stands twice"),
        ('{"id": "a", "text": "x", "labels": []}', "stands also in line 1"),
        ('{"id": "b", "text": "x \\ud83d", "labels": []}', "'text': .* is half a character"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(
    tmp_path: Path, codebook: Codebook, line: str, message: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_split(path, "train", codebook)
    assert str(caught.value).startswith(f"{path}:2: ")


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path, codebook: Codebook) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(UserError, match="No such file"):
        read_split(path, "train", codebook)
    path.write_text("\n\n")
    with pytest.raises(UserError, match="no examples"):
        read_split(path, "train", codebook)
    path.write_bytes(GOOD.encode() + b"\n\xff\xfe")
    with pytest.raises(UserError, match=r"x\.jsonl:2: not UTF-8: byte 0xff"):
        read_split(path, "train", codebook)


def test_a_single_label_codebook_wants_exactly_one(
    tmp_path: Path, single_codebook: Codebook
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"id": "a", "text": "x", "labels": []}])
    with pytest.raises(UserError, match="single-label codebook, found 0"):
        read_split(path, "train", single_codebook)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "r0", "text": "New.", "labels": [], "group": "new"}, "the id 'r0' stands also at"),
        ({"id": "n", "text": "New.", "labels": [], "group": "g0"}, "the group 'g0'"),
        (
            {"id": "n", "text": "  the MAYOR praised the “harbour plan” in report 0", "labels": []},
            "the sentence 'the mayor praised the harbour plan in report 0'",
        ),
    ],
)
def test_nothing_stands_in_two_splits(
    tmp_path: Path, codebook: Codebook, row: dict[str, object], message: str
) -> None:
    train = write_rows(tmp_path / "train.jsonl", toy_rows(codebook, 0, 8))
    other = write_rows(tmp_path / "test.jsonl", [*toy_rows(codebook, 100, 4), row])
    with pytest.raises(UserError) as caught:
        read_corpus({"train": [train], "test": [other]}, codebook)
    assert str(caught.value).startswith(f"{other}:5: ")
    assert message in str(caught.value)


def test_a_label_without_positives_cannot_be_learnt(codebook: Codebook) -> None:
    praising, _, plain, _ = toy_split(codebook, "train", 0, 4).examples
    check_learnable(toy_split(codebook, "train", 0, 4))
    with pytest.raises(UserError, match="'blame' has no positive example"):
        check_learnable(Split("train", (praising, plain), codebook))


def test_tables_are_read_by_column_name(tmp_path: Path, codebook: Codebook) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(
        'n\tsentence\tcode\n1\tHe said "no\tblame\n2\tIt rained.\t\n3\tX.\tblame,praise\n'
    )
    columns = Columns(text="sentence", labels="code")
    split = read_split(path, "train", codebook, columns)
    assert split.texts[0] == 'He said "no'
    assert [e.labels for e in split.examples] == [("blame",), (), ("praise", "blame")]
    assert split.examples[1].id == "mine:3"
    by_number = read_split(path, "train", codebook, Columns("sentence", "code", "n", "n"))
    assert [(e.id, e.group) for e in by_number.examples] == [("1", "1"), ("2", "2"), ("3", "3")]
    with pytest.raises(
        UserError, match=r"mine\.tsv:1: no column 'txt'; the columns are n, sentence"
    ):
        read_split(path, "train", codebook, Columns(text="txt", labels="code"))
    path.write_text("sentence\tcode\nx\n")
    with pytest.raises(UserError, match=r"mine\.tsv:2: 1 cells where the header has 2"):
        read_split(path, "train", codebook, columns)


def test_quotes_quote_the_cells_of_a_table_only_when_that_is_said(
    tmp_path: Path, codebook: Codebook
) -> None:
    path = tmp_path / "mine.tsv"
    plain = 'text\tlabels\n"We left," he said.\tblame\n"No."\t\n'
    path.write_text(plain)
    assert read_split(path, "train", codebook).texts == ['"We left," he said.', '"No."']
    quoted = Columns(quotes=True)
    for header in ("text\tlabels", '"text"\t"labels"'):
        path.write_text(f'{header}\n"""We left,""\nhe said."\t"blame"\nX.\t\n')
        split = read_split(path, "train", codebook, quoted)
        assert split.texts == ['"We left,"\nhe said.', "X."]
        assert [example.id for example in split.examples] == ["mine:2", "mine:4"]
    path.write_text('"text"\t"labels"\n"X."\t"blame"\n')
    with pytest.raises(
        UserError, match=r"mine\.tsv:1: the header's cells are quoted; .*tsv_quotes"
    ):
        read_split(path, "train", codebook)
    path.write_text('text\tlabels\nX.\t\n"""We left,"" he said."\tblame\n')
    with pytest.raises(UserError, match=r"mine\.tsv:3: a cell is quoted; .*tsv_quotes=true"):
        read_split(path, "train", codebook)
    path.write_text('text\tlabels\nX.\t\n"We left.\tblame\n')
    with pytest.raises(UserError, match=r"mine\.tsv:3: not tab-separated: "):
        read_split(path, "train", codebook, quoted)


def test_a_labelled_file_of_another_kind_is_told_what_is_read(
    tmp_path: Path, codebook: Codebook
) -> None:
    for name, message in (
        ("a.pdf", "a labelled file is JSON Lines (.jsonl) or a table (.csv, .tsv, .xlsx)"),
        ("a.xlsx", "not an Excel workbook: File is not a zip file"),
    ):
        path = tmp_path / name
        path.write_bytes(b"PK\x03\x04\xff")
        with pytest.raises(UserError) as caught:
            read_split(path, "test", codebook)
        assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("kind", ["semicolons.csv", "utf-16.csv", "windows.csv", "book.xlsx"])
def test_spreadsheets_with_a_column_for_each_label(
    kind: str, tmp_path: Path, codebook: Codebook
) -> None:
    header = ["doc", "sentence", "blame", "praise", "year"]
    table = [
        ["a", "Café; closed.", 1, "", 1999],
        ["a", "Rain.", 0, 0, 2001],
        ["b", "X.", "x", 1, 3],
    ]
    path = tmp_path / kind
    if kind.endswith(".xlsx"):
        book = Workbook()
        for row in [header, *table]:
            book.active.append(row)
        book.save(path)
    else:
        separator = ";" if kind == "semicolons.csv" else "\t" if kind == "utf-16.csv" else ","
        lines = [separator.join(f'"{cell}"' for cell in row) for row in [header, *table]]
        encoding = {"utf-16.csv": "utf-16", "windows.csv": "cp1252"}.get(kind, "utf-8-sig")
        path.write_text("\r\n".join(lines), encoding=encoding)
    columns = Columns(text="sentence", labels="", group="doc")
    split = read_split(path, "train", codebook, columns)
    assert split.texts == ["Café; closed.", "Rain.", "X."]
    assert [e.labels for e in split.examples] == [("blame",), (), ("praise", "blame")]
    assert [e.id for e in split.examples] == [f"{path.stem}:{n}" for n in (2, 3, 4)]
    assert split.groups == ["a", "a", "b"]
    assert [e.metadata["year"] for e in split.examples] == ["1999", "2001", "3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("X.,,,", "no label is marked with 1 or 0, so nobody has answered this row"),
        ("X.,2,0,", "column 'blame': '2' is neither 1 nor 0"),
        ("X.,1,0,1", "'none' is marked beside blame"),
        ("X.,1", "the row ends before the column 'praise'"),
        ("X.,1,0,0,9", "5 cells where the header has 4"),
    ],
)
def test_a_row_of_a_spreadsheet_that_says_nothing_certain_is_refused(
    row: str, message: str, tmp_path: Path, codebook: Codebook
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"text,blame,praise,none\nRain.,,,1\n{row}\n")
    with pytest.raises(UserError) as caught:
        read_split(path, "train", codebook, Columns(labels=""))
    assert str(caught.value) == f"{path}:3: {message}"
    path.write_text("text,labels\nRain.,none\n")
    assert read_split(path, "train", codebook).examples[0].labels == ()


def test_lines_without_an_id_are_called_after_file_and_line(
    tmp_path: Path, codebook: Codebook
) -> None:
    rows: list[dict[str, object]] = [
        {"text": "It rained.", "labels": []},
        {"text": "It snowed.", "labels": ["blame"], "group": "weather"},
    ]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    examples = read_split(path, "train", codebook).examples
    assert [(e.id, e.group) for e in examples] == [("mine:1", "mine:1"), ("mine:2", "weather")]
    with pytest.raises(UserError, match=r"b\.jsonl:1: the sentence 'it rained'"):
        read_corpus({"train": [path], "test": [write_rows(tmp_path / "b.jsonl", rows)]}, codebook)


def test_rows_of_two_tables_of_one_name_are_told_apart(tmp_path: Path, codebook: Codebook) -> None:
    files = {"train": [tmp_path / "a/mine.tsv"], "test": [tmp_path / "b/mine.tsv"]}
    for number, (path,) in enumerate(files.values()):
        path.parent.mkdir()
        path.write_text(f"text\tlabels\nIt rained {number}.\tblame\n")
    corpus = read_corpus(files, codebook)
    assert corpus["test"].examples[0].id == f"{files['test'][0]}:2"
    assert not read_located(files, codebook).findings


def test_labels_survive_encoding(codebook: Codebook) -> None:
    sets = [("praise", "blame"), (), ("blame",)]
    assert decode_labels(encode_labels(sets, codebook), codebook) == sets


def test_normal_form_ignores_what_does_not_make_another_sentence() -> None:
    assert normal_form("“We  WON’T!”") == normal_form('"we won\'t"')
    assert normal_form("We won") != normal_form("We won 2")


def test_the_digest_follows_the_content(codebook: Codebook) -> None:
    assert toy_split(codebook, "a", 0, 8).digest == toy_split(codebook, "b", 0, 8).digest
    assert toy_split(codebook, "a", 0, 8).digest != toy_split(codebook, "a", 1, 8).digest


def test_a_split_becomes_a_dataset_with_class_labels(codebook: Codebook) -> None:
    dataset = toy_split(codebook, "train", 0, 4).to_dataset()
    assert dataset.features["labels"] == datasets.List(
        datasets.ClassLabel(names=["praise", "blame"])
    )
    assert dataset[3]["labels"] == [0, 1]


def test_json_lines_load_with_datasets_alone(tmp_path: Path, codebook: Codebook) -> None:
    path = write_rows(tmp_path / "train.jsonl", toy_rows(codebook, 0, 8))
    dataset = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path))["train"]
    assert dataset[0]["labels"] == json.loads(path.read_text().splitlines()[0])["labels"]


@pytest.mark.parametrize(
    ("script", "group"), [("train", "data"), ("evaluate", "columns"), ("label", "data")]
)
def test_columns_may_be_named_in_any_language(script: str, group: str) -> None:
    values = {"text_column": "Überschrift, neu (1)", "label_separator": ";", "id_column": "№"}
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / f"{script}.py"), "--cfg", "job", "--package", group),
            *(f"{group}.{key}={value}" for key, value in values.items()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert values.items() <= yaml.safe_load(done.stdout).items()
