"""Suites that nobody names: those of the episodes, or of the episodes that a policy was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wovr.data.store.dataset import read_dataset
from wovr.envs.actors.names import BUILTIN
from wovr.errors import UserError


def suites_of_data(folders: Sequence[Path | str]) -> list[str]:
    """The suites of stored episodes, sorted.

    Raises:
        UserError: A folder holds no episodes.
    """
    return sorted({suite for folder in folders for suite in read_dataset(Path(folder))["suites"]})


def suites_of_policy(policy: str) -> list[str]:
    """The suites that a policy was trained on, sorted; none where it does not say, as an expert does not.

    Torch is imported only for a checkpoint.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    if policy in BUILTIN:
        return []
    from wovr.models.checkpoint import data_record

    found = data_record(Path(policy)).get("suites")
    return sorted(map(str, found)) if isinstance(found, list | tuple) else []


def only_suite(suites: Sequence[str], whose: str) -> str:
    """The one suite there is.

    Args:
        suites: The suites.
        whose: What they are of, for the message.

    Raises:
        UserError: There are none or several.
    """
    if len(suites) != 1:
        problem = f"is of {', '.join(suites)}" if suites else "names no suite"
        raise UserError(f"{whose} {problem}", "give one: --suite NAME")
    return suites[0]
