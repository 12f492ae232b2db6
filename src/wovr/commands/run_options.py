"""The options of a run that its folder keeps, and those of them that decide what the run computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wovr.errors import UserError
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
