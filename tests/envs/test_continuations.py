"""Rollouts of a few chunks and their continuations, against a plain loop in the point environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from tests.envs.point_env import PointEnv
from tests.envs.test_rollout import POINT, make_policy
from wovr.envs.actors.base import Actor, ExpertActor, RandomActor
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.continuations import Beginning, count_open, play_beginnings, play_continuations
from wovr.envs.progress import ActingProgress
from wovr.envs.rollout import Rollout
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, StartState

STARTS = [
    StartState("spatial", 0, horizon=20, sim_state=np.array([0.5, 0.5, 0.5, 0.85, 0.0])),  # the goal is near
    StartState("spatial", 1, horizon=12, sim_state=np.array([-0.9, -0.9, 0.9, 0.9, 3.0])),  # and out of reach
]


@pytest.fixture(scope="module")
def recording() -> Iterator[WorkerVectorEnv]:
    with closing(WorkerVectorEnv(POINT, 3, 1, {"size": 16}, True, steps_after_success=MAX_FRAMES)) as env:
        yield env


@pytest.fixture(scope="module")
def ending() -> Iterator[WorkerVectorEnv]:
    with closing(WorkerVectorEnv(POINT, 3, 1, {"size": 16})) as env:
        yield env


def begin(env: WorkerVectorEnv, actor: Actor, chunks: tuple[int, ...] = (1, 2), window: int = 3) -> list[Beginning]:
    with ActingProgress("rollouts", 6) as progress:
        found = play_beginnings(env, actor, STARTS, 3, chunks, window, 7, progress)
    assert progress.episodes == 6
    return found


def test_beginnings_are_what_a_plain_loop_gives(recording: WorkerVectorEnv) -> None:
    for number, beginning in enumerate(begin(recording, RandomActor())):
        start = STARTS[number // 3]
        assert beginning.start is start
        assert len(beginning.actions) == min(16, start.horizon or 0)
        env = PointEnv(16)
        env.start(start)
        frames = [env.observation()["image"]]
        for step, action in enumerate(beginning.actions):
            observation, _, success, _, _ = env.step(action)
            frames.append(observation["image"])
            assert success == beginning.success[step]
            if step + 1 in (8, 16):
                n = (step + 1) // 8
                np.testing.assert_array_equal(beginning.states[n], env.sim_state())
                np.testing.assert_array_equal(beginning.clips[n], frames[-3:])
        assert set(beginning.states) == set(beginning.clips) == ({1, 2} if number < 3 else {1})
        np.testing.assert_array_equal(beginning.images, frames[: len(beginning.actions) : 8])
        assert not beginning.ended
        assert beginning.tokens is None


def test_success_ends_no_beginning_and_counts_from_its_frame_on(recording: WorkerVectorEnv) -> None:
    [first, *_] = begin(recording, ExpertActor())
    assert len(first.actions) == 16
    at = int(first.success.argmax()) + 1
    assert 1 < at <= 8
    assert [first.outcome(steps) for steps in (at - 1, at, 16)] == [None, 1.0, 1.0]
    assert [first.valid(steps) for steps in (at - 1, at, 16)] == [at - 1, at, at]


def test_an_end_without_success_is_a_failure(recording: WorkerVectorEnv) -> None:
    late = begin(recording, RandomActor(), (1, 2))[-1]
    assert [late.outcome(steps) for steps in (8, 11, 12, 16)] == [None, None, 0.0, 0.0]
    start = StartState("spatial", 1, horizon=50, sim_state=np.array([-0.9, -0.9, 0.9, 0.9, 18.0]))
    with ActingProgress("rollouts", 1) as progress:  # the environment's own horizon is 24
        [cut] = play_beginnings(recording, RandomActor(), [start], 1, [1], 1, 7, progress)
    assert cut.ended
    assert [cut.outcome(steps) for steps in (5, 6, 8)] == [None, 0.0, 0.0]
    assert not cut.clips


def test_continuations_begin_where_the_rollout_is(recording: WorkerVectorEnv, ending: WorkerVectorEnv) -> None:
    beginnings = begin(recording, RandomActor())
    opened = count_open(beginnings, 8, [1, 2])
    with ActingProgress("continuations", 2 * opened) as progress:
        found = play_continuations(ending, ExpertActor(), beginnings, [1, 2], 2, 7, progress)
    assert progress.episodes == 2 * opened
    for n, outcomes in found.items():
        assert outcomes.shape == (6, 2)
        for beginning, ends in zip(beginnings, outcomes, strict=True):
            known = beginning.outcome(8 * n)
            if known is None:
                env = PointEnv(16)
                env.start(StartState("spatial", beginning.start.task, sim_state=beginning.states[n]))
                known = float(
                    any(env.step(env.expert_action())[2] for _ in range((beginning.start.horizon or 0) - 8 * n))
                )
            assert ends.tolist() == [known] * 2
    assert {float(value) for value in found[1].flatten()} == {0.0, 1.0}


def test_continuations_differ_and_depend_on_nothing_but_the_seed(
    recording: WorkerVectorEnv, ending: WorkerVectorEnv
) -> None:
    actor = PolicyActor(make_policy(), "tiny")
    again = []
    for _ in range(2):
        with ActingProgress("continuations", 0) as progress:
            beginnings = begin(recording, actor, (1,))
            again.append(play_continuations(ending, actor, beginnings, [1], 12, 7, progress)[1])
    assert beginnings[0].tokens is not None
    assert beginnings[0].tokens.shape == (8, 2)
    np.testing.assert_array_equal(*again)
    assert any(0 < row.mean() < 1 for row in again[0])


def test_memory_stands_before_the_start() -> None:
    frames = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((16, 16, 3), np.uint8)
    memory = np.full((2, 16, 16, 3), 9, np.uint8)
    rollout = Rollout(
        *(0, StartState("spatial", 0, horizon=2), "go", frames, np.zeros((2, 2), np.float32), np.zeros(3, bool)),
        sim_state=np.zeros((3, 5)),
    )
    for start, expected in (
        (StartState("spatial", 0, memory=memory), [9, 9, 2, 3]),
        (StartState("spatial", 0, memory=memory[:1]), [9, 9, 2, 3]),
        (StartState("spatial", 0), [1, 1, 2, 3]),
    ):
        clip = Beginning.of(rollout, start, 2, [1], 4).clips[1]
        assert clip[:, 0, 0, 0].tolist() == expected
    rollout.sim_state = None
    with pytest.raises(UserError, match="does not tell its state"):
        Beginning.of(rollout, rollout.start, 2, [1], 4)
