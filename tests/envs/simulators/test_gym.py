"""Foreign Gymnasium environments: pictures, actions, success, numbered starts and states; a tiny one and MuJoCo's."""

from __future__ import annotations

import importlib.util
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.envs.dot_env import WIDTH, DotEnv
from tests.envs.simulators.simulation import in_simulator
from wovr.envs.registry import make_simulator
from wovr.envs.simulators.gym import GymEnv, resize
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import StartState

DOT = "tests.envs.dot_env:DotEnv"

needs_gymnasium_mujoco = pytest.mark.skipif(
    importlib.util.find_spec("imageio") is None, reason="Gymnasium's MuJoCo environments need imageio"
)


@pytest.fixture(autouse=True)
def keep_backend(monkeypatch) -> None:
    """Making a GymEnv sets MUJOCO_GL for its process; put it back, and prescribe no backend a machine may lack."""
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", ""))


def start(number: int = 0, **kwargs) -> StartState:
    return StartState("gym", 0, number, **kwargs)


def dot(**kwargs) -> GymEnv:
    arguments = {name: kwargs.pop(name) for name in ("picture", "told", "discrete") if name in kwargs}
    return GymEnv(DOT, arguments=arguments, **kwargs)


@pytest.mark.parametrize(
    ("picture", "image_key"), [("rgb", ""), ("chw", ""), ("dict", ""), ("dict", "eye"), ("two", "left"), ("none", "")]
)
def test_the_picture_is_found_wherever_it_is(picture: str, image_key: str) -> None:
    env = dot(picture=picture, image_key=image_key, size=24)
    image = env.start(start(3))["image"]
    plain = DotEnv()
    observed, _ = plain.reset(seed=3)
    # 48 x 96 to 24 x 24: each pixel is the mean of a block of 2 x 4.
    expected = observed.reshape(24, 2, 24, 4, 3).mean((1, 3))
    assert image.dtype == np.uint8
    assert np.abs(image - expected).max() <= 0.5
    assert (env.render() == image).all()
    assert env.observation_space.contains({"image": image, "instruction": "dot env"})


def test_gray_pictures_become_rgb() -> None:
    image = dot(picture="gray", size=WIDTH).start(start())["image"]
    assert image.shape == (WIDTH, WIDTH, 3)
    assert (image[..., 0] == image[..., 2]).all()
    assert image.std() > 10


def test_proprioception_is_the_environments_own() -> None:
    env, silent = dot(), dot(told=False)
    env.start(start(2))
    silent.start(start(2))
    proprio = env.proprio()
    assert proprio is not None
    assert proprio.dtype == np.float32
    assert proprio.tolist() == [*np.float32(env.env.unwrapped.position), 0.0]
    assert silent.proprio() is None


def naive_resize(image: np.ndarray, size: tuple[int, int], grain: int = 60) -> np.ndarray:
    """Area means by brute force: every pixel split into grain x grain, and every new one averaged over its own."""
    height, width = image.shape[:2]
    rows = (np.arange(size[0] * grain) + 0.5) / (size[0] * grain) * height
    columns = (np.arange(size[1] * grain) + 0.5) / (size[1] * grain) * width
    fine = image[rows.astype(int)][:, columns.astype(int)].astype(float)
    return fine.reshape(size[0], grain, size[1], grain, 3).mean((1, 3))


