"""Which frame a row of a LeRobotDataset belongs to: by what identifies it, not by its place in the table."""

from __future__ import annotations

import numpy as np

_NEAR = 0.4
"""Of a frame: how far a time stamp may be from the frame's own time."""


def frame_order(
    length: int, numbers: np.ndarray | None, stamps: np.ndarray | None, fps: float
) -> tuple[np.ndarray, int]:
    """Put the rows of an episode into the order of their frames.

    Args:
        length: Number of rows, T.
        numbers: (T,) `frame_index`; None where there is none.
        stamps: (T,) `timestamp`, s since the episode's start; None where there is none.
        fps: Frames a second.

    Returns:
        (T,) int64, the place of each frame's row, and the first row's frame. Frames follow each other without a hole.
        Without either column rows are frames 0 to T - 1 as they are stored.

    Raises:
        ValueError: The columns contradict each other or `fps`, or a frame is missing or there twice; names the row.
    """
    if stamps is not None:
        stamps = stamps.astype(np.float64)
        if not np.isfinite(stamps).all():
            raise ValueError(f"row {int(np.argmin(np.isfinite(stamps)))}: timestamp is not finite")
        if len(stamps) > 1:
            steps = np.diff(np.sort(stamps))
            step = float(np.median(steps))  # a hole moves the mean, jitter the median, another rate both
            if abs(step * fps - 1.0) > 0.02 and abs(steps.mean() * fps - 1.0) > 0.02:
                raise ValueError(f"time stamps {step:.4g} s apart, meta/info.json says {fps:g} fps")
    if numbers is None and stamps is None:
        return np.arange(length), 0
    column = "timestamp" if numbers is None else "frame_index"
    places = (numbers if numbers is not None else np.rint(np.asarray(stamps) * fps)).astype(np.float64)
    if not np.isfinite(places).all() or (places != np.rint(places)).any() or (places < 0).any():
        wrong = ~np.isfinite(places) | (places != np.rint(places)) | (places < 0)
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row}: {column} is frame {places[row]:g}")
    if stamps is not None and numbers is not None:
        off = np.abs(stamps * fps - places) > _NEAR
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(
                f"row {row}: frame_index is {places[row]:.0f}, timestamp {stamps[row]:g} s is frame "
                f"{stamps[row] * fps:.4g} at {fps:g} fps"
            )
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    if (steps != 1).any():
        place = int(np.argmax(steps != 1))
        before, row = places[order[place]], int(order[place + 1])
        hole = f"a hole of {steps[place] - 1:.0f} frames before it"
        what = f"frame {before:.0f} twice" if steps[place] == 0 else hole
        raise ValueError(f"row {row}: {column} says {what}")
    return order, int(places[order[0]])
