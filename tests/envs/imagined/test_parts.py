from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.envs.imagined.worlds import SIGMAS, SUITE, RedOracle, Starts, begin, make_env, some_actions, start
from tests.models.world_model.tiny_world import pictures, tiny_world
from wovr.envs.imagined.env import ImaginedVectorEnv, make_imagined_env
from wovr.envs.imagined.starts import Beginnings, prepare_starts
from wovr.errors import UserError
from wovr.models.reward import SuccessClassifier
from wovr.types import StartState


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (StartState(SUITE, 0), "start state of spatial/0: it has no reference frame"),
        (StartState(SUITE, 7, reference=np.zeros((16, 16, 3), np.uint8)), "spatial/7: the success classifier does not"),
        (StartState(SUITE, 0, reference=np.zeros((8, 16, 3), np.uint8)), r"reference frame has shape \(8, 16, 3\)"),
        (start(0, memory=np.zeros((16, 16, 3), np.uint8)), r"memory has shape \(16, 16, 3\)"),
        (start(0, memory=pictures(2).numpy(), memory_actions=np.zeros((2, 4))), r"memory_actions have shape \(2, 4\)"),
        (start(0, horizon=0), "horizon is 0; give 1 or more"),
    ],
)
def test_start_states_that_cannot_be_imagined(bad: StartState, line: str) -> None:
    env = make_env(1)
    begin(env, start(1))
    before = env.observe().image
    with pytest.raises(UserError, match=line):
        begin(env, bad)
    np.testing.assert_array_equal(env.observe().image, before)


def beginnings(*starts: StartState) -> Beginnings:
    return prepare_starts(starts, Starts(), [(SUITE, i) for i in range(3)], 4, np.zeros(3, np.float32))


def test_starts_bring_their_proprioception() -> None:
    felt = np.arange(8.0).astype(np.float32).reshape(2, 4)
    begun = beginnings(start(0, proprio=felt[0]), start(1, proprio=felt[1]))
    np.testing.assert_array_equal(begun.signals["proprio"], felt)
    assert beginnings(start(0), start(1)).signals == {}


@pytest.mark.parametrize(
    ("proprio", "line"),
    [
        ((np.zeros(3), None), "start states with and without proprio; collect the episodes again"),
        ((np.zeros(3), np.zeros(4)), r"start states with proprio of shapes \[\(3,\), \(4,\)\]"),
        ((np.zeros((1, 3)), np.zeros((1, 3))), r"start states with proprio of shapes \[\(1, 3\)\]"),
    ],
)
def test_proprioception_that_does_not_agree(proprio: tuple[np.ndarray | None, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        beginnings(*(start(number, proprio=values) for number, values in enumerate(proprio)))


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="the world model: takes actions of 3 dimensions, those of the start states"):
        make_env(starts=Starts(action_dim=4))
    with pytest.raises(UserError, match="num_envs is 0; give 1 or more"):
        make_env(0)
    with pytest.raises(UserError, match="device 'nowhere' cannot be used"):
        make_env(device="nowhere")
    judge = RedOracle()
    judge.tasks = judge.tasks[:2]
    with pytest.raises(UserError, match="the success classifier: was not trained for task spatial/2"):
        ImaginedVectorEnv(tiny_world(), judge, Starts(), 1)
    env = make_env(2)
    begin(env, start(0), start(1))
    with pytest.raises(UserError, match="16 actions at once; the world model's chunk is 8; use a policy"):
        env.step_chunk(some_actions(2, 16))
    with pytest.raises(UserError, match=r"actions have shape \(2, 8, 2\)"):
        env.step_chunk(some_actions(2)[..., :2])
    with pytest.raises(UserError, match="start_states has 1 entries for 2 environments"):
        begin(env, start(0))
    env.classifier.probability = lambda frames, tasks: torch.full((len(frames), 8), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="probabilities are not finite"):
        env.step_chunk(some_actions(2))


def test_an_environment_of_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    world = write_checkpoint(tmp_path / "wm.ckpt", tiny_world())
    tasks = [(SUITE, task) for task in range(3)]
    judge = SuccessClassifier(window=2, channels=(8, 8), embedding=4, width=8, max_tasks=4, tasks=tasks)
    reward = write_checkpoint(tmp_path / "reward.ckpt", judge)
    env = make_imagined_env(world, reward, Starts(), 2, sigmas=SIGMAS, device="cpu")
    begin(env, start(0), start(1))
    expected = make_env(2)
    begin(expected, start(0), start(1))
    step = env.step_chunk(some_actions(2))
    np.testing.assert_array_equal(step.images[0, 0], expected.step_chunk(some_actions(2)).images[0, 0])
    clips = torch.from_numpy(np.concatenate([start(0).reference[None], step.images[0]]))[None]  # type: ignore[index]
    probability = judge.eval().probability(clips, [(SUITE, 0)])[0].numpy()
    valid = step.valid[0]
    np.testing.assert_allclose(step.info["success_probability"][0, valid], probability[valid], atol=1e-3)
    with pytest.raises(UserError, match=r"wm\.ckpt: takes actions of 3 dimensions, those of the start states have 4"):
        make_imagined_env(world, reward, Starts(action_dim=4), 2)
    some = SuccessClassifier(window=2, channels=(8, 8), embedding=4, width=8, max_tasks=4, tasks=tasks[:1])
    with pytest.raises(UserError, match=r"some\.ckpt: was not trained for task spatial/1"):
        make_imagined_env(world, write_checkpoint(tmp_path / "some.ckpt", some), Starts(), 2)
    with pytest.raises(UserError, match=r"wm\.ckpt: holds world_model, not a reward"):
        make_imagined_env(world, world, Starts(), 2)
