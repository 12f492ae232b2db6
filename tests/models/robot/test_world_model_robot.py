"""A world model that is told what the robot itself is going to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.world_model.tiny_world import (
    following_world,
    pictures,
    random_actions,
    robot_of,
    tiny_robot,
    tiny_world,
)
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, load_network, record
from wovr.models.robot.conditioning import RobotConditioning, RobotInputs
from wovr.models.world_model.conditioning import Frame
from wovr.models.world_model.context import Context, with_told
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination


def proprio_of(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 5, generator=torch.Generator().manual_seed(seed))


def told_of(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"proprio": proprio_of(batch, seed)}


def context_of(model: WorldModel, batch: int = 2) -> Context:
    memory, actions = pictures(batch, 4, seed=1), random_actions(batch, 4)
    return model.encode_context(pictures(batch), memory, actions, signals=told_of(batch))


def told_by_tokens(**arguments: Any) -> WorldModel:
    """With a robot model, but context tokens and the head that copies in place."""
    return tiny_world(conditioning=RobotConditioning(tiny_robot()), **arguments)


def states_of(model: WorldModel, context: Context, actions: torch.Tensor) -> torch.Tensor:
    """(B, 1 + K, P) normalised proprioception that the network is told of a chunk."""
    inputs = model.inputs(context, actions)
    assert isinstance(inputs, RobotInputs)
    assert inputs.states is not None
    return inputs.states


def started(count: int = 3) -> Imagination:
    imagination = Imagination(following_world())
    imagination.start(pictures(count), signals=told_of(count), seeds=range(count))
    return imagination


@pytest.mark.parametrize("make", [following_world, told_by_tokens])
def test_actions_and_proprioception(make: Any) -> None:
    model = make()
    assert (model.action_dim, model.conditioning.told_dim, model.backbone.action_dim) == (3, 10, 13)
    context, actions = context_of(model), random_actions(2, 8)
    noise = torch.randn(2, *model.latent_shape((16, 16)))
    predicted = model.predict(noise, torch.ones(2), context, actions)
    assert predicted.shape == noise.shape
    moved = replace(context, state={"proprio": context.state["proprio"] + 1})
    assert not torch.allclose(model.predict(noise, torch.ones(2), moved, actions), predicted, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in robot_of(model).parameters())


@pytest.mark.parametrize("make", [following_world, told_by_tokens])
def test_a_start_without_its_proprioception(make: Any) -> None:
    model = make()
    for given, said in ((None, "there are none"), ({}, "there are none"),
                        ({"proprio": torch.zeros(2, 4)}, "there are 4 numbers of it")):  # fmt: skip
        message = rf"robot model takes 5 numbers of proprioception, {said}; use episodes that hold it"
        with pytest.raises(UserError, match=message):
            model.encode_context(pictures(2), signals=given)
        with pytest.raises(UserError, match=message):
            Imagination(model).start(pictures(2), signals=given)
    known = torch.ones(2, 12, dtype=torch.bool)
    with pytest.raises(UserError, match="there are none"):
        model.encode_window(pictures(2, 13), random_actions(2, 12), known, torch.zeros(2))


def test_without_a_robot_model_proprioception_is_ignored() -> None:
    model = tiny_world()
    assert model.conditioning.told_dim == 0
    assert model.encode_context(pictures(2), signals=told_of(2)).state == {}


def test_states_stand_beside_the_actions_that_lead_to_them() -> None:
    actions, states = random_actions(2, 7), torch.randn(2, 4, 5)  # 4 of memory, a chunk of 3
    frame = Frame(pictures(2), torch.zeros(2, 768, 2, 2))
    both = with_told(actions, RobotConditioning(tiny_robot()).inputs_of(states, frame).told)
    assert both.shape == (2, 7, 13)
    for b in range(2):
        for t in range(7):
            state = states[b, t - 3] if t >= 4 else None
            further = [0.0] * 10 if state is None else [*state, *(state - states[b, 0])]
            torch.testing.assert_close(both[b, t], torch.tensor([*actions[b, t], *further]))
    assert with_told(actions, None) is actions


def test_windows_and_contexts_agree() -> None:
    model = following_world()
    frames, actions, known = pictures(2, 13), random_actions(2, 12), torch.ones(2, 12, dtype=torch.bool)
    start = torch.tensor([4, 9])
    proprio = torch.stack([proprio_of(2, seed=seed) for seed in range(9)], dim=1)
    window = model.encode_window(frames, actions, known, start, signals={"proprio": proprio})
    context = model.encode_context(frames[:, 0], frames[:, 1:5], actions[:, :4], start, told_of(2))
    assert torch.equal(window.context.state.pop("after"), proprio[:, 1:])
    torch.testing.assert_close(vars(window.context), vars(context))
    assert torch.equal(context.state["proprio"], proprio_of(2))


def test_windows_are_told_the_truth_of_what_touch_decides_and_of_nothing_else() -> None:
    robot = tiny_robot(touch=[4])
    model = following_world(robot=robot)
    frames, actions, known = pictures(2, 13), random_actions(2, 12), torch.ones(2, 12, dtype=torch.bool)
    proprio = torch.stack([proprio_of(2, seed=seed) for seed in range(9)], dim=1)  # (B, 1 + K, P)
    window = model.encode_window(frames, actions, known, torch.tensor([4, 9]), signals={"proprio": proprio})
    unknowing = replace(window.context, state={"proprio": window.context.state["proprio"]})
    true, guessed = (states_of(model, context, actions[:, 4:]) for context in (window.context, unknowing))
    torch.testing.assert_close(true[..., :4], guessed[..., :4])
    torch.testing.assert_close(true[..., 4], robot.normalise(proprio)[..., 4])
    assert not torch.allclose(true[..., 4], guessed[..., 4], atol=0.1)
    # What is told reaches the network; told nothing, it hears the guess.
    noise, one = torch.randn(2, *model.latent_shape((16, 16))), torch.ones(2)
    told = model.predict(noise, one, window.context, window.actions)
    untold = model.predict(noise, one, unknowing, window.actions)
    assert not torch.allclose(told, untold, atol=1e-4)
    inputs = model.inputs(unknowing, window.actions)
    torch.testing.assert_close(model.predict(noise, one, window.context, window.actions, inputs), untold)


def test_a_frozen_robot_model_stays_out_of_training() -> None:
    """It has dropout, and blemishes pictures while it is fitted."""
    model = following_world(robot=tiny_robot(touch=[3, 4])).train()
    context, actions = context_of(model), random_actions(2, 8)
    assert not robot_of(model).training
    assert torch.equal(*(states_of(model, context, actions) for _ in range(2)))


def test_a_robot_model_for_other_chunks() -> None:
    following_world(robot=tiny_robot(chunk=4))
    with pytest.raises(UserError, match=r"chunk is 8, the robot model's 4; fit a robot model with data\.chunk"):
        following_world(robot=tiny_robot(touch=[4], chunk=4))


@pytest.mark.parametrize("touch", [None, [3, 4]])
def test_the_next_chunk_begins_where_the_robot_is_predicted_to_be(touch: list[int] | None) -> None:
    robot = tiny_robot(touch=touch)
    model = following_world(robot=robot)
    context, actions = context_of(model), random_actions(2, 8)
    _, following = model.imagine(context, actions, torch.randn(2, *model.latent_shape((16, 16))))
    expected = robot.restore(robot.states(proprio_of(2), actions, context.memory[:, -1])[:, -1])
    torch.testing.assert_close(following.state["proprio"], expected)
    assert not torch.allclose(following.state["proprio"], context.state["proprio"], atol=1e-2)


def test_going_on_from_a_snapshot() -> None:
    first, second = random_actions(3, 8, seed=1), random_actions(3, 8, seed=2)
    imagination = started()
    imagination.step(first)
    state = imagination.snapshot()
    expected = imagination.step(second)
    other = Imagination(following_world())
    other.restore(state)
    assert torch.equal(other.step(second), expected)
    other.restore(state.select(torch.tensor([2, 0])))
    found = other.step(second[[2, 0]])
    assert (found.int() - expected[[2, 0]].int()).abs().max() <= 1
    known = {"proprio": state.context.state["proprio"] + 1}
    moved = replace(state, context=replace(state.context, state=known))
    other.restore(moved)
    assert not torch.equal(other.step(second), expected)


def test_rollouts_side_by_side_do_not_see_each_other() -> None:
    together, alone = started(), Imagination(following_world())
    alone.start(pictures(3)[1:2], signals={"proprio": proprio_of(3)[1:2]}, seeds=[1])
    for seed in (1, 2):
        actions = random_actions(3, 8, seed=seed)
        frames, of_one = together.step(actions), alone.step(actions[1:2])
        # Sums in matrix products may be taken in another order, so frames are the same but for rounding.
        assert (frames[1:2].int() - of_one.int()).abs().max() <= 1


def test_frames_do_not_depend_on_the_next_chunk_s_actions() -> None:
    one, two = started(), started()
    first = random_actions(3, 8, seed=1)
    frames, again = one.step(first), two.step(first)
    assert torch.equal(frames, again)
    assert not torch.equal(one.step(random_actions(3, 8, seed=2)), two.step(random_actions(3, 8, seed=3)))


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    """The robot model travels in the world model's checkpoint."""
    model = following_world()
    state = {f"world_model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"world_model": model}, {})}, tmp_path / "world.ckpt")
    again = load_network(tmp_path / "world.ckpt", WorldModel)
    context, actions = context_of(model), random_actions(2, 8)
    noise = torch.randn(2, *model.latent_shape((16, 16)))
    assert torch.equal(again.sample_chunk(context, actions, noise), model.sample_chunk(context, actions, noise))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "velocity"}, "follow_hidden needs prediction data"),
        ({"head": "copy"}, "follow_hidden needs .*head linear"),
        ({"context": "tokens"}, "follow_hidden needs .*context channels"),
        (
            {"action_dim": 4},
            r"actions have 3 .*, the world model's 4; set world_model.init_args.action_dim to null",
        ),
        ({"backbone": {"action_dim": 3}}, r"action_dim is 3, .* make it 13; set backbone.init_args.action_dim to null"),
        ({"backbone": {"in_channels": 768}}, r"make it 3691; set backbone.init_args.in_channels to null"),
        ({"backbone": {"out_channels": 768}}, r"make it 384; set backbone.init_args.out_channels to null"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        following_world(**arguments)


def test_the_robot_s_actions_are_the_world_model_s() -> None:
    assert following_world(robot=tiny_robot(action_dim=4)).action_dim == 4
