"""Windows that go on where those of the batch before ended, so that a model can be trained on its own imagination."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from wovr.data.loader import SampleOrder


class EpisodeWindows(Protocol):
    """Windows of episodes by index, as `WorldModelWindows`.

    Attributes:
        windows: (E,) int64, windows of each episode.
        chunk: New frames of a window, K.
    """

    windows: np.ndarray
    chunk: int

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Episode's position and start of each window: (B,) int64 each."""


class ContinuedOrder:
    """An order whose batches are rows of runs: sample i of a batch often follows sample i of the batch before.

    A run begins at a window that another order names, and goes on chunk by chunk to the end of its episode, or ends
    earlier by chance. How often a window comes up differs more than in the other order: the runs reach the late ones
    from several starts.

    Args:
        order: Where runs begin.
        windows: What it orders.
        rows: Samples of a batch, all ranks together.
        share: Chance that a run goes on to the next chunk where the episode does.
    """

    def __init__(self, order: SampleOrder, windows: EpisodeWindows, rows: int, share: float) -> None:
        self.order, self.windows, self.rows, self.share = order, windows, rows, share

    def __len__(self) -> int:
        """Samples of every epoch, as many as of the other order."""
        return len(self.order)

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """(len(self),) int64, windows in the order of an epoch."""
        first = self.order(random)
        episode, start = self.windows.locate(first)
        room = (self.windows.windows[episode] - 1 - start) // self.windows.chunk  # chunks that may follow
        lengths = np.minimum(random.geometric(1 - self.share, len(first)), 1 + room)
        place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # in its run
        runs = (np.repeat(first, lengths) + self.windows.chunk * place)[: len(first)]
        # Every row is a piece of the sequence of runs; one that is cut at the border of two rows begins anew.
        steps = len(runs) // self.rows
        batches = runs[: steps * self.rows].reshape(self.rows, steps).T
        return np.concatenate([batches.ravel(), runs[steps * self.rows :]])
