"""The options of a run that its folder keeps, those that decide what it computes, and those that a launcher decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wovr.errors import UserError
from wovr.processes import launched_processes
from wovr.renames import present_names

NOT_OF_THE_RESULT = ("config", "out", "resume", "workers")
"""Options that do not change what a run computes."""


def of_the_result(options: dict[str, Any]) -> dict[str, Any]:
    """Those that decide what a run computes."""
    return {key: value for key, value in options.items() if key not in NOT_OF_THE_RESULT}


def read_options(file: Path) -> dict[str, Any]:
    """Options of the run that a folder holds.

    Raises:
        UserError: They cannot be read.
    """
    try:
        options = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: missing or not valid YAML", "choose another --out or remove the folder") from error
    return present_names(options) if isinstance(options, dict) else {}


def take_processes(trainer: Any) -> None:
    """Let a launcher decide how many processes train: they are there already.

    Args:
        trainer: The options under `trainer`, a namespace; changed in place.
    """
    if (launched := launched_processes()).count == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    trainer.devices, trainer.num_nodes = launched.here, launched.machines
    arguments: Any = getattr(trainer.strategy, "init_args", None)
    if isinstance(getattr(arguments, "data_parallel_size", None), int):  # weights are shared out over all of them
        arguments.data_parallel_size = launched.count // int(getattr(arguments, "tensor_parallel_size", None) or 1)
