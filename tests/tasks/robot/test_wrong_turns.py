from __future__ import annotations

import pytest
import torch

from tests.models.world_model.tiny_world import SIZE, following_world, pictures, random_actions, tiny_robot
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.models.robot.touch import Courses
from wovr.models.world_model.context import EncodedWindow
from wovr.models.world_model.model import WorldModel
from wovr.tasks.robot import wrong_turns
from wovr.tasks.robot.wrong_turns import take_wrong_turns, wrong_course
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
        proprio=proprio,
        chunk=8,
    )


def encoded(model: WorldModel, batch: WorldModelBatch) -> EncodedWindow:
    return WorldModelTraining(model)._encode(batch)


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
    robot = model.robot
    assert robot is not None
    wrong = torch.randn(4, 8, 2, generator=torch.Generator().manual_seed(6))
    monkeypatch.setattr(wrong_turns, "wrong_course", lambda *_: (wrong, torch.tensor([True, True, False, True])))
    straight = encoded(model, batch)
    torch.manual_seed(7)
    found = take_wrong_turns(model, batch, straight, share=1.0)

    torch.manual_seed(7)
    torch.rand(4)
    noise = torch.randn(4, *model.latent_shape((SIZE, SIZE)))
    memory_actions = batch.actions[:, :4].clone()
    memory_actions[~batch.known[:, :4]] = model.neutral
    context = model.encode_context(
        batch.frames[:, 0], batch.frames[:, 1:5], memory_actions, STARTS - 8, batch.proprio[:, 3]
    )
    earlier = batch.actions[:, 4:12]
    states = robot.states(context.proprio, earlier, context.memory[:, -1])
    states[:, 1:, 3:] = wrong
    latents = model.sample_chunk(context, earlier, noise, states=states)
    imagined = model.advance(context, earlier, latents, model.decode_chunk(context, latents), states)
    told = model.robot_states(imagined, straight.actions)
    assert told is not None
    assert found.states is not None
    assert straight.states is not None
    told[:, 1:, 3:] = robot.normalise(batch.chunk_proprio)[:, 1:, 3:]
    for row in (0, 3):  # the second window starts before a chunk has passed, the third could go one way only
        for name, value in vars(imagined).items():
            torch.testing.assert_close(getattr(found.context, name)[row], value[row])
        torch.testing.assert_close(found.states[row], told[row])
        torch.testing.assert_close(found.states[row, 0, 3:], wrong[row, -1], atol=1e-5, rtol=1e-5)
        assert not torch.equal(found.context.memory[row], straight.context.memory[row])
    for row in (1, 2):
        for name, value in vars(straight.context).items():
            assert torch.equal(getattr(found.context, name)[row], value[row])
        assert torch.equal(found.states[row], straight.states[row])
    assert torch.equal(found.new, straight.new)
    assert torch.equal(found.actions, straight.actions)


def test_a_share_of_those_that_can_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = world(), two_chunks()
    monkeypatch.setattr(wrong_turns, "wrong_course", lambda *_: (torch.zeros(4, 8, 2), torch.ones(4, dtype=torch.bool)))
    straight = encoded(model, batch)
    torch.manual_seed(0)
    assert take_wrong_turns(model, batch, straight, share=0.0) is straight
    turned = torch.zeros(4)
    for _ in range(60):
        memory = take_wrong_turns(model, batch, straight, share=0.5).context.memory
        turned += (memory != straight.context.memory).flatten(1).any(1)
    assert turned[1] == 0
    assert all(18 <= count <= 42 for count in turned[[0, 2, 3]])


def test_windows_of_longer_memory_are_the_same_windows() -> None:
    model, batch = world(), two_chunks()
    found = encoded(model, batch)
    expected = model.encode_window(
        torch.cat([batch.frames[:, :1], batch.frames[:, 9:]], dim=1),
        batch.actions[:, 8:], batch.known[:, 8:], STARTS, proprio=batch.chunk_proprio,
    )  # fmt: skip
    for name, value in vars(expected.context).items():
        assert torch.equal(getattr(found.context, name), value)
    assert torch.equal(found.new, expected.new)


@pytest.mark.parametrize("touch", [None, [3]])
def test_wrong_turns_need_two_ways(touch: list[int] | None) -> None:
    model = following_world(robot=tiny_robot(touch=touch))
    if touch:
        WorldModelTraining(model, wrong_turns=0.5)
    with pytest.raises(UserError, match=r"wrong_turns is .*; give"):
        WorldModelTraining(model, wrong_turns=1.5 if touch else 0.5)
