"""How likely the sum of a chunk's tokens was: what a chunk did as a whole, whichever way it went about it.

A chunk's K tokens of one action dimension are K numbers of which the outcome feels little more than their sum, which is
where the chunk led. What else they are is noise in a policy's gradient. The probability of the sum is the convolution
of the tokens' distributions, with a latent number that they share (`wovr.functional.coherent`) a mixture of such:

    P(s) = sum_j w_j (p_1(. | x_j) * ... * p_K(. | x_j))(s),    s = b_1 + ... + b_K.

Its score is E[sum_k grad log p_k(b_k) | s], the tokens' score averaged over all ways to the same sum. So of a return
that depends on sums alone the expected gradient is the tokens' own, and its variance is less (Rao-Blackwell).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wovr.functional.coherent import latent_nodes, tilts

FLOOR = 1e-7
"""Added to a probability before its logarithm: below it a sum of float32 products says nothing."""


def sum_log_probs(
    log_distribution: Tensor, centres: Tensor, tokens: Tensor, executed: Tensor, coherence: float = 0.0
) -> Tensor:
    """Log-probability of the sum of a chunk's tokens in each dimension, by the discrete Fourier transform.

    Args:
        log_distribution: (N, K, A, B) float32, log-probabilities of the tokens.
        centres: (B,) float32, what each token means, evenly spaced.
        tokens: (N, K, A) int64 in [0, B).
        executed: (N, K) bool; other steps are no part of the sum.
        coherence: See `wovr.functional.coherent.latent_nodes`.

    Returns:
        (N, A) float32.
    """
    steps, bins = log_distribution.shape[1], log_distribution.shape[-1]
    size = _fast_length(steps * (bins - 1) + 1)
    nodes, log_weights = latent_nodes(coherence, log_distribution.device)
    tilt = tilts(log_distribution, centres) if coherence else None
    product: Tensor | None = None
    for step in range(steps):
        under = log_distribution[:, step, :, None]  # (N, A, 1, B)
        if tilt is not None:
            under = torch.log_softmax(under + nodes[:, None] * tilt[:, step, :, None], dim=-1)  # (N, A, J, B)
        spectrum = torch.fft.rfft(under.exp(), size)  # (N, A, J, F)
        spectrum = torch.where(executed[:, step, None, None, None], spectrum, torch.ones_like(spectrum[:1]))
        product = spectrum if product is None else product * spectrum
    assert product is not None
    mixture = (product * log_weights.exp()[:, None]).sum(-2)  # (N, A, F)
    # The inverse transform is needed at one place only.
    total = (tokens * executed[..., None]).sum(dim=1)  # (N, A)
    frequency = torch.arange(mixture.shape[-1], device=total.device)
    angle = (total[..., None] * frequency % size).float() * (2 * math.pi / size)  # (N, A, F)
    weight = torch.where((frequency == 0) | (2 * frequency == size), 1.0, 2.0) / size
    probability = (weight * (mixture.real * angle.cos() - mixture.imag * angle.sin())).sum(-1)  # (N, A)
    return (probability.clamp(min=0) + FLOOR).log()


def _fast_length(least: int) -> int:
    """The least number, from `least` on, without a prime factor above 5: what fast Fourier transforms are fast for."""
    for number in range(least, 2 * least + 1):  # there is a power of two among them
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
    raise AssertionError(least)
