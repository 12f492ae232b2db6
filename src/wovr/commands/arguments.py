"""From the words of a command line to the arguments of a typed function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, auto_cli

from wovr.errors import UserError


def call(
    function: Callable[..., None] | Mapping[str, Callable[..., None]],
    args: Sequence[str],
    verb: str,
    description: str | None = None,
    as_positional: bool = False,
) -> None:
    """Call a function whose signature and docstring are the options of a verb and their help.

    Args:
        function: The verb, or a function for each of its second words.
        args: Words after the verb.
        verb: Its name.
        description: First paragraph of --help, where the function's own docstring does not serve.
        as_positional: Arguments without a default are words instead of options.

    Raises:
        UserError: An option that does not exist, is missing or has a value of the wrong type.
    """
    components: Any = function if callable(function) else dict(function)
    more: dict[str, Any] = {} if description is None else {"description": description}
    try:
        auto_cli(
            components, args=list(args), as_positional=as_positional, prog=f"wovr {verb}", exit_on_error=False, **more
        )
    except ArgumentError as error:
        raise UserError(str(error), f"see: wovr {verb} --help") from error
