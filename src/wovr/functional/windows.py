"""Which frames and actions a training window of the world model is made of. Index arithmetic, numpy only.

A window is [reference | memory | new]: the episode's first frame, the M frames up to and including frame `start`, and
the K frames that the actions from `start` on produce. Where the memory reaches before the episode the first frame is
repeated, as at the start of a rollout; no action produced those frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_ACTION = -1
"""Index that stands for "no action produced this frame"."""


@dataclass(frozen=True)
class WindowIndex:
    """Where in its episode each part of a window lies.

    Attributes:
        frames: (..., 1 + M + K) int64, index of each frame of [reference | memory | new].
        actions: (..., M + K) int64, index of the action that produced each memory and new frame, or NO_ACTION.
    """

    frames: np.ndarray
    actions: np.ndarray


def count_windows(num_frames: np.ndarray | int, chunk: int) -> np.ndarray:
    """How many windows an episode of T frames has: one for each start in [0, T - K). (...) int64."""
    return np.maximum(np.asarray(num_frames, np.int64) - chunk, 0)


def window_index(start: np.ndarray | int, memory: int, chunk: int) -> WindowIndex:
    """The window of each start.

    Args:
        start: (...) int, index of the last memory frame, in [0, T - K).
        memory: Memory frames, M.
        chunk: New frames, K.
    """
    last = np.asarray(start, np.int64)[..., None]
    wanted = last + np.arange(1 - memory, chunk + 1)  # (..., M + K)
    frames = np.maximum(wanted, 0)
    return WindowIndex(
        frames=np.concatenate([np.zeros_like(last), frames], axis=-1),
        # Frame t + 1 is produced by action t, and frame 0 by none.
        actions=np.maximum(wanted - 1, NO_ACTION),
    )


def last_frames(seen: np.ndarray, count: int) -> np.ndarray:
    """The last `count` of frames, the earliest repeated where there are fewer: (n, ...) with n >= 1 -> (count, ...)."""
    missing = max(0, count - len(seen))
    return np.concatenate([np.repeat(seen[:1], missing, axis=0), seen[len(seen) + missing - count :]])
