"""How a chain is watched: a live table in a terminal, a line at a stage's start and end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wovr.commands.pace.child import read_progress
from wovr.commands.pace.stages import Stage
from wovr.commands.terminal import PlainConsole
from wovr.printing import printable

RUNNING, SKIPPED, RAN = "running", "done before", "done"
_REFRESH = 0.5  # seconds between two pictures of the table
_LINE_WIDTH = 60  # of what a stage's log says, in the table


@dataclass
class Row:
    """What is shown of a stage.

    Attributes:
        stage: The stage.
        state: In words.
        seconds: How long it has run, in this and earlier calls.
        left: Seconds that it still needs; None for unknown.
        line: What its log says last.
    """

    stage: Stage
    state: str
    seconds: float | None = None
    left: float | None = None
    line: str = ""


class ChainView:
    """Shows the stages done, running and to come.

    Args:
        stages: Stages of this call.
        states: The state of each, in words.
        console: Where to show them; standard output unless given.
        jobs: Most that run at once.
    """

    def __init__(
        self, stages: Sequence[Stage], states: Sequence[str], console: Console | None = None, jobs: int = 1
    ) -> None:
        self.console = console or PlainConsole()
        self.rows = {stage.name: Row(stage, state) for stage, state in zip(stages, states, strict=True)}
        self.jobs = jobs
        self._started = time.monotonic()
        self._shown: dict[str, float] = {}
        self._first: dict[str, tuple[int, float]] = {}
        # Refreshed by hand: a thread that draws would be there when processes are started.
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        """Show the table."""
        if self._live is not None:
            self._live.start()
            self._live.update(self.table(), refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()

    def skip(self, stage: Stage, seconds: float | None) -> None:
        """A stage was finished by an earlier call."""
        self._set(stage, Row(stage, SKIPPED, seconds))
        if self._live is None:
            self._print(f"{self._place(stage)} {stage.name}: done before")

    def start(self, stage: Stage, command: str, state: str, before: float) -> None:
        """A stage's command is about to run.

        Args:
            stage: The stage.
            command: What runs it by hand.
            state: The state its folder was in.
            before: Seconds that earlier calls spent on it.
        """
        self._first.pop(stage.name, None)
        self._set(stage, Row(stage, RUNNING, before))
        why = "" if state == "to come" else f" ({state})"
        self._print(f"{self._place(stage)} {stage.name}{why}: {command}")

    def tick(self, stage: Stage, before: float, seconds: float, log: Path) -> None:
        """Look how far a running stage is."""
        now = time.monotonic()
        if self._live is None or now - self._shown.get(stage.name, 0.0) < _REFRESH:
            return
        self._shown[stage.name] = now
        progress, left = read_progress(log), None
        if progress.done is not None and progress.total is not None:
            if stage.name not in self._first or progress.done < self._first[stage.name][0]:
                self._first[stage.name] = (progress.done, seconds)
            done, since = self._first[stage.name]
            if progress.done > done:
                left = (seconds - since) * (progress.total - progress.done) / (progress.done - done)
            else:
                left = seconds * (progress.total - progress.done) / progress.done if progress.done else None
        elif stage.seconds is not None:
            left = max(0.0, stage.seconds - before - seconds)
        self._set(stage, Row(stage, RUNNING, before + seconds, left, progress.line))

    def end(self, stage: Stage, state: str, seconds: float, peak_memory: int) -> None:
        """A stage's command has ended."""
        self._set(stage, Row(stage, state, seconds))
        if self._live is None:
            self._print(f"{self._place(stage)} {stage.name}: {state} in {clock(seconds)}, {gigabytes(peak_memory)}")

    def table(self) -> Group:
        """The table, and below it what is left of the chain."""
        table = Table("", "stage", "state", box=None, pad_edge=False)
        for heading in ("time", "left"):
            table.add_column(heading, justify="right")
        table.add_column("log", no_wrap=True, overflow="ellipsis", max_width=_LINE_WIDTH)
        styles = {RUNNING: "bold", SKIPPED: "dim", RAN: "green"}
        for number, row in enumerate(self.rows.values(), 1):
            table.add_row(
                str(number),
                row.stage.name,
                row.state,
                "" if row.seconds is None else clock(row.seconds),
                "" if row.left is None else clock(row.left),
                Text(printable(row.line)),
                style=styles.get(row.state),
            )
        return Group(table, Text(self.summary()))

    def summary(self) -> str:
        """How many stages are done, how long it took, and how long it will take as far as that is known."""
        finished = [row for row in self.rows.values() if row.state in (SKIPPED, RAN)]
        text = f"{len(finished)} of {len(self.rows)} stages, {clock(time.monotonic() - self._started)}"
        left, unknown = self.left()
        if left or unknown:
            known = f"ETA {clock(left)}" if left else "ETA ?"
            text += f", {known}" + (f" and {unknown} stages that nobody has timed" if unknown and left else "")
        return text

    def left(self) -> tuple[float, int]:
        """Seconds that the chain still needs, by what stages say they took elsewhere; and stages that do not say.

        With several jobs: those of the longest way through what needs what, or of all stages shared out if that is
        longer.
        """
        known = [row for row in self.rows.values() if row.state == RAN and row.stage.seconds and row.seconds]
        there = sum(row.stage.seconds or 0.0 for row in known)
        slower = sum(row.seconds or 0.0 for row in known) / there if there else 1.0
        total, unknown, until = 0.0, 0, dict[str, float]()
        for name, row in self.rows.items():
            seconds = 0.0
            if row.state in (SKIPPED, RAN):
                pass
            elif row.left is not None:
                seconds = row.left
            elif row.stage.seconds is not None:
                seconds = max(0.0, row.stage.seconds * slower - (row.seconds or 0.0))
            else:
                unknown += 1
            total += seconds
            until[name] = seconds + max((until.get(need, 0.0) for need in row.stage.needs), default=0.0)
        return max(total / self.jobs, max(until.values(), default=0.0)), unknown

    def _place(self, stage: Stage) -> str:
        return f"[{list(self.rows).index(stage.name) + 1}/{len(self.rows)}]"

    def _set(self, stage: Stage, row: Row) -> None:
        self.rows[stage.name] = row
        if self._live is not None:
            self._live.update(self.table(), refresh=True)

    def _print(self, line: str) -> None:
        # As Text and unfolded: a command has to be good for copying.
        self.console.print(Text(printable(line)), soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def gigabytes(size: float) -> str:
    """Bytes as gigabytes."""
    return f"{size / 1e9:.2f} GB"
