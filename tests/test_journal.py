"""A job that is killed, at whatever moment and with whatever signal, ends with the same bytes."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_prediction import configure

from stance.errors import UserError
from stance.model import seal
from stance.prediction import batch
from stance.prediction.batch import predict
from stance.prediction.journal import open_journal

DRIVER = """
import json, os, signal, sys
from stance.config import PredictConfig
from stance.prediction import batch

settings = json.loads(sys.argv[1])
moment = settings.pop("moment", None)
if moment is not None:  # die at the n-th time that a file takes its place, or just before
    replace, count = os.replace, 0
    def deadly(*paths):
        global count
        count += 1
        if count == moment // 2 and moment % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if count == moment // 2:
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = deadly
if __name__ == "__main__":
    batch.predict(PredictConfig(**settings))
"""
SUFFIXES = ("jsonl", "csv", "parquet")


class Job:
    """A job on a few hundred records, some of them bad, that can be started and killed."""

    def __init__(self, folder: Path, model: Path, suffix: str, size: int, records: int) -> None:
        self.folder = folder
        self.source = folder / "in.jsonl"
        self.output = folder / f"out.{suffix}"
        self.driver = folder / "driver.py"
        self.driver.write_text(DRIVER)
        generator = random.Random(1)
        lines = []
        for number in range(records):
            verb = generator.choice(["praised", "blamed", "visited"])
            text = f"The mayor {verb} number {generator.randrange(50)}. The union waited {number}."
            lines.append(json.dumps({"text": text, "n": number, "day": f"0{number}"}))
            if number % 17 == 0:
                lines.append('{"text": broken')
        self.source.write_text("\n".join(lines))
        self.config = configure(
            input=self.source,
            output=self.output,
            model_dir=model,
            window_size=size,
            workers=2,
            report=True,
        )

    def start(self, **more: Any) -> "subprocess.Popen[bytes]":
        settings = json.dumps({**dataclasses.asdict(self.config), **more})
        return subprocess.Popen(
            [sys.executable, self.driver, settings], stderr=subprocess.PIPE, cwd=self.folder
        )

    def finish(self) -> None:
        predict(self.config)

    def results(self) -> dict[str, bytes]:
        """Return the output, its rejects and its report, and hold that nothing else lies about."""
        manifest = self.output.with_name(f"{self.output.name}.manifest.json")
        rejects = self.output.with_name(f"{self.output.name}.rejects.jsonl")
        report = self.output.with_name(f"{self.output.name}.html")
        names = {path.name for path in self.folder.iterdir()}
        assert names == {
            self.source.name,
            self.driver.name,
            *(path.name for path in (self.output, manifest, rejects, report)),
        }
        contents = {path.name: path.read_bytes() for path in (self.output, rejects, report)}
        for path in (self.output, rejects, manifest, report):
            path.unlink()
        return contents


def test_a_job_killed_at_random_moments_ends_with_the_same_bytes(
    rules_model: Path, tmp_path: Path
) -> None:
    generator = random.Random(os.environ.get("KILL_SEED", "7"))
    for suffix in SUFFIXES:
        folder = tmp_path / suffix
        folder.mkdir()
        job = Job(folder, rules_model, suffix, size=4_000, records=1_000)
        began = time.monotonic()
        job.start().communicate()
        whole = time.monotonic() - began
        expected = job.results()
        for _ in range(7):
            process = job.start()
            time.sleep(generator.uniform(0.2, 1.0) * whole)
            process.send_signal(generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            process.communicate()
            job.finish()
            assert job.results() == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_job_killed_as_a_file_takes_its_place_ends_with_the_same_bytes(
    suffix: str, rules_model: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path, rules_model, suffix, size=1_000_000, records=20)
    job.finish()
    expected = job.results()
    moment, process = 2, None
    while process is None or process.returncode == -signal.SIGKILL:
        process = job.start(moment=moment)
        process.communicate()
        moment += 1
        if process.returncode == -signal.SIGKILL:
            job.finish()
        assert job.results() == expected
    assert moment > 12


def test_finished_windows_are_not_scored_again(
    rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, rules_model, "jsonl", size=4_000, records=300)
    process = job.start()
    journal = tmp_path / ".out.jsonl.stance"
    while len(list(journal.glob("*.note"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    finished = len(list(journal.glob("*.note")))
    job.finish()
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["this_run"]["windows_taken_up"] == finished
    assert manifest["this_run"]["sentences"] < manifest["counts"]["sentences"]


def test_workers_end_with_their_parent(rules_model: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, rules_model, "jsonl", size=4_000, records=1_000)
    process = job.start()
    children: list[int] = []
    while len(children) < 2:
        assert process.poll() is None
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(child) for child in path.read_text().split()]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(_runs(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("change", ["input", "model", "setting"])
def test_a_journal_of_another_job_is_not_taken_up(
    change: str, rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(rules_model, model)
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=model)
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_write", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(config)
    assert (tmp_path / ".o.jsonl.stance").exists()
    match change:
        case "input":
            (tmp_path / "a.txt").write_text("The mayor blamed it.")
        case "model":
            (model / "README.md").write_text("# another\n")
            seal(model)
        case "setting":
            config.unit = "sentence"
    assert predict(config).resumed == 0


def test_a_job_taken_up_unchanged_scores_nothing(
    rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=rules_model)
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_write", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(config)
    outcome = predict(config)
    assert (outcome.resumed, outcome.scored, outcome.counts.sentences) == (1, 0, 1)


def test_a_torn_piece_is_scored_again(
    rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=rules_model)
    expected = predict(config).output.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_write", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(config)
    (piece,) = (tmp_path / ".o.jsonl.stance").glob("*.piece")
    piece.write_bytes(piece.read_bytes()[:-5])
    outcome = predict(config)
    assert (outcome.resumed, outcome.output.read_bytes()) == (0, expected)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_two_jobs_on_one_output_do_not_mix(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=rules_model)
    with open_journal(tmp_path / "o.jsonl"), pytest.raises(UserError, match="another job"):
        predict(config)
    assert predict(config).counts.sentences == 1


def test_jobs_that_race_for_one_output_leave_a_whole_one(rules_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=rules_model)
    expected = predict(config).output.read_bytes()
    refused: list[str] = []

    def start() -> None:
        for _ in range(15):
            try:
                predict(dataclasses.replace(config))
            except UserError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another job is writing it" in message for message in refused)
    assert (tmp_path / "o.jsonl").read_bytes() == expected
    assert not (tmp_path / ".o.jsonl.stance").exists()


def test_a_killed_worker_stops_the_job_which_then_goes_on(
    rules_model: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path, rules_model, "jsonl", size=4_000, records=1_000)
    job.finish()
    expected = job.results()
    process = job.start()
    while (
        len(
            children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        )
        < 3
    ):
        assert process.poll() is None
        time.sleep(0.01)
    for child in children[1:]:
        os.kill(int(child), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "a worker process was killed" in errors.decode()
    job.finish()
    assert job.results() == expected
