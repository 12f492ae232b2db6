"""The table of verbs. Imports nothing heavy until a verb is chosen, so `wovr --help` answers at once.

A table, and not jsonargparse's subcommands: those want the parsers of all verbs made before one is chosen, and making
them takes 5 seconds of processor time (torch and Lightning), where `wovr --help` takes 0.03 and `wovr data --help` 0.5.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from wovr import __version__
from wovr.allocation import keep_freed_memory
from wovr.errors import Terminated, UserError, choose_from
from wovr.failures import explain
from wovr.processes import SHARED_OUT, is_shared_out, launched_processes

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("wovr.commands.fit", "train a model from episodes: wovr fit --config conf/bc.yaml"),
    "rl": ("wovr.commands.rl", "improve a policy by its own rollouts, imagined or real: wovr rl --config conf/rl.yaml"),
    "collect": ("wovr.commands.collect", "act in an environment and store the episodes as shards"),
    "evaluate": (
        "wovr.commands.evaluate.main",
        "measure a policy; with --world_model a world model, with --reward a classifier",
    ),
    "pace": (
        "wovr.commands.pace.main",
        "run the whole chain, from demonstrations to a report: wovr pace --config conf/pace/tabletop.yaml",
    ),
    "play": ("wovr.commands.play", "drive a learned world model in a browser, the simulator beside it"),
    "weights": (
        "wovr.commands.weights.main",
        "feature networks, and networks to give away: wovr weights list|fetch|pack|push|pull",
    ),
    "data": (
        "wovr.commands.data.main",
        "look into episodes, check, convert, label, imagine them: wovr data inspect DIR",
    ),
    "bench": ("wovr.commands.bench.main", "measure speed on this machine: wovr bench collect|loader|imagination"),
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
        "  --version           print the version\n"
        "  --print_completion  print what makes a shell complete commands, bash or zsh:\n"
        '                      eval "$(wovr --print_completion bash)"'
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None for the process's own.

    Returns:
        The exit status: 0, 2 for an error the user can mend, 130 when interrupted, 143 (129) when terminated (hung up),
        141 when nobody reads the output any more. An exception that is a defect of wovr goes on as it is.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    # jsonargparse >= 4.49 prints notices meant for Lightning's developers under Lightning 2.6.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # Between operations torch's threads would spin on cores that simulators, encoders or another job need: acting was
    # up to ten times slower, training beside another training sixteen times. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a text that the terminal's encoding lacks is no error
    try:
        with _told_to_end():
            status = _answer(args)
        sys.stdout.flush()  # a reader that has gone is noticed here and not while Python ends
    except BrokenPipeError:
        # `wovr data inspect DIR | head`: whoever read has had enough. Python would complain about what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        told = error if isinstance(error, UserError) else explain(error, args[0] if args else "")
        if told is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"wovr: error: {told}", file=sys.stderr)
        return 2
    except Terminated as error:
        print("wovr: terminated; the same command again picks up where it stopped", file=sys.stderr)
        return 128 + error.signal_number
    except KeyboardInterrupt:
        print("wovr: interrupted; the same command again picks up where it stopped", file=sys.stderr)
        return 130
    return status


def _answer(args: Sequence[str]) -> int:
    """Run the verb, or say what there is; returns the exit status."""
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"wovr {__version__}")
        return 0
    if args[0].partition("=")[0] == "--print_completion":
        from wovr.commands.completion import completion_script

        print(completion_script(args[0].partition("=")[2] or "".join(args[1:2]), VERBS))
        return 0
    if args[0] not in VERBS:
        raise UserError(f"unknown verb '{args[0]}'", choose_from(args[0], VERBS))
    if (processes := launched_processes()).count > 1 and not is_shared_out(" ".join(args[:2])):
        raise UserError(
            f"wovr {args[0]}: started {processes.count} times by a launcher, and its work is not shared out",
            f"leave the launcher out; it is for {', '.join(SHARED_OUT)}",
        )
    # `python -m wovr` looks in the current folder and the installed script does not; a class named by its import path
    # (`--env my_robot:FrankaEnv`) is found there either way. Last in the list, so it hides no package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.import_module(VERBS[args[0]][0]).main(args[1:])
    return 0


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a verb as Ctrl-C does, so that it stops its child processes and leaves its folder."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
                before[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _die_as_usual() -> None:
    """In a forked process: whoever forked it ends it by SIGTERM and expects it to be gone."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is _terminate:
            with suppress(ValueError):  # not the main thread
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_die_as_usual)
