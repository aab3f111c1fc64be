"""The report shows what the output says, safely, on one page of its own."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_prediction import configure, predict_script, rows

from stance.codebook import Codebook
from stance.prediction import report
from stance.prediction.batch import Outcome, predict

EVIL = "<script>alert('x')</script> & \"quotes\""


class Page(HTMLParser):
    """The sentences, articles, tags and visible words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.content = path.read_text(encoding="utf-8")
        self.feed(self.content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def classes(self, tag: str) -> list[list[str]]:
        return [str(attrs.get("class") or "").split() for name, attrs in self.tags if name == tag]

    @property
    def sentences(self) -> list[list[str]]:
        return [classes for classes in self.classes("span") if "s" in classes]


@pytest.fixture
def run(rules_model: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def start(records: list[dict[str, str]], output: str = "o.jsonl") -> Outcome:
        source = tmp_path / "in.jsonl"
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        return predict(
            configure(
                input=source,
                output=tmp_path / output,
                model_dir=rules_model,
                report=True,
                window_size=2000,
                workers=1,
            )
        )

    return start


def test_every_sentence_is_shown_with_its_labels(run: Callable[..., Outcome]) -> None:
    outcome = run([{"text": "The mayor praised it. A minister blamed it.\nThe union waited."}] * 3)
    assert outcome.report
    page, records = Page(outcome.report), rows(outcome.output)
    assert len(page.sentences) == len(records) == 9
    for classes, record in zip(page.sentences, records, strict=True):
        assert ("l0" in classes, "l1" in classes) == (
            "praise" in record["labels"],
            "blame" in record["labels"],
        )
        assert ("u" in classes) == record["uncertain"]
    assert {"h0", "h1", "n"} <= set(page.classes("article")[0])
    shares = re.findall(r"([\d,]+) \(([\d.]+%)\)", page.words)
    assert shares == [("3", "33.3%"), ("3", "33.3%")]


def test_text_from_outside_stays_text(run: Callable[..., Outcome]) -> None:
    outcome = run([{"text": f"{EVIL} praised it.", "source": EVIL, "date": EVIL}])
    assert outcome.report
    page = Page(outcome.report)
    assert EVIL in page.words
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_the_page_asks_nothing_of_the_network(run: Callable[..., Outcome]) -> None:
    outcome = run([{"text": "The mayor praised https://example.org/a.png today."}])
    assert outcome.report
    page = Page(outcome.report)
    assert not [a for _, a in page.tags if {"src", "href", "srcset", "action"} & set(a)]
    assert "@import" not in page.content and "url(" not in page.content
    assert "default-src 'none'" in page.content


def test_sentences_are_counted_by_date_and_source(run: Callable[..., Outcome]) -> None:
    records = [
        {"text": "The mayor praised it.", "date": "2021-03-01T10:00", "source": "A"},
        {"text": "The mayor praised it. B.", "date": "2021-03-01", "source": "A"},
        {"text": "A minister blamed it.", "date": "2021-03-02", "source": "B"},
    ]
    outcome = run(records)
    assert outcome.report
    page = Page(outcome.report)
    assert "2021-03-01: 3 sentences; praise 2, blame 0" in page.words
    assert "2021-03-02: 1 sentences; praise 0, blame 1" in page.words
    assert "By source" in page.words


def test_records_that_lack_a_column_count_with_those_whose_value_is_empty(
    rules_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    praise = "The mayor praised it."
    records = [
        {"text": praise, "date": "2021-03-01", "source": "A"},
        {"text": praise, "date": None, "source": ""},
        {"text": praise},
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "in/a.jsonl").write_text(lines * 10)
    (tmp_path / "in/b.txt").write_text(praise)
    outcome = predict(
        configure(
            input=tmp_path / "in",
            output=tmp_path / "o.jsonl",
            model_dir=rules_model,
            report=True,
            report_by=["date", "source", "country"],
            window_size=1000,
            workers=1,
        )
    )
    assert outcome.report
    page = Page(outcome.report)
    assert "unknown: 21 sentences; praise 21, blame 0" in page.words
    assert "2021-03-01: 10 sentences; praise 10, blame 0" in page.words
    assert "<tr><td><i>empty</i></td><td>21</td><td>21</td><td>0</td></tr>" in page.content
    assert "By country" not in page.words


def test_many_days_become_months_and_odd_dates_a_table() -> None:
    days = {f"2021-{m:02}-{d:02}": [1, 1, 0] for m in range(1, 13) for d in range(1, 29)}
    assert list(report._periods(days)) == [f"2021-{m:02}" for m in range(1, 13)]
    assert list(report._periods({"": [1, 0, 0], "2021-01-01": [2, 0, 0]})) == [
        "unknown",
        "2021-01-01",
    ]


@pytest.mark.parametrize(
    ("values", "days"),
    [
        (["2021-03-01", "n.d.", "0000-00-00"], ["2021-03-01", "", ""]),
        (["1.3.2021", "31.03.2021", "03.25.2021"], ["2021-03-01", "2021-03-31", ""]),
        (["01/03/2021", "31/03/2021", ""], ["2021-03-01", "2021-03-31"]),
        (["01/03/2021", "02/03/2021"], ["", ""]),
        (["01/03/2021", "31/03/2021", "03/31/2021"], ["", "", ""]),
        (["01/03/2021", "2021-03-01"], ["", "2021-03-01"]),
    ],
)
def test_days_are_read_where_that_takes_no_guess(values: list[str], days: list[str]) -> None:
    assert list(report._days(values).values()) == days


def test_a_few_odd_dates_do_not_cost_the_chart(run: Callable[..., Outcome]) -> None:
    praise = "The mayor praised it."
    dates = [f"{day:02}.{month:02}.2021 10:00" for month in range(1, 13) for day in range(1, 29)]
    outcome = run([{"text": praise, "date": value} for value in [*dates, "n.d.", "soon"]])
    assert outcome.report
    page = Page(outcome.report)
    assert "unknown: 2 sentences; praise 2, blame 0" in page.words
    assert "2021-12: 28 sentences; praise 28, blame 0" in page.words


def test_a_column_of_which_most_is_no_date_is_a_table(codebook: Codebook) -> None:
    counts = {value: [1, 1, 0] for value in ("soon", "later", "n.d.", "2021-03-01", "01.04.2021")}
    assert "<table>" in report._section("date", counts, codebook)
    del counts["soon"]
    assert "<svg" in report._section("date", counts, codebook)


def test_a_page_ends_where_a_browser_would_suffer(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LONGEST", 100)
    outcome = run([{"text": f"The mayor praised number {n}."} for n in range(300)])
    assert outcome.report
    page = Page(outcome.report)
    assert 0 < len(page.sentences) <= 100
    assert f"The first {len(page.sentences)} sentences follow" in page.words
    assert "300 (100.0%)" in page.words


def test_values_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_MOST_KEPT", 10)
    total: dict[str, report.Tally] = {}
    for start in range(0, 100, 20):
        report.merge(total, {"source": {str(n): [1, 0] for n in range(start, start + 20)}})
    assert len(total["source"]) == 11
    assert sum(numbers[0] for numbers in total["source"].values()) == 100


def test_more_days_than_values_are_kept_still_give_a_chart(
    codebook: Codebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_MOST_KEPT", 10)
    total: dict[str, report.Tally] = {}
    for month in range(1, 13):
        days = {f"2021-{month:02}-{day:02}": [1, 1, 0] for day in range(1, 29)}
        report.merge(total, {"date": days})
    shown = report._section("date", total["date"], codebook)
    assert "<svg" in shown
    assert "2021-12: 28 sentences; praise 28, blame 0" in shown


def test_a_column_to_report_by_that_no_record_has_is_named(
    rules_model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "a.csv", tmp_path / "o.jsonl"
    source.write_text("text,date,outlet\nA.,2021-03-01,B\n")
    arguments = (f"input={source}", f"output={output}", f"model={rules_model}", "report=true")
    done = predict_script(*arguments, "report_by=[datum,outlet]")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line == "warning: report_by: no column 'datum'; the columns are date, outlet"
    assert predict_script(*arguments).stderr == ""
    assert "By date" in Page(tmp_path / "o.jsonl.html").words


def test_a_report_needs_an_output(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A.")
    done = predict_script(f"input={tmp_path / 'a.txt'}", f"model={rules_model}", "report=true")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
