from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.world_model.tiny_world import pictures, random_actions, tiny_backbone, tiny_robot
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, Network, record
from wovr.models.robot.loading import load_robot_model
from wovr.models.robot.model import NEAR, STEP, RobotModel


def states(*shape: int, seed: int = 0) -> torch.Tensor:
    """(*shape, 5) float32."""
    return torch.randn(*shape, 5, generator=torch.Generator().manual_seed(seed))


def save(network: Network, path: Path) -> Path:
    name = network.kind
    weights = {f"{name}.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: record({name: network}, {})}, path)
    return path


def test_the_projection_is_that_of_homogeneous_coordinates() -> None:
    robot = tiny_robot()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        robot.camera.copy_(torch.randn(2, 4, generator=generator))
        robot.depth.copy_(0.3 * torch.randn(3, generator=generator))
    state = states(6, 4)
    place, depth = robot.project(state)
    assert (place.shape, depth.shape) == ((6, 4, 2), (6, 4))
    matrix = np.vstack([robot.camera.detach().numpy(), [*robot.depth.tolist(), 1.0]])
    for index in np.ndindex(6, 4):
        x, y, w = matrix @ np.append(state[index][:3].numpy(), 1.0)
        w = max(w, NEAR)
        assert depth[index].item() == pytest.approx(w, abs=1e-5)
        assert place[index].tolist() == pytest.approx([x / w, y / w], abs=1e-4)
    behind = torch.zeros(1, 5)
    behind[0, :3] = -20 * robot.depth / robot.depth.square().sum()
    assert robot.project(behind)[1].tolist() == pytest.approx([NEAR])


def test_the_network_step_by_step() -> None:
    """Against a gated recurrent unit written out, one rollout at a time."""
    robot = tiny_robot()
    begin, actions = states(2), random_actions(2, 3)
    weights = {name: value.numpy().astype(float) for name, value in robot.state_dict().items()}

    def linear(name: str, x: np.ndarray, kind: str = "") -> np.ndarray:
        return weights[f"{name}.weight{kind}"] @ x + weights[f"{name}.bias{kind}"]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def silu(x: np.ndarray) -> np.ndarray:
        return x * sigmoid(x)

    found = robot.unroll(begin, actions)
    assert found.shape == (2, 3, 5)
    for b in range(2):
        state, memory = begin[b].numpy().astype(float), np.zeros(8)
        for k in range(3):
            seen = np.concatenate([actions[b, k].numpy(), state])
            look = silu(linear("look.2", silu(linear("look.0", seen))))
            new, old = linear("cell", look, "_ih").reshape(3, 8), linear("cell", memory, "_hh").reshape(3, 8)
            reset, keep = sigmoid(new[0] + old[0]), sigmoid(new[1] + old[1])
            memory = (1 - keep) * np.tanh(new[2] + reset * old[2]) + keep * memory
            state = state + STEP * linear("move.2", silu(linear("move.0", np.concatenate([memory, look, seen]))))
            np.testing.assert_allclose(found[b, k].detach().numpy(), state, atol=1e-5)


def test_a_state_does_not_depend_on_later_actions() -> None:
    robot = tiny_robot()
    begin, actions = states(2), random_actions(2, 8)
    found = robot.unroll(begin, actions)
    for step in range(8):
        other = actions.clone()
        other[:, step] = -other[:, step]
        changed = robot.unroll(begin, other)
        assert torch.equal(changed[:, :step], found[:, :step])
        assert not torch.allclose(changed[:, step], found[:, step], atol=1e-6)


@pytest.mark.parametrize("touch", [None, [3, 4]])
def test_predictions_are_in_the_robot_s_units(touch: list[int] | None) -> None:
    """A robot that measures in other units, from another origin, is predicted the same motion in them."""
    robot, other = tiny_robot(touch=touch), tiny_robot(touch=touch)
    scale, origin = torch.tensor([100.0, 100.0, 100.0, 2.0, 0.5]), torch.tensor([5.0, -3.0, 0.0, 1.0, 7.0])
    other.mean.copy_(robot.mean * scale + origin)
    other.spread.copy_(robot.spread * scale)
    proprio, actions, frame = states(3), random_actions(3, 8), pictures(3)
    found = robot.states(proprio, actions, frame)
    assert found.shape == (3, 9, 5)
    torch.testing.assert_close(other.states(proprio * scale + origin, actions, frame), found, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[:, 0] * robot.spread + robot.mean, proprio)
    torch.testing.assert_close(robot.restore(found[:, 0]), proprio)
    torch.testing.assert_close(robot.normalise(robot.restore(found)), found)
    alone = robot.unroll(found[:, 0], actions)
    moved = slice(None) if touch is None else slice(3)
    torch.testing.assert_close(found[:, 1:, moved], alone[..., moved], atol=1e-5, rtol=1e-4)


def test_only_the_touch_numbers_come_from_the_picture() -> None:
    robot, proprio, actions = tiny_robot(touch=[4]), states(3), random_actions(3, 8)
    one, two = (robot.states(proprio, actions, pictures(3, seed=seed)) for seed in (1, 2))
    assert torch.equal(one[..., :4], two[..., :4])
    assert torch.equal(one[:, 0], two[:, 0])
    assert not torch.allclose(one[:, 1:, 4], two[:, 1:, 4], atol=1e-5)
    likelier = robot.courses(
        torch.cat([one[:, :1], robot.unroll(one[:, 0], actions)], dim=1), actions, pictures(3, seed=1)
    ).likelier()
    torch.testing.assert_close(one[:, 1:, 4:], likelier)
    without = tiny_robot()
    assert torch.equal(*(without.states(proprio, actions, pictures(3, seed=seed)) for seed in (1, 2)))


@pytest.mark.parametrize("touch", [None, [3]])
def test_millimetres_are_not_rounded_away(touch: list[int] | None) -> None:
    robot = tiny_robot(touch=touch)
    proprio, actions, frame = states(3), random_actions(3, 8), pictures(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = robot.states(proprio, actions.bfloat16(), frame)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, robot.states(proprio, actions.bfloat16().float(), frame))


@pytest.mark.parametrize("touch", [None, [3, 4]])
def test_checkpoint_round_trip(tmp_path: Path, touch: list[int] | None) -> None:
    robot = tiny_robot(touch=touch)
    again = load_robot_model(save(robot, tmp_path / "robot.ckpt"))
    assert (again.action_dim, again.proprio_dim, again.width, again.touch) == (3, 5, 8, touch or [])
    proprio, actions, frame = states(2), random_actions(2, 8), pictures(2)
    assert torch.equal(again.eval().states(proprio, actions, frame), robot.states(proprio, actions, frame))
    assert torch.equal(again.project(proprio)[0], robot.project(proprio)[0])


@pytest.mark.parametrize("touch", [[2], [5], [3, 3]])
def test_touch_numbers_that_cannot_be(touch: list[int]) -> None:
    with pytest.raises(UserError, match=r"touch is \[.*\] with proprio_dim 5; give numbers from 3 to 4, or null"):
        tiny_robot(touch=touch)


def test_what_is_no_robot_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds backbone, not a robot_model"):
        load_robot_model(save(tiny_backbone(), tmp_path / "other.ckpt"))
    with pytest.raises(UserError, match="no such file"):
        load_robot_model(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="proprio_dim is 2; give 3 or more"):
        RobotModel(proprio_dim=2)
