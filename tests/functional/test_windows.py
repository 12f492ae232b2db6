from __future__ import annotations

import numpy as np
import pytest

from wovr.functional.windows import NO_ACTION, count_windows, last_frames, window_index


def test_a_window_in_the_middle() -> None:
    index = window_index(10, memory=4, chunk=8)
    assert index.frames.tolist() == [0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    # Frame t + 1 is produced by action t.
    assert index.actions.tolist() == [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]


def test_at_the_start_the_first_frame_is_repeated_and_nothing_produced_it() -> None:
    index = window_index(np.array([0, 2]), memory=4, chunk=4)
    assert index.frames.tolist() == [[0, 0, 0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 1, 2, 3, 4, 5, 6]]
    assert index.actions.tolist() == [[NO_ACTION] * 4 + [0, 1, 2, 3], [NO_ACTION] * 2 + [0, 1, 2, 3, 4, 5]]


def test_windows_reach_the_last_frame_and_not_beyond() -> None:
    for frames in (9, 10, 512):
        count = int(count_windows(frames, 8))
        index = window_index(np.arange(count), memory=4, chunk=8)
        assert index.frames.max() == frames - 1
        assert index.actions.max() == frames - 2  # the last of T - 1 actions
        assert set(range(frames)) == set(index.frames.ravel().tolist())
    assert count_windows(np.array([1, 8, 9, 20]), 8).tolist() == [0, 0, 1, 12]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [2]), (3, [0, 1, 2]), (5, [0, 0, 0, 1, 2])])
def test_the_earliest_of_too_few_frames_is_repeated(count: int, expected: list[int]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 2, 2, 3)).astype(np.uint8)
    found = last_frames(frames, count)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, frames[expected] if expected else frames[:0])
