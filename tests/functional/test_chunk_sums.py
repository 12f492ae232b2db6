from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from wovr.functional.chunk_sums import sum_log_probs
from wovr.functional.coherent import latent_nodes, tilted


def example(bins: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    log_distribution = torch.log_softmax(2 * torch.randn(2, 3, 2, bins, generator=generator), dim=-1)
    tokens = torch.randint(0, bins, (2, 3, 2), generator=generator)
    return log_distribution, torch.linspace(-1, 1, bins), tokens, torch.tensor([[True] * 3, [True, True, False]])


def by_convolution(distribution: torch.Tensor, tokens: torch.Tensor, executed: torch.Tensor) -> torch.Tensor:
    """(N, A) probabilities of sums, one convolution after the other."""
    found = torch.zeros(len(tokens), tokens.shape[2], dtype=torch.float64)
    for n, a in product(range(len(tokens)), range(tokens.shape[2])):
        share, total = np.ones(1), 0
        for k in np.flatnonzero(executed[n].numpy()):
            share, total = np.convolve(share, distribution[n, k, a].double().numpy()), total + int(tokens[n, k, a])
        found[n, a] = share[total]
    return found


@pytest.mark.parametrize("coherence", [0.0, 0.7])
def test_probability_is_that_of_convolving(coherence: float) -> None:
    log_distribution, centres, tokens, executed = example()
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for node, log_weight in zip(*latent_nodes(coherence, torch.device("cpu")), strict=True):
        under = tilted(log_distribution, centres, node.expand(2, 2)).exp()
        expected += log_weight.exp() * by_convolution(under, tokens, executed)
    found = sum_log_probs(log_distribution, centres, tokens, executed, coherence)
    torch.testing.assert_close(found.exp().double(), expected, rtol=1e-4, atol=2e-7)


def test_gradient_is_the_tokens_own_averaged_over_all_ways_to_the_same_sum() -> None:
    log_distribution, centres, _, _ = example(bins=3)
    logits = log_distribution[:1, :, :1].clone().requires_grad_()  # one chunk of three tokens, one dimension
    chunks = torch.tensor(list(product(range(3), repeat=3)))  # (27, 3)
    log_p = torch.log_softmax(logits, dim=-1)[0, :, 0]  # (3, 3)
    picked = log_p[torch.arange(3), chunks].sum(dim=1)  # (27,)
    ways = (chunks.sum(dim=1) == 3).float() * picked.detach().exp()
    expected = torch.autograd.grad((ways / ways.sum() * picked).sum(), logits, retain_graph=True)[0]
    one_way = chunks[chunks.sum(dim=1) == 3][:1]
    of_sum = sum_log_probs(torch.log_softmax(logits, dim=-1), centres, one_way[..., None], torch.ones(1, 3).bool())
    torch.testing.assert_close(torch.autograd.grad(of_sum.sum(), logits)[0], expected, rtol=1e-4, atol=1e-5)


def test_steps_that_were_not_executed_change_nothing() -> None:
    log_distribution, centres, tokens, executed = example()
    other = tokens.clone()
    other[1, 2] = 4 - other[1, 2]
    for coherence in (0.0, 0.7):
        found = sum_log_probs(log_distribution, centres, tokens, executed, coherence)
        assert torch.equal(found, sum_log_probs(log_distribution, centres, other, executed, coherence))


def test_what_is_all_but_impossible_has_a_finite_logarithm_and_gradient() -> None:
    logits = torch.full((1, 8, 1, 33), -40.0)
    logits[..., 0] = 0.0
    logits.requires_grad_()
    tokens = torch.full((1, 8, 1), 32)
    found = sum_log_probs(
        torch.log_softmax(logits, dim=-1), torch.linspace(-1, 1, 33), tokens, torch.ones(1, 8).bool(), 0.5
    )
    found.sum().backward()
    assert -17 < float(found) < -12
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
