from __future__ import annotations

from itertools import product

import pytest
import torch

from wovr.functional.coherent import coherent_log_probs, latent_nodes, tilted


def distribution(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.log_softmax(2 * torch.randn(shape, generator=generator), dim=-1)


def test_latent_numbers_have_mean_zero_and_the_deviation_asked_for() -> None:
    nodes, log_weights = latent_nodes(0.7, torch.device("cpu"))
    weights = log_weights.exp()
    assert weights.sum() == pytest.approx(1)
    assert (weights * nodes).sum() == pytest.approx(0, abs=1e-6)
    assert (weights * nodes**2).sum() == pytest.approx(0.49, rel=1e-5)
    assert [part.tolist() for part in latent_nodes(0, torch.device("cpu"))] == [[0.0], [0.0]]


def test_probabilities_of_all_chunks_add_up_to_one_and_are_those_of_the_mixture() -> None:
    log_distribution, centres = distribution(1, 3, 1, 4), torch.linspace(-1, 1, 4)
    chunks = torch.tensor(list(product(range(4), repeat=3)))  # all 64
    found = coherent_log_probs(log_distribution.expand(64, -1, -1, -1), centres, chunks[..., None], 0.8)
    found = found.sum(dim=1).exp()[:, 0]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    expected = torch.zeros(64)
    for node, log_weight in zip(*latent_nodes(0.8, torch.device("cpu")), strict=True):
        under = tilted(log_distribution, centres, node.expand(1, 1)).exp()[0, :, 0]  # (3, 4)
        expected += log_weight.exp() * torch.stack([under[k, chunks[:, k]] for k in range(3)]).prod(dim=0)
    torch.testing.assert_close(found, expected)


def test_a_tilt_moves_the_mean_by_standard_deviations_and_leaves_a_far_peak_alone() -> None:
    centres = torch.linspace(-1, 1, 33)
    bell = torch.log_softmax(-((centres - 0.1) ** 2) / (2 * 0.15**2), dim=-1)[None, None, None]  # (1, 1, 1, 33)
    moved = tilted(bell, centres, torch.full((1, 1), 0.5)).exp()
    assert (moved * centres).sum() == pytest.approx(0.1 + 0.5 * 0.15, abs=0.01)
    command = torch.full((33,), -20.0)  # a gripper that is to close, and hardly ever to open
    command[0], command[32] = 0.0, -5.0
    for z in (-1.5, 1.5):
        shares = tilted(torch.log_softmax(command, dim=-1)[None, None, None], centres, torch.full((1, 1), z)).exp()
        assert shares[0, 0, 0, 32] < 0.15


def test_without_a_tilt_nothing_changes() -> None:
    log_distribution = distribution(2, 3, 2, 5)
    torch.testing.assert_close(tilted(log_distribution, torch.linspace(-1, 1, 5), torch.zeros(2, 2)), log_distribution)
