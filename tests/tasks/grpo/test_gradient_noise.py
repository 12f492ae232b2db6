"""Gradients of groups against one backward pass of the whole objective, and their running sums against all at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.policies.small import SENTENCES, observe, small_policy
from wovr.envs.continuations import Beginning
from wovr.errors import UserError
from wovr.functional.gradient_noise import noise_scale
from wovr.models.policies.base import Policy
from wovr.tasks.grpo import gradient_noise
from wovr.tasks.grpo.gradient_noise import GradientSums, group_gradients
from wovr.types import Observation, StartState

TEMPERATURE = 1.4


def make_beginning(policy: Policy, number: int, length: int) -> Beginning:
    """A rollout of pictures of noise; its tokens are drawn at random."""
    chunks = -(-length // policy.chunk)
    rng = np.random.default_rng(number)
    return Beginning(
        start=StartState("spatial", number % 3),
        instruction=SENTENCES[number % 3],
        images=np.asarray(observe(chunks, (16, 16), number).image),
        actions=np.zeros((length, 2), np.float32),
        tokens=rng.integers(0, policy.bins, (length, 2)),
        success=np.zeros(length, bool),
        ended=False,
        states={},
        clips={},
    )


def objective(policy: Policy, rows: list[Beginning], advantage: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """The definition, a step at a time."""
    total = torch.zeros(())
    for row, gain, length in zip(rows, advantage, lengths, strict=True):
        for step in range(length):
            seen = Observation(row.images[step // policy.chunk][None], [row.instruction])
            distribution = policy(seen.image, seen.instruction, TEMPERATURE)[0, step % policy.chunk]  # (A, bins)
            assert row.tokens is not None
            total = total + gain * distribution[range(2), row.tokens[step]].mean()
    return total / len(rows)


def test_a_gradient_is_that_of_the_groups_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_noise, "_MICRO_BATCH", 4)
    policy = small_policy()
    frozen = next(policy.parameters()).requires_grad_(False)
    lengths = np.array([[4, 7, 1], [3, 3, 3], [6, 2, 7]])
    returns = np.array([[1.0, 0.0, 0.5], [0.5, 0.5, 0.5], [0.0, 0.1, 0.0]])
    beginnings = [make_beginning(policy, number, 7) for number in range(9)]
    done = []
    found = dict(group_gradients(policy, beginnings, returns, lengths, TEMPERATURE, lambda: done.append(0)))
    assert list(found) == [0, 2]  # all returns of the second are equal
    assert len(done) == 3
    assert all(weight.grad is None for weight in policy.parameters())
    trained = [weight for weight in policy.parameters() if weight is not frozen]
    for group, gradient in found.items():
        rows = beginnings[3 * group : 3 * group + 3]
        advantage = returns[group] - returns[group].mean()
        parts = torch.autograd.grad(
            objective(policy, rows, advantage, lengths[group]), trained, allow_unused=True, materialize_grads=True
        )
        expected = torch.cat([part.flatten() for part in parts])
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 1e-3


def test_of_chunk_sums_it_is_the_gradient_of_their_log_probability() -> None:
    policy = small_policy()
    beginnings = [make_beginning(policy, number, 5) for number in range(2)]  # a chunk is 3 steps: two in the second
    returns, lengths = np.array([[0.0, 1.0]]), np.array([[5, 5]])
    arguments = (policy, beginnings, returns, lengths, TEMPERATURE)
    [(_, found)] = group_gradients(*arguments, coherence=0.4, ratio="chunk")
    total = torch.zeros(())
    for one, gain in zip(beginnings, (-0.25, 0.25), strict=True):
        tokens = np.concatenate([one.tokens, one.tokens[:1]]).reshape(2, 3, -1)
        for chunk, steps in enumerate((3, 2)):
            summed = torch.arange(3)[None] < steps
            seen = Observation(one.images[chunk : chunk + 1], [one.instruction])
            said = policy.log_prob(
                seen, tokens[chunk : chunk + 1], temperature=TEMPERATURE, coherence=0.4, summed=summed
            )
            total = total + gain * steps * said.log_probs[0, 0].mean()
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    parts = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(found, torch.cat([part.flatten() for part in parts]), rtol=1e-3, atol=1e-5)
    [(_, of_tokens)] = group_gradients(*arguments, coherence=0.4)
    assert not torch.allclose(found, of_tokens, rtol=0.1)


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    policy = small_policy()
    beginnings = [make_beginning(policy, number, 3) for number in range(2)]
    with torch.no_grad():
        list(policy.parameters())[-1].fill_(torch.nan)
    with pytest.raises(UserError, match="gradient is not finite"):
        list(group_gradients(policy, beginnings, np.array([[0.0, 1.0]]), np.array([[3, 3]]), 1.0))


@pytest.mark.parametrize("groups", [2, 7, 40])
def test_running_sums_are_those_of_all_gradients(groups: int) -> None:
    gradients = 0.5 + np.random.default_rng(groups).standard_normal((groups, 6)).astype(np.float32)
    gradients[1] = 0  # not counted in
    sums = GradientSums(groups)
    for group in range(groups):
        if group != 1:
            sums.add(group, torch.from_numpy(gradients[group]))
    assert len(sums.sizes) == min(groups, 16)
    assert sums.sizes.sum() == groups
    found, expected = sums.scale(), noise_scale(gradients @ gradients.T, (gradients**2).sum(1), np.ones(groups))
    assert (found.signal, found.noise) == pytest.approx((expected.signal, expected.noise), rel=1e-5, abs=1e-5)
    interval = sums.interval()
    assert interval == sums.interval()
    assert interval.low <= interval.high


def test_nothing_counted_in() -> None:
    found = GradientSums(3).scale()
    assert (found.signal, found.noise, found.scale) == (0, 0, None)