@pytest.mark.parametrize("size", [(7, 11), (20, 30), (33, 17), (1, 1)])
def test_resize_is_the_mean_of_the_area(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert np.abs(resize(image, size).astype(float) - naive_resize(image, size)).max() < 2.0
    assert (resize(np.full_like(image, 255), size) == 255).all()


def test_actions_reach_the_environment_in_its_own_units() -> None:
    env = dot()
    env.start(start())
    inner = env.env.unwrapped
    for action, own in (([-1, -1], [0, -2]), ([1, 1], [4, 2]), ([0, 0.5], [2, 1]), ([-3, 9], [0, 2])):
        env.start(start())
        env.step(np.array(action, np.float32))
        assert inner.last_action.dtype == np.float64
        assert inner.last_action.tolist() == own
    assert env.action_space.shape == (2,)
    assert env.fps == 20.0


@pytest.mark.parametrize("told", [True, False])
def test_success_ends_an_episode_and_so_does_failure(told: bool) -> None:
    env = dot(told=told)
    for policy, expected in ((env.expert_action, True), (lambda: np.ones(2, np.float32), False)):
        env.start(start(1))
        for _ in range(60):
            _, reward, terminated, truncated, info = env.step(policy())
            if terminated or truncated:
                break
        assert (terminated, info["success"], reward) == (expected, expected, float(expected))
        assert truncated  # the environment is over: nobody may step on


def test_horizons() -> None:
    gymnasium.register("wovr-test/SlowDot-v0", entry_point=DOT, max_episode_steps=15)
    try:
        registered = GymEnv("wovr-test/SlowDot-v0", image_key="render")
    finally:
        del gymnasium.registry["wovr-test/SlowDot-v0"]
    assert registered.task.instruction == "slow dot"
    assert registered.env.spec.max_episode_steps != 15  # counted here: Gymnasium's count would outlast a restored state
    still = np.array([-1, 0], np.float32)
    for env, begin, length in (
        (dot(horizon=9), start(), 9),
        (dot(horizon=9), start(horizon=4), 4),
        (registered, start(), 15),
        (registered, start(horizon=20), 20),
    ):
        env.start(begin)
        ends = [env.step(still)[3] for _ in range(length)]
        assert ends == [False] * (length - 1) + [True]


def test_initial_states_are_seeds() -> None:
    first, second = dot(), dot()
    images = [first.start(start(number))["image"] for number in range(4)]
    assert len({image.tobytes() for image in images}) == 4
    for number in (2, 0, 3):
        assert (second.start(start(number))["image"] == images[number]).all()
    observation, _ = first.reset(seed=1)
    assert (observation["image"] == second.reset(seed=1)[0]["image"]).all()


@pytest.mark.parametrize("picture", ["rgb", "none"])
def test_a_stored_state_goes_on(picture: str) -> None:
    env, other = dot(picture=picture), dot(picture=picture)
    env.start(start(5))
    actions = np.random.default_rng(0).uniform(-1, 0, (8, 2)).astype(np.float32)
    images, states = [], []
    for action in actions:
        images.append(env.step(action)[0]["image"])
        states.append(env.sim_state())
    assert (other.start(start(0, sim_state=states[2]))["image"] == images[2]).all()
    for step in range(3, 8):
        assert (other.step(actions[step])[0]["image"] == images[step]).all()
        assert (other.sim_state() == states[step]).all()
    assert other.elapsed == 8
    with pytest.raises(UserError, match=r"sim_state has shape \(3,\), it takes \(4,\)"):
        env.start(start(0, sim_state=np.zeros(3)))


def test_without_states_there_is_none() -> None:
    env = GymEnv("tests.envs.simulators.test_gym:NoState")
    env.start(start())
    assert env.sim_state() is None
    with pytest.raises(UserError, match="cannot restore a state"):
        env.start(start(sim_state=np.zeros(4)))
    with pytest.raises(UserError, match="has no scripted expert"):
        env.expert_action()


class NoState(DotEnv):
    get_state = None  # type: ignore[assignment]
    expert_action = None  # type: ignore[assignment]


def test_in_workers_with_its_own_task() -> None:
    arguments = {"env": DOT, "instruction": "move the dot to the right", "horizon": 50}
    with closing(WorkerVectorEnv("gym", 2, 1, arguments, record_states=True)) as env:
        (task,) = env.suites["gym"]
        assert (task.name, task.instruction, task.horizon) == (DOT, "move the dot to the right", 50)
        assert env.fps == 20.0
        observation, _ = env.reset(options={"start_states": [start(0), start(1)]})
        assert observation["instruction"] == ("move the dot to the right",) * 2
        chunk = env.step_expert(30)
        assert chunk.success.sum(axis=1).tolist() == [1, 1]
        assert chunk.sim_state[0].shape == (30, 4)


def test_bad_environments_end_in_one_clear_line() -> None:
    for complaint, make in (
        ("takes actions of Discrete", lambda: dot(discrete=True)),
        ("has unbounded actions", lambda: GymEnv("tests.envs.simulators.test_gym:Unbounded")),
        ("observes several pictures; set image_key to one of left, right", lambda: dot(picture="two")),
        ("observes no 'nose'; set image_key to one of eye, render", lambda: dot(picture="dict", image_key="nose")),
        ("cannot be made: .*doesn't exist", lambda: GymEnv("NoSuchEnv-v0")),
        ("cannot be made: No module named", lambda: GymEnv("no_such_package:Env")),
        ("cannot be made: .*unexpected keyword", lambda: GymEnv(DOT, arguments={"colour": 1})),
        ("is no gymnasium.Env", lambda: GymEnv("collections:OrderedDict")),
        ("horizon 512 is out of range", lambda: dot(horizon=512)),
        ("size 4 is too small", lambda: dot(size=4)),
        ("gym has no task 1", lambda: dot().start(StartState("gym", 1, 0))),
        ("initial state -1 does not exist", lambda: dot().start(start(-1))),
        ("gives float32 .2,. for a picture", lambda: dot(picture="dict", image_key="where").start(start())),
        ("missing a required argument: 'env'", lambda: make_simulator("gym", {})),
    ):
        with pytest.raises(UserError, match=complaint):
            make()


class Unbounded(DotEnv):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


def two_reachers() -> dict:
    first, second = (GymEnv("Reacher-v5", size=48) for _ in range(2))
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 2)).astype(np.float32)
    begin = first.start(start(7))["image"]
    images, states = [], []
    for action in actions:
        second.start(start(len(images)))  # another of its kind draws in between
        images.append(first.step(action)[0]["image"])
        states.append(first.sim_state())
    result = {
        "begin": (second.start(start(7))["image"] == begin).all(),
        "there": (second.start(start(0, sim_state=states[4]))["image"] == images[4]).all(),
        "exact": True,
        "seen": float(begin.std()),
        "moved": len({image.tobytes() for image in images}),
        "samples": first.env.unwrapped.model.vis.quality.offsamples,
        "horizon": first.horizon,
    }
    first.close()
    for step in range(5, 12):
        same_image = (second.step(actions[step])[0]["image"] == images[step]).all()
        result["exact"] &= same_image and (second.sim_state() == states[step]).all()
    return result


@needs_gymnasium_mujoco
def test_gymnasiums_mujoco_restores_exactly_and_shares_a_process() -> None:
    result = in_simulator(two_reachers)
    assert result["begin"]
    assert result["there"]
    assert result["exact"]
    assert result["seen"] > 10
    assert result["moved"] == 12
    assert result["samples"] == 0
    assert result["horizon"] == 50


@pytest.mark.parametrize("name", ["subprocess:Popen", "os:system", "builtins:exec", "gymnasium.spaces:Box"])
def test_a_class_is_looked_at_before_it_is_called(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "RAN"
    arguments: dict[str, Any] = {
        "subprocess:Popen": {"args": ["touch", str(mark)]},
        "os:system": {"command": f"touch {mark}"},
    }.get(name, {})
    with pytest.raises(UserError, match=rf"'{name}' is no gymnasium.Env; give .* subclass of gymnasium.Env"):
        GymEnv(name, arguments=arguments)
    time.sleep(0.1)
    assert not mark.exists()
