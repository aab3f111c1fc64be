"""The labelling page in a real browser: keys, marks, undo, and a server that dies in between.

Chromium is driven over its debugging pipe, so no driver need be installed; without Chromium the
tests are skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from stance.labelling.answers import read_answers
from stance.labelling.tasks import Task, write_queue

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TEXT = "😀 The ministry condemned the raid and <b>vowed</b> revenge, number {}."
PATIENCE = 30.0


class Chromium:
    """One page of a headless browser."""

    def __init__(self, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={profile}", "--window-size=1300,900", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), *options],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                part = os.read(self._read, 1 << 16)
                assert part, "the browser is gone"
                self._buffer += part
            line, self._buffer = self._buffer.split(b"\0", 1)
            reply = json.loads(line)
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def evaluate(self, script: str) -> Any:
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def press(self, key: str) -> None:
        code = {" ": 32, "Enter": 13}.get(key, ord(key.upper()[0]))
        text = {"Enter": "\r"}.get(key, key)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def wait_for(self, script: str, expected: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := self.evaluate(script)) != expected:
            assert time.monotonic() < deadline, f"{script}: {found!r}, expected {expected!r}"
            time.sleep(0.02)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    browser = Chromium(tmp_path / "profile")
    yield browser
    browser.close()


def start(folder: Path, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(ROOT / "label.py"), "serve=true", "queue=queue.jsonl"]
    command += ["output=anna.jsonl", "annotator=anna", f"port={port}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder
    )
    assert process.stdout
    line = process.stdout.readline()
    return process, int(line.split("127.0.0.1:")[1].split("/")[0])


COUNT = "document.getElementById('count').textContent"
SENTENCE = "document.getElementById('text').textContent"
VERDICT = "document.getElementById('verdict').textContent"


def test_ten_by_keys_one_undone_the_server_killed_and_taken_up_again(
    chromium: Chromium, tmp_path: Path
) -> None:
    start_of = TEXT.index("condemned")
    evidence = {
        "voter": "cue:condemnation/condemn",
        "label": "condemnation",
        "vote": "yes",
        "rule": 7,
    }
    span = {"start": start_of, "end": start_of + 9, "text": "condemned", "blocked": None}
    tasks = [
        Task(
            id=f"t{number}",
            text=TEXT.format(number),
            before="A sentence before.",
            after="A sentence after.",
            suggested=("condemnation",),
            probabilities={"condemnation": 0.93},
            evidence=[{**evidence, **span}],
        )
        for number in range(12)
    ]
    write_queue(tmp_path / "queue.jsonl", tasks)
    process, port = start(tmp_path)
    try:
        chromium.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
        chromium.wait_for(COUNT, "0 of 12")
        assert chromium.evaluate(SENTENCE) == TEXT.format(0)
        assert chromium.evaluate("document.querySelector('#text mark').textContent") == "condemned"
        assert chromium.evaluate("document.querySelector('#text b')") is None
        assert "Codebook stance" in chromium.evaluate("document.querySelector('aside').textContent")
        if folder := os.environ.get("PAGE_PICTURES"):
            picture(chromium, Path(folder) / "page.png")
        for number in range(10):
            if number == 5:
                chromium.press("Enter")  # as suggested
            else:
                for key in ("2", "4", "2") if number % 2 else ():
                    chromium.press(key)
                chromium.press(" ")
            chromium.wait_for(COUNT, f"{number + 1} of 12")
            assert len(read_answers(tmp_path / "anna.jsonl")) == number + 1
        chromium.press("u")
        chromium.wait_for(SENTENCE, TEXT.format(9))
        chromium.press("1")
        chromium.wait_for(VERDICT, "condemnation")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    chromium.press(" ")
    chromium.wait_for("document.getElementById('message').textContent.slice(0, 9)", "not saved")
    assert chromium.evaluate(VERDICT) == "condemnation"  # nothing chosen is lost
    process, _ = start(tmp_path, port)
    try:
        chromium.press(" ")
        chromium.wait_for(COUNT, "10 of 12")
        chromium.send("Page.reload")
        chromium.wait_for(SENTENCE, TEXT.format(10))
        for _ in range(2):
            before = chromium.evaluate(COUNT)
            chromium.press(" ")
            chromium.wait_for(f"{COUNT} !== '{before}'", True)
        chromium.wait_for(SENTENCE, "All sentences of this queue are answered. Thank you.")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    labels = {entry.id: entry.labels for entry in read_answers(tmp_path / "anna.jsonl")}
    assert labels["t0"] == []
    assert labels["t1"] == ["retaliation"]
    assert labels["t5"] == labels["t9"] == ["condemnation"]
    assert len(labels) == 12


def picture(chromium: Chromium, path: Path) -> None:
    import base64

    chromium.press("2")
    path.write_bytes(base64.b64decode(chromium.send("Page.captureScreenshot")["data"]))
    chromium.press("2")
