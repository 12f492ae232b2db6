"""Where a training's loggers write: `trainer: {logger: WandbLogger}` is all that a YAML has to say of wandb."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonargparse

from wovr.errors import UserError
from wovr.runs import fingerprint


def place_loggers(logger: Any, folder: Path) -> None:
    """Have a logger that names no place of its own write into the folder of a run, and go on there when the run does.

    Args:
        logger: `trainer.logger`, one or a list; changed as it is.
        folder: The folder of the run.

    Raises:
        UserError: It is wandb's, which is not installed.
    """
    for one in logger if isinstance(logger, list) else [logger]:
        if not isinstance(one, jsonargparse.Namespace) or not str(one.class_path).endswith(".WandbLogger"):
            continue
        if find_spec("wandb") is None:
            raise UserError("trainer.logger: wandb is not installed", "install it with: pip install 'wovr[wandb]'")
        own = {"project": "wovr", "name": folder.name, "id": fingerprint(str(folder))}
        if one.init_args.save_dir == ".":
            one.init_args.save_dir = str(folder)
        for name, value in own.items():
            if one.init_args[name] is None:
                one.init_args[name] = value
