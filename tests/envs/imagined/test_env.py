from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.envs.imagined.worlds import SIGMAS, RedOracle, Starts, begin, make_env, some_actions, start
from tests.envs.test_rollout import make_policy
from tests.models.world_model.tiny_world import linear_world, pictures, tiny_world
from wovr.envs.actors.base import RandomActor
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.imagined.env import ImaginedVectorEnv
from wovr.envs.rollout import EpisodeStart, roll_out
from wovr.errors import UserError
from wovr.models.world_model.rollout import Imagination
from wovr.types import ChunkStep


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the rounding of matrix products of another size."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 1)


def three_chunks(env: ImaginedVectorEnv) -> list[ChunkStep]:
    return [env.step_chunk(some_actions(env.num_envs, seed=seed)) for seed in range(3)]


def test_it_shows_what_the_world_model_imagines() -> None:
    env = make_env(2)
    begin(env, start(4), start(5))
    assert env.observe().instruction == ["do task 1", "do task 2"]
    np.testing.assert_array_equal(env.observe().image, np.stack([start(4).reference, start(5).reference]))
    imagination = Imagination(tiny_world(), SIGMAS)
    imagination.start(env.observe().image, seeds=[10, 11])
    for number, step in enumerate(three_chunks(env)):
        frames = imagination.step(some_actions(2, seed=number)).numpy()
        count = 8 if number < 2 else 4  # horizon 20
        assert step.valid.sum(axis=1).tolist() == [count, count]
        np.testing.assert_array_equal(step.images[:, :count], frames[:, :count])
        np.testing.assert_array_equal(step.images[:, count:], np.repeat(frames[:, count - 1 : count], 8 - count, 1))
        assert (step.info["success_probability"][:, :count] > 0).all()
        assert not step.info["success_probability"][:, count:].any()
        assert list(step.info) == ["success_probability"]
        np.testing.assert_array_equal(step.truncated, [[number == 2 and i == 3 for i in range(8)]] * 2)
        assert not step.terminated.any()
    np.testing.assert_array_equal(env.observe().image, step.images[:, -1])
    step = env.step_chunk(some_actions(2))
    assert not step.valid.any()
    assert not step.actions.any()
    assert step.done.all()
    np.testing.assert_array_equal(step.images, np.repeat(env.observe().image[:, None], 8, 1))


def test_success_ends_an_episode_and_is_counted_over_chunk_borders() -> None:
    env = make_env(1, starts=Starts(horizon=40))
    begin(env, start(1))
    probability = np.concatenate([step.info["success_probability"][0] for step in three_chunks(env)])
    for consecutive in (1, 3):
        for threshold in np.quantile(probability, [0.05, 0.3, 0.5, 0.7]):
            above, streak, first = probability >= threshold, 0, None
            for frame, high in enumerate(above):
                streak = streak + 1 if high else 0
                if streak == consecutive and first is None:
                    first = frame
            env = make_env(1, float(threshold), consecutive, starts=Starts(horizon=40))
            begin(env, start(1))
            steps = three_chunks(env)
            success, valid, ended = (
                np.concatenate([getattr(step, name)[0] for step in steps])
                for name in ("success", "valid", "terminated")
            )
            count = 24 if first is None else first + 1
            np.testing.assert_array_equal(valid, np.arange(24) < count)
            np.testing.assert_array_equal(success, np.arange(24) == (count - 1 if first is not None else -1))
            np.testing.assert_array_equal(ended, success)
            assert sum(step.rewards.sum() for step in steps) == (first is not None)


def test_a_streak_is_carried_over_a_chunk_border() -> None:
    class Late(RedOracle):
        """Sure of success in the last frame of every chunk and in the first of the next."""

        def probability(self, frames: torch.Tensor, tasks: Any) -> torch.Tensor:
            found = torch.zeros(len(frames), frames.shape[1] - 2)
            found[:, [0, -1]] = 1.0
            return found

    env = ImaginedVectorEnv(tiny_world(), Late(0.5, 2), Starts(), 1, sigmas=[1.0], device="cpu")
    begin(env, start(0))
    first, second = env.step_chunk(some_actions(1)), env.step_chunk(some_actions(1))
    assert not first.success.any()
    assert second.success[0].tolist() == [True] + [False] * 7
    assert second.valid[0].tolist() == [True] + [False] * 7


