from __future__ import annotations

import numpy as np
import pytest

from wovr.data.continued_order import ContinuedOrder

CHUNK = 8


class Windows:
    """Windows of episodes of 9, 40 and 20 frames; start runs fastest."""

    windows = np.array([1, 32, 12])
    chunk = CHUNK

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        episode = np.searchsorted(np.cumsum(self.windows), windows, side="right")
        return episode, windows - (np.cumsum(self.windows) - self.windows)[episode]


class Shuffled:
    """An order with 50 times every window."""

    def __len__(self) -> int:
        return 50 * 45

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        return random.permutation(np.repeat(np.arange(45), 50))


def epoch(share: float, rows: int = 4) -> np.ndarray:
    order = ContinuedOrder(Shuffled(), Windows(), rows, share)
    found = order(np.random.default_rng(0))
    assert len(found) == len(order) == 2250
    return found


def follows(found: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each window goes on from the batch before, and whether that one's episode has a next chunk."""
    batches = found[: len(found) // rows * rows].reshape(-1, rows)
    episode, start = Windows().locate(batches)
    goes_on = (episode[1:] == episode[:-1]) & (start[1:] == start[:-1] + CHUNK)
    return goes_on, start[:-1] + CHUNK < Windows.windows[episode[:-1]]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_windows_go_on_in_the_same_row_of_the_next_batch(share: float) -> None:
    goes_on, could = follows(epoch(share), 4)
    assert not (goes_on & ~could).any()
    assert goes_on[could].mean() == pytest.approx(share, abs=0.06)  # by chance alone a 45th do
    assert (np.bincount(epoch(share), minlength=45) > 0).all()


def test_rows_are_those_of_all_ranks_together() -> None:
    found = epoch(0.7, rows=6)
    for rank in range(2):
        share = found[: len(found) // 2 * 2][rank::2]
        goes_on, could = follows(share, 3)
        assert goes_on[could].mean() > 0.6


def test_without_a_share_it_is_the_other_order() -> None:
    batches = epoch(0.0, rows=1)
    np.testing.assert_array_equal(batches, Shuffled()(np.random.default_rng(0)))
