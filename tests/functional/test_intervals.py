"""Wilson and bootstrap intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from wovr.functional.intervals import bootstrap_interval, bootstrap_statistic, wilson_interval


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


def test_a_bootstrap_of_groups_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        counts = rng.integers(0, 4, 50)
        # All units of a group share its mean: as few as there are groups tell the spread.
        parts = counts * rng.normal(0.3, 1, 50)
        interval = bootstrap_interval(parts, counts, resamples=400, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.9 <= covered / 200 <= 0.99


def test_a_bootstrap_equals_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=0).confidence_interval
    found = bootstrap_interval(values, np.ones(40), resamples=20000)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert found == bootstrap_interval(values, np.ones(40), resamples=20000)
    same = bootstrap_interval(np.full(3, 0.5), np.ones(3))
    assert same.low == same.high == 0.5


@pytest.mark.parametrize(
    ("parts", "counts", "confidence"), [([], [], 0.95), ([0.0], [0.0], 0.95), ([1.0], [1.0, 1.0], 0.95), ([1], [1], 1)]
)
def test_a_bootstrap_of_nothing(parts: list[float], counts: list[float], confidence: float) -> None:
    with pytest.raises(ValueError, match=r"units|confidence"):
        bootstrap_interval(np.array(parts), np.array(counts), confidence)


def test_the_interval_of_a_mean_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = bootstrap_statistic(400, lambda rows: float(values[rows].mean()))
    assert found is not None
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert bootstrap_statistic(400, lambda rows: float(values[rows].mean())) == found
    assert bootstrap_statistic(400, lambda rows: float(values[rows].mean()), seed=1) != found


def test_draws_without_a_number_are_left_out() -> None:
    flags = np.array([1.0, np.nan])
    found = bootstrap_statistic(2, lambda rows: float(flags[rows].sum()))  # only draws of the first unit have one
    assert (found.low, found.high) == (2.0, 2.0) if found else False
    assert bootstrap_statistic(2, lambda rows: float("nan")) is None
    for count, confidence in ((0, 0.95), (3, 1.0)):
        with pytest.raises(ValueError, match="are needed"):
            bootstrap_statistic(count, lambda rows: 0.0, confidence)
