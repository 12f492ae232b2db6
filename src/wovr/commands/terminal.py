"""Where tables and progress bars go."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn

LOG_WIDTH = 140
"""Columns of a table that does not go to a terminal."""


def table_console() -> Console:
    """Standard output: as wide as the terminal, or LOG_WIDTH where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error that is gone when it is done; none where that is no terminal."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
