"""A chain's YAML that extends another's: numbers and stages of its own, and all else as there.

`extends: small.yaml` names a file beside this one, or one that `--config` would find. Mappings are taken together key
by key, what is said here in the place of what is said there. So are stages of one name, and their `args`; a stage that
says `leave_out: true` is dropped, a new one stands behind the one before it in this file, or at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wovr.commands.config_files import find_config, names_config, read_config_file
from wovr.errors import UserError

EXTENDS, LEAVE_OUT, STAGES = "extends", "leave_out", "stages"

DEEPEST = 8
"""Most files that extend one another."""


def read_chain(path: Path) -> dict[str, Any]:
    """The options of a chain's file, those of the files that it extends among them.

    Raises:
        UserError: See `read_config_file`; or files that extend each other in a circle, something that is no name of a
            file, or a stage that is left out where there is none.
    """
    files = [path]
    values = [read_config_file(path)]
    while (name := values[-1].pop(EXTENDS, None)) is not None:
        if not isinstance(name, str):
            raise UserError(f"{files[-1]}: extends is {name!r}", "name one file, e.g. extends: small.yaml")
        beside = files[-1].parent / name
        try:
            file = beside if beside.is_file() else find_config(name)
        except UserError as error:
            raise UserError(f"{files[-1]}: extends: {error}") from error
        if file.resolve() in {one.resolve() for one in files} or len(files) == DEEPEST:
            raise UserError(f"{files[-1]}: extends {name}, which leads back or too far", "extend one whole chain")
        files.append(file)
        values.append(read_config_file(file))
    found = values[-1]
    for file, own in zip(files[-2::-1], values[-2::-1], strict=True):
        found = {**_merged(found, own), STAGES: _stages(found.get(STAGES) or [], own.get(STAGES) or [], file)}
    return found


def with_extended(words: Sequence[str]) -> list[str]:
    """A command line in which every `--config` that extends another file is one whole YAML.

    Args:
        words: Words after the verb, in which `--config` names files, see `find_config_files`.

    Raises:
        UserError: See `read_chain`.
    """
    found = list(words)
    for place, word in enumerate(words):
        flag, is_one, value = word.partition("=")
        if flag != "--config" or not (is_one or place + 1 < len(words)):
            continue
        value = value if is_one else words[place + 1]
        if names_config(value) and EXTENDS in read_config_file(Path(value)):
            text = json.dumps(read_chain(Path(value)))
            found[place if is_one else place + 1] = f"{flag}={text}" if is_one else text
    return found


def _merged(first: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings, the second's values in the place of the first's; mappings among them likewise."""
    found = dict(first)
    for key, value in own.items():
        before = found.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        found[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return found


def _stages(first: Sequence[Any], own: Sequence[Any], file: Path) -> list[Any]:
    found = list(first)
    before: Any = None
    for entry in own:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise UserError(f"{file}: stages: {str(entry)[:60]} names no stage", "write - {name: x, ...}")
        names = [stage.get("name") if isinstance(stage, Mapping) else None for stage in found]
        name = entry["name"]
        if name in names:
            place = names.index(name)
            if entry.get(LEAVE_OUT) is True:
                del found[place]
                before = names[place - 1] if place else None
                continue
            found[place] = _merged(found[place], {key: v for key, v in entry.items() if key != LEAVE_OUT})
        elif LEAVE_OUT in entry:
            raise UserError(f"{file}: stage '{name}' is left out, and there is none", "check its name")
        else:
            found.insert(names.index(before) + 1 if before in names else len(found), dict(entry))
        before = name
    return found
