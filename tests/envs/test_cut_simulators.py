"""Simulators cut early: the frames are the simulator's, the value is that of the frame a rollout was cut at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from tests.envs.imagined.worlds import RedOracle
from tests.envs.test_rollout import make_policy
from tests.envs.workers.test_vector import POINT, plain_loop
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.cut_simulators import CutSimulators
from wovr.envs.grpo_rollouts import Trajectory
from wovr.envs.rollout import EpisodeStart, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import StartState


class Bright(RedOracle):
    """Foresees success by how bright the last three frames are; keeps what it was shown."""

    window = 3

    def __init__(self) -> None:
        super().__init__()
        self.tasks = [("spatial", 0), ("spatial", 1)]

    def probability(self, frames: torch.Tensor, tasks: object) -> torch.Tensor:
        self.clips.append(frames)
        return frames.float().mean((2, 3, 4)).unfold(1, 3, 1).mean(-1) / 255


def simulators(num_envs: int) -> WorkerVectorEnv:
    return WorkerVectorEnv(POINT, num_envs, 1, {"size": 16})


@pytest.fixture
def two() -> Iterator[CutSimulators]:
    with closing(CutSimulators(simulators(2), Bright(), 11)) as env:
        yield env


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (2, count, 2)).astype(np.float32)


def test_a_rollout_is_the_simulators_up_to_the_cut(two: CutSimulators) -> None:
    begun = [StartState("spatial", 0, 3), StartState("spatial", 1, 5)]
    two.reset(seed=0, options={"start_states": begun})
    acted = actions(16)
    first, second = two.step_chunk(acted[:, :8]), two.step_chunk(acted[:, 8:])
    for row, start in enumerate(begun):
        frames, success, _ = plain_loop(start, acted[row, :11])
        assert not success.any()
        assert second.valid[row].tolist() == [True] * 3 + [False] * 5
        shown = np.concatenate([first.images[row], second.images[row, :3]])
        assert shown.shape[1:3] == (16, 16) != frames.shape[1:3]  # the loop's pictures are larger: compare means
        np.testing.assert_allclose(shown.mean((1, 2, 3)), frames[1:].mean((1, 2, 3)), atol=8)
        np.testing.assert_array_equal(second.images[row, 3:], np.repeat(second.images[row, 2:3], 5, axis=0))
    assert second.truncated.tolist() == [[False, False, True] + [False] * 5] * 2
    assert second.done.all()
    assert np.argwhere(first.info["value"]).tolist() == [[0, 7], [1, 7]]  # they go on: what is foreseen there
    assert np.argwhere(second.info["value"]).tolist() == [[0, 2], [1, 2]]
    before, seen = two.value.clips  # type: ignore[attr-defined]
    np.testing.assert_array_equal(before, first.images[:, -3:])
    np.testing.assert_array_equal(seen, second.images[:, :3])
    assert not two.step_chunk(acted[:, :8]).valid.any()


def test_rows_that_began_later_are_cut_later(two: CutSimulators) -> None:
    two.reset(seed=0, options={"start_states": [StartState("spatial", 0, 3), None]})
    assert two.step_chunk(actions(8)).valid.sum(axis=1).tolist() == [8, 0]
    later = {"start_states": [None, StartState("spatial", 1, 5)], "reset_mask": np.array([False, True])}
    two.reset(seed=1, options=later)
    step = two.step_chunk(actions(8, 1))
    assert step.valid.sum(axis=1).tolist() == [3, 8]
    assert np.flatnonzero(step.truncated.any(axis=0)).tolist() == [2]
    assert np.argwhere(step.info["value"]).tolist() == [[0, 2], [1, 7]]  # a row that goes on has none where others end
    step = two.step_chunk(actions(8, 2))
    assert step.valid.sum(axis=1).tolist() == [0, 3]
    assert np.argwhere(step.info["value"]).tolist() == [[1, 2]]


def test_success_before_the_cut_has_no_value_and_keyframes_bring_their_frames() -> None:
    value = Bright()
    at_goal = np.array([0.5, 0.5, 0.5, 0.5, 4.0])
    away = np.array([-0.5, -0.5, 0.5, 0.5, 4.0])
    memory = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3)).astype(np.uint8)
    begun = [StartState("spatial", 0, 0, state, memory=memory) for state in (at_goal, away)]
    with closing(CutSimulators(simulators(2), value, 2)) as env:
        env.reset(seed=0, options={"start_states": begun})
        step = env.step_chunk(np.zeros((2, 8, 2), np.float32))
    assert step.success[0, 0]
    assert step.valid.sum(axis=1).tolist() == [1, 2]
    assert np.argwhere(step.info["value"]).tolist() == [[1, 1]]
    np.testing.assert_array_equal(value.clips[0][0, 0], memory[-1])
    np.testing.assert_array_equal(value.clips[0][0, 1:], step.images[1, :2])


def test_a_trajectory_carries_the_value() -> None:
    plan = [EpisodeStart(number, StartState("spatial", 0, number)) for number in range(5)]
    with closing(CutSimulators(simulators(2), Bright(), 8)) as env:
        found = [Trajectory.of(rollout, 8) for rollout in roll_out(env, PolicyActor(make_policy(), "p"), plan, seed=0)]
    assert len(found) == 5
    assert all(one.length == 8 and one.outcome == one.value > 0 for one in found if not one.succeeded)


def test_mistakes_are_named(two: CutSimulators) -> None:
    with pytest.raises(UserError, match="begin at start states"):
        two.reset(seed=0)
    keyframe = StartState("spatial", 0, memory=np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="a keyframe of spatial/0 holds no simulator state"):
        two.reset(options={"start_states": [keyframe, None]})
    with pytest.raises(UserError, match="not trained for task spatial/2"):
        two.reset(options={"start_states": [StartState("spatial", 2), None]})
    with pytest.raises(UserError, match="cut_after is 0"):
        CutSimulators(two.simulators, Bright(), 0)


def test_a_value_that_is_not_finite_is_an_error() -> None:
    class Broken(Bright):
        def probability(self, frames: torch.Tensor, tasks: object) -> torch.Tensor:
            return torch.full((len(frames), 1), float("nan"))

    with closing(CutSimulators(simulators(2), Broken(), 8)) as env:
        env.reset(seed=0, options={"start_states": [StartState("spatial", 0), None]})
        with pytest.raises(UserError, match="not finite"):
            env.step_chunk(actions(8))
