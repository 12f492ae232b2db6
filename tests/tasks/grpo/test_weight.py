"""Rollouts that were taken back, or that count less: advantages, masks and the divisor of Eq. 11, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.policies.small import small_policy
from tests.tasks.grpo.batches import CHUNK, made_up_batch, trajectory
from tests.tasks.grpo.test_training import Batches, fit
from wovr.envs.grpo_rollouts import RolloutBatch, Trajectory
from wovr.errors import UserError
from wovr.tasks.grpo.training import GRPOTraining


def nothing(made: Trajectory) -> Trajectory:
    """The same, its first chunk taken back."""
    arrays = {name: getattr(made, name)[:0] for name in ("images", "tokens", "log_probs", "success")}
    return replace(made, **arrays, length=0, taken_back=True, weight=0.0)


def group() -> RolloutBatch:
    """Success; failure; cut with a value after a chunk; nothing at all."""
    policy = small_policy()
    assert policy.chunk == CHUNK
    succeeded, failed = trajectory(policy, 0, [4], 5), trajectory(policy, 1, [], 8)
    cut = replace(trajectory(policy, 2, [], 3), value=0.25, taken_back=True, trust=0.8)
    return RolloutBatch(0, [succeeded, failed, cut, nothing(trajectory(policy, 3, [], 6))], 4, False, 4, 0.0)


def test_what_was_taken_back_has_no_step_and_no_part_in_the_mean() -> None:
    policy = small_policy()
    task = GRPOTraining(policy, reward_coefficient=2.0)
    update = task.prepare(group())
    gained = [2.0, 0.0, 0.5]
    mean = sum(gained) / 3
    assert update.advantage[:, 0].tolist() == pytest.approx([*(one - mean for one in gained), 0.0])
    assert update.mask.sum(dim=1).tolist() == [5, 8, 3, 0]
    assert not update.mask[2, 3:].any()
    assert update.used.tolist() == [0, 1, 2]
    totals = update.totals
    assert (totals["kept"], totals["kept_steps"], totals["used"], totals["known"]) == (3, 16, 3, 3)
    assert (totals["taken_back"], totals["trusted"], totals["trust"]) == (2, 1, 0.8)
    assert totals["successes"] == pytest.approx(1.25)
    places = [place for part in task.samples(update, range(4), update.mask.float()) for place in part.places]
    assert sorted(places) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]
    # A process whose share of a step is empty computes a chunk without weight: of one that has a chunk.
    (stand_in,) = task.samples(replace(update, trajectories=update.trajectories[::-1]), [], update.mask.float())
    assert stand_in.places == [(1, 0)]
    assert not stand_in.weight.any()


def test_the_filter_looks_at_what_is_known() -> None:
    for bounds, kept in (((0.4, 0.45), True), ((0.0, 0.4), False)):  # 1.25 of 3, and not of 4
        update = GRPOTraining(small_policy(), success_filter=bounds).prepare(group())
        assert bool(update.mask.any()) == kept
        assert update.totals["kept"] == (3 if kept else 0)


def test_weights_of_one_change_nothing() -> None:
    batch = made_up_batch(["mixed", "fail"])
    plain = GRPOTraining(small_policy()).prepare(batch)
    for one in batch.trajectories:
        one.trust = 0.5
    again = GRPOTraining(small_policy()).prepare(batch)
    assert torch.equal(plain.advantage, again.advantage)
    assert torch.equal(plain.mask, again.mask)


def test_advantages_of_chunks_too() -> None:
    batch = group()
    for one in batch.trajectories:
        one.foreseen = np.full(max(0, len(one.images) - 1), 0.5, np.float32)
    update = GRPOTraining(small_policy(), gae_lambda=0.5).prepare(batch)
    assert update.advantage.shape == (4, 3)
    assert not update.advantage[3].any()
    # After its one chunk the cut rollout is worth its value, from then on nothing changes.
    first = [0.5 + 0.5 * 0.5, 0.5 + 0.5 * (0.0 + 0.5 * -0.5), 0.25]
    mean = sum(first) / 3
    assert update.advantage[:3, 0].tolist() == pytest.approx([one - mean for one in first])
    assert update.advantage[2, 1:].tolist() == [0.0, 0.0]


def test_it_trains_on_what_is_left_and_says_so() -> None:
    task = GRPOTraining(small_policy(), lr=0.01)
    before = [p.detach().clone() for p in task.policy.parameters()]
    fit(task, Batches([group()]))
    assert any(not torch.equal(one, other) for one, other in zip(before, task.policy.parameters(), strict=True))
    assert task.metrics["rollouts_taken_back"] == 0.5
    assert task.metrics["trust"] == pytest.approx(0.8)
    assert task.metrics["success_rate_imagined"] == pytest.approx(1.25 / 3)
    plain = GRPOTraining(small_policy(), lr=0.01)
    fit(plain, Batches([made_up_batch(["mixed"])]))
    assert "trust" not in plain.metrics


def test_where_nothing_is_left_it_is_said() -> None:
    batch = group()
    batch.trajectories = [nothing(one) for one in batch.trajectories]
    with pytest.raises(UserError, match="update 0: not one of 4 rollouts has a chunk that is trusted"):
        GRPOTraining(small_policy()).prepare(batch)
