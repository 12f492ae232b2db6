"""Running the stages of a chain: each when what it needs is finished, several at once where that is wanted.

Which stages run side by side may depend on how long they take, what they compute does not: the number of threads, which
decides the last bits of sums, is the same whatever else runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from wovr.commands.pace.child import Child, Ended, command_line, last_error
from wovr.commands.pace.folders import CHANGED, DONE, Fingerprints, StageFolder
from wovr.commands.pace.stages import Stage, Surroundings
from wovr.commands.pace.view import RAN, ChainView
from wovr.envs.workers.vector import count_workers
from wovr.errors import Terminated, UserError
from wovr.processes import is_shared_out
from wovr.runs import LOG_FILE

_TICK = 0.2  # seconds between two looks at what runs
_NOTE_SECONDS = 10.0  # between two notes of how long a stage has run
_OUT_SECONDS = 3.0  # for a command that got Ctrl-C to be gone
_SAVE_SECONDS = 25.0  # for one that is told to end to save; batch systems kill 30 seconds after they have told


class Process(Protocol):
    """A command that runs; see `child.Child`."""

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        ...

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        ...

    def terminate(self) -> None:
        """Tell it to end."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it has come."""
        ...

    def kill(self) -> None:
        """End it by force."""
        ...


Launch = Callable[[Sequence[str], Path, Sequence[int], int | None, Sequence[str]], Process]
"""Starts words after `wovr`: (words, log, descriptors to inherit, threads or None, words of a launcher or none)."""


@dataclass(frozen=True)
class Launcher:
    """A command that starts several processes of another, and what it is put in front of.

    Attributes:
        words: Its words, e.g. torchrun, --nproc_per_node, 8; none for no launcher.
        commands: First words of the stages that it launches, but for those that say `launch: false`.
    """

    words: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def of(self, stage: Stage) -> tuple[str, ...]:
        """What stands in front of a stage's command."""
        return self.words if stage.launch and is_shared_out(stage.command, self.commands) else ()


def look(chain: Sequence[Stage], given: Surroundings, fingerprints: Fingerprints) -> dict[str, StageFolder]:
    """The folder of every stage, as things stand."""
    results = {stage.name: fingerprints(given.folder(stage.name)) for stage in chain}
    return {stage.name: StageFolder(stage, given, {need: results[need] for need in stage.needs}) for stage in chain}


def run_stages(
    chain: Sequence[Stage],
    chosen: Sequence[Stage],
    given: Surroundings,
    *,
    jobs: int = 1,
    launch: Launch = Child,
    launcher: Launcher = Launcher(),
    descriptors: Sequence[int] = (),
    console: Console | None = None,
) -> list[str]:
    """Run those of the chosen stages that are not finished.

    Args:
        chain: All stages, in order.
        chosen: Those of this call.
        given: What variables stand for.
        jobs: Most that run at once.
        launch: Starts a command.
        launcher: What is put in front of commands that share their work out.
        descriptors: Descriptors for commands to inherit.
        console: Where to show what happens.

    Returns:
        Names of the stages that were run, in the order in which they began.

    Raises:
        UserError: A command failed (others that ran beside it are stopped, to go on next time), or a stage before the
            chosen ones is not finished.
    """
    fingerprints = Fingerprints()
    names = {stage.name for stage in chosen}
    for need in dict.fromkeys(need for stage in chosen for need in stage.needs if need not in names):
        if fingerprints(given.folder(need)) is None:
            raise UserError(f"stage '{need}' is needed and not finished", f"run it first: --until {need}, or no --from")
    states = [folder.state() for name, folder in look(chain, given, fingerprints).items() if name in names]
    ran: list[str] = []
    waiting, running = list(chosen), list[_Running]()
    with ChainView(chosen, states, console, jobs) as view:
        try:
            while waiting or running:
                for stage in startable(waiting, [one.stage for one in running], jobs):
                    waiting.remove(stage)
                    needed = {need: fingerprints(given.folder(need)) for need in stage.needs}
                    folder = StageFolder(stage, given, needed)
                    if (state := folder.state()) == DONE:
                        view.skip(stage, spent_seconds(folder.record))
                        break  # what needs it may be startable now
                    running.append(
                        _Running(
                            folder,
                            state,
                            given.words(stage),
                            view,
                            launch,
                            descriptors,
                            _threads(stage, jobs),
                            launcher.of(stage),
                        )
                    )
                    ran.append(stage.name)
                before = len(running)
                running = [one for one in running if not one.has_ended(view)]
                if running and len(running) == before:
                    time.sleep(_TICK)
        except BaseException as error:
            # A terminal's Ctrl-C has reached every process that runs in it; nothing else has.
            told = isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated)
            end_all([one.process for one in running if not one.has_status], told)
            raise
    return ran


