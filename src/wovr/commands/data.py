"""`wovr data inspect|verify DIR`: look into stored episodes and check every byte of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wovr.commands.arguments import call
from wovr.data.dataset import read_dataset
from wovr.data.inspection import contact_sheet, describe, write_png
from wovr.data.reader import EpisodeStore
from wovr.data.verification import verify_dataset
from wovr.errors import UserError


def inspect(folder: Path, out: Path | None = None, rows: int = 10, columns: int = 8) -> None:
    """Print what is in a folder of episodes and draw a contact sheet.

    Args:
        folder: Folder with shards and dataset.json.
        out: Where to write the contact sheet; DIR/contact_sheet.png unless given.
        rows: Episodes on the contact sheet, one of each task in turn.
        columns: Frames of each, evenly spaced.
    """
    if rows < 1 or columns < 1:
        raise UserError(f"a contact sheet of {rows} rows and {columns} columns", "give at least 1 of each")
    store = EpisodeStore(folder)
    console = Console()
    console.print(describe(store))
    path = out or folder / "contact_sheet.png"
    write_png(contact_sheet(store, rows, columns), path)
    console.print(f"contact sheet: {path}", soft_wrap=True, highlight=False)


def verify(folder: Path) -> None:
    """Decode every sample of every shard and check all of it against dataset.json, SHA-256 included.

    Args:
        folder: Folder with shards and dataset.json.
    """
    total = read_dataset(folder)["episodes"]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"verify {folder}", total=total)
        found = verify_dataset(folder, on_episode=lambda: progress.advance(bar))
    verdict = f"{len(found.problems)} problems" if found.problems else "all as dataset.json says"
    print(
        f"{folder}: {found.episodes:,} episodes, {found.frames:,} frames, {found.bytes / 1e6:,.1f} MB "
        f"in {found.shards} shards read whole: {verdict}"
    )
    if not found.problems:
        return
    *others, last = found.problems
    for problem in others:
        print(f"wovr: error: {problem}", file=sys.stderr)
    raise last


def main(args: Sequence[str]) -> None:
    """Run `wovr data ARGS`."""
    call({"inspect": inspect, "verify": verify}, args, "data", __doc__, as_positional=True)
