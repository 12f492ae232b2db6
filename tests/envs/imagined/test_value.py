"""Rollouts cut early: the value function judges the frame they end with, and GRPO counts it as the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.envs.imagined.worlds import SUITE, RedOracle, Starts, begin, make_env, some_actions, start
from tests.envs.test_rollout import make_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import Trajectory
from wovr.envs.imagined.env import make_imagined_env
from wovr.envs.rollout import EpisodeStart, roll_out
from wovr.errors import UserError
from wovr.models.reward import SuccessClassifier


class Blue(RedOracle):
    """Foresees success where the last two frames are blue."""

    window = 2

    def probability(self, frames: torch.Tensor, tasks: object) -> torch.Tensor:
        self.clips.append(frames)
        return frames[..., 2].float().mean((2, 3)).unfold(1, 2, 1).mean(-1) / 255


def test_a_cut_rollout_has_the_value_of_its_last_frame() -> None:
    value = Blue()
    env = make_env(3, value=value, cut_after=11)
    begin(env, start(0), start(1, horizon=11), start(2, horizon=5))  # cut early; cut by its horizon; both ended before
    first, second = env.step_chunk(some_actions(3)), env.step_chunk(some_actions(3, seed=1))
    assert first.valid.sum(axis=1).tolist() == [8, 8, 5]
    assert second.valid.sum(axis=1).tolist() == [3, 3, 0]
    assert np.argwhere(first.info["value"]).tolist() == [[0, 7], [1, 7]]  # they go on: what is foreseen there
    assert np.argwhere(second.info["value"]).tolist() == [[0, 2]]
    before, seen = value.clips
    np.testing.assert_array_equal(before, first.images[:2, -2:])
    np.testing.assert_array_equal(seen[0], second.images[0, 1:3])
    expected = second.images[0, 1:3, ..., 2].mean() / 255
    assert second.info["value"][0, 2] == pytest.approx(expected, rel=1e-5)


def test_a_cut_on_a_chunk_border_sees_frames_of_one_chunk() -> None:
    value = Blue()
    env = make_env(1, value=value, cut_after=8)
    begin(env, start(0))
    step = env.step_chunk(some_actions(1))
    np.testing.assert_array_equal(value.clips[0][0], step.images[0, -2:])
    assert step.truncated[0].tolist() == [False] * 7 + [True]


def test_success_before_the_cut_has_no_value() -> None:
    env = make_env(1, threshold=0.0, value=Blue(), cut_after=8)
    begin(env, start(0))
    step = env.step_chunk(some_actions(1))
    assert step.success[0, 0]
    assert not step.info["value"].any()


def test_a_trajectory_carries_the_value() -> None:
    env = make_env(2, value=Blue(), cut_after=8)
    actor = PolicyActor(make_policy(action_dim=3), "p")
    plan = [EpisodeStart(0, start(4)), EpisodeStart(1, start(5, horizon=6))]
    cut, whole = sorted(roll_out(env, actor, plan, seed=0), key=lambda rollout: rollout.number)
    found = Trajectory.of(cut, 8)
    assert found.value == pytest.approx(float(cut.info["value"][-1]))
    assert 0 < found.outcome == found.value < 1
    assert Trajectory.of(whole, 8).outcome == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"cut_after": 8}, "a cut_after without a value function"),
        ({"value": Blue(), "cut_after": 0}, "cut_after is 0; give 1 or more"),
    ],
)
def test_half_a_pair_is_refused(arguments: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_env(1, **arguments)


def test_a_value_function_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    long, strange = Blue(), Blue()
    long.window, strange.tasks = 4, [(SUITE, 0)]
    with pytest.raises(UserError, match="the value function looks at 4 frames, the success classifier at 3"):
        make_env(1, value=long, cut_after=8)
    with pytest.raises(UserError, match="the value function was not trained for task spatial/1"):
        make_env(1, value=strange, cut_after=8)
    tasks = [(SUITE, task) for task in range(3)]
    judges = {
        name: SuccessClassifier(window=1, channels=[8, 8], tasks=tasks, judges=name) for name in ("frame", "outcome")
    }
    paths = {name: tmp_path / f"{name}.ckpt" for name in judges}
    for name, judge in judges.items():
        write_checkpoint(paths[name], judge)
    world = tmp_path / "wm.ckpt"
    write_checkpoint(world, tiny_world())
    options = {"cut_after": 8, "device": "cpu"}
    env = make_imagined_env(world, paths["frame"], Starts(), 1, value=paths["outcome"], **options)
    assert isinstance(env.value, SuccessClassifier)
    assert env.value.judges == "outcome"
    with pytest.raises(UserError, match=r"frame.ckpt: holds a success classifier .*; give a value function"):
        make_imagined_env(world, paths["frame"], Starts(), 1, value=paths["frame"], **options)
    with pytest.raises(UserError, match=r"outcome.ckpt: holds a value function .*; give a success classifier"):
        make_imagined_env(world, paths["outcome"], Starts(), 1, value=paths["outcome"], **options)
