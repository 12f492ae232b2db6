"""Chunks that are not trusted are taken back: what a rollout is then, and what GRPO makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.envs.imagined.test_value import Blue
from tests.envs.imagined.worlds import SUITE, Starts, begin, make_env, some_actions, start
from tests.envs.test_rollout import make_policy
from tests.models.trust.toys import Remembering, small_critic, small_trust
from tests.models.world_model.tiny_world import tiny_world
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import Trajectory
from wovr.envs.imagined.env import ImaginedVectorEnv, make_imagined_env
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.errors import UserError
from wovr.models.reward import SuccessClassifier
from wovr.models.trust.model import Trust


def test_every_frame_has_the_trust_of_its_chunk() -> None:
    trust = small_trust()
    plain, env = make_env(2), make_env(2, trust=trust)
    for one in (plain, env):
        begin(one, start(0), start(1, horizon=11))
    for seed in range(2):
        expected, step = plain.step_chunk(some_actions(2, seed=seed)), env.step_chunk(some_actions(2, seed=seed))
        np.testing.assert_array_equal(step.images, expected.images)
        np.testing.assert_array_equal(step.valid, expected.valid)
        found = step.info["trust"]
        assert found.dtype == np.float32
        assert ((found > 0) & (found < 1))[step.valid].all()
        assert not found[~step.valid].any()
        assert all(len(np.unique(row[valid])) == 1 for row, valid in zip(found, step.valid, strict=True))
        assert step.info["distrust"].shape == (2, 8, 3)
        again = trust.trust(torch.from_numpy(step.info["distrust"][:, 0])).numpy()
        np.testing.assert_allclose(again, found[:, 0], rtol=1e-5)
    assert env.step_chunk(some_actions(2)).info["trust"].shape == (2, 8)
    *_, info = env.step(some_actions(2)[:, 0])
    assert info["trust"].shape == (2,)


def test_trust_sees_the_chunk_from_where_it_began() -> None:
    trust = Remembering([1.0])
    env = make_env(1, trust=trust)
    begin(env, start(4))
    actions = [some_actions(1, seed=seed) for seed in range(2)]
    first, second = (env.step_chunk(one) for one in actions)
    one, two = trust.seen
    for chunk in (one, two):
        np.testing.assert_array_equal(chunk.reference[0], start(4).reference)
    np.testing.assert_array_equal(one.before[0], start(4).reference)
    np.testing.assert_array_equal(two.before[0], first.images[0, -1])
    np.testing.assert_array_equal(two.frames[0], second.images[0])
    np.testing.assert_array_equal(two.actions[0], actions[1][0])
    assert two.probability is not None
    np.testing.assert_array_equal(two.probability[0], second.info["success_probability"][0])


def test_a_chunk_below_the_threshold_is_taken_back() -> None:
    value = Blue()
    trust = Remembering([[0.9, 0.9, 0.1], [0.9, 0.4], [0.9]])
    env = make_env(3, trust=trust, trust_threshold=0.5, value=value, starts=Starts(horizon=40))
    begin(env, start(0), start(1), start(2))
    before = env.observe().image
    first = env.step_chunk(some_actions(3))
    assert first.valid.all(axis=1).tolist() == [True, True, False]
    assert first.done.tolist() == [False, False, True]
    assert not first.valid[2].any()
    assert not (first.truncated | first.terminated)[2].any()
    np.testing.assert_array_equal(first.images[2], np.repeat(before[2:], 8, axis=0))
    assert not first.info["trust"][2].any()
    second = env.step_chunk(some_actions(3, seed=1))
    assert second.done.tolist() == [False, True, True]
    np.testing.assert_array_equal(second.images[1], np.repeat(first.images[1, -1:], 8, axis=0))
    np.testing.assert_array_equal(env.observe().image[1], first.images[1, -1])
    assert second.info["value"][1].tolist() == [0.0] * 8
    assert env.step_chunk(some_actions(3, seed=2)).valid.all(axis=1).tolist() == [True, False, False]
    assert [len(chunk) for chunk in trust.seen] == [3, 2, 1]


def test_the_rows_beside_one_that_is_taken_back_go_on_as_they_would() -> None:
    whole = make_env(2, starts=Starts(horizon=40))
    cut = make_env(2, trust=Remembering([[1.0, 1.0], [1.0, 0.0], [1.0]]), trust_threshold=0.5, starts=Starts(40))
    for env in (whole, cut):
        begin(env, start(0), start(1))
    for seed in range(3):
        one, other = (env.step_chunk(some_actions(2, seed=seed)) for env in (whole, cut))
        assert np.abs(one.images[0].astype(int) - other.images[0]).max() <= 1


def test_a_success_in_a_chunk_that_is_taken_back_does_not_count() -> None:
    for words, succeeds, steps_made in (([1.0, 1.0], True, 10), ([1.0, 0.2], False, 8), ([0.2], False, 0)):
        env = make_env(1, threshold=0.0, consecutive=10, trust=Remembering(words), trust_threshold=0.5)
        begin(env, start(0))
        steps = [env.step_chunk(some_actions(1, seed=seed)) for seed in range(2)]
        assert sum(step.success.sum() for step in steps) == succeeds  # the tenth frame in a row, in the second chunk
        assert sum(step.valid.sum() for step in steps) == steps_made


def test_single_steps_of_a_chunk_that_is_not_trusted_end_the_rollout() -> None:
    env = make_env(1, trust=Remembering([0.9, 0.9, 0.1]), trust_threshold=0.5)
    begin(env, start(0))
    valid = [bool(env.step(some_actions(1)[:, i])[4]["valid"][0]) for i in range(4)]
    assert valid == [True, True, False, False]


def rollouts(env: ImaginedVectorEnv, count: int) -> list[Rollout]:
    actor = PolicyActor(make_policy(action_dim=3), "p")
    plan = [EpisodeStart(number, start(number)) for number in range(count)]
    return sorted(roll_out(env, actor, plan, seed=0), key=lambda rollout: rollout.number)


def test_a_trajectory_ends_with_the_last_trusted_frame() -> None:
    words = [[0.9, 0.9, 0.2], [0.8, 0.3], [0.7]]
    env = make_env(3, trust=Remembering(words), trust_threshold=0.5, value=Blue(), starts=Starts(horizon=24))
    made = rollouts(env, 3)
    assert [rollout.taken_back for rollout in made] == [False, True, True]
    assert [len(rollout.frames) for rollout in made] == [25, 9, 1]
    whole, cut, nothing = (Trajectory.of(rollout, 8) for rollout in made)
    assert (whole.length, cut.length, nothing.length) == (24, 8, 0)
    assert whole.value == 0  # its horizon
    expected = made[1].frames[-2:, ..., 2].mean() / 255
    assert cut.value == cut.outcome == pytest.approx(expected, rel=1e-5)
    assert cut.foreseen is not None
    assert len(cut.foreseen) == 0
    assert whole.foreseen is not None
    assert len(whole.foreseen) == 2
    assert (whole.weight, cut.weight, nothing.weight) == (1.0, 1.0, 0.0)
    assert whole.trust == pytest.approx(0.7)
    assert (cut.trust, nothing.trust) == (pytest.approx(0.9), None)
    assert nothing.images.shape == (0, 16, 16, 3)
    assert nothing.tokens.shape == nothing.log_probs.shape == (0, 8, 3)
    weighed = [Trajectory.of(rollout, 8, weighed=True).weight for rollout in made]
    assert weighed == [pytest.approx(0.7), pytest.approx(0.9), 0.0]


def test_without_a_value_nothing_is_known_of_a_rollout_that_is_taken_back() -> None:
    env = make_env(2, trust=Remembering([[0.9, 0.9], [0.9, 0.2], [0.9]]), trust_threshold=0.5, starts=Starts(24))
    whole, cut = (Trajectory.of(rollout, 8) for rollout in rollouts(env, 2))
    assert (whole.weight, cut.weight, cut.taken_back) == (1.0, 0.0, True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"trust_threshold": 0.5}, "a trust_threshold without a trust"),
        ({"trust": small_trust(), "trust_threshold": 1.5}, "trust_threshold is 1.5; give a number from 0 to 1"),
        ({"trust": small_trust(), "trust_threshold": float("nan")}, "trust_threshold is nan"),
        ({"trust": small_trust(2)}, "learned on actions of 2 dimensions, the world model has actions of 3 dimensions"),
        ({"trust": Trust(small_critic(chunk=4))}, "learned on chunks of 4 actions, the world model has chunks of 8"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_env(1, **arguments)


def test_trust_that_is_no_number_is_refused() -> None:
    env = make_env(1, trust=Remembering([float("nan")]))
    begin(env, start(0))
    with pytest.raises(UserError, match="the trust of a chunk is not finite"):
        env.step_chunk(some_actions(1))


def test_an_environment_with_a_checkpoint_of_trust(tmp_path: Path) -> None:
    tasks = [(SUITE, task) for task in range(3)]
    judge = SuccessClassifier(window=1, channels=[8, 8], tasks=tasks)
    paths = {
        name: write_checkpoint(tmp_path / f"{name}.ckpt", network)
        for name, network in (("wm", tiny_world()), ("reward", judge), ("trust", small_trust()))
    }
    env = make_imagined_env(paths["wm"], paths["reward"], Starts(), 1, trust=paths["trust"], device="cpu")
    begin(env, start(0))
    assert 0 < env.step_chunk(some_actions(1)).info["trust"][0, 0] < 1
    with pytest.raises(UserError, match=r"reward.ckpt: holds reward, not a trust"):
        make_imagined_env(paths["wm"], paths["reward"], Starts(), 1, trust=paths["reward"], device="cpu")
