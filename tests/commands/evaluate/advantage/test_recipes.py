"""What could be taken for a return, against what `wovr rl` would have been given for the same actions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest

from tests.envs.imagined.test_value import Blue
from tests.envs.imagined.worlds import SUITE, make_env, some_actions, start
from tests.envs.test_cut_simulators import Bright, simulators
from tests.envs.test_rollout import POINT
from wovr.commands.evaluate.advantage.recipes import imagined_returns, outcome_returns, value_returns
from wovr.envs.actors.base import Actor, RandomActor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.continuations import Beginning, play_beginnings
from wovr.envs.cut_simulators import CutSimulators
from wovr.envs.grpo_rollouts import Trajectory
from wovr.envs.progress import ActingProgress
from wovr.envs.rollout import EpisodeStart, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, ChunkStep, StartState


class Playing(Actor):
    """Takes given actions, in one row."""

    name = "playing"

    def __init__(self, actions: np.ndarray) -> None:
        self.left = actions

    def act(self, env: ChunkVectorEnv, generators: Sequence[np.random.Generator | None]) -> ChunkStep:
        step = env.step_chunk(self.left[None, :8])
        self.left = self.left[8:]
        step.info |= {name: np.zeros(step.actions.shape) for name in ("tokens", "log_probs")}
        return step


def trajectory(env: ChunkVectorEnv, number: int, beginning: Beginning) -> Trajectory:
    """What RL would have been given for these actions."""
    actor = Playing(np.pad(beginning.actions, ((0, 8), (0, 0))))
    [rollout] = roll_out(env, actor, [EpisodeStart(number, beginning.start)], seed=5)
    return Trajectory.of(rollout, 8)


def make_beginning(number: int, horizon: int) -> Beginning:
    begun = start(number, horizon=horizon)
    nothing = np.zeros((2, 16, 16, 3), np.uint8)
    acted = some_actions(1, 16, number)[0]
    return Beginning(begun, "go", nothing, acted, None, np.zeros(16, bool), False, {}, {})


@pytest.mark.parametrize("chunks", [1, 2])
def test_imagined_returns_are_those_of_rl(chunks: int) -> None:
    beginnings = [make_beginning(number, 12 if number == 3 else 40) for number in range(8)]
    threshold = 0.505  # some of these rollouts are imagined to succeed
    env = make_env(3, threshold, value=Blue(), cut_after=1)
    told: list[int] = []
    found = imagined_returns(beginnings, env, chunks, 5, told.append)
    alone = make_env(1, threshold, value=Blue(), cut_after=8 * chunks)
    expected = [trajectory(alone, number, beginning) for number, beginning in enumerate(beginnings)]
    np.testing.assert_allclose(found.returns, [one.outcome for one in expected], rtol=1e-5)
    assert found.lengths.tolist() == [one.length for one in expected]
    assert told == [3, 3, 2]
    succeeded = [one.succeeded for one in expected]
    assert any(succeeded)
    assert not all(succeeded)
    if chunks == 2:
        assert expected[3].succeeded or found.returns[3] == 0  # its horizon came first


@pytest.mark.parametrize("chunks", [1, 2])
def test_real_values_are_those_of_rl_in_cut_simulators(chunks: int) -> None:
    near = np.array([0.5, 0.5, 0.5, 0.62, 0.0])
    starts = [
        StartState(SUITE, 0, horizon=30, sim_state=near),
        StartState(SUITE, 1, horizon=12, sim_state=np.array([-0.5, 0.2, 0.9, 0.9, 0.0])),
    ]
    with (
        closing(WorkerVectorEnv(POINT, 4, 1, {"size": 16}, True, steps_after_success=MAX_FRAMES)) as recording,
        ActingProgress("rollouts", 0) as progress,
    ):
        beginnings = play_beginnings(recording, RandomActor(), starts, 6, [chunks], Bright.window, 5, progress)
    found = value_returns(beginnings, Bright(), chunks, 8 * chunks)
    with closing(CutSimulators(simulators(1), Bright(), 8 * chunks)) as env:
        expected = [trajectory(env, number, beginning) for number, beginning in enumerate(beginnings)]
    np.testing.assert_allclose(found.returns, [one.outcome for one in expected], rtol=1e-6)
    assert found.lengths.tolist() == [one.length for one in expected]
    assert any(one.succeeded for one in expected)
    assert any(0 < one.outcome < 1 for one in expected) or chunks == 2


def test_values_that_are_not_finite() -> None:
    class Broken(Bright):
        def probability(self, frames: object, tasks: object) -> object:  # type: ignore[override]
            return super().probability(frames, tasks) * np.nan  # type: ignore[arg-type]

    beginning = make_beginning(0, 40)
    beginning.clips[1] = np.zeros((3, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="value function's probabilities are not finite"):
        value_returns([beginning], Broken(), 1, 8)


def test_an_update_sees_one_outcome() -> None:
    outcomes = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
    found = outcome_returns([make_beginning(number, 40) for number in range(2)], outcomes, 8)
    np.testing.assert_array_equal(found.returns, outcomes)
    assert found.single.tolist() == [1, 0]
    assert found.lengths.tolist() == [8, 8]
