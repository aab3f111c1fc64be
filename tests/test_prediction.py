"""Bulk prediction loses no record, bends no value, and answers bad input in one line."""

import csv
import dataclasses
import gzip
import io
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import ROOT
from hydra import compose, initialize_config_dir

from stance.config import PredictConfig, read_config, register_schemas
from stance.errors import UserError
from stance.model import load_model
from stance.prediction.batch import Outcome, predict
from stance.prediction.progress import progress
from stance.prediction.terminal import report_outcome, show
from stance.scripts import run_script
from stance.text.sentences import split_sentences

ARTICLE = "The mayor praised the harbour plan. A minister blamed the old bridge.\nThe union waited."


def configure(**values: Any) -> PredictConfig:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("predict", overrides=["input=unused"])
    config = read_config(composed, PredictConfig)
    for name, value in values.items():
        assert hasattr(config, name)
        setattr(config, name, str(value) if isinstance(value, Path) else value)
    return config


@pytest.fixture
def run(rules_model: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Predict with the toy rules into `out/`."""
    (tmp_path / "out").mkdir()

    def start(source: Path, output: str = "o.jsonl", **values: Any) -> Outcome:
        target = tmp_path / "out" / output
        return predict(configure(input=source, output=target, model_dir=rules_model, **values))

    return start


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_an_article_becomes_labelled_sentences(
    run: Callable[..., Outcome], tmp_path: Path, rules_model: Path
) -> None:
    (tmp_path / "a.txt").write_text(ARTICLE)
    records = rows(run(tmp_path / "a.txt").output)
    model = load_model(rules_model)
    assert [r["labels"] for r in records] == [["praise"], ["blame"], []]
    assert [r["sentence"] for r in records] == [0, 1, 2]
    for record, sentence in zip(records, split_sentences(ARTICLE), strict=True):
        assert record["text"] == ARTICLE[record["start"] : record["end"]] == sentence.text
        assert record["document_id"] == "a.txt"
        assert record["model"] == f"rules@{model.digest[:12]}"
        assert record["uncertain"] in (True, False)
        (expected,) = model.probabilities([record["text"]])
        assert [record["p_praise"], record["p_blame"]] == [round(p, 6) for p in expected]


def test_all_outputs_say_the_same(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(
        json.dumps({"text": ARTICLE, "date": "007", "n": 1.5, "labels": ["old"]})
        + "\n"
        + json.dumps({"text": "The league lauded it.", "source": "NA"})
        + "\n"
    )
    lines = rows(run(source).output)
    with run(source, "o.csv").output.open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    table = pq.read_table(run(source, "o.parquet").output).to_pylist()
    assert len(lines) == len(cells) == len(table) == 4
    for line, cell, row in zip(lines, cells, table, strict=True):
        assert line["text"] == cell["text"] == row["text"]
        assert line["labels"] == row["labels"]
        assert cell["labels"] == (", ".join(line["labels"]) or "none")
        assert line["p_blame"] == float(cell["p_blame"]) == row["p_blame"]
        assert line["uncertain"] == (cell["uncertain"] == "true") == row["uncertain"]
    assert lines[0]["input_labels"] == ["old"]
    assert cells[0]["input_labels"] == table[0]["input_labels"] == '["old"]'
    assert (lines[0]["date"], cells[0]["date"], table[0]["date"]) == ("007", "007", "007")
    assert (lines[0]["n"], cells[0]["n"], table[0]["n"]) == (1.5, "1.5", "1.5")
    assert (lines[3]["source"], cells[3]["source"], table[3]["source"]) == ("NA", "NA", "NA")
    assert "n" not in lines[3]
    assert (cells[3]["n"], table[3]["n"]) == ("", None)


def test_a_later_record_does_not_write_over_our_columns(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    odd = {"text": "The mayor praised it.", "labels": 1, "input_labels": 2, "input_model": 3}
    (tmp_path / "a.jsonl").write_text(f'{{"text": "A.", "model": 0}}\n{json.dumps(odd)}\n')
    _, line = run(tmp_path / "a.jsonl").output.read_text().splitlines()
    pairs = json.loads(line, object_pairs_hook=list)
    record = dict(pairs)
    assert len(pairs) == len(record)
    assert (record["labels"], record["input_labels"]) == (["praise"], 2)
    assert (record["input_input_labels"], record["input_model"]) == (1, 3)


def test_parquet_columns_keep_their_types(run: Callable[..., Outcome], tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["One. Two.", "Three."]).dictionary_encode(),
            "when": pa.array([1, None], pa.timestamp("us")),
            "tags": [["a"], []],
            "raw": [b"\x00\xff", b""],
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "pairs": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    written = pq.read_table(run(tmp_path / "a.parquet", "o.parquet").output)
    index = pa.array([0, 0, 1])
    for name in ("when", "tags", "raw", "pairs"):
        assert written[name].combine_chunks() == table[name].combine_chunks().take(index)
    assert written["kind"].to_pylist() == ["x", "x", "y"]
    first, _, third = rows(run(tmp_path / "a.parquet").output)
    assert (first["when"], first["raw"]) == ("1970-01-01T00:00:00.000001", "AP8=")
    assert third["when"] is None


def test_a_text_can_be_one_sentence(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n" One. Two. "\n')
    (record,) = rows(run(tmp_path / "a.csv", unit="sentence").output)
    assert (record["text"], record["start"], record["end"]) == (" One. Two. ", 0, 11)


def test_rejects_and_predictions_make_up_the_records(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    generator = random.Random(0)
    lines, kinds = [], {"good": 0, "bad": 0, "blank": 0}
    for number in range(500):
        kind = generator.choice(["good", "bad", "blank"])
        kinds[kind] += 1
        good = json.dumps({"text": f"Sentence {number}.", "n": number})
        bad = generator.choice(['{"text": 5}', "{", "[]", '{"txt": "A."}', '{"text": "\\ud800"}'])
        blank = generator.choice(['{"text": ""}', '{"text": " \\n"}', '{"text": null}'])
        lines.append({"good": good, "bad": bad, "blank": blank}[kind])
    lines.insert(0, json.dumps({"text": "First."}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    outcome = run(tmp_path / "a.jsonl")
    counts = outcome.counts
    assert (counts.documents, counts.rejects, counts.blank) == (
        kinds["good"] + 1,
        kinds["bad"],
        kinds["blank"],
    )
    numbers = [record.get("n") for record in rows(outcome.output)][1:]
    assert numbers == sorted(numbers)
    assert outcome.rejects
    rejected = rows(outcome.rejects)
    assert [r["row"] for r in rejected] == sorted(r["row"] for r in rejected)
    assert len(rejected) == kinds["bad"]
    assert set(rejected[0]) == {"source", "row", "id", "reason"}


def test_the_manifest_counts_and_digests(run: Callable[..., Outcome], tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "a.txt").write_text(ARTICLE)
    outcome = run(tmp_path / "a.txt")
    manifest = json.loads(outcome.manifest.read_text())
    assert manifest["output"]["sha256"] == hashlib.sha256(outcome.output.read_bytes()).hexdigest()
    assert manifest["counts"]["labels"] == {"praise": 1, "blame": 1}
    assert manifest["counts"]["sentences"] == manifest["this_run"]["sentences"] == 3
    assert manifest["this_run"]["sentences_per_second"] > 0


def test_nothing_else_stays_beside_the_output(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "A."}\nbad\n')
    outcome = run(tmp_path / "a.jsonl")
    left = {path.name for path in outcome.output.parent.iterdir()}
    assert left == {"o.jsonl", "o.jsonl.rejects.jsonl", "o.jsonl.manifest.json"}
    (tmp_path / "a.jsonl").write_text('{"text": "A."}\n')
    run(tmp_path / "a.jsonl")
    assert {path.name for path in outcome.output.parent.iterdir()} == left - {
        "o.jsonl.rejects.jsonl"
    }


@pytest.mark.parametrize("folder", ["out", "out/../out", "link"])
def test_a_folder_that_holds_the_output_does_not_read_it(
    folder: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "out/a.jsonl").write_bytes(GOOD + b"bad\n")
    for _ in range(2):
        counts = run(tmp_path / folder).counts
        assert (counts.documents, counts.rejects) == (1, 1)


@pytest.mark.parametrize("where", ["out", "out/*", "out/**"])
def test_what_earlier_jobs_wrote_into_the_folder_is_left_out(
    where: str, run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/a.jsonl").write_bytes(GOOD + b"bad\n")
    for output in ("monday.jsonl", "tuesday.csv", "monday.jsonl", "wednesday.jsonl"):
        outcome = run(tmp_path / where, output, report=True)
        assert (outcome.counts.documents, outcome.counts.rejects) == (1, 1)
    report_outcome(outcome)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 8 files that earlier jobs wrote are left out: ")
    assert run(tmp_path / "out/monday.jsonl", "o.jsonl").counts.documents == 1


@pytest.mark.parametrize("output", ["o.jsonl", "o.csv", "o.parquet"])
@pytest.mark.parametrize("source", ["a.txt", "a.csv", "a.jsonl"])
def test_empty_input_gives_an_empty_valid_output(
    output: str, source: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / source).write_text("")
    outcome = run(tmp_path / source, output)
    assert outcome.counts.sentences == 0
    match output:
        case "o.jsonl":
            assert outcome.output.read_bytes() == b""
        case "o.csv":
            assert outcome.output.read_text().startswith(
                "document_id,sentence,start,end,text,labels"
            )
        case _:
            assert pq.read_table(outcome.output).num_rows == 0


def test_formulas_are_defused_but_numbers_are_not(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "text,x\n=1+1 is said.,-5\n@SUM(A1) is said.,+1.5\n-A1 is said.,-1-cmd\n"
        "A.,-1e-05\nB.,-.5\nC.,-1e5+cmd\n"
    )

    def column(name: str, **values: Any) -> list[str]:
        with run(path, "o.csv", unit="sentence", **values).output.open(newline="") as stream:
            return [row[name] for row in csv.DictReader(stream)]

    assert column("text")[:3] == ["'=1+1 is said.", "'@SUM(A1) is said.", "'-A1 is said."]
    assert column("x") == ["-5", "+1.5", "'-1-cmd", "-1e-05", "-.5", "'-1e5+cmd"]
    assert column("text", defuse_formulas=False)[0] == "=1+1 is said."


def test_line_breaks_in_a_cell_tear_no_row_apart(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    names = ["lone\rreturn", "a\nb", "both\r\n"]
    record = {"text": "A\rB.", **dict.fromkeys(names, "x\ry")}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with run(tmp_path / "a.jsonl", "o.csv", unit="sentence").output.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert {name: row[name] for name in record} == record


def test_the_same_sentence_is_scored_once(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stance.classifiers.rules import RulesClassifier

    asked: list[str] = []
    original = RulesClassifier.predict_proba

    def counting(self: RulesClassifier, texts: Any) -> Any:
        asked.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(RulesClassifier, "predict_proba", counting)
    (tmp_path / "a.csv").write_text("text\n" + "The mayor praised it.\n" * 50 + "B.\n")
    assert len(rows(run(tmp_path / "a.csv").output)) == 51
    assert sorted(asked) == ["B.", "The mayor praised it."]


@dataclass(frozen=True)
class Hostile:
    """An input that somebody's dump will hold one day, and what is to become of it."""

    name: str
    content: bytes | Callable[[], bytes]
    documents: int = 0
    rejects: int = 0
    blank: int = 0
    error: str = ""


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def broken_parquet() -> bytes:
    """Well-formed at both ends, with a page in the middle overwritten."""
    content = bytearray(parquet(text=[f"Sentence {n}." for n in range(5000)]))
    content[200:4000] = b"\xff" * 3800
    return bytes(content)


def not_utf8_parquet() -> bytes:
    raw = pa.array([b"Good.", b"\xff\xfe", b"Good."], pa.binary()).view(pa.string())
    return parquet(text=raw)


GOOD = b'{"text": "Good."}\n'
NOISE = random.Random(0).randbytes(20_000).hex().encode()
HOSTILE = [
    Hostile(
        "line-of-50-mb.jsonl",
        lambda: GOOD + b'{"text": "' + b"x" * 50_000_000 + b'"}\n' + GOOD,
        2,
        1,
    ),
    Hostile("line-of-50-mb.csv", lambda: b"text\nGood.\n" + b"x" * 50_000_000 + b"\nGood.\n", 2, 1),
    Hostile(
        "cell-of-50-mb.tsv", lambda: b"text\tn\n" + b"x" * 50_000_000 + b"\t1\nGood.\t1\n", 1, 1
    ),
    Hostile("text-of-50-mb.txt", lambda: b"x" * 50_000_000, error="longer than 10,000,000 bytes"),
    Hostile("value-of-20-mb.parquet", lambda: parquet(text=["Good.", "x" * 20_000_000]), 1, 1),
    Hostile("bomb.txt.gz", lambda: gzip.compress(b" " * 300_000_000, 9), error="longer than"),
    Hostile("bomb.jsonl.gz", lambda: gzip.compress(GOOD + b" " * 300_000_000, 9), 1, 1),
    Hostile("bomb.csv.gz", lambda: gzip.compress(b"text\nGood.\n" + b" " * 150_000_000, 9), 1, 1),
    Hostile("bomb.jsonl.zst", lambda: zstandard.compress(GOOD + b" " * 300_000_000), 1, 1),
    Hostile("cut.gz.jsonl.gz", lambda: gzip.compress(GOOD * 3 + NOISE)[:-9000], 3, 1),
    Hostile(
        "cut-frame.jsonl.zst",
        lambda: zstandard.compress(GOOD * 3) + zstandard.compress(GOOD)[:8],
        3,
        1,
    ),
    Hostile("cut.txt.zst", lambda: zstandard.compress(GOOD)[:-3], error="ends inside a frame"),
    Hostile("no.jsonl.gz", b"this is not gzip", error="damaged"),
    Hostile("no.txt.zst", b"this is not zstd", error="damaged"),
    Hostile("no.parquet", b"this is not parquet", error="not a Parquet file"),
    Hostile("empty.parquet", b"", error="not a Parquet file"),
    Hostile(
        "half.parquet",
        lambda: parquet(text=[f"{n}." for n in range(999)])[:900],
        error="not a Parquet file",
    ),
    Hostile("no-rows.parquet", lambda: parquet(text=pa.array([], pa.string()))),
    Hostile("not-utf8.parquet", not_utf8_parquet, 2, 1),
    Hostile("null.parquet", lambda: parquet(text=["Good.", None, ""]), 1, 0, 2),
    Hostile("binary.parquet", lambda: parquet(text=[b"Good."]), error="'text' is binary, not text"),
    Hostile(
        "deep.jsonl",
        lambda: GOOD + b'{"text": "A.", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        1,
        1,
    ),
    Hostile("deep-open.jsonl", lambda: GOOD + b'{"a":' * 100_000 + b"\n", 1, 1),
    Hostile(
        "constant.jsonl", GOOD + b'{"text": "A.", "x": NaN}\n{"text": "A.", "x": -Infinity}\n', 1, 2
    ),
    Hostile("huge-number.jsonl", GOOD + b'{"text": "A.", "x": ' + b"9" * 4_000 + b"}\n", 2),
    Hostile("huge-exponent.jsonl", GOOD + b'{"text": "A.", "x": 1e999}\n', 2),
    Hostile("twice.jsonl", GOOD + b'{"text": "A.", "text": "B."}\n', 1, 1),
    Hostile("lone-surrogate.jsonl", GOOD + b'{"text": "\\ud83d."}\n{"text": "\\ude00."}\n', 1, 2),
    Hostile("lone-surrogate-key.jsonl", GOOD + b'{"text": "A.", "\\ud83d": 1}\n', 1, 1),
    Hostile("surrogate-pair.jsonl", GOOD + b'{"text": "\\ud83d\\ude00 said."}\n', 2),
    Hostile("nul.jsonl", GOOD + b'{"text": "A\\u0000."}\n{"text": "A\x00."}\n', 1, 2),
    Hostile("nul.csv", b"text,n\nGood.,1\nA\x00.,1\nA.,\x001\n", 1, 2),
    Hostile("nul.txt", b"A\x00.", error="NUL"),
    Hostile("not-utf8.jsonl", GOOD + b'{"text": "caf\xe9."}\n' + GOOD, 2, 1),
    Hostile("not-utf8.csv", b"text\nGood.\ncaf\xe9.\nGood.\n", 2, 1),
    Hostile("not-utf8.txt", b"caf\xe9.", error="not UTF-8: byte 0xe9"),
    Hostile("utf16.txt", "A.".encode("utf-16"), error="not UTF-8"),
    Hostile("utf16.csv", "text\nA.\n".encode("utf-16"), error="save it as UTF-8"),
    Hostile("overlong.jsonl", GOOD + b'{"text": "\xc0\xae."}\n', 1, 1),
    Hostile(
        "types.jsonl", GOOD + b'{"text": 5}\n{"text": ["A."]}\n{"text": {}}\n{"text": true}\n', 1, 4
    ),
    Hostile("not-objects.jsonl", GOOD + b'[]\n5\n"A."\nnull\n', 1, 4),
    Hostile("no-text.jsonl", GOOD + b'{"body": "A."}\n{}\n', 1, 2),
    Hostile("two-on-a-line.jsonl", GOOD + b'{"text": "A."} {"text": "B."}\n', 1, 1),
    Hostile("cut.jsonl", GOOD + b'{"text": "A', 1, 1),
    Hostile("trailing-comma.jsonl", GOOD + b'{"text": "A.",}\n', 1, 1),
    Hostile("array.jsonl", b'[{"text": "A."}]\n', 0, 1),
    Hostile("blank-lines.jsonl", b"\n \n\t\r\n" + GOOD + b"\n", 1),
    Hostile("windows-lines.jsonl", b'{"text": "A."}\r\n{"text": "B."}\r\n', 2),
    Hostile("ragged.csv", b"text,n\nGood.,1\nA.\nA.,1,2\nGood.,2\n", 2, 2),
    Hostile("open-quote.csv", b'text,n\nGood.,1\n"A.,1\nGood.,2\n', 2, 1),
    Hostile("stray-quote.csv", b'text,n\nGood.,1\n"A." said,1\nGood.,2\n', 2, 1),
    Hostile("many-open-quotes.csv", lambda: b"text\nGood.\n" + b'"A.\nB.\n' * 2000, 1 + 2000, 2000),
    Hostile("old-mac.csv", b"text,n\rA.,1\rB.,2\r", error="the header cannot be read"),
    Hostile("header-only.csv", b"text,n\n"),
    Hostile("blank-rows.csv", b"text\n\n\n\nGood.\n   \n", 1, 0, 1),
    Hostile(
        "many-columns.csv",
        lambda: (
            b"text,"
            + b",".join(b"c%d" % n for n in range(20_000))
            + b"\nA."
            + b",1" * 20_000
            + b"\n"
        ),
        1,
    ),
    Hostile("no-text.csv", b"body,n\nA.,1\n", error="no column 'text'; the columns are body, n"),
    Hostile("directional.txt", "\u202eA.\u2066 B.".encode(), 1),
    Hostile("only-space.txt", "\u00a0\u2003\n\t".encode(), 0, 0, 1),
    Hostile("invisible.txt", "\u200b\ufeff\u200b".encode(), 0, 0, 1),
    Hostile("no-end.txt", lambda: b"word " * 200_000, 1),
    Hostile("dots.txt", lambda: b"." * 300_000, 1),
    Hostile("brackets.txt", lambda: b'("' * 150_000, 1),
    Hostile("marks.txt", lambda: ("e" + "\u0301" * 100_000).encode(), 1),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_hostile_input_is_rejected_or_refused(
    case: Hostile, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content())
    if case.error:
        with pytest.raises(UserError, match=case.error) as caught:
            run(path)
        assert case.name in str(caught.value)
        assert list((tmp_path / "out").iterdir()) == []
        return
    outcome = run(path)
    counts = outcome.counts
    assert (counts.documents, counts.rejects, counts.blank) == (
        case.documents,
        case.rejects,
        case.blank,
    )
    assert len({record["document_id"] for record in rows(outcome.output)}) == case.documents


WORST = ("line-of-50-mb.jsonl", "bomb.jsonl.gz", "bomb.txt.gz", "half.parquet", "deep.jsonl")
MEASURED = """
import json, resource, sys
from stance.config import PredictConfig
from stance.errors import UserError
from stance.prediction.batch import predict
for settings in json.loads(sys.argv[1]):
    try:
        predict(PredictConfig(**settings))
    except UserError as error:
        print(error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_the_worst_inputs_stay_within_three_gigabytes_and_three_minutes(
    rules_model: Path, tmp_path: Path
) -> None:
    jobs = []
    for case in HOSTILE:
        if case.name in WORST:
            path = tmp_path / case.name
            path.write_bytes(case.content if isinstance(case.content, bytes) else case.content())
            job = configure(input=path, output=tmp_path / "o.jsonl", model_dir=rules_model)
            jobs.append(dataclasses.asdict(job))
    assert len(jobs) == len(WORST)
    command = [sys.executable, "-c", MEASURED, json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert [("bomb.txt.gz" in e or "half.parquet" in e) for e in done.stderr.splitlines()] == [
        True,
        True,
    ]
    assert int(done.stdout) < 3_000


def test_a_damaged_page_costs_only_its_file(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(broken_parquet())
    (tmp_path / "in/b.txt").write_text("Good.")
    counts = run(tmp_path / "in").counts
    assert (counts.documents, counts.rejects) == (1, 1)


def test_hostile_rows_also_pass_through_fixed_columns(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        GOOD
        + b'{"text": "A.", "x": {"\\ud800": 1}}\n{"text": "A.", "=cmd": "\\u202e", "p_blame": 1}\n'
    )
    for output in ("o.csv", "o.parquet"):
        assert run(path, output).counts.documents == 3


ODD_NAMES = [
    "a b.txt", "новости.txt", "a,b.txt", "a=b.txt", "x(1).txt", "x[1].txt", "it's.txt", '"q".txt',
    "{a}.txt", "$HOME.txt", "${x}.txt", "~.txt", "#.txt", "a\\b.txt", "a:b.txt", "-.txt", "%s.txt",
    "*.txt", "'.txt", "a\\", "\\'.txt", " .txt", "null.txt", "a\nb.txt",
]  # fmt: skip


@pytest.mark.parametrize("output", ["o.jsonl", "o.csv", "o.parquet"])
def test_file_names_that_are_not_utf8_are_written_with_escapes(
    output: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xe8.md")).touch()
    (folder / os.fsdecode(b"\xe8.txt")).write_text("A.")
    (folder / os.fsdecode(b"\xe9.txt")).write_text("B.")
    (folder / os.fsdecode(b"\xea.parquet")).write_bytes(parquet(text=["C."]))
    (folder / os.fsdecode(b"\xeb.jsonl")).write_text("bad")
    outcome = run(folder, output, report=True)
    assert outcome.report and outcome.rejects
    shown = re.findall("<h3>(.*)</h3>", outcome.report.read_text())
    assert shown == [r"\xe8.txt", r"\xe9.txt", r"\xea.parquet:1"]
    assert rows(outcome.rejects)[0]["source"] == r"\xeb.jsonl"
    assert outcome.ignored == (r"\xe8.md",)


def test_a_column_of_two_types_is_refused_whichever_record_has_it(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["A."], "year": [1914]}), tmp_path / "in/a.parquet")
    (tmp_path / "in/b.jsonl").write_text('{"text": "B."}\n{"text": "C.", "year": "1914"}\n')
    with pytest.raises(UserError, match=r"b\.jsonl: the column 'year' is text here and int64"):
        run(tmp_path / "in", "o.csv")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names_pass_through_the_command_line(name: str, monkeypatch: Any) -> None:
    path = f"/some where/{name}"
    given: list[str] = []
    monkeypatch.setattr(sys, "argv", ["predict.py", f"input={path}", f"model={path}"])
    run_script(
        lambda: given.extend(sys.argv[1:]),
        texts=("input", "model_dir"),
        aliases={"model": "model_dir"},
    )
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = read_config(compose("predict", overrides=given), PredictConfig)
    assert (config.input, config.model_dir) == (path, path)


def test_odd_file_names_work_as_they_are(rules_model: Path, tmp_path: Path) -> None:
    name = "ночь, {a}=(1) [x] it's.txt"
    (tmp_path / name).write_text(ARTICLE)
    output = tmp_path / f"out {name}.jsonl"
    done = predict_script(f"input={tmp_path / name}", f"output={output}", f"model={rules_model}")
    assert done.returncode == 0, done.stderr
    assert rows(output)[0]["document_id"] == name


def test_an_output_name_that_is_not_utf8_is_printed(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ARTICLE)
    output = tmp_path / os.fsdecode(b"\xe9.jsonl")
    done = predict_script(
        f"input={tmp_path / 'a.txt'}",
        f"output={output}",
        f"model={rules_model}",
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 0, done.stderr
    assert r"\udce9.jsonl" in done.stdout


def predict_script(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "predict.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_standard_input_is_read(rules_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    arguments = ("input=-", "input_format=jsonl", f"output={output}", f"model={rules_model}")
    done = predict_script(*arguments, input='{"text": "A minister blamed it.", "n": "007"}\n')
    assert done.returncode == 0, done.stderr
    (record,) = rows(output)
    assert (record["labels"], record["n"]) == (["blame"], "007")
    assert sorted(os.listdir(tmp_path)) == ["o.jsonl", "o.jsonl.manifest.json"]


def test_an_empty_input_ends_with_one_warning_and_no_bar(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    output = tmp_path / "o.jsonl"
    done = predict_script(f"input={tmp_path}/a.jsonl", f"output={output}", f"model={rules_model}")
    assert done.returncode == 0
    assert done.stderr == "warning: the input holds no text; the output is empty\n"
    assert str(output) in done.stdout


def test_records_without_text_are_counted_on_the_screen(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + b'{"text": ""}\n{"text": null}\n')
    report_outcome(run(tmp_path / "a.jsonl"))
    assert "blank:       2 records without text\n" in capsys.readouterr().out


def test_another_encoding_is_named_once_with_what_to_do(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_bytes("text,n\nGood.,1\nCafé.,1\nÉtat.,2\nA.\n".encode("cp1252"))
    outcome = run(tmp_path / "a.csv")
    assert outcome.rejects
    hint = "; save the file as UTF-8"
    hinted = [reject["reason"].endswith(hint) for reject in rows(outcome.rejects)]
    assert hinted == [True, True, False]
    report_outcome(outcome)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: 2 rejects are not UTF-8; save the file as UTF-8"


def test_progress_is_shown_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress(100) as advance:
        time.sleep(0.05)
        advance(50, 1234)
    shown = terminal.getvalue()
    assert "50 %" in shown and "sentences/s" in shown and "left" in shown


def test_prediction_reaches_for_no_network(
    encoder_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    (tmp_path / "a.txt").write_text(ARTICLE)
    for engine in ("torch", "onnx_int8"):
        values = {"input": tmp_path / "a.txt", "output": tmp_path / f"{engine}.jsonl"}
        outcome = predict(configure(model_dir=encoder_model, engine=engine, **values))
        assert outcome.counts.sentences == 3


def test_an_unwritable_output_is_found_before_the_model_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A.")
    (tmp_path / "o.jsonl").mkdir()
    for output in (tmp_path / "none/o.jsonl", tmp_path / "o.jsonl"):
        with pytest.raises(UserError, match="output: "):
            predict(configure(input=tmp_path / "a.txt", output=output, model_dir="nowhere"))


@pytest.mark.parametrize(
    ("key", "length"), [("input", 300), ("output", 300), ("output", 240), ("model_dir", 300)]
)
def test_a_name_that_is_too_long_is_refused_before_any_work(
    key: str, length: int, rules_model: Path, tmp_path: Path
) -> None:
    values = {"input": tmp_path / "a.txt", "output": tmp_path / "o.jsonl", "model_dir": rules_model}
    values["input"].write_text("A.")
    values[key] = tmp_path / f"{'x' * length}.jsonl"
    with pytest.raises(UserError, match="File name too long"):
        predict(configure(**values))
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_output_of_links_in_a_circle_is_refused(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("A.")
    (tmp_path / "out/o.jsonl").symlink_to("o.jsonl")
    with pytest.raises(UserError, match="symbolic links lead in a circle"):
        run(tmp_path / "a.txt")


def test_a_closed_standard_input_is_refused(
    rules_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="input: -: standard input is closed"):
        show(configure(input="-", model_dir=rules_model))


def test_without_output_a_table_is_printed(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ARTICLE)
    done = predict_script(f"input={tmp_path / 'a.txt'}", f"model={rules_model}")
    assert done.returncode == 0, done.stderr
    for word in ("praise", "blame", "none", "The union waited."):
        assert word in done.stdout
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.csv", b"body\nA.\n", {}, "text_column: no column 'text'"),
        ("a.csv", b"text,text\nA.,B.\n", {}, "two columns bear the same name"),
        ("a.csv", b"text\nA.\n", {"id_column": "text"}, "id_column: 'text' is the text_column"),
        ("a.parquet", parquet(text=["A."]), {"text_column": "body"}, "no column 'body'"),
    ],
)
def test_the_columns_of_a_table_to_be_printed_are_checked(
    name: str,
    content: bytes,
    columns: dict[str, str],
    message: str,
    rules_model: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        show(configure(input=tmp_path / name, model_dir=rules_model, **columns))


@pytest.mark.parametrize("where", ["in", "in/*.html", "in/*"])
def test_a_folder_or_pattern_without_a_file_to_read_is_refused(
    where: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "in/folder").mkdir(parents=True)
    (tmp_path / "in/a.html").write_text("A.")
    message = f"input: {tmp_path / where}: no file to read; known are .txt, .csv"
    with pytest.raises(UserError, match=re.escape(message)):
        run(tmp_path / where)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_text_is_printed_with_warnings(
    rules_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.md").write_text("A.")
    (tmp_path / "a.txt").write_text(" ")
    show(configure(input=tmp_path, model_dir=rules_model))
    assert capsys.readouterr().err.splitlines() == [
        "warning: the input holds no text; the output is empty",
        "warning: 1 files with other suffixes are left out: note.md",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=nowhere.txt"], "input: nowhere.txt: no such file or folder"),
        (["input=pyproject.toml"], "pyproject.toml: the suffix '.toml' says nothing"),
        ([], "input: this key needs a value"),
        (["output=o.xlsx"], "the suffix '.xlsx' says nothing"),
        (["output=nowhere/o.csv"], "nowhere/o.csv: cannot be written: No such file or directory"),
        (["output=.git/o.d"], "says nothing"),
        (["model=nowhere"], "nowhere: no saved model here"),
        (["operating_point=best"], "operating_point"),
        (["operating_point=precision@2"], "operating_point"),
        (["engine=onnx"], "engine: 'onnx' computes transformers"),
        (["engine=gpu"], "engine: 'gpu' is not among auto, torch, onnx, onnx_int8"),
        (["unit=word"], "unit: 'word' is not among document, sentence"),
        (["workers=-1"], "workers: -1 is below 0"),
        (["inptu=a.txt"], "inptu"),
    ],
)
def test_a_mistake_ends_in_one_line(
    arguments: list[str], message: str, rules_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(ARTICLE)
    given = {argument.partition("=")[0] for argument in arguments}
    defaults = {"input": tmp_path / "a.txt", "model": rules_model, "output": tmp_path / "o.jsonl"}
    if not arguments:
        del defaults["input"]
    added = [f"{key}={value}" for key, value in defaults.items() if key not in given]
    done = predict_script(*arguments, *added)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line
    assert os.listdir(tmp_path) == ["a.txt"]


def test_help_waits_for_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['predict.py', '--help']; import runpy\n"
        "try: runpy.run_path('predict.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'sklearn', 'pyarrow', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "input=" in done.stdout
    assert done.stderr.strip() == "[]"


def test_prediction_never_imports_mlflow(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ARTICLE)
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['predict.py', 'input={tmp_path / 'a.txt'}', 'model={rules_model}']\n"
        "runpy.run_path('predict.py', run_name='__main__')\n"
        "assert not {'mlflow', 'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_an_output_that_is_the_input_is_refused(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "out/o.jsonl").write_bytes(GOOD)
    with pytest.raises(UserError, match="this is the input"):
        run(tmp_path / "out/o.jsonl")
    assert (tmp_path / "out/o.jsonl").read_bytes() == GOOD


def test_a_full_disk_leaves_the_old_output(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"Sentence {n}.\n" for n in range(3000)))
    (tmp_path / "out/o.jsonl").write_text("old\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"o\.jsonl: cannot be written: File too large"):
            run(tmp_path / "a.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "out") == ["o.jsonl"]
    assert (tmp_path / "out/o.jsonl").read_text() == "old\n"


def test_a_damaged_model_is_refused(
    run: Callable[..., Outcome], rules_model: Path, tmp_path: Path
) -> None:
    import shutil

    (tmp_path / "a.txt").write_text(ARTICLE)
    copy = tmp_path / "copy"
    shutil.copytree(rules_model, copy)
    (copy / "rules.json").write_text("{}")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=copy)
    with pytest.raises(UserError, match=r"rules\.json: damaged"):
        predict(config)


def test_make_asks_for_an_input() -> None:
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "--dry-run", "predict", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    refused = make()
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert "INPUT: name what to read, as in make predict INPUT=article.txt" in line
    assert "predict.py input='a.txt'" in make("INPUT=a.txt").stdout
