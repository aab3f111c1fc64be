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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_prediction import configure

from stance.config import PredictConfig
from stance.errors import UserError
from stance.model import seal
from stance.prediction import batch
from stance.prediction.batch import predict
from stance.prediction.journal import open_journal

DRIVER = """
import json, os, signal, sys

def work(settings):
    moment = settings.pop("moment", None)
    if moment is not None:  # die at the n-th time that a file takes its place, or just before
        replace, count = os.replace, 0
        def deadly(*paths):
            nonlocal count
            count += 1
            if count == moment // 2 and moment % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
            if count == moment // 2:
                os.kill(os.getpid(), signal.SIGKILL)
        os.replace = deadly
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        batch.predict(PredictConfig(**settings))
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        with open(os.path.join(os.path.dirname(__file__), "error"), "w") as stream:
            stream.write(str(error))
        os._exit(1)
    os._exit(0)

if __name__ == "__main__":  # every job is a process of its own, without importing all anew
    from stance.config import PredictConfig
    from stance.prediction import batch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        if not (job := os.fork()):
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            work(json.loads(line))
        print(job, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]), flush=True)
"""
SUFFIXES = ("jsonl", "csv", "parquet")


class Driver:
    """Starts one job after the other, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.error = folder / "error"
        (folder / "driver.py").write_text(DRIVER)
        command = [sys.executable, folder / "driver.py"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen(command, **pipes)

    def ask(self, question: str) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(question)
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


class Running:
    """A job that runs."""

    def __init__(self, driver: Driver, settings: dict[str, Any]) -> None:
        self._driver = driver
        self.pid = driver.ask(f"{json.dumps(settings)}\n")

    def send_signal(self, number: int) -> None:
        if self.runs():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def runs(self) -> bool:
        return _runs(self.pid)

    def wait(self) -> int:
        """Return the exit code, or the negative number of the signal that ended the job."""
        return self._driver.ask("")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.server.communicate()


class Job:
    """A job on a few hundred records, some of them bad, that can be started and killed."""

    def __init__(
        self, driver: Driver, folder: Path, model: Path, suffix: str, size: int, records: int
    ) -> None:
        self.driver = driver
        self.folder = folder
        self.source = folder / "in.jsonl"
        self.output = folder / f"out.{suffix}"
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

    def start(self, **more: Any) -> "Running":
        return Running(self.driver, {**dataclasses.asdict(self.config), **more})

    def finish(self) -> None:
        """Go on to the end, with another number of workers: it must not matter."""
        predict(dataclasses.replace(self.config, workers=1))

    def results(self) -> dict[str, bytes]:
        """Return the output, its rejects and its report, and hold that nothing else lies about."""
        manifest = self.output.with_name(f"{self.output.name}.manifest.json")
        rejects = self.output.with_name(f"{self.output.name}.rejects.jsonl")
        report = self.output.with_name(f"{self.output.name}.html")
        names = {path.name for path in self.folder.iterdir()}
        assert names == {
            self.source.name,
            *(path.name for path in (self.output, manifest, rejects, report)),
        }
        contents = {path.name: path.read_bytes() for path in (self.output, rejects, report)}
        for path in (self.output, rejects, manifest, report):
            path.unlink()
        return contents


def test_a_job_killed_at_random_moments_ends_with_the_same_bytes(
    driver: Driver, rules_model: Path, tmp_path: Path
) -> None:
    generator = random.Random(os.environ.get("KILL_SEED", "7"))
    for suffix in SUFFIXES:
        folder = tmp_path / suffix
        folder.mkdir()
        job = Job(driver, folder, rules_model, suffix, size=2_000, records=400)
        began = time.monotonic()
        assert job.start().wait() == 0
        whole = time.monotonic() - began
        expected = job.results()
        for _ in range(7):
            process = job.start()
            time.sleep(generator.uniform(0.2, 1.0) * whole)
            process.send_signal(generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            process.wait()
            job.finish()
            assert job.results() == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_job_killed_as_a_file_takes_its_place_ends_with_the_same_bytes(
    suffix: str, driver: Driver, rules_model: Path, tmp_path: Path
) -> None:
    job = Job(driver, tmp_path, rules_model, suffix, size=1_000_000, records=20)
    job.finish()
    expected = job.results()
    moment, ended = 2, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        ended = job.start(moment=moment).wait()
        moment += 1
        if ended == -signal.SIGKILL:
            job.finish()
        assert job.results() == expected
    assert moment > 12


def test_finished_windows_are_not_scored_again(
    driver: Driver, rules_model: Path, tmp_path: Path
) -> None:
    job = Job(driver, tmp_path, rules_model, "jsonl", size=4_000, records=300)
    process = job.start()
    journal = tmp_path / ".out.jsonl.stance"
    while len(list(journal.glob("*.note"))) < 3:
        assert process.runs()
        time.sleep(0.01)
    process.kill()
    process.wait()
    finished = len(list(journal.glob("*.note")))
    job.finish()
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["this_run"]["windows_taken_up"] == finished
    assert manifest["this_run"]["sentences"] < manifest["counts"]["sentences"]


def test_workers_end_with_their_parent(driver: Driver, rules_model: Path, tmp_path: Path) -> None:
    job = Job(driver, tmp_path, rules_model, "jsonl", size=4_000, records=1_000)
    process = job.start()
    children: list[int] = []
    while len(children) < 2:
        assert process.runs()
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(child) for child in path.read_text().split()]
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(_runs(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def interrupt(config: PredictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a job that stops when all its windows are finished."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(batch, "_write", stop)
        predict(config)


@pytest.mark.parametrize("change", ["input", "model", "setting"])
def test_a_journal_of_another_job_is_not_taken_up(
    change: str, rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(rules_model, model)
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=model)
    interrupt(config, monkeypatch)
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


@pytest.mark.parametrize("way", ["", "../in/"])
def test_a_job_taken_up_unchanged_scores_nothing(
    way: str, rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("The mayor praised it.")
    config = configure(input=folder / "a.txt", output=folder / "o.jsonl", model_dir=rules_model)
    interrupt(config, monkeypatch)
    config.output = f"{folder}/{way}o.jsonl"
    outcome = predict(config)
    assert (outcome.resumed, outcome.scored, outcome.counts.sentences) == (1, 0, 1)


@pytest.mark.parametrize(
    "mistake",
    [
        {"input": "nowhere.csv"},
        {"text_column": "txet"},
        {"model_dir": "nowhere"},
        {"operating_point": "best"},
    ],
)
def test_a_mistake_on_the_way_costs_no_finished_window(
    mistake: dict[str, str], rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("text\nThe mayor praised it.\n")
    config = configure(input=tmp_path / "a.csv", output=tmp_path / "o.jsonl", model_dir=rules_model)
    interrupt(config, monkeypatch)
    with pytest.raises(UserError):
        predict(dataclasses.replace(config, **mistake))  # type: ignore[arg-type]
    assert predict(config).resumed == 1


def test_a_torn_piece_is_scored_again(
    rules_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("The mayor praised it.")
    config = configure(input=tmp_path / "a.txt", output=tmp_path / "o.jsonl", model_dir=rules_model)
    expected = predict(config).output.read_bytes()
    interrupt(config, monkeypatch)
    (piece,) = (tmp_path / ".o.jsonl.stance").glob("*.piece")
    piece.write_bytes(piece.read_bytes()[:-5])
    outcome = predict(config)
    assert (outcome.resumed, outcome.output.read_bytes()) == (0, expected)


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
    driver: Driver, rules_model: Path, tmp_path: Path
) -> None:
    job = Job(driver, tmp_path, rules_model, "jsonl", size=4_000, records=1_000)
    job.finish()
    expected = job.results()
    process = job.start()
    while (
        len(
            children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        )
        < 3
    ):
        assert process.runs()
        time.sleep(0.01)
    for child in children[1:]:
        os.kill(int(child), signal.SIGKILL)
    assert process.wait() == 1
    assert "a worker process was killed" in driver.error.read_text()
    job.finish()
    assert job.results() == expected
