"""Eq. 9 to 11 against a loop over groups, rollouts, steps and tokens that knows nothing of tensors' tricks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wovr.functional.grpo import (
    chunk_advantages,
    clipped_loss,
    executed_steps,
    group_advantages,
    k3,
    returns,
    step_weights,
    valid_steps,
)

GROUPS, SIZE, STEPS, TOKENS = 5, 4, 12, 3
LOW, HIGH, DISCOUNT = 0.2, 0.28, 0.97


class Case:
    """Random rollouts: group 0 all fail, group 1 all succeed, the others as it comes; successes at both ends too."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = GROUPS * SIZE
        self.length = torch.randint(1, STEPS + 1, (count,), generator=generator)
        self.success = torch.rand(count, STEPS, generator=generator) < 0.1
        self.success[:SIZE] = False
        self.success[torch.arange(SIZE, 2 * SIZE), self.length[SIZE : 2 * SIZE] - 1] = True  # at the last frame
        self.success[2 * SIZE, 0] = True  # at the first frame
        self.success[3 * SIZE] = False
        self.log_prob = -3 * torch.rand(count, STEPS, TOKENS, generator=generator, dtype=torch.float64)
        self.old = self.log_prob + 0.3 * torch.randn(count, STEPS, TOKENS, generator=generator, dtype=torch.float64)

    def loss(self, log_prob: Tensor, scale: str = "none", mask: str = "success", normalise: bool = True) -> Tensor:
        valid = valid_steps(self.success, self.length)
        gained = returns(5.0 * self.success.float(), valid, DISCOUNT)
        advantage = group_advantages(gained.view(GROUPS, SIZE), scale).advantage.flatten()
        steps = valid if mask == "success" else executed_steps(self.length, STEPS)
        count = len(steps) if normalise else int(steps.sum())
        weight = step_weights(steps, count, normalise)
        return clipped_loss(log_prob, self.old, advantage[:, None], weight, LOW, HIGH).loss


def reference(case: Case, log_prob: Tensor, scale: str, mask: str, normalise: bool) -> Tensor:
    """-J of Eq. 11, loop by loop."""
    rollouts = []  # (valid steps, advantage) of each
    for group in range(GROUPS):
        members = range(group * SIZE, (group + 1) * SIZE)
        gained, steps = [], []
        for i in members:
            length, total, first = int(case.length[i]), 0.0, None
            for t in range(length):
                if bool(case.success[i, t]) and first is None:
                    first, total = t, 5.0 * DISCOUNT**t
            gained.append(total)
            steps.append(length if first is None or mask == "none" else first + 1)
        mean = sum(gained) / SIZE
        std = math.sqrt(sum((g - mean) ** 2 for g in gained) / (SIZE - 1)) + 1e-6
        rollouts += [(n, (g - mean) / (std if scale == "std" else 1.0)) for n, g in zip(steps, gained, strict=True)]
    objective = torch.zeros((), dtype=torch.float64)
    everything = sum(n for n, _ in rollouts)
    for i, (valid, advantage) in enumerate(rollouts):
        inner = torch.zeros((), dtype=torch.float64)
        for t in range(valid):
            for a in range(TOKENS):
                ratio = torch.exp(log_prob[i, t, a] - case.old[i, t, a])
                clipped = min(max(float(ratio.detach()), 1 - LOW), 1 + HIGH)
                free, bound = ratio * advantage, torch.tensor(clipped * advantage, dtype=torch.float64)
                inner = inner + (free if float(free.detach()) <= float(bound) else bound) / TOKENS
        objective = objective + inner / (valid * GROUPS * SIZE if normalise else everything)
    return -objective


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scale", "mask", "normalise"),
    [("none", "success", True), ("std", "success", True), ("none", "none", True), ("none", "success", False)],
)
def test_the_loss_is_that_of_the_equations(seed: int, scale: str, mask: str, normalise: bool) -> None:
    case = Case(seed)
    ours, theirs = (case.log_prob.clone().requires_grad_() for _ in range(2))
    loss, expected = case.loss(ours, scale, mask, normalise), reference(case, theirs, scale, mask, normalise)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_valid_steps_end_with_the_first_success() -> None:
    success = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]).bool()
    mask = valid_steps(success, torch.tensor([4, 4, 4, 3, 2]))
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]


