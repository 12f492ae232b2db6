"""`wovr weights list|fetch|pack|push|pull`: networks that metrics measure with, and one's own to give away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from wovr.commands.arguments import call
from wovr.commands.terminal import PlainConsole, progress_bar
from wovr.commands.weights.hub import pull, push
from wovr.commands.weights.pack import pack
from wovr.errors import UserError, choose_from
from wovr.metrics.networks.weights import (
    FOLDER_VARIABLE,
    WEIGHTS,
    checked_weights,
    fetch_weights,
    has_weights,
    weights_folder,
)


def list_weights(weights: str = "") -> None:
    """Show which weights there are, what for, and which of them are at hand; those are checked.

    Args:
        weights: Folder of weights; the environment's WOVR_WEIGHTS unless given, else the user's cache.
    """
    folder = weights_folder(weights)
    table = Table("name", "metrics", "network", "MB", "at hand", title=str(folder), title_justify="left")
    for name, file in WEIGHTS.items():
        table.add_row(name, file.metrics, file.network, f"{file.size / 1e6:.0f}", _state(name, weights))
    console = PlainConsole()
    console.print(table)
    console.print(f"fetch with: wovr weights fetch NAME; another folder: --weights DIR or {FOLDER_VARIABLE}=DIR")


def fetch(names: str, weights: str = "") -> None:
    """Download weights, and check their size and SHA-256.

    Args:
        names: Comma list of names as `wovr weights list` shows them, or all.
        weights: Folder of weights; the environment's WOVR_WEIGHTS unless given, else the user's cache.
    """
    wanted = list(WEIGHTS) if names == "all" else [word.strip() for word in names.split(",")]
    for name in wanted:
        if name not in WEIGHTS:
            raise UserError(f"unknown weights '{name}'", choose_from(name, [*WEIGHTS, "all"]))
    for name in wanted:
        fetch_shown(name, weights_folder(weights))


def fetch_shown(name: str, folder: Path) -> None:
    """Download weights with a progress bar, and say that they are as expected.

    Args:
        name: Key of WEIGHTS.
        folder: Folder of weights.

    Raises:
        UserError: See `fetch_weights`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(name, total=WEIGHTS[name].size)
        path = fetch_weights(name, folder, partial(progress.advance, bar))
    print(f"{path}: {WEIGHTS[name].size:,} bytes, SHA-256 as expected")


def _state(name: str, weights: str) -> str:
    folder = weights_folder(weights)
    if not has_weights(name, folder):
        return "no"
    try:
        checked_weights(name, folder)
    except UserError as error:
        print(f"wovr: warning: {error}", file=sys.stderr)
        return "another file"
    return "yes"


def main(args: Sequence[str]) -> None:
    """Run `wovr weights ARGS`."""
    verbs: dict[str, Callable[..., None]] = {
        "list": list_weights,
        "fetch": fetch,
        "pack": pack,
        "push": push,
        "pull": pull,
    }
    call(verbs, args, "weights", __doc__, as_positional=True)