def end_all(processes: Sequence[Process], told: bool) -> None:
    """End commands: let them end by themselves, which gives them the chance to save, and kill those that do not.

    A second Ctrl-C, or a second signal, kills at once.

    Args:
        processes: They run.
        told: They know already: they may be on their way out.
    """
    try:
        if told:
            processes = _still_there(processes, _OUT_SECONDS)
        for process in processes:
            process.terminate()
        processes = _still_there(processes, _SAVE_SECONDS)
    finally:
        for process in processes:
            process.kill()


def _still_there(processes: Sequence[Process], seconds: float) -> list[Process]:
    """Those that do not end within so many seconds."""
    until = time.monotonic() + seconds
    return [process for process in processes if not process.wait(max(0.0, until - time.monotonic()))]


def startable(waiting: Sequence[Stage], running: Sequence[Stage], jobs: int) -> list[Stage]:
    """Stages that may start now, in order.

    A stage waits for what it needs. One that says `alone` waits until nothing runs, if there is more than one job, and
    what was declared after it waits too, so that its turn comes.
    """
    if jobs > 1 and any(stage.alone for stage in running):
        return []
    unfinished = {stage.name for stage in (*waiting, *running)}
    found: list[Stage] = []
    for stage in waiting:
        if len(running) + len(found) >= jobs:
            break
        if unfinished.intersection(stage.needs):
            continue
        if stage.alone and jobs > 1:
            return found if running or found else [stage]
        found.append(stage)
    return found


class _Running:
    """A stage whose command runs.

    Raises:
        UserError: The command cannot be started.
    """

    def __init__(
        self,
        folder: StageFolder,
        state: str,
        words: Sequence[str],
        view: ChainView,
        launch: Launch,
        descriptors: Sequence[int],
        threads: int | None,
        launcher: Sequence[str],
    ) -> None:
        self.folder, self.stage, self.log = folder, folder.stage, folder.path / LOG_FILE
        self.command = command_line(words, launcher)
        if state == CHANGED:
            state = f"again, changed: {folder.changes()}"
            state += f"; what was there is kept as {kept}" if (kept := folder.kept_as()) is not None else ""
        self.record = folder.begin(self.command)
        self.before = spent_seconds(self.record)
        self.attempt = self.record["attempts"][-1]
        view.start(self.stage, self.command, state, self.before)
        self.process = launch(words, self.log, descriptors, threads, launcher)

    def has_ended(self, view: ChainView) -> bool:
        """Look at it, and finish its folder if it has.

        Raises:
            UserError: It failed.
        """
        ended = self.process.poll()
        if ended is None:
            seconds = self.process.seconds
            view.tick(self.stage, self.before, seconds, self.log)
            if seconds - self.attempt["seconds"] >= _NOTE_SECONDS:  # what a killed chain has spent counts too
                self.attempt["seconds"] = round(seconds, 1)
                self.folder.note(self.record)
            return False
        self.attempt |= {
            "seconds": round(ended.seconds, 1),
            "peak_memory": ended.peak_memory,
            "status": ended.status,
        }
        self.folder.note(self.record)
        spent = self.before + ended.seconds
        if ended.status != 0:
            view.end(self.stage, f"failed with status {ended.status}", spent, ended.peak_memory)
            said = last_error(self.log)
            raise UserError(
                f"stage '{self.stage.name}' failed with status {ended.status}" + (f": {said}" if said else ""),
                f"see {self.log}; by hand: {self.command}",
            )
        self.folder.finish()
        view.end(self.stage, RAN, spent, ended.peak_memory)
        return True

    @property
    def has_status(self) -> bool:
        """Whether its command has ended."""
        return "status" in self.attempt


def spent_seconds(record: dict[str, Any]) -> float:
    """Seconds of all attempts at a stage."""
    return float(sum(attempt.get("seconds") or 0.0 for attempt in record.get("attempts", ())))


def _threads(stage: Stage, jobs: int) -> int | None:
    """Threads of a stage; None leaves it to the command and the user."""
    if jobs == 1 or stage.alone or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, count_workers(0) // jobs)
