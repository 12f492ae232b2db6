"""What the rows of a LeRobotDataset are told: tasks, subtasks, columns of sentences, and texts in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wovr.data.converters.lerobot import layout
from wovr.data.converters.lerobot.info import RESTORE, Info, inside, json_lines, whole
from wovr.data.converters.lerobot.tables import Table
from wovr.errors import UserError

_MOST_TASKS = 1_000_000
_MOST_TEXTS = 10_000
"""Texts in time that are kept of an episode."""

Spans = list[tuple[int, str]]
"""First frame and text of each stretch of frames that has one text."""


def read_tasks(info: Info) -> dict[int, str]:
    """Index of a task -> its instruction.

    Raises:
        UserError: Missing or damaged.
    """
    name = layout.TASKS_2 if info.version.startswith("v2.") else layout.TASKS
    return _texts(info.root, name, "task")


def read_subtasks(info: Info) -> dict[int, str]:
    """Index of a subtask -> its text; empty where the data set has none.

    Raises:
        UserError: Damaged.
    """
    there = [name for name in (layout.SUBTASKS, layout.SUBTASKS_2) if (info.root / name).exists()]
    return _texts(info.root, there[0], "subtask") if there else {}


def _texts(root: Path, name: str, kind: str) -> dict[int, str]:
    if name.endswith(".jsonl"):
        rows = list(json_lines(root, name))
    else:
        rows = Table(inside(root, name, str(root))).records(_MOST_TASKS)
    texts: dict[int, str] = {}
    for number, row in enumerate(rows):
        text = row.get(kind, row.get("__index_level_0__"))  # pandas' name for an index of texts
        where = f"{root / name}: row {number}"
        try:
            index = whole(row.get(f"{kind}_index"))
        except ValueError as error:
            raise UserError(f"{where}: {kind}_index: {error}", RESTORE) from error
        if not isinstance(text, str):
            raise UserError(f"{where}: no text '{kind}'", RESTORE)
        if texts.setdefault(index, text) != text:
            raise UserError(f"{where}: {kind} {index} twice", RESTORE)
    return texts


def spans(texts: Sequence[str]) -> Spans:
    """Stretches of one text; `texts` is one a frame."""
    return [(frame, text) for frame, text in enumerate(texts) if not frame or text != texts[frame - 1]]


def texts_in_time(cells: Mapping[str, Sequence[Any]], first: int, fps: float) -> list[list[Any]]:
    """Texts that an episode holds beside its instruction, as [frame, style, role, text].

    Args:
        cells: Column of LANGUAGE -> a cell a frame: lists of dictionaries.
        first: Number of the first row's frame.
        fps: Frames a second.

    Raises:
        ValueError: They are something else.
    """
    found: list[list[Any]] = []
    for key, column in cells.items():
        # A text that stays is repeated in every row, with the time at which it began.
        stays = key == layout.LANGUAGE[0]
        for frame, cell in enumerate(column[:1] if stays else column):
            for row in cell or []:
                if not isinstance(row, dict):
                    raise ValueError(f"{key}: not a list of texts")
                if row.get("content") is None:
                    continue
                start = round(float(row.get("timestamp") or 0.0) * fps) - first if stays else frame
                found.append([start, row.get("style"), row.get("role"), str(row["content"])])
    if len(found) > _MOST_TEXTS:
        raise ValueError(f"{len(found):,} texts, at most {_MOST_TEXTS:,} are kept")
    return sorted(found, key=lambda text: text[0])
