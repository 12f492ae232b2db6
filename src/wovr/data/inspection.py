"""What a person wants to see of a data set first: what is in it, and pictures of it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Group, RenderableType
from rich.table import Table

from wovr.data.store.reader import EpisodeEntry, EpisodeStore
from wovr.runs import atomic_write

_MARGIN = 4  # pixels
_LINE = 14  # height of a line of text
_MARK_WIDTH = 18  # the tick or cross before it, margins included
_SMALLEST = 96  # a frame is enlarged by a whole factor to at least this height
_GREEN, _RED, _INK, _PAPER = (30, 160, 60), (210, 50, 40), (30, 30, 30), (255, 255, 255)


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
    height, width = store.image_size
    factor = max(1, -(-_SMALLEST // height))
    cell = (width * factor + 2 * _MARGIN, height * factor + 2 * _MARGIN)
    episodes = choose_episodes(store, rows)
    captions = [_caption(store.entries[index], columns * cell[0]) for index in episodes]
    caption_height = max(map(len, captions)) * _LINE + _MARGIN
    sheet = Image.new("RGB", (columns * cell[0], len(episodes) * (caption_height + cell[1])), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (index, caption) in enumerate(zip(episodes, captions, strict=True)):
        top = row * (caption_height + cell[1])
        _draw_mark(draw, store.entries[index].succeeded, top)
        draw.multiline_text((_MARK_WIDTH, top + 2), "\n".join(caption), _INK, ImageFont.load_default(), spacing=1)
        frames, success = store.frames(index), store.success(index)
        for column, shown in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
            left, upper = column * cell[0], top + caption_height
            if success[shown]:
                draw.rectangle((left, upper, left + cell[0] - 1, upper + cell[1] - 1), _GREEN)
            picture = Image.fromarray(frames[shown])
            picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + _MARGIN, upper + _MARGIN))
    return sheet


def _caption(entry: EpisodeEntry, width: int) -> list[str]:
    """Key, task and instruction in lines that fit `width` pixels."""
    text = f"{entry.key}  {entry.meta.suite} {entry.meta.task}, {entry.num_frames} frames: {entry.meta.instruction}"
    # Pillow's built-in font has Latin-1 only.
    text = text.encode("latin-1", "replace").decode("latin-1")
    letter = ImageFont.load_default().getlength("n")
    return textwrap.wrap(text, max(8, int((width - _MARK_WIDTH) / letter)))


def _draw_mark(draw: ImageDraw.ImageDraw, succeeded: bool, top: int) -> None:
    """A green tick or a red cross in the first line of the caption."""
    x, y, size = _MARGIN, top + _MARGIN, _MARK_WIDTH - 2 * _MARGIN
    if succeeded:
        draw.line((x, y + size // 2, x + size // 3, y + size, x + size, y), _GREEN, 2)
    else:
        draw.line((x, y, x + size, y + size), _RED, 2)
        draw.line((x, y + size, x + size, y), _RED, 2)


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically.

    Raises:
        UserError: The disk is full or the place not writable.
    """
    buffer = BytesIO()
    image.save(buffer, "png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
