"""Class paths of before, and what they are called now: checkpoints and folders of earlier versions name them."""

from __future__ import annotations

from typing import Any

RENAMES: dict[str, str] = {}
"""Old class path -> present one. Where a class has had several names, the oldest stands first."""

_FIRST: dict[str, str] = {}
for _old, _new in RENAMES.items():
    _FIRST.setdefault(_new, _old)


def present_names(value: Any) -> Any:
    """A copy of nested lists and dictionaries in which texts that are old class paths are the present ones."""
    return _replaced(value, RENAMES)


def first_names(value: Any) -> Any:
    """The same with the names that classes had first, so that a digest of it does not change when a class moves."""
    return _replaced(_replaced(value, RENAMES), _FIRST)


def old_names(value: Any) -> list[str]:
    """Old class paths among the texts of nested lists and dictionaries."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in old_names(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in old_names(item)]
    return [value] if isinstance(value, str) and value in RENAMES else []


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
