"""`wovr --print_completion SHELL`: a script by which a shell completes verbs, flags and values.

Made once from the parsers of all verbs, so that pressing the tab key starts no Python. jsonargparse's own is not used:
of classes it lists the arguments of every subclass that it can find, which makes 40 MB for `wovr fit`. Here the
arguments of models and data are those that the configurations of the package set.
"""

from __future__ import annotations

import argparse
import importlib
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import shtab
from jsonargparse import capture_parser

from wovr.commands.config_files import find_config, known_configs, read_config_file
from wovr.commands.evaluate.programs import METRICS, PROGRAMS
from wovr.envs.actors.names import BUILTIN
from wovr.envs.registry import ENVIRONMENTS
from wovr.errors import UserError, choose_from

SHELLS = ("bash", "zsh")
"""Shells there is a script for."""

WAYS: Mapping[str, Sequence[Sequence[str]]] = {
    "fit": [["--config", "bc"]],
    "evaluate": [["--metrics", next(iter(program.metrics))] for program in PROGRAMS],
}
"""Verb -> words that lead to each of its parsers, for those that have several or need some."""

VALUES: Mapping[str, Iterable[str]] = {
    "metrics": METRICS,
    "env": ENVIRONMENTS,
    "eval_env": ENVIRONMENTS,
    "policy": BUILTIN,
}
"""Option -> what its value may be, beside a file."""


def completion_script(shell: str, verbs: Mapping[str, tuple[str, str]]) -> str:
    """The script for a shell.

    Args:
        shell: One of SHELLS.
        verbs: The table of verbs: verb -> (module, help line).

    Raises:
        UserError: Another shell.
    """
    if shell not in SHELLS:
        raise UserError(f"--print_completion is '{shell}'", choose_from(shell, SHELLS))
    root = argparse.ArgumentParser(prog="wovr", description="verbs")
    for flag, line in (("--debug", "show the traceback of an error"), ("--version", "print the version")):
        root.add_argument(flag, action="store_true", help=line)
    root.add_argument("--print_completion", choices=SHELLS, help="print a script that completes commands")
    table = root.add_subparsers()
    for verb, (module, line) in verbs.items():
        copy = table.add_parser(verb, help=line, add_help=False)
        for words in WAYS.get(verb, [[]]):
            _copy(capture_parser(importlib.import_module(module).main, list(words)), copy)
        if verb == "fit":
            for flag in sorted(_trained_options() - {name.removeprefix("--") for name in copy._option_string_actions}):
                copy.add_argument(f"--{flag}", help="as in conf/").complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(root, shell)


def _copy(parser: argparse.ArgumentParser, copy: argparse.ArgumentParser) -> None:
    """Add the options and second words of a parser that a copy lacks."""
    for action in parser._actions:
        if isinstance(action.choices, Mapping):
            table = copy.add_subparsers()
            for word, below in action.choices.items():
                _copy(below, table.add_parser(word, help=(below.description or "").partition("\n")[0], add_help=False))
            continue
        names = [name for name in action.option_strings if name not in copy._option_string_actions]
        names = [name for name in names if not name.endswith((".help", "+"))]
        if not names and action.option_strings:
            continue
        takes_none = isinstance(action, argparse._HelpAction)
        added = copy.add_argument(
            *(names or [action.dest]),
            **({"action": "store_true"} if takes_none else {}),  # type: ignore[arg-type]
            help=str(action.help or "").replace("%", "%%"),
        )
        if not takes_none:
            added.complete = _values(action)  # type: ignore[attr-defined]


def _values(action: argparse.Action) -> Mapping[str, Any]:
    """How shtab is to complete the value of an option."""
    hint = getattr(action, "_typehint", None) or action.type
    words = list(VALUES.get(action.dest, ()))
    if action.dest == "config":
        words = known_configs()
    elif hint is bool:
        return _one_of(["true", "false"], files=False)
    elif typing.get_origin(hint) is typing.Literal:
        return _one_of([str(word) for word in typing.get_args(hint)], files=False)
    return _one_of(words) if words else shtab.FILE


def _one_of(words: Sequence[str], files: bool = True) -> Mapping[str, Any]:
    """A completion by words, and by files."""
    quoted = " ".join(words)
    function = f"_wovr_{zlib.crc32(f'{quoted} {files}'.encode()):08x}"
    lines = [f"compgen -W '{quoted}' -- $1", *(["compgen -f -- $1"] if files else [])]
    return {
        "bash": function,
        "zsh": f"_alternative 'words:value:({quoted})'" + (" 'files:file:_files'" if files else ""),
        "preamble": {"bash": f"{function}() {{ {'; '.join(lines)}; }}\n"},
    }


def _trained_options() -> set[str]:
    """`model.lr`, `data.folder`: what the configurations set of models and data, as flags spell it."""
    return {
        flag
        for name in known_configs()
        for part in ("model", "data")
        for flag in _leaves(read_config_file(find_config(name)).get(part) or {}, part)
    }


def _leaves(value: Any, key: str) -> Iterator[str]:
    arguments = value.get("init_args", value) if isinstance(value, Mapping) else {}
    if not arguments:
        yield key
    for name, item in arguments.items():
        if name != "class_path":
            yield from _leaves(item, f"{key}.{name}")
