"""Windows scored by several processes at once, one core each.

A worker holds the model and scores one window after the other: splitting, cue rules and tokenising
hold Python's lock, so processes share the cores better than threads do. Every worker computes on
one thread, so that a window's figures do not depend on how many workers there are. A worker ends
by itself when its parent is gone, however that came about.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from stance.errors import UserError
from stance.model import load_model
from stance.prediction.scoring import Scored, Settings, score_texts
from stance.prediction.windows import Window

_AHEAD = 2
"""Windows that a worker holds: one that it scores and one that waits."""


@dataclass(frozen=True)
class Task:
    """What every worker needs to know."""

    model_dir: Path
    engine: str
    cascade: bool
    digest: str
    settings: Settings


@dataclass
class _Worker:
    process: Any
    pipe: "Connection[Any, Any]"
    held: deque[Window] = field(default_factory=deque)


def score_in_parallel(
    windows: Iterable[Window], task: Task, workers: int
) -> Iterator[tuple[Window, Scored]]:
    """Score windows in `workers` processes and yield them as they are done.

    Raises:
        UserError: a worker could not load the model, or was killed.
    """
    waiting = iter(windows)
    with _started(task, workers) as crew:
        while True:
            for worker in crew:
                while len(worker.held) < _AHEAD and (window := next(waiting, None)):
                    worker.held.append(window)
                    _send(worker, [document.text for document in window.documents])
            busy = {worker.pipe: worker for worker in crew if worker.held}
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                yield worker.held.popleft(), _receive(worker)


@contextlib.contextmanager
def _started(task: Task, count: int) -> Iterator[list[_Worker]]:
    context = multiprocessing.get_context("spawn")
    crew: list[_Worker] = []
    # Numeric libraries read these when they are imported, in the new process.
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()  # so that each side sees when the other one is gone
            crew.append(_Worker(process, ours))
        yield crew
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        for worker in crew:
            worker.pipe.close()
            worker.process.terminate()
            worker.process.join()


def serve(pipe: "Connection[Any, Any]", task: Task) -> None:
    """Score the windows that come through the pipe until nobody sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    waiting: SimpleQueue[list[str]] = SimpleQueue()
    threading.Thread(target=_take_in, args=(pipe, waiting), daemon=True).start()
    try:
        model = load_model(task.model_dir, task.engine, cascade=task.cascade)
        if model.digest != task.digest:
            raise UserError(f"{task.model_dir}: the model was changed while it was in use")
        while True:
            pipe.send(score_texts(model, waiting.get(), task.settings))
    except UserError as error:
        pipe.send(error)
    except Exception:
        pipe.send(RuntimeError(traceback.format_exc()))


def _take_in(pipe: "Connection[Any, Any]", waiting: "SimpleQueue[list[str]]") -> None:
    """Take windows out of the pipe at once: two sides that wait to send would wait for ever."""
    try:
        while True:
            waiting.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone: nobody wants the window that is being scored


def _send(worker: _Worker, texts: list[str]) -> None:
    # A worker that has gone is noticed when its answer is waited for.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send(texts)


def _receive(worker: _Worker) -> Scored:
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; what is finished is kept, "
            "the same command goes on from there (workers=1 takes less memory)"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    if not isinstance(answer, Scored):
        raise TypeError(f"a worker answered {type(answer).__name__}")
    return answer
