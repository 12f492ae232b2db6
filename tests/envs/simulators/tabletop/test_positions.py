"""Positions read off stored states, against those of the simulator itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator
from wovr.envs.scenes import scene_positions
from wovr.envs.simulators.tabletop.positions import object_positions
from wovr.envs.simulators.tabletop.tasks import TASKS
from wovr.errors import UserError
from wovr.types import EpisodeMeta, StartState

TRIED = [("spatial", 0), ("spatial", 5), ("object", 8), ("goal", 6), ("long", 2)]


def simulate() -> list[tuple[np.ndarray, list[dict[str, np.ndarray]], list[dict[str, int]]]]:
    """States of an episode of each task, every body's position and how many fingers touch it."""
    from wovr.envs.simulators.tabletop.env import TabletopEnv

    env = TabletopEnv(16)
    episodes = []
    for suite, task in TRIED:
        env.start(StartState(suite, task, 3))
        things = [placement.thing.name for placement in TASKS[suite][task].placements]
        bodies = ["left_finger", "right_finger", *things]
        bodies += ["drawer"] if any(fixture.kind == "cabinet" for fixture in TASKS[suite][task].fixtures) else []
        states, positions, touching = [], [], []
        for _ in range(45):
            states.append(env.sim_state())
            world = env.world
            positions.append({name: world.position(name).copy() for name in bodies} | {"gripper": world.hand.copy()})
            touching.append({name: world.fingers_on(name) for name in things})
            env.step(env.expert_action())
        episodes.append((np.stack(states), positions, touching))
    return episodes


@pytest.fixture(scope="module")
def episodes() -> list[tuple[np.ndarray, list[dict[str, np.ndarray]], list[dict[str, int]]]]:
    return in_simulator(simulate)


@pytest.mark.parametrize("number", range(len(TRIED)), ids=[f"{suite}-{task}" for suite, task in TRIED])
def test_positions_are_the_simulators(number: int, episodes) -> None:  # type: ignore[no-untyped-def]
    states, positions, _ = episodes[number]
    scene = object_positions(*TRIED[number], states)
    assert set(scene.names) == set(positions[0])
    for index, name in enumerate(scene.names):
        expected = np.stack([frame[name] for frame in positions])
        np.testing.assert_allclose(scene.positions[:, index], expected, atol=1e-6, err_msg=name)
    assert scene.movable.sum() == len(TASKS[TRIED[number][0]][TRIED[number][1]].placements)


def test_held_is_what_both_fingers_touch(episodes) -> None:  # type: ignore[no-untyped-def]
    agreed, held_somewhere = [], 0
    for (suite, task), (states, _, touching) in zip(TRIED, episodes, strict=True):
        scene = object_positions(suite, task, states)
        assert not scene.held[:, ~scene.movable].any()
        for index in np.flatnonzero(scene.movable):
            held = scene.held[:, index]
            touched = np.array([frame[scene.names[index]] == 2 for frame in touching])
            agreed += (held == touched).tolist()
            held_somewhere += held.any()
    assert held_somewhere >= 4, "the drawer is not an object"
    assert np.mean(agreed) > 0.97


def test_things_that_look_alike_have_one_look(episodes) -> None:  # type: ignore[no-untyped-def]
    scene = object_positions("spatial", 0, episodes[0][0])
    looks = dict(zip(scene.names, scene.looks, strict=True))
    assert looks["red_cube_1"] == looks["red_cube_2"] == "red_cube"
    assert looks["blue_cylinder"] == "blue_cylinder"


def test_states_of_something_else_are_refused() -> None:
    with pytest.raises(UserError, match=r"sim_state has shape \(2, 9\), task spatial/next_to_cylinder takes at least"):
        object_positions("spatial", 0, np.zeros((2, 9)))
    with pytest.raises(UserError, match="no task 10 in suite 'spatial'"):
        object_positions("spatial", 10, np.zeros((2, 203)))
    meta = EpisodeMeta("do", "kitchen", 0, 0, 10.0, "expert", "my_robot:FrankaEnv")
    with pytest.raises(UserError, match=r"x\.tar: what a simulator state of 'my_robot:FrankaEnv' means is not known"):
        scene_positions(meta, np.zeros((2, 9)), "x.tar")
    meta.source = "tabletop"
    with pytest.raises(UserError, match=r"x\.tar: holds no sim_state"):
        scene_positions(meta, None, "x.tar")


def test_no_simulator_is_needed() -> None:
    module = "wovr.envs.simulators.tabletop.positions"
    script = f"import sys, {module}; assert not {{'mujoco', 'torch'}} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", script], check=True)
