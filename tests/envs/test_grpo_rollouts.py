"""Rollouts for GRPO: groups share what they should, an update is a function of (seed, update), budgets are exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.imagined.worlds import SUITE, Starts, make_env, start
from tests.envs.test_rollout import POINT, make_policy
from wovr.envs.actors.base import RandomActor
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import DrawnStarts, PlannedStarts, RolloutBatch, RolloutCollector
from wovr.envs.rollout import roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import StartState


@pytest.fixture(scope="module")
def env() -> Iterator[WorkerVectorEnv]:
    env = WorkerVectorEnv(POINT, 5, 1, {"size": 16, "wind": 0.3})
    yield env
    env.close()


def collector(env: WorkerVectorEnv, updates: int = 3, **arguments: Any) -> RolloutCollector:
    source = PlannedStarts(env.suites["spatial"], ":", 4, seed=1)
    return RolloutCollector(env, PolicyActor(make_policy(), "p"), source, 4, 3, updates, 7, **arguments)


def assert_equal(one: RolloutBatch, other: RolloutBatch) -> None:
    assert one.update == other.update
    for a, b in zip(one.trajectories, other.trajectories, strict=True):
        assert a.start == b.start
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.log_probs, b.log_probs)
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.success, b.success)


def test_a_group_shares_its_start_and_nothing_else(env) -> None:
    batch = collector(env).collect(0)
    groups = [batch.trajectories[i : i + 3] for i in range(0, 12, 3)]
    assert len({(group[0].start.task, group[0].start.init_state) for group in groups}) == 4
    for group in groups:
        assert len({id(trajectory.start) for trajectory in group}) == 1
        assert np.array_equal(group[0].images[0], group[1].images[0])
        assert not np.array_equal(group[0].tokens[0], group[1].tokens[0])


def test_trajectories_keep_the_pictures_at_which_the_policy_chose(env) -> None:
    made = collector(env)
    kept = made.collect(1).trajectories
    plan = made._plan(1, made.source.starts(1, 4), range(4))
    full = {rollout.number: rollout for rollout in roll_out(env, made.actor, plan, made.seed)}
    assert sorted(full) == list(range(12, 24))
    for trajectory, (_, rollout) in zip(kept, sorted(full.items()), strict=True):
        assert trajectory.length == len(rollout.actions)
        assert np.array_equal(trajectory.images, rollout.frames[:-1][::8])
        assert np.array_equal(trajectory.tokens.reshape(-1, 2)[: trajectory.length], rollout.info["tokens"])
        assert np.array_equal(trajectory.success[: trajectory.length], rollout.success[1:])
        assert not trajectory.success[trajectory.length :].any()
        assert trajectory.succeeded == rollout.succeeded


def test_a_resumed_collector_goes_on_as_if_never_stopped(env) -> None:
    whole = list(collector(env))
    first = collector(env)
    next(iter(first))
    second = collector(env)
    second.load_state_dict(first.state_dict())
    assert len(second) == 3
    rest = list(second)
    assert [batch.update for batch in rest] == [1, 2]
    for one, other in zip(whole[1:], rest, strict=True):
        assert_equal(one, other)
    assert [batch.rollouts_so_far for batch in whole] == [12, 24, 36]


def test_start_states_follow_the_plan_through_the_updates(env) -> None:
    source = PlannedStarts(env.suites["spatial"], "0:2", 4, seed=1)
    starts = [(s.task, s.init_state) for update in range(3) for s in source.starts(update, 4)]
    assert [task for task, _ in starts] == [0, 1, 2] * 4
    assert len(set(starts[:6])) == 6


def test_the_budget_of_rollouts_is_exact(env) -> None:
    batches = list(collector(env, updates=50, max_rollouts=18))
    assert [len(batch.trajectories) for batch in batches] == [12, 6]
    assert batches[-1].rollouts_so_far == 18
    assert len(collector(env, updates=1, max_rollouts=18)) == 1


def test_processes_share_the_groups_out(env) -> None:
    whole, shares = collector(env).collect(2), []
    for rank in range(2):
        part = collector(env)
        part.share_out(rank, 2)
        shares += part.collect(2).trajectories
    assert_equal(whole, replace(whole, trajectories=shares))


def imagined(shared: bool, source: Any = None) -> RolloutBatch:
    env = make_env(4)
    source = source or DrawnStarts(Starts(horizon=16), SUITE, 3)
    return RolloutCollector(env, FirstActions(), source, 2, 3, 5, 7, shared_noise=shared, real=False).collect(1)


class FirstActions(RandomActor):
    """Takes the same actions always, so that only the environment's noise tells rollouts of a group apart."""

    def act(self, env: Any, generators: Any) -> Any:
        chunk = super().act(env, [None if g is None else np.random.default_rng(0) for g in generators])
        chunk.info["tokens"] = np.zeros(chunk.actions.shape, np.int64)
        chunk.info["log_probs"] = np.zeros(chunk.actions.shape, np.float32)
        return chunk


def test_a_group_may_share_the_noise_of_its_imagination() -> None:
    for shared in (True, False):
        batch = imagined(shared)
        assert not batch.real
        first, second, _, other, *_ = batch.trajectories
        assert np.array_equal(first.images[0], second.images[0])
        assert np.abs(first.images[1].astype(int) - second.images[1]).mean() == pytest.approx(0, abs=0.1) or not shared
        assert np.array_equal(first.images[1], second.images[1]) == shared
        assert not np.array_equal(first.images[1], other.images[1])


def test_start_states_of_another_suite_are_refused() -> None:
    class Strangers(Starts):
        def draw(self, count: int, generator: np.random.Generator) -> list[StartState]:
            return [replace(start(i), suite="object") for i in range(count)]

    with pytest.raises(UserError, match="a start state is of suite 'object', the run of suite 'spatial'"):
        imagined(False, DrawnStarts(Strangers(), SUITE, 3))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [({"max_rollouts": 10}, "--max_real_episodes is 10; give a multiple of 3"), ({"updates": 0}, "--updates is 0")],
)
def test_numbers_that_do_not_fit_are_said(env, arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        collector(env, **arguments)


def test_groups_that_cannot_be_shared_out_are_said(env) -> None:
    with pytest.raises(UserError, match="4 groups for 3 processes"):
        collector(env).share_out(0, 3)
