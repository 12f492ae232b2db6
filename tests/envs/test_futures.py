from __future__ import annotations

import numpy as np
import pytest

from tests.envs.point_env import PointEnv
from wovr.envs.futures import Future, future_simulators, play_futures, simulate_futures
from wovr.errors import UserError
from wovr.types import StartState

POINT = "tests.envs.point_env:PointEnv"


def test_futures_are_what_a_plain_loop_shows_success_or_not() -> None:
    rng = np.random.default_rng(0)
    futures, expected = [], []
    for number, length in enumerate((5, 12, 9)):
        env = PointEnv()
        env.start(StartState("spatial", number, number))
        env.step(np.array([0.5, -0.5], np.float32))
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        state = env.sim_state().copy()
        start = StartState("spatial", number, sim_state=state, horizon=length)
        futures.append(Future(start, actions))
        env = PointEnv()
        frames = [env.start(start)["image"]]
        for action in actions:
            frames.append(env.step(action)[0]["image"])
        expected.append(np.stack(frames))
    found = simulate_futures(POINT, {}, futures, 2)
    assert [len(frames) for frames in found] == [6, 13, 10]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_success_is_told_frame_by_frame_and_rows_stop_where_their_actions_do() -> None:
    futures, expected = [], []
    for number in range(3):
        env = PointEnv()
        env.start(StartState("spatial", number, number))
        state = env.sim_state().copy()
        actions = [env.expert_action()]
        success = [False]
        while len(actions) < 14 + number:
            success.append(env.step(actions[-1])[4]["success"])
            # Once there, it leaves the goal again.
            actions.append(env.expert_action() if not any(success) else np.ones(2, np.float32))
        success.append(env.step(actions[-1])[4]["success"])
        futures.append(Future(StartState("spatial", number, sim_state=state), np.stack(actions)))
        expected.append(success)
    assert any(any(success) and not success[-1] for success in expected)
    simulators = future_simulators(POINT, {}, 2, 1)
    played = play_futures(simulators, futures)
    again = play_futures(simulators, futures[::-1])[::-1]
    simulators.close()
    for one, other, success in zip(played, again, expected, strict=True):
        assert one.success.tolist() == success
        assert len(one.frames) == len(success)
        np.testing.assert_array_equal(one.frames, other.frames)


def test_an_environment_that_cannot_be_made_is_a_line() -> None:
    with pytest.raises(UserError, match="unknown environment 'nowhere'"):
        simulate_futures("nowhere", {}, [Future(StartState("a", 0), np.zeros((3, 2), np.float32))], 1)
