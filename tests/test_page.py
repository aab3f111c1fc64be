"""The labelling page loses no answer: each is on disk before the next sentence is shown."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from stance.codebook import Codebook
from stance.config import LabelConfig, read_config, register_schemas
from stance.errors import UserError
from stance.labelling.answers import hold_against_queue, read_answers
from stance.labelling.journal import Journal
from stance.labelling.page import open_page
from stance.labelling.tasks import Task, write_queue

TASKS = [Task(f"t{i}", f"Sentence {i} praised it.", before="Before.", after="") for i in range(12)]


@pytest.fixture
def config(codebook: Codebook, tmp_path: Path) -> LabelConfig:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = read_config(compose("label", overrides=["port=0"]), LabelConfig)
    write_queue(tmp_path / "queue.jsonl", TASKS)
    config.codebook = codebook.to_mapping()
    config.queue, config.output = str(tmp_path / "queue.jsonl"), str(tmp_path / "anna.jsonl")
    config.annotator = "anna"
    return config


class Browser:
    """What a browser sends, over a real connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = None if body is None else json.dumps(body)
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        connection.request(method, path, sent, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, reply, content

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("GET", "/task")[2]))

    def answer(self, labels: list[str]) -> dict[str, Any]:
        task = self.state()["task"]
        status, _, content = self.ask("POST", "/answer", {"id": task["id"], "labels": labels})
        assert status == 200, content
        return dict(json.loads(content))

    def undo(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("POST", "/undo", {})[2]))


@pytest.fixture
def browser(config: LabelConfig) -> Iterator[Browser]:
    server, journal = open_page(config)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Browser(server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()
    journal.close()


def answers_of(config: LabelConfig, codebook: Codebook) -> dict[str, tuple[str, ...]]:
    entries = {"anna.jsonl": read_answers(Path(config.output or ""))}
    return {a.id: a.labels for a in hold_against_queue(entries, TASKS, codebook).answers}


def test_the_page_and_its_codebook_are_served_to_this_machine_only(browser: Browser) -> None:
    status, reply, content = browser.ask("GET", "/")
    assert status == 200
    assert b"<title>Label sentences</title>" in content
    assert "default-src 'none'" in (reply.getheader("Content-Security-Policy") or "")
    book = json.loads(browser.ask("GET", "/codebook")[2])
    assert [label["name"] for label in book["labels"]] == ["praise", "blame"]
    assert browser.ask("GET", "/task", Host="evil.example:80")[0] == 403
    body = {"id": "t0", "labels": []}
    assert browser.ask("POST", "/answer", body, **{"Content-Type": "text/plain"})[0] == 415


def test_every_answer_is_on_disk_before_the_next_sentence_shows(
    browser: Browser, config: LabelConfig, codebook: Codebook
) -> None:
    for number, labels in enumerate([["praise"], [], ["praise", "blame"]]):
        state = browser.answer(labels)
        assert answers_of(config, codebook)[f"t{number}"] == tuple(labels)
        assert state["task"]["id"] == f"t{number + 1}"
        assert (state["answered"], state["total"]) == (number + 1, 12)


def test_undo_asks_the_last_sentence_again_and_keeps_the_record(
    browser: Browser, config: LabelConfig, codebook: Codebook
) -> None:
    browser.answer(["praise"])
    browser.answer(["blame"])
    assert browser.undo()["task"]["id"] == "t1"
    assert answers_of(config, codebook) == {"t0": ("praise",)}
    assert browser.answer([])["task"]["id"] == "t2"
    assert answers_of(config, codebook) == {"t0": ("praise",), "t1": ()}
    assert len(Path(config.output or "").read_text().splitlines()) == 4
    for _ in range(4):
        state = browser.undo()
    assert state["answered"] == 0
    assert not state["can_undo"]


def test_a_wrong_answer_is_refused_and_nothing_is_written(
    browser: Browser, config: LabelConfig
) -> None:
    wrong: list[Any] = [
        {"id": "t99", "labels": []},
        {"id": "t0", "labels": ["scorn"]},
        {"id": "t0", "labels": "praise"},
        {"id": "t0"},
        ["t0"],
        {"id": ["t0"], "labels": [["praise"]]},
    ]
    for body in wrong:
        status, _, content = browser.ask("POST", "/answer", body)
        assert status == 400
        assert json.loads(content)["error"]
    assert Path(config.output or "").read_bytes() == b""


def test_all_done_shows_no_sentence(browser: Browser) -> None:
    for _ in TASKS:
        state = browser.answer([])
    assert state["task"] is None
    assert state["answered"] == state["total"] == 12
    assert browser.undo()["task"]["id"] == "t11"


def test_two_annotators_by_name_do_not_see_each_other(config: LabelConfig, tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    anna = Journal(path, "anna")
    anna.answer(TASKS[0], ("praise",))
    with pytest.raises(UserError, match="open in another labelling page"):
        Journal(path, "ben")
    anna.close()
    ben = Journal(path, "ben")
    assert ben.standing == {}
    ben.answer(TASKS[0], ())
    ben.close()
    assert Journal(path, "anna").standing["t0"].labels == ("praise",)


def test_a_line_that_a_crash_cut_off_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    journal = Journal(path, "anna")
    journal.answer(TASKS[0], ("praise",))
    journal.answer(TASKS[1], ())
    journal.close()
    path.write_bytes(path.read_bytes()[:-7])
    again = Journal(path, "anna")
    assert list(again.standing) == ["t0"]
    again.answer(TASKS[1], ("blame",))
    assert len(read_answers(path)) == 2


def test_a_last_answer_without_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    journal = Journal(path, "anna")
    journal.answer(TASKS[0], ("praise",))
    journal.close()
    path.write_bytes(path.read_bytes()[:-1])
    again = Journal(path, "anna")
    again.answer(TASKS[1], ())
    assert [entry.id for entry in read_answers(path)] == ["t0", "t1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "text": "b", "labels": []}\n', ":1: no answer"),
        ('{"id": "a", "text": "b", "labels": []}', ":1: no answer"),
        ('[{"id": 1, "annotations": []}]', ":1: expected a JSON object"),
        ('{"id": "a", "annotator": "anna", "labels": []}\nsome notes', ":2: not JSON"),
    ],
)
def test_a_file_that_holds_no_answers_is_not_written_to(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        Journal(path, "anna")
    assert path.read_text() == content


def start(folder: Path) -> tuple[subprocess.Popen[str], Browser]:
    command = [sys.executable, str(ROOT / "label.py"), "serve=true", "queue=queue.jsonl"]
    command += ["output=anna.jsonl", "annotator=anna", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout
    line = process.stdout.readline()
    return process, Browser(int(line.split("127.0.0.1:")[1].split("/")[0]))


def test_ten_labelled_one_undone_killed_and_taken_up_again(tmp_path: Path) -> None:
    write_queue(tmp_path / "queue.jsonl", TASKS)
    process, browser = start(tmp_path)
    try:
        for number in range(10):
            browser.answer(["threat"] if number % 2 else [])
        browser.undo()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process, browser = start(tmp_path)
    try:
        state = browser.state()
        assert (state["answered"], state["task"]["id"]) == (9, "t9")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode in (0, 130)


def test_missing_settings_are_named(config: LabelConfig) -> None:
    config.annotator = ""
    with pytest.raises(UserError, match="annotator: the page needs it"):
        open_page(config)