def test_the_classifier_sees_every_frame_once_with_those_before_it() -> None:
    env = make_env(2)
    begin(
        env, start(0), start(1, memory=pictures(2, seed=50).numpy(), memory_actions=some_actions(1, 2)[0], horizon=16)
    )
    steps = [env.step_chunk(some_actions(2)), env.step_chunk(some_actions(2, seed=1))]
    judge = env.classifier
    assert isinstance(judge, RedOracle)
    assert judge.seen == [(2, 10), (2, 10)]
    np.testing.assert_array_equal(judge.clips[0][0, :2], np.stack([start(0).reference] * 2))
    np.testing.assert_array_equal(judge.clips[0][1, :2], pictures(2, seed=50))
    np.testing.assert_array_equal(judge.clips[0][:, 2:], steps[0].images)
    np.testing.assert_array_equal(judge.clips[1][:, :2], steps[0].images[:, -2:])


def test_rows_do_not_depend_on_their_company() -> None:
    alone = make_env(1)
    begin(alone, start(4), seeds=[7])
    expected = three_chunks(alone)
    together = make_env(3, batch_size=2)
    begin(together, start(0), None, start(4), seeds=[5, 6, 7])
    for number, one in enumerate(expected):
        actions = some_actions(3, seed=9)
        actions[2] = some_actions(1, seed=number)[0]
        step = together.step_chunk(actions)
        assert close(step.images[2], one.images[0])
        np.testing.assert_array_equal(step.valid[2], one.valid[0])
        assert step.valid[1].any() == step.images[1].any() == (number > 0)
        if number == 0:  # another one begins beside it; its seed gives it other noise
            mask = np.array([False, True, False])
            together.reset(seed=[0, 8, 0], options={"start_states": [None, start(4), None], "reset_mask": mask})
    other = make_env(1)
    begin(other, start(4), seeds=[8])
    assert not close(other.step_chunk(some_actions(1)).images, expected[0].images)


def test_finished_rows_leave_the_batch_and_idle_ones_never_enter_it(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env(4, starts=Starts(horizon=24))
    given: list[int] = []
    sample = env.imagination.model.sample_chunk
    monkeypatch.setattr(
        env.imagination.model,
        "sample_chunk",
        lambda context, *a: given.append(len(context.latents)) or sample(context, *a),
    )
    begin(env, start(0, horizon=8), None, start(1, horizon=12), start(2))
    for _ in range(4):
        env.step_chunk(some_actions(4))
    assert given == [3, 2, 1]
    assert env.imagined_frames == 6 * 8
    mask = np.array([True, False, False, False])
    env.reset(options={"start_states": [start(5), None, None, None], "reset_mask": mask})
    env.step_chunk(some_actions(4))
    assert given[-1] == 1


def test_a_reset_of_some_rows_leaves_the_others_as_they_are() -> None:
    env, undisturbed = make_env(2), make_env(2)
    for one in (env, undisturbed):
        begin(one, start(0), start(1))
        one.step_chunk(some_actions(2))
    mask = np.array([True, False])
    env.reset(seed=[3, None], options={"start_states": [start(2), start(5)], "reset_mask": mask})
    assert env.observe().instruction == ["do task 2", "do task 1"]
    one, other = env.step_chunk(some_actions(2, seed=1)), undisturbed.step_chunk(some_actions(2, seed=1))
    np.testing.assert_array_equal(one.images[1], other.images[1])
    assert not close(one.images[0], other.images[0])
    env.reset(options={"start_states": [None, None]})
    assert not env.step_chunk(some_actions(2)).valid.any()
    assert env.observe().instruction == ["", ""]


def test_snapshots_go_on_exactly() -> None:
    env = make_env(2)
    begin(env, start(0, horizon=11), start(1))
    env.step_chunk(some_actions(2))
    for row in range(2):
        env.step(some_actions(2, 3, seed=4)[:, row])
    snapshot = env.snapshot()
    first = [env.step(some_actions(2, 6, seed=5)[:, i]) for i in range(6)]
    env.reset(options={"start_states": [None, None]})
    env.restore(snapshot)
    again = [env.step(some_actions(2, 6, seed=5)[:, i]) for i in range(6)]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0]["image"], other[0]["image"])
        for a, b in zip(one[1:4], other[1:4], strict=True):
            np.testing.assert_array_equal(a, b)
    assert [step[4]["valid"].tolist() for step in first] == [[True, True]] + [[False, True]] * 5
    with pytest.raises(UserError, match="a snapshot of 2 environments for 3"):
        make_env(3).restore(snapshot)


