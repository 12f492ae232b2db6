"""Logistic regression of a few weights, none of them below 0: how signals that all say "worse" add up to a probability.

By Newton's method, with a ridge; weights that would be negative are held at 0, the most negative first (active set), so
that no signal speaks against what it says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 100
_HALVINGS = 40
_CLOSE = 1e-9  # of the objective, a row


@dataclass(frozen=True)
class Logistic:
    """P(y) = sigmoid(bias + weights . x).

    Attributes:
        weights: (S,) float64, >= 0.
        bias: () float64.
    """

    weights: Tensor
    bias: Tensor


def fit_logistic(signals: Tensor, happened: Tensor, ridge: float = 1.0) -> Logistic:
    """Fit the probability of something to signals that speak for it.

    Maximises the log-likelihood minus ridge / 2 times the square of the weights (not of the bias), weights >= 0.

    Args:
        signals: (M, S) float, finite; about the same spread in each, for the ridge to mean the same.
        happened: (M,) bool, both of its values present.
        ridge: Above 0.

    Raises:
        ValueError: Other shapes, signals that are not finite, or one value of `happened` only.
    """
    if signals.ndim != 2 or happened.shape != signals.shape[:1] or not signals.isfinite().all():
        raise ValueError(f"signals {tuple(signals.shape)} of {tuple(happened.shape)}: (M, S) finite ones are needed")
    if not 0 < int(happened.sum()) < len(happened):
        raise ValueError("something that happened and something that did not are needed")
    x = torch.cat([signals.double(), torch.ones(len(signals), 1, dtype=torch.float64)], dim=1)  # (M, S + 1)
    y, free = happened.double(), torch.ones(x.shape[1], dtype=torch.bool)
    while True:
        solution = torch.zeros(x.shape[1], dtype=torch.float64)
        solution[free] = _newton(x[:, free], y, ridge)
        lowest = solution[:-1].argmin() if x.shape[1] > 1 else torch.tensor(0)
        if x.shape[1] == 1 or solution[lowest] >= 0:
            return Logistic(solution[:-1], solution[-1])
        free[lowest] = False


def _newton(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """The minimum over all columns, the last of which is the bias: (columns,) float64."""
    penalty = torch.full((x.shape[1],), ridge, dtype=torch.float64)
    penalty[-1] = 0.0

    def objective(weights: Tensor) -> Tensor:
        scores = x @ weights
        return (torch.nn.functional.softplus(scores) - y * scores).sum() + (penalty * weights**2).sum() / 2

    weights = torch.zeros(x.shape[1], dtype=torch.float64)
    before = objective(weights)
    for _ in range(_STEPS):
        likely = (x @ weights).sigmoid()
        gradient = x.T @ (likely - y) + penalty * weights
        curvature = (x.T * (likely * (1 - likely))) @ x + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(curvature, gradient)
        for _ in range(_HALVINGS):
            after = objective(weights - step)
            if after <= before:
                break
            step = step / 2
        weights = weights - step
        if before - after <= _CLOSE * len(y):
            break
        before = after
    return weights
