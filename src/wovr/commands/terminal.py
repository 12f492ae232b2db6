"""Where tables and progress bars go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from wovr.printing import printable

LOG_WIDTH = 140
"""Columns of a table that does not go to a terminal."""


class PlainConsole(Console):
    """Shows every text as it is: rich would obey what stands in brackets, and a terminal what follows an escape."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich: whatever is a `str` comes through here, cells and titles of tables among them."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def table_console() -> Console:
    """Standard output: as wide as the terminal, or LOG_WIDTH where it is none."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=LOG_WIDTH)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error that is gone when it is done; none where that is no terminal."""
    console = PlainConsole(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def episode_progress(title: str, total: int, unit: str = "episodes") -> Iterator[Callable[..., None]]:
    """A bar of episodes, or another unit; gives what advances it by one, or by as many as it is told."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(printable(title), total=total)
        yield lambda count=1: progress.advance(bar, count)