def test_single_steps_end_where_a_chunk_ends() -> None:
    for world in (tiny_world(), linear_world(history="frames")):
        whole, single = make_env(2, world=world), make_env(2, world=world)
        for env in (whole, single):
            begin(env, start(0), start(1, horizon=12))
        for seed in range(2):
            actions = some_actions(2, seed=seed)
            step = whole.step_chunk(actions)
            for number in range(8):
                observation, rewards, terminated, truncated, info = single.step(actions[:, number])
                np.testing.assert_array_equal(truncated, step.truncated[:, number])
                np.testing.assert_array_equal(info["valid"], step.valid[:, number])
                assert not rewards.any()
                assert not terminated.any()
            np.testing.assert_array_equal(observation["image"][0], step.images[0, -1])
    parts = make_env(2, world=world)
    begin(parts, start(0), start(1, horizon=12))
    parts.step_chunk(some_actions(2)[:, :5])
    ended = parts.step_chunk(some_actions(2)[:, 5:])
    begin(whole, start(0), start(1, horizon=12))
    np.testing.assert_array_equal(ended.images[:, -1], whole.step_chunk(some_actions(2)).images[:, -1])


def test_rows_may_stand_at_different_places_of_their_chunks() -> None:
    env, expected = make_env(2), make_env(2)
    for one in (env, expected):
        begin(one, start(0), start(1))
    actions = some_actions(2, 16)
    for number in range(3):
        env.step(actions[:, number])
    mask = np.array([False, True])
    env.reset(seed=[0, 11], options={"start_states": [None, start(1)], "reset_mask": mask})
    for number in range(8):  # row 0 is three actions ahead
        mixed = np.stack([actions[0, number + 3], actions[1, number]])
        observation = env.step(mixed)[0]
        if number == 4:
            ahead = observation["image"][0]
    step = expected.step_chunk(actions[:, :8])
    assert close(ahead, step.images[0, -1])
    assert close(observation["image"][1], step.images[1, -1])
    with pytest.raises(UserError, match="8 actions at once; the world model's chunk is 8, of which 3 were taken"):
        env.step_chunk(actions[:, :8])


def test_a_keyframe_goes_on_from_its_memory_for_what_is_left() -> None:
    """A rollout begun from the frames that another had made goes on as that one does, given its noise."""
    env = make_env(1, world=tiny_world(history="frames"))
    begin(env, start(0))
    actions = [some_actions(1, seed=seed) for seed in range(2)]
    first = env.step_chunk(actions[0])
    second = env.step_chunk(actions[1])
    later = make_env(1, world=tiny_world(history="frames"))
    keyframe = start(0, memory=first.images[0], memory_actions=actions[0][0], horizon=12)
    begin(later, keyframe)
    np.testing.assert_array_equal(later.observe().image[0], first.images[0, -1])
    imagined = later.snapshot().rollouts
    assert imagined is not None
    assert imagined.context.age.tolist() == [8]  # 20 - 12
    later._state.rollouts = type(imagined)(imagined.context, imagined.seeds, imagined.chunks + 1)
    np.testing.assert_array_equal(later.step_chunk(actions[1]).images, second.images)
    step = later.step_chunk(actions[0])
    assert step.valid[0].tolist() == [True] * 4 + [False] * 4
    assert step.truncated[0, 3]
    short = make_env(1)
    begin(short, start(0, memory=first.images[0, -2:], horizon=3))
    imagined = short.snapshot().rollouts
    assert imagined is not None
    np.testing.assert_array_equal(imagined.context.memory[0, 2:], first.images[0, -2:])
    np.testing.assert_array_equal(imagined.context.memory[0, :2], np.repeat(first.images[0, -2:-1], 2, 0))
    assert imagined.context.actions[0].tolist() == [[0, 0, -1]] * 4
    assert short.step_chunk(actions[0]).valid.sum() == 3


