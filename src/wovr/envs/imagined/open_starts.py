"""Start states from which the outcome is still open, as a value function foresees it.

A group of rollouts teaches nothing where all of them fail, or all succeed, and most moments of an episode are decided:
the object is in the hand already, or on the floor. And where an outcome is decided, what a value function says
differently of equal rollouts is noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wovr.data.keyframes.start_states import StartStates
from wovr.envs.imagined.parts import Judge
from wovr.errors import UserError
from wovr.functional.windows import last_frames
from wovr.types import StartState

_AT_ONCE = 256


def foresee_starts(value: Judge, starts: Sequence[StartState]) -> np.ndarray:
    """The probability that a rollout from each start state succeeds.

    Args:
        value: The value function; sees the state's memory, or its first frame over and over.
        starts: N of them, with `reference` or `memory`.

    Returns:
        (N,) float32 in [0, 1].
    """
    found = []
    for first in range(0, len(starts), _AT_ONCE):
        part = starts[first : first + _AT_ONCE]
        windows = np.stack([_window(start, value.window) for start in part])  # (B, window, H, W, 3)
        with torch.no_grad():
            probability = value.probability(torch.from_numpy(windows), [(start.suite, start.task) for start in part])
        found.append(probability[:, -1].float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def keep_open_starts(pool: StartStates, value: Judge, bounds: tuple[float, float]) -> str:
    """Leave out the start states whose foreseen success is outside two bounds; of a task without any other, none.

    Args:
        pool: What is changed.
        value: The value function.
        bounds: Least and greatest probability, 0 <= low <= high <= 1.

    Returns:
        What was left out, for people.

    Raises:
        UserError: Bounds out of their range, a task the value function was not trained for, or no keyframe is left.
    """
    low, high = bounds
    if not 0 <= low <= high <= 1:
        raise UserError(f"--start_value is {list(bounds)}", "give two probabilities such as [0.1, 0.9]")
    unknown = [task for task in pool.tasks if (task.suite, task.index) not in value.tasks]
    if unknown:
        raise UserError(
            f"the value function was not trained for task {unknown[0].suite}/{unknown[0].index}",
            "train one on episodes of this task",
        )
    first, keyframes = (foresee_starts(value, starts) for starts in (pool.starts, pool.keyframe_starts))
    is_open = [(foreseen >= low) & (foreseen <= high) for foreseen in (first, keyframes)]
    if pool.keyframe_starts and not is_open[1].any():
        raise UserError(
            f"--start_value {list(bounds)} leaves none of {len(keyframes)} keyframes", "widen it, or leave it out"
        )
    pool.keep(*is_open)
    counts = f"{int(is_open[0].sum())} of {len(first)} first frames"
    if len(keyframes):
        counts += f" and {int(is_open[1].sum())} of {len(keyframes)} keyframes"
    return f"{counts} have a value from {low:g} to {high:g}"


def _window(start: StartState, window: int) -> np.ndarray:
    """(window, H, W, 3) uint8, what was seen up to the start; the earliest frame is repeated."""
    assert start.reference is not None
    return last_frames(start.reference[None] if start.memory is None else start.memory, window)
