"""The ratio of GRPO where a chunk's tokens are drawn alike, and where they are taken together."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from tests.envs.test_rollout import POINT, make_policy
from tests.models.policies.small import small_policy
from tests.tasks.grpo.batches import made_up_batch
from tests.tasks.grpo.test_training import Batches, fit
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import PlannedStarts, RolloutBatch, RolloutCollector
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.functional.grpo import step_weights
from wovr.models.policies.base import Policy
from wovr.tasks.grpo.training import GRPOTraining
from wovr.tasks.grpo.update import recompute_log_probs
from wovr.types import Observation

RECIPES: list[dict[str, Any]] = [
    {"coherence": 0.5},
    {"ratio": "chunk"},
    {"ratio": "chunk", "coherence": 0.5},
    {"ratio": "chunk", "first_steps": 5},
]


def collect(policy: Policy, coherence: float, workers: int = 1) -> RolloutBatch:
    env = WorkerVectorEnv(POINT, 11, workers, {"size": 16, "wind": 0.6})
    plan = PlannedStarts(env.suites["spatial"], ":", 4, 0)
    batch = RolloutCollector(env, PolicyActor(policy, "p", 1.3, coherence), plan, 4, 4, 1, 0).collect(0)
    env.close()
    return batch


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_ratio_is_one_before_the_first_step(recipe: dict[str, Any]) -> None:
    policy = make_policy()
    batch = collect(policy, recipe.get("coherence", 0.0))
    assert any(trajectory.length % 8 for trajectory in batch.trajectories), "one ends inside a chunk"
    task = GRPOTraining(policy, temperature=1.3, kl_coefficient=0.1, **recipe)
    task.on_train_start()
    update = task.prepare(batch)
    weight = step_weights(update.mask, len(update.trajectories))
    everyone = range(len(batch.trajectories))
    if task.ratio == "chunk":  # what was said while acting is of tokens, some of which were not executed
        batches = task.samples(update, everyone, weight)
        update.trajectories = recompute_log_probs(partial(task.log_probs, policy), batches, update.trajectories)
    for samples in task.samples(update, everyone, weight):
        _, watched = task.loss(samples)
        assert float(watched["clip_fraction"]) == 0
        assert abs(float(watched["approx_kl"])) < 1e-6
        assert abs(float(watched["kl_reference"])) < 1e-6


def test_tokens_drawn_alike_depend_on_the_episode_alone() -> None:
    policy = make_policy()
    one, two = collect(policy, 0.5), collect(policy, 0.5, workers=2)
    for mine, other in zip(one.trajectories, two.trajectories, strict=True):
        assert (mine.tokens == other.tokens).all()
        assert (mine.log_probs == other.log_probs).all()
    independent = collect(policy, 0.0)
    assert any(
        (a.tokens[0] != b.tokens[0]).any() for a, b in zip(one.trajectories, independent.trajectories, strict=True)
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_policy_learns_what_succeeds(recipe: dict[str, Any]) -> None:
    policy = small_policy()
    batch = made_up_batch(["mixed"], policy=policy)
    task = GRPOTraining(policy, lr=3e-3, warmup_steps=0, epochs=8, minibatches=2, **recipe)

    def likelihood(won: bool) -> float:
        chosen = [one for one in batch.trajectories if one.succeeded == won]
        found = [
            policy.log_prob(Observation(t.images[:1], [t.instruction]), t.tokens[:1]).log_probs.mean() for t in chosen
        ]
        return float(torch.stack(found).mean())

    before = likelihood(True), likelihood(False)
    fit(task, Batches([batch]))
    assert likelihood(True) - likelihood(False) > before[0] - before[1]
    assert 0 < task.metrics["clip_fraction"] < 1
    assert task.metrics["approx_kl"] > 0


def test_steps_do_not_depend_on_the_scale_of_the_reward() -> None:
    moved = []
    for reward in (1.0, 0.03):
        policy = small_policy()
        before = torch.cat([weight.detach().flatten().clone() for weight in policy.parameters()])
        task = GRPOTraining(policy, lr=1e-4, warmup_steps=0, reward_coefficient=reward)
        fit(task, Batches([made_up_batch(["mixed"], policy=policy)]))
        moved.append(torch.cat([weight.detach().flatten() for weight in policy.parameters()]) - before)
    large, small = (float(change.abs().median()) for change in moved)
    assert small > 0.95 * large
