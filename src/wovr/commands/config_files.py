"""What a YAML that a user gives is checked for before anything obeys it.

YAML says less than it seems to: of a key that is written twice the last counts, aliases of aliases grow into billions
of values, a list may hold itself. Tags that name Python objects are never obeyed: everything here and in jsonargparse
stands on PyYAML's safe loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wovr.errors import UserError
from wovr.renames import RENAMES, old_names

DEEPEST = 64
"""Most levels of lists and mappings in one another."""

MOST_VALUES = 100_000
"""Most values of a file, those that aliases repeat counted as often as they are repeated."""


def check_config_files(args: Sequence[str]) -> None:
    """Check every file that a command line names by `--config` (or `-c`).

    Args:
        args: Words after the verb.

    Raises:
        UserError: See `read_config_file`. One that does not exist is left to the parser, which also takes YAML itself.
            Or a word names a class by a name of before.
    """
    for word, after in zip(args, [*args[1:], ""], strict=True):
        flag, is_one, value = word.partition("=")
        _refuse_old_names(value if is_one else word, f"{flag} " if is_one else "")
        if flag in ("--config", "-c"):
            path = value if is_one else after
            if path and "\n" not in path and len(path) < 4096 and Path(path).exists():
                read_config_file(Path(path))


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
