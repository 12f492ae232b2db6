"""Rank correlation against scipy's, ordered pairs against loops."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
from scipy.stats import rankdata, spearmanr

from wovr.functional.ranks import average_ranks, ordered_pairs, rank_correlation


def tied(seed: int, rows: int = 200, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Values of which many are equal, whole rows among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (rows, count)) / 3, rng.integers(0, 2, (rows, count)) * rng.integers(0, 2, (rows, 1))


def test_ranks_equal_scipys() -> None:
    values, _ = tied(0)
    np.testing.assert_array_equal(average_ranks(values), rankdata(values, axis=1))
    np.testing.assert_array_equal(average_ranks(np.array([5.0, 5.0, 1.0])), [2.5, 2.5, 1.0])


def test_the_correlation_equals_scipys() -> None:
    values, truth = tied(1)
    found = rank_correlation(values, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that are constant
        expected = [spearmanr(*row).statistic for row in zip(values, truth, strict=True)]
    assert np.isnan(found).any()
    assert not np.isnan(found).all()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_pairs_are_those_of_a_loop() -> None:
    values, truth = tied(2, rows=50)
    found = ordered_pairs(values, truth)
    for row in range(50):
        right, pairs = 0.0, 0
        for i, j in combinations(range(8), 2):
            if truth[row, i] != truth[row, j]:
                pairs += 1
                ours = (values[row, i] - values[row, j]) * (truth[row, i] - truth[row, j])
                right += 0.5 if ours == 0 else ours > 0
        assert (found.right[row], found.pairs[row]) == (right, pairs)
