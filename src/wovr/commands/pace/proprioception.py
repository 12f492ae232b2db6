"""What stages of a chain declare of episodes without proprioception: which are left out, what others are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROPRIO = ("needs_proprio", "without_proprio")
"""What a stage may declare of episodes that hold no proprioception: whether it is left out, and other args, of which
null takes a flag away."""


def depends_on_proprio(declared: Sequence[Any]) -> bool:
    """Whether the stages of a chain differ by what the episodes hold."""
    return any(key in entry for entry in declared if isinstance(entry, Mapping) for key in PROPRIO)


def left_out(declared: Sequence[Mapping[str, Any]], rounds: int) -> list[str]:
    """Names of the stages that episodes without proprioception do without."""
    there = [entry for entry in declared if rounds or not entry.get("each_round")]
    return [str(entry["name"]) for entry in there if entry.get("needs_proprio")]


def for_episodes(entry: Mapping[str, Any], proprio: bool) -> dict[str, Any]:
    """A declared stage with the args for episodes with or without proprioception."""
    if proprio or not (others := entry.get("without_proprio")):
        return dict(entry)
    args = {**(entry.get("args") or {}), **others}
    return {**entry, "args": {key: value for key, value in args.items() if key not in others or value is not None}}
