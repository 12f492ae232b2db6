"""Configuration files: where a name finds one, and what it is checked for before anything obeys it.

`--config wm` and `--config conf/wm.yaml` both mean the file in the working folder or, where there is none, the one that
comes with the package: conf/ is part of it.

YAML says less than it seems to: of a key that is written twice the last counts, aliases of aliases grow into billions
of values, a list may hold itself. Tags that name Python objects are never obeyed: everything here and in jsonargparse
stands on PyYAML's safe loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wovr.errors import UserError, choose_from
from wovr.renames import RENAMES, old_names

DEEPEST = 64
"""Most levels of lists and mappings in one another."""

MOST_VALUES = 100_000
"""Most values of a file, those that aliases repeat counted as often as they are repeated."""


FOLDER = "conf"
"""Folder of configurations, in the working folder and in the package."""


def packaged_configs() -> Path:
    """The folder of the configurations that come with the package."""
    return Path(str(files("wovr"))) / FOLDER


def flag_values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The flags of a command line with their values, `--suite goal` and `--suite=goal` alike, in their order.

    A flag without a value has the word after it, whatever that is, or an empty text.
    """
    for word, after in pairwise([*words, ""]):
        flag, is_one, value = word.partition("=")
        if flag.startswith("-"):
            yield flag, value if is_one else after


def names_config(value: str) -> bool:
    """Whether the value of `--config` names a file; the parser takes YAML itself, too."""
    return not set("\n{").intersection(value) and ": " not in value


def find_config_files(args: Sequence[str]) -> list[str]:
    """A command line in which every `--config` (or `-c`) is the path of a file, found by `find_config` and checked.

    Args:
        args: Words after the verb.

    Raises:
        UserError: See `find_config` and `read_config_file`; or a word names a class by a name of before.
    """
    words = list(args)
    for place, word in enumerate(args):
        flag, is_one, value = word.partition("=")
        _refuse_old_names(value if is_one else word, f"{flag} " if is_one else "")
        if flag not in ("--config", "-c") or not (is_one or place + 1 < len(args)):
            continue
        value = value if is_one else args[place + 1]
        if not names_config(value):
            continue
        found = str(find_config(value))
        read_config_file(Path(found))
        words[place if is_one else place + 1] = f"{flag}={found}" if is_one else found
    return words


def find_config(name: str) -> Path:
    """The file behind `--config`: `wm`, `wm.yaml`, `conf/wm.yaml`, `pace/tabletop` or any path.

    What is in the working folder comes before what is in the package.

    Raises:
        UserError: There is none.
    """
    if Path(name).is_file() or ("/" in name and Path(name).exists()):
        return Path(name)
    below = name.removeprefix(f"{FOLDER}/")
    names = [below] if below.endswith((".yaml", ".yml")) else [below, f"{below}.yaml"]
    for folder in (Path(), Path(FOLDER), packaged_configs()):
        for file in names:
            if (folder / file).is_file():
                return folder / file
    raise UserError(f"{name}: no such file", choose_from(below, known_configs(), ", or give the path of a file"))


def known_configs() -> list[str]:
    """What `find_config` knows by name: `wm`, `pace/tabletop`, ... of the working folder and the package."""
    found = [config_name(path) for folder in (Path(FOLDER), packaged_configs()) for path in folder.rglob("*.yaml")]
    return sorted(set(found), key=lambda name: ("/" in name, name))


def config_name(path: Path) -> str:
    """What a configuration is called: its path below the nearest conf/ without the suffix, else its file's name."""
    parts = path.with_suffix("").parts
    below = len(parts) - parts[::-1].index(FOLDER) if FOLDER in parts[:-1] else len(parts) - 1
    return "/".join(parts[below:])


def read_config_file(path: Path) -> dict[str, Any]:
    """The options that a YAML file holds.

    Raises:
        UserError: It does not exist, is no file, no text, no YAML, no mapping of options, names a class by a name of
            before, or holds a key twice, a tag, too many levels or too many values.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", "check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder", "name a YAML file in it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 text: {error.reason} at byte {error.start}", "give a YAML file") from error
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise UserError(f"{path}: holds no options", "write some, or leave the file out")
        _check_nodes(root, path)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {error.problem}", "mend the file") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {error}", "mend the file") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no mapping of options", "write it as key: value")
    for key in values:
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} is no name of an option", "see --help of the verb")
    _refuse_old_names(values, f"{path}: ")
    return values


def _refuse_old_names(value: Any, where: str) -> None:
    for name in old_names(value)[:1]:
        raise UserError(f"{where}{name} has moved", f"write {RENAMES[name]}")


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_nodes(root: Any, path: Path) -> None:
    """Look for repeated keys, and at what the aliases of a file grow into, each node once.

    Raises:
        UserError: A key twice, too deep, too many values.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: Any, level: int) -> int:
        line = node.start_mark.line + 1
        if id(node) in above:
            raise UserError(f"{path}, line {line}: a value that holds itself", "write it without the alias")
        if level > DEEPEST:
            raise UserError(f"{path}, line {line}: more than {DEEPEST} levels in one another", "mend the file")
        if id(node) not in sizes:
            above.add(id(node))
            children = [node for pair in node.value for node in pair] if isinstance(node, yaml.MappingNode) else []
            children = list(node.value) if isinstance(node, yaml.SequenceNode) else children
            if isinstance(node, yaml.MappingNode):
                _refuse_repeated_keys(node, path)
            sizes[id(node)] = 1 + sum(size(child, level + 1) for child in children)
            above.discard(id(node))
        if sizes[id(node)] > MOST_VALUES:
            raise UserError(f"{path}, line {line}: more than {MOST_VALUES:,} values", "write fewer, or fewer aliases")
        return sizes[id(node)]

    size(root, 0)


def _refuse_repeated_keys(mapping: Any, path: Path) -> None:
    seen: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in seen:
            raise UserError(
                f"{path}, line {line}: the key '{key.value}' stands in line {seen[key.value]} already",
                "keep one of them",
            )
        seen[key.value] = line
