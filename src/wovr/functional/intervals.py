"""Confidence intervals: of success rates, and of means over groups, of rollouts or of initial states."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A confidence interval, `low` <= `high`."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a binomial proportion (Wilson 1927), without continuity correction.

    With p = successes / trials, n = trials and z the normal quantile of (1 + confidence) / 2:

        (p + z² / 2n ± z sqrt(p (1 - p) / n + z² / 4n²)) / (1 + z² / n)

    Args:
        successes: Successful trials, in [0, trials].
        trials: Trials, at least 1.
        confidence: In (0, 1).

    Returns:
        The interval, inside [0, 1]; it has positive width at 0 and at all successes too.

    Raises:
        ValueError: Arguments outside their ranges.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # At 0 and at all successes one end is exactly 0 or 1, which rounding misses by a hair.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == trials else (centre + half) / scale
    return Interval(low, high)


def bootstrap_interval(
    parts: np.ndarray, counts: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval (Efron 1979) of a mean of units that are drawn in groups.

    The mean is sum(parts) / sum(counts); whole groups are drawn anew, with replacement. Draws without any unit are left
    out. Groups that all say the same give an interval of no width.

    Args:
        parts: (N,) float, the sum over the units of each group.
        counts: (N,) float, how many there are, >= 0, some of them above 0.
        confidence: In (0, 1).
        resamples: Draws.
        seed: Of the draws: the same arguments give the same interval.

    Raises:
        ValueError: No group, no unit, other shapes, or a confidence out of its range.
    """
    if parts.shape != counts.shape or parts.ndim != 1 or not counts.sum() > 0:
        raise ValueError(f"parts {parts.shape} and counts {counts.shape} of {counts.sum()} units")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
    chosen = np.random.default_rng(seed).integers(len(parts), size=(resamples, len(parts)))
    sums, units = parts[chosen].sum(axis=1), counts[chosen].sum(axis=1)
    means = sums[units > 0] / units[units > 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def bootstrap_statistic(
    count: int,
    statistic: Callable[[np.ndarray], float],
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval (Efron 1979) of any statistic of units that are drawn anew, with replacement.

    Args:
        count: Units, N.
        statistic: From (N,) int64 indices of units, some of them several times, to a number; NaN where a draw has none.
        confidence: In (0, 1).
        resamples: Draws.
        seed: Of the draws: the same arguments give the same interval.

    Returns:
        The interval; None where no draw has a number.

    Raises:
        ValueError: No unit, or a confidence out of its range.
    """
    if count < 1 or not 0 < confidence < 1:
        raise ValueError(f"{count} units, confidence {confidence}: some, and a number between 0 and 1, are needed")
    random = np.random.default_rng(seed)
    values = np.array([statistic(random.integers(count, size=count)) for _ in range(resamples)], np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
