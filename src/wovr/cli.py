"""The table of verbs. Imports nothing heavy until a verb is chosen, so `wovr --help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from wovr import __version__
from wovr.errors import UserError

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("wovr.commands.train", "train a model from episodes: wovr fit --config conf/bc.yaml"),
    "rl": ("wovr.commands.rl", "improve a policy by its own rollouts, imagined or real: wovr rl --config conf/rl.yaml"),
    "collect": ("wovr.commands.collect", "act in an environment and store the episodes as shards"),
    "evaluate": (
        "wovr.commands.evaluate",
        "measure a policy; with --world_model a world model, with --reward a classifier",
    ),
    "pace": (
        "wovr.commands.pace",
        "run the whole chain, from demonstrations to a report: wovr pace --config conf/pace/tabletop.yaml",
    ),
    "weights": ("wovr.commands.weights", "weights of feature networks: wovr weights list|fetch"),
    "data": ("wovr.commands.data", "look into episodes, check, convert, label, imagine them: wovr data inspect DIR"),
    "bench": ("wovr.commands.bench", "measure speed on this machine: wovr bench collect|loader|imagination"),
}
"""Verb -> (module with `main(args) -> None`, help line)."""


def usage() -> str:
    """The text of `wovr --help`."""
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items())
    return (
        "usage: wovr [--debug] VERB [options]\n\n"
        "Reinforcement learning for robot policies inside a learned video world model.\n\n"
        f"verbs:\n{rows}\n\n"
        "  wovr VERB --help    the options of a verb\n"
        "  --debug             show the traceback of an error\n"
        "  --version           print the version"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None for the process's own.

    Returns:
        The exit status: 0, 2 for an error the user can mend, 130 when interrupted.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"wovr {__version__}")
        return 0
    if args[0] not in VERBS:
        print(f"wovr: error: unknown verb '{args[0]}'; choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    # jsonargparse >= 4.49 prints notices meant for Lightning's developers under Lightning 2.6.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # `python -m wovr` looks in the current folder and the installed script does not; a class named by its import path
    # (`--env my_robot:FrankaEnv`) is found there either way. Last in the list, so it hides no package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Between operations torch's threads would spin on cores that simulators, encoders or another job need: acting was
    # up to ten times slower, training beside another training sixteen times. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        importlib.import_module(VERBS[args[0]][0]).main(args[1:])
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"wovr: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wovr: interrupted; the same command again picks up where it stopped", file=sys.stderr)
        return 130
    return 0
