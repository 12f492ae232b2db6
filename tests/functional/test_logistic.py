from __future__ import annotations

import numpy as np
import pytest
import torch

from wovr.functional.logistic import fit_logistic


def sample(weights: list[float], count: int = 4000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard normal signals, and what happens with the probability that they decide."""
    random = np.random.default_rng(seed)
    signals = random.normal(size=(count, len(weights)))
    likely = 1 / (1 + np.exp(-(signals @ np.array(weights) - 0.5)))
    return torch.from_numpy(signals), torch.from_numpy(random.random(count) < likely)


def objective(signals: torch.Tensor, happened: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> float:
    """Minus the penalised log-likelihood, written out."""
    total = 0.0
    for row, said in zip(signals.tolist(), happened.tolist(), strict=True):
        score = float(bias) + sum(w * x for w, x in zip(weights.tolist(), row, strict=True))
        total += np.log1p(np.exp(-score if said else score))
    return total + 0.5 * float((weights**2).sum())


def test_it_finds_the_weights_that_made_the_data() -> None:
    signals, happened = sample([2.0, 0.5])
    found = fit_logistic(signals, happened)
    assert found.weights.tolist() == pytest.approx([2.0, 0.5], abs=0.15)
    assert float(found.bias) == pytest.approx(-0.5, abs=0.1)


def test_no_other_weights_are_likelier() -> None:
    signals, happened = sample([1.0, 0.3], 200)
    found = fit_logistic(signals, happened)
    least = objective(signals, happened, found.weights, found.bias)
    random = np.random.default_rng(1)
    for _ in range(20):
        weights = found.weights + torch.from_numpy(random.normal(0, 0.05, 2))
        bias = found.bias + random.normal(0, 0.05)
        assert objective(signals, happened, weights.clamp(min=0), bias) > least


def test_a_signal_that_speaks_against_what_it_says_is_not_heard() -> None:
    signals, happened = sample([1.5, -1.0])
    found = fit_logistic(signals, happened)
    alone = fit_logistic(signals[:, :1], happened)
    assert found.weights[1] == 0
    assert found.weights[0] == pytest.approx(float(alone.weights[0]), abs=1e-6)


def test_signals_that_separate_give_finite_weights() -> None:
    signals = torch.linspace(-1, 1, 50)[:, None]
    found = fit_logistic(signals, signals[:, 0] > 0)
    assert 1 < float(found.weights[0]) < 50
    assert fit_logistic(-signals, signals[:, 0] > 0).weights.tolist() == [0.0]


@pytest.mark.parametrize(
    ("signals", "happened"),
    [
        (torch.zeros(3, 1), torch.tensor([True, True, True])),
        (torch.zeros(3, 1), torch.tensor([True, False])),
        (torch.full((2, 1), torch.nan), torch.tensor([True, False])),
    ],
)
def test_what_cannot_be_fitted_is_refused(signals: torch.Tensor, happened: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="needed"):
        fit_logistic(signals, happened)
