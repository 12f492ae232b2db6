from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from wovr.functional import flow


def reference_path(x: np.ndarray, n: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 7's path and velocity, sample by sample: x_sigma goes from data at 0 to noise at 1 in a straight line."""
    noisy = np.stack([x[b] + sigma[b] * (n[b] - x[b]) for b in range(len(x))])
    step = 1e-6
    ahead = np.stack([x[b] + (sigma[b] + step) * (n[b] - x[b]) for b in range(len(x))])
    return noisy, (ahead - noisy) / step


def draw(shape: tuple[int, ...] = (5, 3, 2, 4)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return clean, noise, torch.rand(shape[0], generator=generator, dtype=torch.float64)


def test_path_and_target_against_the_derivative() -> None:
    clean, noise, sigma = draw()
    sample = flow.path_sample(clean, noise, sigma)
    noisy, velocity = reference_path(clean.numpy(), noise.numpy(), sigma.numpy())
    np.testing.assert_allclose(sample.noisy, noisy, atol=1e-12)
    np.testing.assert_allclose(sample.velocity, velocity, atol=1e-8)
    assert torch.equal(flow.path_sample(clean, noise, 0.0).noisy, clean)
    assert torch.equal(flow.path_sample(clean, noise, 1.0).noisy, noise)


def test_conversions_are_inverse() -> None:
    clean, noise, sigma = draw()
    sample = flow.path_sample(clean, noise, sigma)
    torch.testing.assert_close(flow.clean_from_velocity(sample.noisy, sample.velocity, sigma), clean)
    torch.testing.assert_close(flow.noise_from_velocity(sample.noisy, sample.velocity, sigma), noise)
    torch.testing.assert_close(flow.velocity_from_clean(sample.noisy, clean, sigma), sample.velocity)


def test_sampling_levels_are_the_authors() -> None:
    assert flow.sampling_sigmas(5, 5.0) == pytest.approx([1, 0.952, 0.882, 0.769, 0.556], abs=5e-4)
    assert flow.sampling_sigmas(4, 1.0) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert flow.sampling_sigmas(1, 5.0) == [1.0]


def test_shift_and_back() -> None:
    level = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = flow.shift_sigma(level, 5.0)
    assert shifted[[0, -1]].tolist() == [0, 1]
    assert (shifted[1:-1] > level[1:-1]).all()
    torch.testing.assert_close(flow.unshift_sigma(shifted, 5.0), level)
    assert torch.equal(flow.shift_sigma(level, 1.0), level)


def test_euler_follows_a_known_ode() -> None:
    """For data of one point x the field is v = (x_sigma - x) / sigma: any falling levels lead there exactly."""
    clean, noise, _ = draw()
    x, levels = noise, [1.0, 0.9, 0.4, 0.1, 0.0]
    for sigma, following in pairwise(levels):
        x = flow.euler_step(x, flow.velocity_from_clean(x, clean, sigma), sigma, following)
    torch.testing.assert_close(x, clean)
    # A curved field, d x / d sigma = x: Euler from 1 to 0 in N equal steps gives x (1 - 1 / N)^N.
    y = torch.ones(1, dtype=torch.float64)
    for i in range(10):
        y = flow.euler_step(y, y, 1 - i / 10, 1 - (i + 1) / 10)
    assert y.item() == pytest.approx(0.9**10)


@pytest.mark.parametrize("sigmas", [[], [0.9, 0.5], [1.0, 1.0], [1.0, 0.5, 0.6], [1.0, 0.0]])
def test_levels_a_sampler_cannot_use(sigmas: list[float]) -> None:
    flow.check_sigmas([1.0, 0.5])
    with pytest.raises(ValueError, match="sigmas"):
        flow.check_sigmas(sigmas)


def test_bell_weight_is_the_authors() -> None:
    """As in DiffSynth's scheduler: 1,000 shifted timesteps, a Gaussian around the middle, its least value taken off."""
    levels = np.linspace(1, 0, 1001)[:-1]
    timesteps = 5 * levels / (1 + 4 * levels) * 1000
    bell = np.exp(-2 * ((timesteps - 500) / 1000) ** 2)
    bell = bell - bell.min()
    reference = bell * (1000 / bell.sum())
    ours = flow.bell_weight(torch.from_numpy(timesteps / 1000), 5.0).numpy()
    np.testing.assert_allclose(ours, reference, atol=0.01)
    assert ours[0] == pytest.approx(0, abs=1e-9)
