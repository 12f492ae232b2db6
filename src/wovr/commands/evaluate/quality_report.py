"""What is made of measured rollouts: JSON values, a table, charts, TensorBoard scalars, side-by-side videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.data.pictures import file_name, write_preview
from wovr.metrics.rollouts import Score

_GAP = 2
"""White columns between the pictures of a side-by-side video."""


def score_values(score: Score) -> dict[str, Any]:
    """A score as JSON values: numbers that JSON lacks are null (nothing to measure) and "inf"."""
    values: dict[str, Any] = {
        "by_horizon": {str(horizon): _json_number(value) for horizon, value in score.by_horizon.items()},
        "better": score.better,
        "digits": score.digits,
        "shown": score.shown,
    }
    if score.by_frame is not None:
        values["by_frame"] = [_json_number(value) for value in score.by_frame]
    return values


def quality_table(values: Mapping[str, Any]) -> RenderableType:
    """What `measure_quality` returned, as a table with a block a score and a column a horizon, and its notes."""
    rows: Mapping[str, Mapping[str, Any]] = values["rows"]
    horizons = sorted(values["episodes"], key=int)
    table = Table("score", "frames", title="imagined rollouts against held-out episodes")
    for horizon in horizons:
        table.add_column(f"horizon {horizon}", justify="right")
    table.add_row("episodes", "", *(str(values["episodes"][horizon]) for horizon in horizons), end_section=True)
    for name in values["scores"]:
        blocks = [(row, rows[row][name]) for row in values["frames"] if name in rows[row] and rows[row][name]["shown"]]
        for index, (row, score) in enumerate(blocks):
            # As Text: a name in brackets is markup elsewhere.
            title = Text(f"{name} {'↑' if score['better'] == 'higher' else '↓'}" if index == 0 else "")
            last = index == len(blocks) - 1
            table.add_row(title, row, *(score_cell(score, horizon) for horizon in horizons), end_section=last)
    return Group(table, *(Text(note) for note in values["notes"]))


def score_cell(score: Mapping[str, Any], horizon: str) -> str:
    """A score at a horizon as it is shown; `-` where there was nothing to measure."""
    value = score["by_horizon"].get(horizon)
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{score['digits']}f}"


def draw_charts(rows: Mapping[str, Mapping[str, Score]], folder: Path) -> list[str]:
    """A chart by frame of every score that has a curve, a line a row of the table.

    Returns:
        Names of the files, relative to the folder's parent.
    """
    from wovr.commands.report import charts  # imports matplotlib

    names = {name for scores in rows.values() for name, score in scores.items() if score.by_frame is not None}
    files = []
    for name in sorted(names):
        series = {row: _curve(scores[name]) for row, scores in rows.items() if name in scores}
        better = next(scores[name].better for scores in rows.values() if name in scores)
        path = folder / f"{file_name(name)}.png"
        chart = charts.line_chart(f"{name} by frame", "frame of the rollout", f"{name} ({better} is better)", series)
        charts.write_png(chart, path)
        files.append(f"{folder.name}/{path.name}")
    return files


def write_scalars(rows: Mapping[str, Mapping[str, Score]], folder: Path) -> None:
    """Every score in TensorBoard, by horizon and by frame; takes the place of what was there."""
    from torch.utils.tensorboard import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for row, scores in rows.items():
            for name, score in scores.items():
                for kind, values in (("by_horizon", score.by_horizon.items()), ("by_frame", enumerate(_curve(score)))):
                    for step, value in values:
                        if math.isfinite(value):
                            writer.add_scalar(f"{name} {kind}/{row}", value, step)


def write_side_by_side(path: Path, real: np.ndarray, imagined: np.ndarray, fps: float) -> None:
    """A video: real | imagined | difference (grey where they agree).

    Args:
        path: Where it goes.
        real: (T, H, W, 3) uint8.
        imagined: The same.
        fps: Frames per second.

    Raises:
        UserError: It cannot be written.
    """
    gap = np.full((*real.shape[:2], _GAP, 3), 255, np.uint8)
    difference = np.clip(128 + imagined.astype(np.int16) - real, 0, 255).astype(np.uint8)
    write_preview(path, np.concatenate([real, gap, imagined, gap, difference], axis=2), fps)


def _curve(score: Score) -> Sequence[float]:
    return [] if score.by_frame is None else score.by_frame


def _json_number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
