"""Confidence intervals of success rates and of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a mean (Efron 1979), over independent units such as initial states.

    Args:
        values: (n,), one a unit, n at least 1; of two policies on the same states, the differences.
        confidence: In (0, 1).
        resamples: Means drawn.
        seed: Of the draws: the same values give the same interval.

    Raises:
        ValueError: No values, or a confidence outside its range.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"values of shape {found.shape}, must be (n,) with n at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
    generator = np.random.default_rng(seed)
    # Counts of a resample's units are multinomial; a few hundred resamples at a time bound the memory.
    even = np.full(found.size, 1 / found.size)
    means = [
        generator.multinomial(found.size, even, size=min(500, resamples - i)) @ found for i in range(0, resamples, 500)
    ]
    low, high = np.quantile(np.concatenate(means) / found.size, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
