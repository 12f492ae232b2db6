"""What an imagined environment is at a moment, and what a chunk makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from wovr.models.world_model.rollout import ImaginationState


@dataclass
class ImaginedSnapshot:
    """All N rows at a moment; the tensors are never written to.

    Attributes:
        images: (N, H, W, 3) uint8, what each row shows.
        instructions: N sentences.
        tasks: N times (suite, index).
        left: (N,) int64, actions left to the horizon, or to where the rollout is cut before it.
        early: (N,) bool, the rollout is cut before its horizon.
        streak: (N,) int64, successful frames in a row so far.
        begun: (N, K, A) float32, the actions of a chunk that is not complete; neutral ones where none was taken yet.
        taken: (N,) int64, how many of those were taken.
        rows: (R,) int64, rising: the rows that run.
        rollouts: Their R rollouts as they were when the chunk began; None where no row runs.
        before: (R, window - 1, H, W, 3) uint8, the frames before the chunk.
    """

    images: np.ndarray
    instructions: list[str]
    tasks: list[tuple[str, int]]
    left: np.ndarray
    early: np.ndarray
    streak: np.ndarray
    begun: np.ndarray
    taken: np.ndarray
    rows: np.ndarray
    rollouts: ImaginationState | None
    before: Tensor

    def copy(self) -> ImaginedSnapshot:
        """The same, in arrays of its own."""
        own: dict[str, Any] = {k: v.copy() for k, v in vars(self).items() if isinstance(v, np.ndarray | list)}
        return replace(self, **own)


@dataclass(frozen=True)
class ImaginedChunk:
    """R rows after a whole chunk.

    Attributes:
        clip: (R, window - 1 + K, H, W, 3) uint8, the frames before it and its own.
        probability: (R, K) float32.
        spread: (R, K) float32, its standard deviation over several noises; None where that is not asked for.
        after: The rollouts.
    """

    clip: Tensor
    probability: np.ndarray
    spread: np.ndarray | None
    after: ImaginationState