def test_uncertainty_is_the_spread_over_other_noises() -> None:
    plain, env = make_env(2), make_env(2, uncertainty_seeds=2)
    for one in (plain, env):
        begin(one, start(0), start(1, horizon=4))
    for seed in range(2):
        one, other = plain.step_chunk(some_actions(2, seed=seed)), env.step_chunk(some_actions(2, seed=seed))
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.info["success_probability"], other.info["success_probability"])
        spread = other.info["uncertainty"]
        assert (spread[other.valid] > 0).all()
        assert not spread[~other.valid].any()
    judge = env.classifier
    assert isinstance(judge, RedOracle)
    assert env.imagined_frames == 3 * plain.imagined_frames == 3 * 3 * 8
    found = torch.stack([clip[..., 0].float().mean((2, 3)).unfold(1, 3, 1).mean(-1) / 255 for clip in judge.clips[:3]])
    env = make_env(2, uncertainty_seeds=2)
    begin(env, start(0), start(1))
    spread = env.step_chunk(some_actions(2)).info["uncertainty"]
    np.testing.assert_allclose(spread, found.std(0, correction=0).numpy(), atol=1e-6)


def test_it_is_a_gymnasium_vector_environment() -> None:
    env = make_env(3)
    observation, info = env.reset(seed=5)
    assert observation in env.observation_space
    assert info["success"].tolist() == [False] * 3
    assert env.action_space.shape == (3, 3)
    again, _ = make_env(3).reset(seed=5)
    np.testing.assert_array_equal(observation["image"], again["image"])
    other, _ = make_env(3).reset(seed=6)
    np.testing.assert_array_equal(observation["image"][1:], other["image"][:2])  # row i takes seed + i
    assert len({picture.tobytes() for picture in observation["image"]}) == 3
    env.action_space.seed(0)
    for _ in range(3):
        observation, rewards, terminated, truncated, info = env.step(env.action_space.sample())
        assert observation in env.observation_space
        assert (rewards.shape, rewards.dtype) == ((3,), np.float32)
        assert terminated.dtype == truncated.dtype == info["valid"].dtype == bool
        assert info["success_probability"].shape == (3,)
    env.reset()  # unseeded: drawn from the generator that was seeded before
    env.close()


def test_rollouts_of_random_actions_and_of_a_policy() -> None:
    policy = PolicyActor(make_policy(action_dim=3), "tiny")
    plan = [EpisodeStart(number, start(number, horizon=6 + 5 * number)) for number in range(5)]
    for actor in (RandomActor(), policy):
        narrow, wide = make_env(2, 0.52), make_env(5, 0.52)
        found = {rollout.number: rollout for rollout in roll_out(narrow, actor, plan, seed=3)}
        beside = {rollout.number: rollout for rollout in roll_out(wide, actor, plan, seed=3)}
        assert sorted(found) == list(range(5))
        for number, rollout in found.items():
            assert len(rollout.frames) == len(rollout.actions) + 1 <= 7 + 5 * number
            assert rollout.instruction == f"do task {number % 3}"
            assert rollout.info["success_probability"].shape == (len(rollout.actions),)
            assert rollout.succeeded == (len(rollout.actions) < 6 + 5 * number) or rollout.success[-1]
            assert np.abs(rollout.frames[1:3].astype(int) - beside[number].frames[1:3]).max() <= 1


def test_bfloat16_keeps_its_state_in_float32() -> None:
    env = make_env(1, precision="bf16")
    begin(env, start(0))
    env.step_chunk(some_actions(1))
    rollouts = env.snapshot().rollouts
    assert rollouts is not None
    assert rollouts.context.latents.dtype == torch.float32


def test_a_snapshot_with_other_noise() -> None:
    env = make_env(2)
    begin(env, start(4), start(5))
    env.step_chunk(some_actions(2))
    before = env.snapshot()
    first = env.step_chunk(some_actions(2, seed=1)).images
    env.restore(before.reseeded([77, 78]))
    other = env.step_chunk(some_actions(2, seed=1)).images
    assert not np.array_equal(other, first)
    env.restore(before.reseeded([10, 11]))  # its own
    np.testing.assert_array_equal(env.step_chunk(some_actions(2, seed=1)).images, first)
    env.restore(before)
    np.testing.assert_array_equal(env.step_chunk(some_actions(2, seed=1)).images, first)
