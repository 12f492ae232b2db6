"""Where tables and progress bars go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

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


@contextmanager
def episode_progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar of episodes; gives what advances it by one episode, or by as many as it is told."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda count=1: progress.advance(bar, count)
