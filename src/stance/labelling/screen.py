"""The terminal of the labelling wing: wide enough for tables also where it is a file."""

from rich.console import Console

_WIDTH = 140


def open_console() -> Console:
    """Return a console of the terminal's width, or a wide one where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)
