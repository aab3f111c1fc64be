"""A progress bar with rate and time left; silent where nobody looks."""

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[int, int], None]
"""Takes the bytes of input that are done and the sentences that this run has scored."""


@contextlib.contextmanager
def progress(total: int) -> Iterator[Advance]:
    """Show how much of `total` bytes is done, on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, sentences: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        job = bar.add_task("scoring", total=max(total, 1), rate="")

        def advance(done: int, sentences: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{sentences / elapsed:,.0f} sentences/s" if elapsed else ""
            bar.update(job, completed=done, rate=rate)

        yield advance
