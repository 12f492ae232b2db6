"""The processes that a launcher (torchrun, Slurm) has started of one command, and which of them this is. Torch-free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wovr.errors import UserError

SHARED_OUT = ("fit", "rl", "collect", "data imagine")
"""Commands whose work several processes share, by their first words."""

_LOOK = 0.2  # seconds between two looks at the disk


@dataclass(frozen=True)
class Processes:
    """Processes of one command.

    Attributes:
        rank: Number of this one, from 0.
        count: All of them.
        machines: Machines that they are on, equally many on each.
        local: Number of this one among those of its machine.
    """

    rank: int = 0
    count: int = 1
    machines: int = 1
    local: int = 0

    @property
    def here(self) -> int:
        """Processes on this machine."""
        return self.count // self.machines

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and finishes for all."""
        return self.rank == 0

    def takes(self, number: int) -> bool:
        """Whether a piece of work, by its number, is this process's: they take them in turn."""
        return number % self.count == self.rank


def launched_processes() -> Processes:
    """What the launcher's variables say; one process where there is none, or where Lightning starts the others itself.

    Raises:
        UserError: They say something that cannot be.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, count, here = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        machines, local = count // here if here > 0 and count % here == 0 else 0, _number("LOCAL_RANK", 0)
    # Of a step, which srun starts. What stands in a batch script by itself is one process, whatever the job could hold.
    elif _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        rank, count = _number("SLURM_PROCID"), _number("SLURM_STEP_NUM_TASKS")
        machines = _number("SLURM_STEP_NUM_NODES", 1)
        local = _number("SLURM_LOCALID", 0)
    else:
        return Processes()
    if machines < 1 or count % machines or not 0 <= rank < count:
        raise UserError(
            f"the launcher says process {rank} of {count} on {machines} machines",
            "start equally many processes on each machine",
        )
    return Processes(rank, count, machines, local)


def is_shared_out(command: str, among: Iterable[str] = SHARED_OUT) -> bool:
    """Whether a command line, after `wovr`, begins with the words of one of these commands."""
    return any(f"{command} ".startswith(f"{one} ") for one in among)


def wait_until(come: Callable[[], bool]) -> None:
    """Wait for what another process of the command makes on the disk they share; the launcher ends all if one fails."""
    while not come():
        time.sleep(_LOOK)


def wait_for(paths: Iterable[Path]) -> None:
    """Wait until files are there, which appear whole or not at all."""
    for path in paths:
        wait_until(path.exists)


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"the variable {name} is '{text}'", "give the number that a launcher sets there") from error
