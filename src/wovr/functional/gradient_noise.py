"""How much of a gradient is noise: the simple noise scale of McCandlish et al. 2018 (arXiv:1812.06162, section 2.2).

The gradient of a group of rollouts is G + noise, with the noise's covariance Sigma. tr(Sigma) / |G|^2 is the number of
groups whose mean has as much noise as signal. Unlike appendix A.1, which compares two batch sizes, |G|^2 is the mean
inner product of the gradients of two different groups: the same estimate with batches of one and of all groups. It
needs running sums only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wovr.functional.intervals import Interval


@dataclass(frozen=True)
class NoiseScale:
    """Signal and noise of a gradient.

    Attributes:
        signal: Unbiased estimate of |G|^2, which may be below 0 where there is little signal.
        noise: Unbiased estimate of tr(Sigma) of one group, >= 0.
        scale: noise / signal, in groups; None where the signal is estimated as not above 0.
    """

    signal: float
    noise: float

    @property
    def scale(self) -> float | None:
        """Groups at which signal equals noise; None where the signal is estimated as not above 0."""
        return self.noise / self.signal if self.signal > 0 else None


def noise_scale(
    products: np.ndarray, squares: np.ndarray, sizes: np.ndarray, weights: np.ndarray | None = None
) -> NoiseScale:
    """Signal and noise from sums over splits of the groups.

    With g the gradient of a group, the signal is the mean of g . g' over pairs of different groups, the noise the mean
    of |g|^2 less the signal.

    Args:
        products: (M, M) float, inner products of the sums of the gradients of each split.
        squares: (M,) float, sum of |g|^2 over the groups of each split.
        sizes: (M,) int, groups of each split.
        weights: (M,) float, how often each split counts; None for once. Copies of a group are no pair of different
            groups, so that resampling splits leaves the signal unbiased.

    Raises:
        ValueError: Fewer than two groups.
    """
    times = np.ones(len(sizes)) if weights is None else weights
    pairs = times @ np.outer(sizes, sizes) @ times - (times**2 * sizes).sum()
    if not pairs > 0:
        raise ValueError("a noise scale takes two groups or more")
    signal = (times @ products @ times - (times**2 * squares).sum()) / pairs
    return NoiseScale(float(signal), float((times * squares).sum() / (times * sizes).sum() - signal))


def noise_scale_interval(
    products: np.ndarray, squares: np.ndarray, sizes: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """95 % percentile bootstrap interval of `NoiseScale.scale` over the splits.

    Args:
        products: See `noise_scale`.
        squares: See `noise_scale`.
        sizes: See `noise_scale`.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        In groups; an end is infinite where so many of the draws have no signal.
    """
    count = len(sizes)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        weights = np.bincount(generator.integers(count, size=count), minlength=count).astype(np.float64)
        if weights.max() * sizes[weights.argmax()] == (weights @ sizes) and sizes[weights.argmax()] < 2:
            continue  # copies of one group only
        scale = noise_scale(products, squares, sizes, weights).scale
        found.append(np.inf if scale is None else scale)
    # Between a finite and an infinite draw there is nothing to interpolate.
    low = np.quantile(found, 0.025, method="lower")
    high = np.quantile(found, 0.975, method="higher")
    return Interval(float(low), float(high))
