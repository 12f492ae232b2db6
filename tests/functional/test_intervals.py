"""Intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from wovr.functional.intervals import bootstrap_interval, wilson_interval


@pytest.mark.parametrize("trials", [1, 2, 10, 50, 997])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_equals_scipy(trials: int, confidence: float) -> None:
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        found = wilson_interval(successes, trials, confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= found.low <= successes / trials <= found.high <= 1
        assert found.low < found.high


def test_a_value_from_the_literature() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263.
    found = wilson_interval(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)]
)
def test_bad_arguments(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"successes of|confidence"):
        wilson_interval(successes, trials, confidence)


def test_bootstrap_equals_scipys_but_for_the_draws() -> None:
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.6, 0.3])
    expected = bootstrap((differences,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    found = bootstrap_interval(differences)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found == bootstrap_interval(differences.tolist())
    narrow = bootstrap_interval(differences, confidence=0.5, resamples=700)
    assert found.low < narrow.low < differences.mean() < narrow.high < found.high
    assert bootstrap_interval([0.25]).low == bootstrap_interval([0.25]).high == 0.25


@pytest.mark.parametrize(("values", "confidence"), [([], 0.95), ([[1.0]], 0.95), ([1.0], 0.0), ([1.0], 1.0)])
def test_bootstrap_refuses_what_it_cannot_do(values: list, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"values of shape|confidence is"):
        bootstrap_interval(values, confidence)