def test_what_stands_at_masked_steps_changes_nothing() -> None:
    case = Case(0)
    masked = ~valid_steps(case.success, case.length)
    before = case.log_prob.clone().requires_grad_()
    case.loss(before).backward()
    assert before.grad is not None
    assert (before.grad[masked] == 0).all()
    case.old[masked] = float("nan")
    spoilt = case.log_prob.clone()
    spoilt[masked] = float("inf")
    spoilt.requires_grad_()
    case.loss(spoilt).backward()
    assert torch.equal(spoilt.grad, before.grad)


def test_equal_returns_give_no_signal() -> None:
    found = group_advantages(torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 0.0], [5.0, 5.0, 5.0]]), "std")
    assert found.without_signal.tolist() == [True, False, True]
    assert (found.advantage[[0, 2]] == 0).all()
    assert found.advantage[1].mean().abs() < 1e-6


@pytest.mark.parametrize("values", [[0.5, 0.5000001, 0.4999999], [0.7, 0.7001, 0.6999], [0.0, 1e-7, 0.0]])
def test_returns_that_differ_by_a_hair_are_not_blown_up(values: list[float]) -> None:
    found = group_advantages(torch.tensor([values]), "std")
    assert found.advantage.abs().max() < 0.2


def test_parts_add_up_to_the_whole() -> None:
    case = Case(1)
    valid = valid_steps(case.success, case.length)
    advantage = group_advantages(returns(case.success.float(), valid, 1.0).view(GROUPS, SIZE)).advantage.flatten()
    weight = step_weights(valid, len(valid))
    gradients = []
    for cuts in ([slice(None)], [slice(0, 3), slice(3, 11), slice(11, None)]):
        log_prob = case.log_prob.clone().requires_grad_()
        for cut in cuts:
            clipped_loss(log_prob[cut], case.old[cut], advantage[cut, None], weight[cut], LOW, HIGH).loss.backward()
        gradients.append(log_prob.grad)
    torch.testing.assert_close(*gradients)


def test_statistics() -> None:
    log_prob = torch.tensor([[0.0, 0.0], [math.log(1.5), 0.0], [math.log(0.5), math.log(3.0)]])
    weight = torch.tensor([1.0, 1.0, 0.0])
    found = clipped_loss(log_prob, torch.zeros(3, 2), torch.ones(3), weight, LOW, HIGH)
    assert float(found.weight) == 2
    assert float(found.clip_fraction) == pytest.approx(0.5)
    assert float(found.approx_kl) == pytest.approx((1.5 - 1 - math.log(1.5)) / 2)
    assert bool(found.finite)
    assert not clipped_loss(log_prob + torch.inf, torch.zeros(3, 2), torch.ones(3), weight).finite


def test_the_dual_clip_bounds_what_a_rare_token_can_lose() -> None:
    ratio = torch.tensor([0.5, 1.0, 2.9, 3.1, 40.0])
    for advantage in (-2.0, 2.0):
        log_prob = ratio.log()[:, None].requires_grad_()
        given = torch.zeros(5, 1), torch.full((5,), advantage), torch.ones(5), LOW, HIGH
        found = clipped_loss(log_prob, *given, dual_clip=3.0)
        single = clipped_loss(log_prob, *given)
        expected = [
            -(
                max(min(r * advantage, min(max(r, 1 - LOW), 1 + HIGH) * advantage), 3 * advantage)
                if advantage < 0
                else min(r * advantage, min(max(r, 1 - LOW), 1 + HIGH) * advantage)
            )
            for r in ratio.tolist()
        ]
        assert float(found.loss) == pytest.approx(sum(expected), rel=1e-5)
        (gradient,) = torch.autograd.grad(found.loss, log_prob)
        assert (gradient[3:] == 0).all()  # above the bound, nothing more to lose or to gain
        assert (float(single.loss) > float(found.loss)) == (advantage < 0)


