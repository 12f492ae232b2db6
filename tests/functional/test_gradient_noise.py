"""The noise scale against the paper's own estimate from two batch sizes, and against a noise that is known."""

from __future__ import annotations

import numpy as np
import pytest

from wovr.functional.gradient_noise import noise_scale, noise_scale_interval


def sums(gradients: np.ndarray, splits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `noise_scale` takes, of (N, P) gradients."""
    parts = np.array_split(gradients, splits)
    held = np.stack([part.sum(axis=0) for part in parts])
    return held @ held.T, np.array([(part**2).sum() for part in parts]), np.array([len(part) for part in parts])


def drawn(seed: int, groups: int = 24, size: int = 5) -> np.ndarray:
    """Gradients of mean (1, 1, 1, 1, 1) and variance 4 in each direction."""
    return 1 + 2 * np.random.default_rng(seed).standard_normal((groups, size))


def test_it_is_the_estimate_of_appendix_a1() -> None:
    gradients = drawn(0)
    small, big = (gradients**2).sum(axis=1).mean(), (gradients.mean(axis=0) ** 2).sum()
    count = len(gradients)
    signal = (count * big - small) / (count - 1)
    noise = (small - big) / (1 - 1 / count)
    for splits in (2, 5, 24):
        found = noise_scale(*sums(gradients, splits))
        assert (found.signal, found.noise) == pytest.approx((signal, noise))
        assert found.scale == pytest.approx(noise / signal)


def test_it_is_unbiased_and_so_are_its_resamples() -> None:
    found = [noise_scale(*sums(drawn(seed), 6)) for seed in range(2000)]
    assert np.mean([one.signal for one in found]) == pytest.approx(5, rel=0.05)
    assert np.mean([one.noise for one in found]) == pytest.approx(20, rel=0.05)
    weights = np.array([3, 0, 2, 1, 0, 0])
    found = [noise_scale(*sums(drawn(seed), 6), weights) for seed in range(2000)]
    assert np.mean([one.signal for one in found]) == pytest.approx(5, rel=0.05)
    assert np.mean([one.noise for one in found]) == pytest.approx(20, rel=0.05)


def test_without_signal_there_is_no_scale() -> None:
    gradients = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = noise_scale(*sums(gradients, 4))
    assert found.scale is None
    assert found.signal == pytest.approx(-1 / 3)
    with pytest.raises(ValueError, match="two groups or more"):
        noise_scale(*sums(gradients[:1], 1))


def test_the_interval() -> None:
    intervals = [noise_scale_interval(*sums(drawn(seed, 80), 16), resamples=200) for seed in range(60)]
    assert 0.85 < np.mean([interval.low <= 4 <= interval.high for interval in intervals]) < 1
    assert np.median([interval.high for interval in intervals]) < 8
    held = sums(drawn(3, 80), 16)
    assert noise_scale_interval(*held) == noise_scale_interval(*held)
    noise = sums(drawn(4, 16) - 1, 16)
    assert noise_scale_interval(*noise).high == np.inf
    assert noise_scale_interval(*sums(np.ones((2, 3)), 2)).high == pytest.approx(0, abs=1e-12)
