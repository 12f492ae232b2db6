"""Advantages of chunks: from the rollouts that a value function has looked at to what is learned from."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from tests.envs.test_cut_simulators import Bright
from tests.envs.test_rollout import POINT, make_policy
from tests.models.policies.small import small_policy
from tests.tasks.grpo.batches import made_up_batch
from tests.tasks.grpo.test_training import Batches, fit
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.cut_simulators import CutSimulators
from wovr.envs.grpo_rollouts import PlannedStarts, RolloutCollector
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.functional.grpo import chunk_advantages
from wovr.tasks.grpo.training import GRPOTraining


def test_a_trajectory_holds_what_was_foreseen_at_the_end_of_each_chunk() -> None:
    value, policy = Bright(), make_policy()
    with closing(CutSimulators(WorkerVectorEnv(POINT, 8, 1, {"size": 16, "wind": 0.6}), value, None)) as env:
        plan = PlannedStarts(env.suites["spatial"][:2], ":", 4, 0)
        batch = RolloutCollector(env, PolicyActor(policy, "p"), plan, 4, 4, 1, 0).collect(0)
    assert {one.length for one in batch.trajectories} != {24}, "one ends before its horizon"
    for one in batch.trajectories:
        assert one.foreseen is not None
        assert len(one.foreseen) == len(one.images) - 1
        assert one.value == 0, "nothing was cut"
        # The value is that of the last three frames; the policy saw the last of them.
        np.testing.assert_allclose(one.foreseen, one.images[1:].mean((1, 2, 3)) / 255, atol=0.01)
    task = GRPOTraining(policy, gae_lambda=0.8, reward_coefficient=2.0, discount=0.99)
    update = task.prepare(batch)
    worth = torch.zeros(16, update.advantage.shape[1])
    for row, one in enumerate(batch.trajectories):
        gained = 2 * 0.99 ** int(one.success.argmax()) if one.succeeded else 0.0
        values = [2 * 0.99 ** (8 * (chunk + 1)) * float(seen) for chunk, seen in enumerate(one.foreseen)]
        worth[row] = torch.tensor([*values, *[gained] * (worth.shape[1] - len(values))])
    torch.testing.assert_close(update.advantage, chunk_advantages(worth, 4, 0.8))
    assert update.totals["groups_without_signal"] == 0
    assert len(update.used) == 16
    for samples in task.samples(update, [0], torch.ones_like(update.mask, dtype=torch.float32)):
        expected = update.advantage[0, [chunk for _, chunk in samples.places]]
        assert torch.equal(samples.advantage, expected)


def test_what_follows_success_is_no_news() -> None:
    batch = made_up_batch(["mixed"])
    for one in batch.trajectories:
        one.foreseen = np.full(len(one.images) - 1, 0.5, np.float32)
    policy = small_policy()
    late = GRPOTraining(policy, gae_lambda=0.5, mask="none").prepare(batch).advantage
    for row, one in enumerate(batch.trajectories):
        if one.succeeded:
            first = int(one.success.argmax()) // policy.chunk
            assert not late[row, first + 1 :].any()


def test_chunks_that_changed_nothing_have_no_gradient_and_others_teach() -> None:
    policy = small_policy()
    batch = made_up_batch(["mixed", "mixed"], policy=policy)
    for one in batch.trajectories:
        one.foreseen = np.full(len(one.images) - 1, float(one.succeeded), np.float32)  # all is decided at once
    task = GRPOTraining(policy, gae_lambda=0.0, lr=3e-3, warmup_steps=0, epochs=4)
    update = task.prepare(batch)
    assert (update.advantage[:, 0].abs() == 0.5).all()
    assert not update.advantage[:, 1:].any()
    fit(task, Batches([batch]))
    assert task.metrics["approx_kl"] > 0


def test_without_a_value_function_there_is_no_credit() -> None:
    with pytest.raises(UserError, match=r"model\.gae_lambda without --value; give a value function"):
        GRPOTraining(small_policy(), gae_lambda=0.5).prepare(made_up_batch(["mixed"]))
