"""Success after consecutive frames, against a loop over frames."""

from __future__ import annotations

import numpy as np
import pytest

from wovr.functional.success import consecutive_success


def by_hand(row: list[float], threshold: float, consecutive: int) -> list[bool]:
    """A frame is successful when it and the ones before it, `consecutive` of them, are all at the threshold."""
    return [
        end + 1 >= consecutive and all(p >= threshold for p in row[end + 1 - consecutive : end + 1])
        for end in range(len(row))
    ]


@pytest.mark.parametrize("consecutive", [1, 2, 3, 5])
def test_success_is_a_streak_wherever_the_chunks_are_cut(consecutive: int) -> None:
    probability = np.random.default_rng(consecutive).random((7, 24)).round(1)
    expected = np.array([by_hand(row.tolist(), 0.4, consecutive) for row in probability])
    whole = consecutive_success(probability, 0.4, consecutive, np.zeros(7, np.int64))
    np.testing.assert_array_equal(whole.success, expected)
    run, parts = np.zeros(7, np.int64), []
    for part in np.split(probability, [1, 3, 11, 16], axis=1):
        success, run = consecutive_success(part, 0.4, consecutive, run)
        parts.append(success)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)
    np.testing.assert_array_equal(run, whole.run)
    assert expected.any()
    assert not expected.all()


def test_the_threshold_itself_counts_and_a_flicker_does_not() -> None:
    probability = np.array([[0.5, 0.5, 0.1], [0.9, 0.4, 0.9], [np.nan, 0.9, 0.9]])
    success, run = consecutive_success(probability, 0.5, 2, np.array([0, 0, 5]))
    assert success.tolist() == [[False, True, False], [False, False, False], [False, False, True]]
    assert run.tolist() == [0, 1, 2]


def test_no_frame_is_no_success() -> None:
    with pytest.raises(ValueError, match="consecutive is 0"):
        consecutive_success(np.zeros((1, 1)), 0.5, 0, np.zeros(1, np.int64))
