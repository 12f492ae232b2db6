"""The processes that a launcher (torchrun, Slurm) has started of one command, and which of them this is. Torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wovr.errors import UserError


@dataclass(frozen=True)
class Processes:
    """Processes of one command.

    Attributes:
        rank: Number of this one, from 0.
        count: All of them.
        machines: Machines that they are on, equally many on each.
    """

    rank: int = 0
    count: int = 1
    machines: int = 1

    @property
    def here(self) -> int:
        """Processes on this machine."""
        return self.count // self.machines


def launched_processes() -> Processes:
    """What the launcher's variables say; one process where there is none, or where Lightning starts the others itself.

    Raises:
        UserError: They say something that cannot be.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, count, here = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        machines = count // here if here > 0 and count % here == 0 else 0
    # In an interactive allocation a command is one process, whatever the allocation could hold; as Lightning sees it.
    elif _number("SLURM_NTASKS", 1) > 1 and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        rank, count, machines = _number("SLURM_PROCID"), _number("SLURM_NTASKS"), _number("SLURM_NNODES", 1)
    else:
        return Processes()
    if machines < 1 or count % machines or not 0 <= rank < count:
        raise UserError(
            f"the launcher says process {rank} of {count} on {machines} machines",
            "start equally many processes on each machine",
        )
    return Processes(rank, count, machines)


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"the variable {name} is '{text}'", "give the number that a launcher sets there") from error
