from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.world_model.tiny_world import (
    SIZE,
    following_world,
    pictures,
    random_actions,
    robot_of,
    tiny_robot,
    tiny_world,
)
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.models.robot.conditioning import RobotConditioning, RobotInputs
from wovr.models.robot.touch import Courses
from wovr.models.world_model.conditioning import Frame
from wovr.models.world_model.context import Context, EncodedWindow
from wovr.models.world_model.model import WorldModel
from wovr.tasks.robot import wrong_turns
from wovr.tasks.robot.wrong_turns import WrongTurns, wrong_course
from wovr.tasks.world_model.training import WorldModelTraining

STARTS = torch.tensor([20, 4, 8, 9])


def world() -> WorldModel:
    return following_world(robot=tiny_robot(touch=[3, 4]))


def two_chunks() -> WorldModelBatch:
    """Windows whose memory, 12 frames, reaches back a chunk of 8 and the model's memory of 4."""
    count, generator = len(STARTS), torch.Generator().manual_seed(5)
    proprio = torch.randn(count, 20, 5, generator=generator)
    reached = STARTS[:, None] + torch.arange(-11, 9)  # by an action, unless it is the first frame or before
    return WorldModelBatch(
        frames=pictures(count, 21),
        actions=random_actions(count, 20),
        known=reached > 0,
        start=STARTS,
        keys=["one"] * count,
        signals={"proprio": proprio},
        chunk=8,
    )


def encoded(model: WorldModel, batch: WorldModelBatch) -> EncodedWindow:
    return WorldModelTraining(model)._encode(batch)


def row_of(context: Context, row: int) -> dict[str, Any]:
    return vars(context.map(lambda value: value[row]))


def test_which_course_is_the_wrong_one() -> None:
    ends = torch.tensor([[0.0, 2.0], [2.0, 0.0], [0.0, 0.2], [2.0, -2.0]])
    values = torch.zeros(4, 2, 3, 1)
    values[:, :, -1, 0] = ends
    truth = torch.full((4, 3, 1), 0.1)
    wrong, possible = wrong_course(Courses(torch.zeros(4), values), truth)
    # The last is wrong both ways, the third right both ways.
    assert possible.tolist() == [True, True, False, False]
    assert wrong[:2, -1, 0].tolist() == [2.0, 2.0]


def test_the_memory_is_what_the_model_imagines_under_the_wrong_course(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = world(), two_chunks()
    conditioning, robot = model.conditioning, robot_of(model)
    assert isinstance(conditioning, RobotConditioning)
    wrong = torch.randn(4, 8, 2, generator=torch.Generator().manual_seed(6))
    monkeypatch.setattr(wrong_turns, "wrong_course", lambda *_: (wrong, torch.tensor([True, True, False, True])))
    straight = encoded(model, batch)
    torch.manual_seed(7)
    found = WrongTurns(1.0)(model, batch, straight)

    torch.manual_seed(7)
    torch.rand(4)
    noise = torch.randn(4, *model.latent_shape((SIZE, SIZE)))
    memory_actions = batch.actions[:, :4].clone()
    memory_actions[~batch.known[:, :4]] = model.neutral
    context = model.encode_context(
        batch.frames[:, 0],
        batch.frames[:, 1:5],
        memory_actions,
        STARTS - 8,
        {"proprio": batch.signals["proprio"][:, 3]},
    )
    earlier = batch.actions[:, 4:12]
    states = robot.states(context.state["proprio"], earlier, context.memory[:, -1])
    states[:, 1:, 3:] = wrong
    inputs = conditioning.inputs_of(states, Frame(context.memory[:, -1], context.latents[:, :, -1]))
    latents = model.sample_chunk(context, earlier, noise, inputs=inputs)
    imagined = model.advance(context, earlier, latents, model.decode_chunk(context, latents), inputs)
    told = model.inputs(found.context, straight.actions)
    assert isinstance(told, RobotInputs)
    assert told.states is not None
    true = robot.normalise(batch.chunk_signals["proprio"])
    torch.testing.assert_close(told.states[:, 1:, 3:], true[:, 1:, 3:])
    assert torch.equal(found.context.state["after"], straight.context.state["after"])
    imagined.state |= {"after": straight.context.state["after"]}
    for row in (0, 3):  # the second window starts before a chunk has passed, the third could go one way only
        torch.testing.assert_close(row_of(found.context, row), row_of(imagined, row))
        torch.testing.assert_close(told.states[row, 0, 3:], wrong[row, -1], atol=1e-5, rtol=1e-5)
        assert not torch.equal(found.context.memory[row], straight.context.memory[row])
    for row in (1, 2):
        torch.testing.assert_close(row_of(found.context, row), row_of(straight.context, row), rtol=0, atol=0)
    assert torch.equal(found.new, straight.new)
    assert torch.equal(found.actions, straight.actions)


def test_a_share_of_those_that_can_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = world(), two_chunks()
    monkeypatch.setattr(wrong_turns, "wrong_course", lambda *_: (torch.zeros(4, 8, 2), torch.ones(4, dtype=torch.bool)))
    straight = encoded(model, batch)
    torch.manual_seed(0)
    assert WrongTurns(0.0)(model, batch, straight) is straight
    turned = torch.zeros(4)
    for _ in range(60):
        memory = WrongTurns(0.5)(model, batch, straight).context.memory
        turned += (memory != straight.context.memory).flatten(1).any(1)
    assert turned[1] == 0
    assert all(18 <= count <= 42 for count in turned[[0, 2, 3]])


def test_windows_of_longer_memory_are_the_same_windows() -> None:
    model, batch = world(), two_chunks()
    found = encoded(model, batch)
    expected = model.encode_window(
        torch.cat([batch.frames[:, :1], batch.frames[:, 9:]], dim=1),
        batch.actions[:, 8:], batch.known[:, 8:], STARTS, signals=batch.chunk_signals,
    )  # fmt: skip
    torch.testing.assert_close(vars(found.context), vars(expected.context), rtol=0, atol=0)
    assert torch.equal(found.new, expected.new)


def test_where_nothing_is_guessed_nothing_can_go_wrong() -> None:
    model, batch = following_world(robot=tiny_robot(touch=None)), two_chunks()
    assert WorldModelTraining(model, augmentations=[WrongTurns(1.0)]).reach == 4
    assert WorldModelTraining(world(), augmentations=[WrongTurns(1.0)]).reach == 12
    window = encoded(model, batch)
    assert WrongTurns(1.0)(model, batch, window) is window


def test_wrong_turns_need_a_robot_model() -> None:
    for model, cached in ((tiny_world(), False), (world(), True)):
        with pytest.raises(UserError, match="WrongTurns need a world model with a robot model, and no latents cached"):
            WorldModelTraining(model, augmentations=[WrongTurns(0.5)], cache_latents=cached)
    with pytest.raises(UserError, match=r"share of WrongTurns is 1.5; give"):
        WrongTurns(1.5)
