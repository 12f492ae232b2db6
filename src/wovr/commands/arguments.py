"""From the words of a command line to the arguments of a typed function, and from the parser's errors to one line."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser, auto_parser

from wovr.commands.config_files import find_config_files
from wovr.commands.null_values import refuse_null
from wovr.commands.places import Finder
from wovr.errors import UserError, meant
from wovr.importing import failed_import
from wovr.processes import launched_processes
from wovr.runs import only_run

if TYPE_CHECKING:
    import torch


Verb = Callable[..., None] | Mapping[str, Callable[..., None]]
"""A function whose signature and docstring are the options of a verb and their help, or one for each second word."""


def call(
    verb: Verb,
    args: Sequence[str],
    name: str,
    description: str | None = None,
    as_positional: bool = False,
    measures: bool = False,
    shows: Sequence[str] | None = None,
) -> None:
    """Call the function behind a verb with the options of a command line, inputs found where `places` says.

    Args:
        verb: The function, or a function for each second word.
        args: Words after the verb.
        name: Of the verb.
        description: See `verb_parser`.
        as_positional: See `verb_parser`.
        measures: Of what a chain made several times, take the last.
        shows: For a verb that makes nothing of its inputs, for which shipped weights will do: options whose inputs may
            be nowhere. None for any other verb.

    Raises:
        UserError: An option that does not exist, is missing or has a value of the wrong type; an input is nowhere.
    """
    parser = verb_parser(verb, name, description, as_positional)
    words = find_config_files(args)
    try:
        options = parser.instantiate(parser.parse_args(words))
    except ArgumentError as error:
        raise explain_arguments(error, name, parser) from error
    if not callable(verb):
        second = options.pop("subcommand")
        verb, options = verb[second], options[second]
    options.pop("config", None)
    finder = Finder(args, last=measures, shipped=shows is not None, optional=shows or ())
    verb(**finder.fill_in(options))


def verb_parser(verb: Verb, name: str, description: str | None = None, as_positional: bool = False) -> OptionsParser:
    """The parser of a verb.

    Args:
        verb: The function, or a function for each second word.
        name: Of the verb.
        description: What --help begins with; None for the docstring of the function, down to its arguments.
        as_positional: Arguments without a default are words instead of options.
    """
    components: Any = verb if callable(verb) else dict(verb)
    if description is None and callable(verb):
        description = (inspect.getdoc(verb) or "").partition("\n\nArgs:")[0]
    more: dict[str, Any] = {} if description is None else {"description": description}
    return auto_parser(  # type: ignore[return-value]  # of the class that it is given
        components,
        as_positional=as_positional,
        prog=f"wovr {name}",
        exit_on_error=False,
        parser_class=OptionsParser,
        **more,
    )


class OptionsParser(ArgumentParser):
    """jsonargparse's, but that no file may give null to any option, and that no flag is guessed from its beginning."""

    def __init__(self, *args: Any, allow_abbrev: bool = False, **options: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **options)

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """See ArgumentParser.

        Raises:
            UserError: An option is null that needs a value.
        """
        config = super().parse_args(args, *rest, **options)
        refuse_null(self, config)
        return config


def explain_arguments(error: Exception, verb: str, parser: ArgumentParser | None = None) -> UserError:
    """One line of what jsonargparse says in many, with what was meant by an option that does not exist.

    Where a constructor raised an error for the user, or a module failed while it was imported, that is the line.
    """
    told = failed_import(error)
    if told is not None:
        return told
    # Its messages go from the option inwards; lines about the types that did not match either are left out.
    left_out = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(left_out))
    if "arguments are required" in text and (strange := _strange_flags(parser)):  # argparse looks for those first
        text = f"unrecognized arguments: {' '.join(strange)}"
    guesses = [guess for word, choices in _unknown_words(text, parser) if (guess := meant(word, choices))]
    remedy = f"did you mean {guesses[0]}? see:" if guesses else "see:"
    return UserError(text or "wrong options", f"{remedy} wovr {verb} --help")


def _unknown_words(text: str, parser: ArgumentParser | None) -> Iterator[tuple[str, Sequence[str]]]:
    """Words that jsonargparse says it does not know, each with those in whose place it stands."""
    for said in re.findall(r"unrecognized arguments: (--[^\s=]+)", text):
        yield said, [f"--{flag}" for flag in _flags(parser)]
    for said in re.findall(r"invalid choice: '([^']*)'", text):
        yield said, re.findall(r"'([^']*)'", text.partition("choose from")[2])
    for path, said in re.findall(r"class_path '([\w.]+)': Option '(\w+)' is not accepted", text):
        yield said, _arguments_of(path)
    for said in re.findall(r"Option '([^']+)' is not accepted|[Kk]ey '([^']+)' is not expected", text):
        yield "".join(said), _flags(parser)


def _strange_flags(parser: ArgumentParser | None) -> list[str]:
    """Flags that a parser was given and does not have."""
    if parser is None:
        return []
    known = tuple(f"--{flag}" for flag in _flags(parser))
    given = [word.partition("=")[0] for word in parser.args if word.startswith("--")]
    return [flag for flag in given if flag not in known and not flag.startswith(tuple(f"{name}." for name in known))]


def _flags(parser: ArgumentParser | None) -> list[str]:
    """Every flag, without its dashes, of a parser and of the parsers of its second words."""
    flags: list[str] = []
    for action in () if parser is None else parser._actions:
        flags += [name.removeprefix("--") for name in action.option_strings if name.startswith("--")]
        if isinstance(action.choices, Mapping):
            flags += [flag for below in action.choices.values() for flag in _flags(below)]
    return flags


def _arguments_of(class_path: str) -> list[str]:
    """Names of the arguments of a class that jsonargparse has imported."""
    module, _, name = class_path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def alone_in_out(
    verb: Callable[..., None], default: Callable[[Mapping[str, Any]], Path] | None = None
) -> Callable[..., None]:
    """The same verb, which keeps other commands out of the folder `--out` while it runs; see `runs.only_run`.

    Args:
        verb: Has an argument `out`.
        default: From all options to the folder, where none is given.
    """

    @functools.wraps(verb)
    def alone(*args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(verb).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.arguments.get("out") is None and default is not None:
            bound.arguments["out"] = default(bound.arguments)
        out = bound.arguments.get("out")
        with only_run(Path(out)) if out is not None else nullcontext():
            verb(*bound.args, **bound.kwargs)

    return alone


def words(text: str) -> list[str]:
    """The words of a comma list; none of an empty one."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(flag: str, text: str, kind: type) -> list[Any]:
    """The numbers of a comma list.

    Args:
        flag: Name of the option, for messages.
        text: The list.
        kind: `int` or `float`.

    Raises:
        UserError: A word that is no such number.
    """
    try:
        return [kind(word) for word in words(text)]
    except ValueError as error:
        raise UserError(f"--{flag} is '{text}'", "give numbers separated by commas") from error


def choose_device(device: str) -> torch.device:
    """The device behind `--device`. Torch is imported only here.

    Raises:
        UserError: There is none of that kind.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device is '{device}'", "give auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, and no such device is at hand", "give --device cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", launched_processes().local) if launched_processes().count > 1 else torch.device("cuda")
