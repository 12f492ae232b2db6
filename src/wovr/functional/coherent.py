"""Action tokens that are drawn alike all through a chunk, with exact log-probabilities.

Tokens drawn independently for every step are noise that averages out within a chunk: rollouts from one state hardly
differ in where they go, and their outcomes say little about what to do. Here a chunk's tokens of one action dimension
share a latent number z that tilts all their distributions the same way,

    p(b | z) ~ p(b) exp(z (c_b - m) / s),    z one of J nodes x_j with weights w_j (Gauss-Hermite, times `coherence`),

c_b being a bin's centre, m and s the mean and standard deviation of p: of a bell-shaped p this moves the mean by z
standard deviations. z is forgotten, so what a policy gradient follows is the probability of the tokens themselves, the
mixture over z; it is exact, and it is a product over steps of

    p(b_k | b_1 ... b_{k-1}) = exp(L_k - L_{k-1}),    L_k = log sum_j w_j prod_{i <= k} p(b_i | x_j),

so there is a ratio a token as before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NODES = 5
"""Values that z can take, J."""

REACH = 2.0
"""Standard deviations from the mean up to which a tilt grows: a second peak far away, as a gripper's other command is,
is not made likely by it."""


def latent_nodes(coherence: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The values of z, standard deviation `coherence`, and the logarithms of their weights: (J,) float32 each.

    Without coherence there is one value, 0.
    """
    if not coherence:
        return torch.zeros(1, device=device), torch.zeros(1, device=device)
    places, weights = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights = np.log(weights / weights.sum())
    return (
        torch.tensor(coherence * places, dtype=torch.float32, device=device),
        torch.tensor(log_weights, dtype=torch.float32, device=device),
    )


def tilts(log_distribution: Tensor, centres: Tensor) -> Tensor:
    """(..., B) log-probabilities and (B,) bin centres -> (..., B) float32, (c_b - m) / s; s is half a bin at least."""
    distribution = log_distribution.exp()
    mean = (distribution * centres).sum(-1, keepdim=True)
    variance = (distribution * (centres - mean) ** 2).sum(-1, keepdim=True)
    floor = (centres[1] - centres[0]) / 2
    return ((centres - mean) / variance.clamp(min=float(floor) ** 2).sqrt()).clamp(-REACH, REACH)


def tilted(log_distribution: Tensor, centres: Tensor, z: Tensor) -> Tensor:
    """The distributions under given latent numbers.

    Args:
        log_distribution: (N, K, A, B) log-probabilities.
        centres: (B,) what each bin means.
        z: (N, A).

    Returns:
        (N, K, A, B) log-probabilities.
    """
    return torch.log_softmax(log_distribution + z[:, None, :, None] * tilts(log_distribution, centres), dim=-1)


def coherent_log_probs(log_distribution: Tensor, centres: Tensor, tokens: Tensor, coherence: float) -> Tensor:
    """Log-probability of each token given those before it in its chunk and dimension, z summed over.

    Args:
        log_distribution: (N, K, A, B) log-probabilities.
        centres: (B,) what each bin means.
        tokens: (N, K, A) int64.
        coherence: Standard deviation of z, above 0.

    Returns:
        (N, K, A) float32; its sum over K is the logarithm of the probability of a dimension's tokens of the chunk.
    """
    nodes, log_weights = latent_nodes(coherence, log_distribution.device)
    tilt = tilts(log_distribution, centres)  # (N, K, A, B)
    every = log_distribution[..., None, :] + nodes[:, None] * tilt[..., None, :]  # (N, K, A, J, B)
    picked = log_distribution.gather(-1, tokens[..., None]) + nodes * tilt.gather(-1, tokens[..., None])
    under = picked - every.logsumexp(-1)  # (N, K, A, J)
    so_far = (log_weights + under.cumsum(dim=1)).logsumexp(-1)  # (N, K, A)
    return torch.diff(so_far, dim=1, prepend=torch.zeros_like(so_far[:, :1]))
