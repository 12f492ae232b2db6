from __future__ import annotations

import numpy as np
import torch

from wovr.functional.robust import pseudo_huber


def test_squares_of_small_errors_and_sizes_of_large_ones() -> None:
    error = torch.tensor([0.0, 1e-3, -1e-3, 100.0, -100.0], dtype=torch.float64)
    expected = [0.0, 1e-6, 1e-6, 2 * 0.5 * 99.5, 2 * 0.5 * 99.5]
    np.testing.assert_allclose(pseudo_huber(error, 0.5).numpy(), expected, rtol=1e-4)


def test_of_two_outcomes_it_chooses_the_likelier() -> None:
    """Where squares are least at the mean, 0.2: six of ten times the pixel is 1, four times -1."""
    outcomes = torch.tensor([1.0] * 6 + [-1.0] * 4)
    answers = torch.linspace(-1, 1, 2001)
    cost = pseudo_huber(answers[:, None] - outcomes, 0.1).mean(1)
    assert answers[cost.argmin()] > 0.7
    assert answers[((answers[:, None] - outcomes) ** 2).mean(1).argmin()].item() < 0.21


def test_its_slope_is_finite_everywhere() -> None:
    error = torch.tensor([0.0, 1e-8, 1e8], requires_grad=True)
    pseudo_huber(error, 0.1).sum().backward()
    assert error.grad is not None
    np.testing.assert_allclose(error.grad.numpy(), [0, 2e-8, 0.2], rtol=1e-4, atol=1e-12)
