"""The options of a run: those that its folder keeps, and whether they are the ones that are given now."""

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


def refuse_other_options(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Compare the options of two runs.

    Raises:
        UserError: They differ in something that changes the result.
    """
    flat = _flatten(of_the_result(before)), _flatten(of_the_result(now))
    different = sorted(key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key))
    if different:
        shown = ", ".join(f"{key} ({flat[0].get(key)!r} there, {flat[1].get(key)!r} here)" for key in different[:3])
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"{folder}: holds a run with other options: {shown}{more}", "choose another --out or remove the folder"
        )


def _flatten(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options as {"trainer.max_steps": 100, ...}."""
    if not isinstance(options, dict):
        return {prefix: options}
    return {k: v for name, item in options.items() for k, v in _flatten(item, f"{prefix}.{name}".lstrip(".")).items()}
