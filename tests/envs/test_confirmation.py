"""Imagined success that is imagined again: what is earned lasts, what is luck does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tests.envs.test_rollout import POINT
from wovr.envs.actors.names import make_actor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.confirmation import confirmed_successes
from wovr.envs.episodes import plan_episodes
from wovr.envs.grpo_rollouts import RolloutBatch, Trajectory
from wovr.envs.rollout import roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.models.policies.base import ActionTokenizer
from wovr.types import CHUNK

FINE = ActionTokenizer(100_001)


def actions_of(tokens: np.ndarray) -> np.ndarray:
    return FINE.decode(torch.from_numpy(tokens)).numpy()


@contextmanager
def rollouts(wind: float, actor: str = "expert") -> Iterator[tuple[ChunkVectorEnv, RolloutBatch]]:
    """Of an actor, in an environment whose own noise is `wind`; twelve, five at a time."""
    env = WorkerVectorEnv(POINT, 5, 1, {"size": 16, "wind": wind})
    found = []
    plan = plan_episodes(env.suites["spatial"], 12, ":", 0)
    for rollout in roll_out(env, make_actor(actor, env, 1.0, "cpu"), plan, 0):
        tokens = FINE.encode(torch.from_numpy(rollout.actions)).numpy()
        rollout.info |= {"tokens": tokens, "log_probs": np.zeros(tokens.shape, np.float32)}
        found.append(Trajectory.of(rollout, CHUNK))
    yield env, RolloutBatch(0, found, 4, False, len(found), 0.0)
    env.close()


def test_without_noise_every_success_happens_again() -> None:
    with rollouts(0.0) as (env, batch):
        assert confirmed_successes(env, batch, actions_of, 0) == (12, 12)


def test_with_noise_some_do_not_and_always_the_same() -> None:
    with rollouts(0.0) as (still, batch):
        windy = WorkerVectorEnv(POINT, 5, 1, {"size": 16, "wind": 0.3})
        again, won = confirmed_successes(windy, batch, actions_of, 0)
        assert 0 < again < won == 12
        assert confirmed_successes(windy, batch, actions_of, 0) == (again, won)
        assert confirmed_successes(still, batch, actions_of, 0) == (12, 12)
        windy.close()


def test_of_many_successes_some_are_tried() -> None:
    with rollouts(0.0) as (env, batch):
        assert confirmed_successes(env, batch, actions_of, 0, most=7) == (7, 7)


def test_a_failure_is_never_confirmed() -> None:
    with rollouts(0.0, "random") as (env, batch):
        won = sum(one.succeeded for one in batch.trajectories)
        assert won < 6
        assert confirmed_successes(env, batch, actions_of, 0) == (won, won)


def test_who_does_nothing_does_not_succeed_again() -> None:
    with rollouts(0.0) as (env, batch):
        for one in batch.trajectories:
            one.tokens.reshape(-1, 2)[: one.length] = FINE.encode(torch.zeros(1))
        assert confirmed_successes(env, batch, actions_of, 0) == (0, 12)
