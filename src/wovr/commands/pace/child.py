"""A stage's command as a child process that ends when the chain does: its log, its progress, its peak memory."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wovr.runs import explain_os_error

_PR_SET_PDEATHSIG = 1
_TAIL = 2000  # bytes of the log that are read for progress
_COUNT = re.compile(r"\b(\d[\d,]*)/(\d[\d,]*)\b")

# Loaded before any fork: nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: Exit status; negative for a signal.
        seconds: How long it ran.
        peak_memory: Bytes of memory that its largest process held at once.
    """

    status: int
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Progress:
    """How far a child says it is.

    Attributes:
        done: Steps, updates or the like.
        total: Of how many.
        line: The last line of its log.
    """

    done: int | None
    total: int | None
    line: str


def command_line(words: Sequence[str], launcher: Sequence[str] = ()) -> str:
    """What to type to run the words by hand.

    torchrun runs a module (`-m wovr`), other launchers (srun, mpirun) whatever program they are given.
    """
    front = [*launcher, "-m", "wovr"] if _is_torchrun(launcher) else [*launcher, "wovr"]
    return shlex.join([*front, *words])


def _is_torchrun(launcher: Sequence[str]) -> bool:
    return tuple(launcher[:1]) == ("torchrun",)


def _program(launcher: Sequence[str]) -> list[str]:
    """What stands before the words, with this very interpreter wherever it is ours to say."""
    if _is_torchrun(launcher):
        return [sys.executable, "-m", "torch.distributed.run", *launcher[1:], "-m", "wovr"]
    return [*launcher, sys.executable, "-m", "wovr"]


class Child:
    """`python -m wovr WORDS`, started, with its output in a log, to which it is appended.

    Args:
        words: What stands after `wovr`.
        log: The log.
        descriptors: Descriptors to inherit.
        threads: Threads it may compute with; None for as many as it likes.
        launcher: Words of a command that starts several processes of it, e.g. `torchrun --nproc_per_node 8`; none for
            one process.

    Raises:
        UserError: The log cannot be written.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        descriptors: Sequence[int] = (),
        threads: int | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self._started = time.monotonic()
        limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                file.write(f"$ {command_line(words, launcher)}\n".encode())
                file.flush()
                self._process = subprocess.Popen(
                    [*_program(launcher), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **limits},
                    pass_fds=tuple(descriptors),
                    preexec_fn=_end_with_parent,
                )
        except OSError as error:
            raise explain_os_error(error, log) from error

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self._started

    def poll(self) -> Ended | None:
        """How it ended; None while it runs. Not to be asked again afterwards."""
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if not pid:
            return None
        self._process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        return Ended(self._process.returncode, self.seconds, usage.ru_maxrss * unit)

    def terminate(self) -> None:
        """Tell it to end, by SIGTERM: a training ends after the step it is in and keeps it."""
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it has come."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it by force."""
        self._process.kill()
        self._process.wait()


def read_progress(log: Path) -> Progress:
    """What the end of a log says."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return Progress(None, None, "")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip() and not line.startswith("$ ")]
    for line in reversed(lines):
        found = _COUNT.search(line)
        if found:
            done, total = (int(number.replace(",", "")) for number in found.groups())
            if 0 <= done <= total and total:
                return Progress(done, total, lines[-1])
    return Progress(None, None, lines[-1] if lines else "")


def last_error(log: Path) -> str:
    """The line of a log that says why the command failed, if it says so."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    start = max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=-1)
    own = lines[start + 1 :]
    errors = [line.removeprefix("wovr: error: ") for line in own if line.startswith("wovr: error: ")]
    return errors[-1] if errors else (own[-1] if own else "")


def _end_with_parent() -> None:
    """Ask the kernel to kill this process with its parent: a stage must not go on when its chain was killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
