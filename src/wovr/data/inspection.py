"""What a person wants to see of a data set first: what is in it, and pictures of it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFont
from rich.console import Group, RenderableType
from rich.table import Table

from wovr.data.pictures import GREEN, MARK_WIDTH, Cell, SheetRow, cell_size, draw_sheet
from wovr.data.store.entry import EpisodeEntry
from wovr.data.store.reader import EpisodeStore


def describe(store: EpisodeStore) -> RenderableType:
    """Tables for the terminal: totals, a row a task, a row an action dimension."""
    return Group(_totals(store), _tasks(store), _actions(store))


def _totals(store: EpisodeStore) -> Table:
    frames = [entry.num_frames for entry in store.entries]
    shards = [shard for dataset in store.datasets for shard in dataset["shards"]]
    size = sum(shard["bytes"] for shard in shards)
    table = Table(title=", ".join(map(str, store.folders)), show_header=False, title_justify="left")
    table.add_row("episodes", f"{len(store):,}")
    table.add_row("frames", f"{sum(frames):,} ({min(frames)} to {max(frames)} an episode)")
    table.add_row("success rate", _rate(store.entries))
    table.add_row("image", f"{store.image_size[0]} x {store.image_size[1]}")
    table.add_row("fps", ", ".join(sorted({f"{entry.meta.fps:g}" for entry in store.entries})))
    table.add_row("policy", ", ".join(sorted({entry.meta.policy for entry in store.entries})))
    table.add_row("source", ", ".join(sorted({entry.meta.source for entry in store.entries})))
    table.add_row("size", f"{size / 1e6:,.1f} MB in {len(shards)} shards, {size / sum(frames):,.0f} bytes a frame")
    table.add_row("fingerprint", store.fingerprint)
    return table


def _tasks(store: EpisodeStore) -> Table:
    table = Table("suite", "task", "instruction", title="tasks", title_justify="left")
    for name in ("episodes", "frames", "success rate"):
        table.add_column(name, justify="right")
    for (suite, task), entries in sorted(_by_task(store).items()):
        instructions = sorted({entry.meta.instruction for entry in entries})
        frames = sum(entry.num_frames for entry in entries)
        table.add_row(suite, str(task), " / ".join(instructions), f"{len(entries):,}", f"{frames:,}", _rate(entries))
    return table


def _actions(store: EpisodeStore) -> Table:
    statistics = store.action_statistics
    columns = ("min", "q01", "mean", "q99", "max", "std")
    table = Table("dimension", *columns, title=f"{statistics.count:,} actions", title_justify="left")
    for dimension in range(store.action_dim):
        table.add_row(str(dimension), *(f"{getattr(statistics, name)[dimension]:+.3f}" for name in columns))
    return table


def _by_task(store: EpisodeStore) -> dict[tuple[str, int], list[EpisodeEntry]]:
    groups: dict[tuple[str, int], list[EpisodeEntry]] = {}
    for entry in store.entries:
        groups.setdefault((entry.meta.suite, entry.meta.task), []).append(entry)
    return groups


def _rate(entries: Sequence[EpisodeEntry]) -> str:
    successes = sum(entry.succeeded for entry in entries)
    return f"{successes / len(entries):.1%} ({successes:,} of {len(entries):,})"


def choose_episodes(store: EpisodeStore, count: int) -> list[int]:
    """Episodes for a contact sheet: one of each task in turn, until there are `count` or no more."""
    waiting: dict[tuple[str, int], list[int]] = {}
    for index, entry in enumerate(store.entries):
        waiting.setdefault((entry.meta.suite, entry.meta.task), []).append(index)
    queues = [waiting[task] for task in sorted(waiting)]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return sorted(turns[:count])


def contact_sheet(store: EpisodeStore, rows: int = 10, columns: int = 8) -> Image.Image:
    """A picture with a row an episode: its instruction, whether it succeeded, and frames from first to last.

    A frame that satisfies the success predicate has a green frame around it.

    Args:
        store: The episodes.
        rows: Episodes shown at most.
        columns: Frames shown of each, evenly spaced, the first and the last among them.

    Raises:
        UserError: An episode is damaged.
    """
    width = columns * cell_size(store.image_size)[0]
    return draw_sheet([_row(store, index, columns, width) for index in choose_episodes(store, rows)], store.image_size)


def _row(store: EpisodeStore, index: int, columns: int, width: int) -> SheetRow:
    frames, success = store.frames(index), store.success(index)
    shown = np.linspace(0, len(frames) - 1, columns).round().astype(int)
    cells = [Cell(frames[t], GREEN if success[t] else None) for t in shown]
    return SheetRow(cells, _caption(store.entries[index], width), store.entries[index].succeeded)


def _caption(entry: EpisodeEntry, width: int) -> list[str]:
    """Key, task and instruction in lines that fit `width` pixels."""
    text = f"{entry.key}  {entry.meta.suite} {entry.meta.task}, {entry.num_frames} frames: {entry.meta.instruction}"
    letter = ImageFont.load_default().getlength("n")
    return textwrap.wrap(text, max(8, int((width - MARK_WIDTH) / letter)))
