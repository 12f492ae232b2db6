"""What the writers of HDF5 demonstrations call the instruction, and where they put it.

robosuite and RoboCasa: attribute `ep_meta` of the demo, JSON with `lang`. Other recorders: attributes or texts
`language_instruction`, `task_description`, `task_instruction`, `instruction`, `language`, `lang` of the demo, of `data`
or of the file. LIBERO: attribute `problem_info` of `data`, JSON with `language_instruction`. robomimic and Isaac Lab
store the name of the environment only, and LIBERO's cleaned files nothing but the file's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wovr.data.converters.hdf5.reading import NotRead, attribute, check_array, is_array, is_text, member
from wovr.data.converters.source import MAX_COLUMN, text_of

FIELDS = ("language_instruction", "task_description", "task_instruction", "instruction", "language", "lang")
"""Attributes or texts that are an instruction."""

JSON_FIELDS = {"ep_meta": "lang", "problem_info": "language_instruction", "env_args": "env_lang"}
"""Attributes with JSON, and the key of the instruction in it."""

_LONGEST = 2000  # characters


def find_instruction(demo: Any, data: Any, path: Path, field: str = "") -> tuple[str, str]:
    """The instruction of a demo; what is nearest to it counts: the demo's, then `data`'s, then the file's.

    Args:
        demo: The demo's group.
        data: The group of all demos.
        path: The file.
        field: The only field to look at; empty for all.

    Returns:
        The instruction, and where it comes from: a field, `env_name` or `file name`.

    Raises:
        NotRead: Two fields of one place say different things, or a text is no text.
    """
    for item in (demo, data, data.file):
        found = _texts(item, field)
        if len({_plain(text) for text in found.values()}) > 1:
            said = ", ".join(f"{name} says '{text[:80]}'" for name, text in found.items())
            raise NotRead(f"two instructions: {said}", f"give --instruction {next(iter(found))} or another of them")
        if found:
            name, text = next(iter(found.items()))
            if len(text) > _LONGEST:
                raise NotRead(f"{name}: an instruction of {len(text):,} characters, at most {_LONGEST:,} are read")
            return text, name
    if field:
        raise NotRead(f"no instruction in {field}", "leave --instruction out")
    environment = json_object(attribute(data, "env_args")).get("env_name")
    if isinstance(environment, str) and environment:
        return environment[:_LONGEST], "env_name"
    return path.stem.removesuffix("_demo").replace("_", " "), "file name"


def _texts(item: Any, field: str) -> dict[str, str]:
    """Every instruction that a group states, by its field."""
    found: dict[str, str] = {}
    for name in [field] if field else [*JSON_FIELDS, *FIELDS]:
        value = attribute(item, name)
        if name in JSON_FIELDS:
            value = json_object(value).get(JSON_FIELDS[name])
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                value = "".join(value)  # as LIBERO itself reads it
        for text in [text_of(value), *(_stored(member(group, name)) for group in (item, member(item, "obs")))]:
            if text.strip(" \t\r\n\"'"):
                found.setdefault(name, text.strip(" \t\r\n\"'"))
    return found


def _stored(array: Any) -> str:
    """The one text of an array of texts, one a demo or the same a row.

    Raises:
        NotRead: Its rows say different things, or are no text.
    """
    if not is_array(array) or not is_text(array) or len(array.shape) > 1:
        return ""
    check_array(array, MAX_COLUMN)
    first = ""
    for cell in [array[()]] if not array.shape else (array[row] for row in range(len(array))):  # one is held at a time
        text = text_of(cell)
        if first and text != first:
            raise NotRead(
                f"{array.name}: two instructions in one demo, '{first[:60]}' and '{text[:60]}'",
                "name a field that says one with --instruction, or cut the demo into two",
            )
        first = text or first
    return first


def _plain(text: str) -> str:
    """A sentence without what two writers do differently."""
    return " ".join(text.lower().rstrip(".!").replace("_", " ").split())


def json_object(value: Any) -> dict[str, Any]:
    """The JSON object in an attribute; empty where there is none."""
    try:
        found = json.loads(text_of(value) or "null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
