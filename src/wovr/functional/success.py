"""From a classifier's probabilities to success (paper, Eq. 8): a threshold, held for several frames in a row.

Unlike Eq. 8, success needs `consecutive` frames at or above the threshold: a flicker of one frame is no success. With
one frame it is Eq. 8.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Streaks(NamedTuple):
    """Success of N rollouts over L frames, and what the next frames have to know.

    Attributes:
        success: (N, L) bool, the frame ends at least `consecutive` frames in a row at or above the threshold.
        run: (N,) int64, frames in a row at or above the threshold, up to and including the last one.
    """

    success: np.ndarray
    run: np.ndarray


def consecutive_success(probability: np.ndarray, threshold: float, consecutive: int, run: np.ndarray) -> Streaks:
    """Count frames in a row at or above a threshold.

    Splitting the frames over several calls, each given the `run` of the one before, changes nothing.

    Args:
        probability: (N, L) float, probability of success of each frame; NaN is below any threshold.
        threshold: Probability from which a frame counts.
        consecutive: Frames in a row that make a success, from 1 on.
        run: (N,) int64, length of each rollout's streak before the first frame; zeros at the start of an episode.

    Returns:
        Success of each frame, and the streaks after the last one.

    Raises:
        ValueError: `consecutive` is below 1.
    """
    if consecutive < 1:
        raise ValueError(f"consecutive is {consecutive}: at least one frame makes a success")
    above = probability >= threshold
    success = np.empty(above.shape, bool)
    run = np.asarray(run, np.int64)
    for frame in range(above.shape[1]):
        run = np.where(above[:, frame], run + 1, 0)
        success[:, frame] = run >= consecutive
    return Streaks(success, run)