def test_k3_estimates_the_divergence() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.5, 0.3, 0.2]).log()
    exact = (p.exp() * (p - q)).sum()
    assert float((p.exp() * k3(q - p)).sum()) == pytest.approx(float(exact), rel=1e-5)
    assert (k3(torch.randn(50)) >= 0).all()


def test_the_watched_divergence_is_that_of_the_policy_that_acted_from_the_new_one() -> None:
    """Weighted by how often the old policy draws each token, and with one that has become a thousand times rarer."""
    old, new = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.75, 0.2499, 0.0001])
    exact = (old * (old / new).log()).sum()
    found = clipped_loss(new.log()[:, None], old.log()[:, None], torch.ones(3), old)
    assert float(found.approx_kl) == pytest.approx(float(exact), rel=1e-5)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(torch.zeros(3, 1))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_advantages_of_chunks_are_sums_of_what_the_value_function_changes_its_mind_by(gae_lambda: float) -> None:
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(6, 4, generator=generator)
    found = chunk_advantages(worth, 3, gae_lambda)
    before = torch.zeros(6)
    change = []
    for chunk in range(4):
        change.append(worth[:, chunk] - before)
        before = worth[:, chunk]
    for chunk in range(4):
        expected = sum(gae_lambda ** (later - chunk) * change[later] for later in range(chunk, 4))
        if chunk == 0:
            expected = expected - expected.view(2, 3).mean(1, keepdim=True).expand(-1, 3).reshape(-1)
        torch.testing.assert_close(found[:, chunk], expected)


def test_of_one_chunk_the_advantage_is_the_groups() -> None:
    gained = torch.tensor([1.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    expected = group_advantages(gained.view(2, 3)).advantage.flatten()
    assert torch.equal(chunk_advantages(gained[:, None], 3, 0.7)[:, 0], expected)
    assert not chunk_advantages(gained[:, None], 3, 0.7)[3:].any()


@pytest.mark.parametrize("scale", ["none", "std"])
def test_weights_of_nothing_leave_a_rollout_out_of_its_group(scale: str) -> None:
    returns_ = torch.tensor([[1.0, 0.0, 0.3, 9.0], [0.2, 7.0, 0.2, -7.0], [1.0, 2.0, 3.0, 4.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    found = group_advantages(returns_, scale, weight)
    assert found.without_signal.tolist() == [False, True, True]
    alone = group_advantages(returns_[:1, :3], scale).advantage[0]
    torch.testing.assert_close(found.advantage[0], torch.cat([alone, torch.zeros(1)]))
    assert not found.advantage[1:].any()
    none = group_advantages(returns_, scale, torch.zeros(3, 4))
    assert none.without_signal.all()
    assert not none.advantage.any()


def test_a_rollout_counts_as_much_as_its_weight_says() -> None:
    returns_, weight = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[0.2, 1.0, 0.4]])
    mean = (0.2 * 1.0 + 0.4 * 0.5) / 1.6
    expected = [0.2 * (1.0 - mean), 1.0 * (0.0 - mean), 0.4 * (0.5 - mean)]
    assert group_advantages(returns_, weight=weight).advantage[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert sum(expected) == pytest.approx(0)
    for scale in ("none", "std"):
        plain = group_advantages(returns_, scale).advantage
        torch.testing.assert_close(group_advantages(returns_, scale, torch.ones(1, 3)).advantage, plain)
    worth = torch.tensor([[0.3, 1.0], [0.1, 0.0], [0.2, 0.5]])
    found = chunk_advantages(worth, 3, 0.5, weight[0])
    change = [(0.3, 0.7), (0.1, -0.1), (0.2, 0.3)]
    first = [a + 0.5 * b for a, b in change]
    middle = sum(w * f for w, f in zip(weight[0].tolist(), first, strict=True)) / 1.6
    for row, (w, f, (_, later)) in enumerate(zip(weight[0].tolist(), first, change, strict=True)):
        assert found[row].tolist() == pytest.approx([w * (f - middle), w * later], abs=1e-6)
