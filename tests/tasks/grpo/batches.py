"""Rollouts for tests of GRPO, made up or made in the point environment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.models.policies.small import SENTENCES, observe, small_policy
from wovr.envs.grpo_rollouts import RolloutBatch, Trajectory
from wovr.models.policies.base import Policy
from wovr.types import StartState

CHUNK, SIZE = 3, 4


def trajectory(policy: Policy, number: int, success: Sequence[int], length: int) -> Trajectory:
    """A rollout of `length` actions with successes at some of them; the policy is asked, the pictures are noise."""
    chunks = -(-length // policy.chunk)
    seen = observe(chunks, (16, 16), number, [SENTENCES[number % 3]])
    chosen = policy.act(seen)
    happened = np.zeros(chunks * policy.chunk, bool)
    happened[list(success)] = True
    return Trajectory(
        start=StartState("spatial", number % 3, number),
        instruction=SENTENCES[number % 3],
        images=np.asarray(seen.image),
        tokens=chosen.tokens.numpy(),
        log_probs=chosen.log_probs.numpy(),
        success=happened,
        length=length,
    )


def made_up_batch(groups: Sequence[str], update: int = 0, policy: Policy | None = None) -> RolloutBatch:
    """A batch of groups of four, each `mixed`, `fail` or `succeed`."""
    policy = policy or small_policy()
    trajectories = []
    for group, kind in enumerate(groups):
        for member in range(SIZE):
            number = update * 100 + group * SIZE + member
            wins = {"mixed": member % 2 == 0, "fail": False, "succeed": True}[kind]
            length = 4 + (number * 5) % 8
            trajectories.append(trajectory(policy, number, [length - 2] if wins else [], length))
    return RolloutBatch(update, trajectories, SIZE, True, len(trajectories) * (update + 1), 0.0)


def share(batch: RolloutBatch, rank: int, ranks: int) -> RolloutBatch:
    """One process's groups."""
    each = len(batch.trajectories) // ranks
    mine = batch.trajectories[rank * each : (rank + 1) * each]
    return RolloutBatch(batch.update, mine, batch.group_size, batch.real, batch.rollouts_so_far, batch.seconds)
