"""Any single Gymnasium environment with a picture as a SimulatorEnv.

    wovr collect --env gym --suite gym --env_args '{"env": "CarRacing-v3", "success_key": "lap_finished"}' ...

A subclass in a package of one's own, named by its import path, can fix the arguments and bring several suites.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from wovr.envs.base import INSTRUCTION_LENGTH, PRINTABLE, SimulatorEnv, image_observation_space
from wovr.envs.simulators.physics import read_physics, set_physics
from wovr.envs.simulators.rendering import choose_backend, explain_opengl, tune_model
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, StartState, TaskInfo

RENDER = "render"
"""`image_key` for the picture that the environment's render() returns."""

NUM_INIT_STATES = 1000
"""Numbered initial states; any number would do, each is the seed of a reset."""

_NO_CLASS = "give a Gymnasium id or the import path of a subclass of gymnasium.Env"


class GymEnv(SimulatorEnv):
    """A wrapped environment. Its bounded actions become [-1, 1], its picture is resized, an episode ends by success.

    Args:
        env: Gymnasium id (`CarRacing-v3`, `package:Some-v0`) or import path of a class (`package.module:Class`).
        size: Height and width of the picture, pixels. Pictures of another shape are stretched.
        image_key: Where the picture is: a key of a dictionary observation, or `render` for what render() returns.
            Empty: the observation, or its only entry, that is a uint8 picture; else `render`.
        instruction: The English sentence the policy is given. Empty: the environment's name in words.
        horizon: Actions after which an episode is cut. 0: the environment's own limit, at most 511.
        success_key: Entry of `info` that says success. Where there is none, an episode succeeds when the environment
            ends it with a positive reward.
        arguments: Arguments of the wrapped environment.

    An episode also ends (`truncated`) where the environment itself ends it without success. States can be stored where
    the environment has `get_state() -> (S,)` and `set_state(state)` (which returns the observation, when the picture
    is part of it), or keeps its `model` and `data` in MuJoCo. An `expert_action()` of the environment, in its own
    units, is used as the expert. A `proprio() -> (P,)` of the environment is stored with the states: the position
    (x, y, z) of the robot's hand, then whatever else says how it is going to move.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(
        self,
        env: str,
        size: int = 64,
        image_key: str = "",
        instruction: str = "",
        horizon: int = 0,
        success_key: str = "success",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if size < 16:
            raise UserError(f"gym: size {size} is too small", "choose at least 16 pixels")
        with suppress(UserError):
            choose_backend()  # in case it is a MuJoCo environment; others need none
        self.name = env
        self.size = (size, size)
        self.success_key = success_key
        self.render_mode = "rgb_array"
        self.env, self.image_key = _make_with_picture(env, image_key, dict(arguments or {}))
        self.low, self.high = _action_bounds(env, self.env.action_space)
        self.action_space = Box(-1.0, 1.0, (self.low.size,), np.float32)
        self.observation_space = image_observation_space(self.size)
        self.fps = float(self.env.metadata.get("render_fps") or SimulatorEnv.fps)  # type: ignore[misc]
        task = TaskInfo(
            "gym", 0, env, _instruction(env, instruction), _horizon(env, self.env, horizon), NUM_INIT_STATES
        )
        # What the task is called and how long it takes is known of the instance only.
        self.suites = lambda: {task.suite: (task,)}  # type: ignore[method-assign]
        self.task = task
        self.mujoco = _is_mujoco(self.env.unwrapped) and self.image_key == RENDER
        if self.mujoco:
            _tune(self.env.unwrapped, self.size)
            # Gymnasium aims the camera at the first state it renders: let that be the same one always.
            self.env.reset(seed=0)
            self.env.render()
        self.elapsed = 0
        self.horizon = task.horizon
        self.image = np.zeros((*self.size, 3), np.uint8)

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """`gym` with one task; an instance knows its name, instruction and horizon, the class does not."""
        return {"gym": (TaskInfo("gym", 0, "gym", "", MAX_FRAMES - 1, NUM_INIT_STATES),)}

    def start(self, start: StartState) -> dict[str, Any]:
        """Reset the environment with the initial state's number as seed; go on to a stored state."""
        if (start.suite, start.task) != (self.task.suite, self.task.index):
            raise UserError(f"gym has no task {start.task} in suite '{start.suite}'", "its one task is 0 of suite gym")
        if not 0 <= start.init_state < NUM_INIT_STATES:
            raise UserError(
                f"gym: initial state {start.init_state} does not exist", f"choose 0 to {NUM_INIT_STATES - 1}"
            )
        observation, _ = self.env.reset(seed=start.init_state)
        self.elapsed = 0
        if start.sim_state is not None:
            observation = self._restore(np.asarray(start.sim_state, dtype=np.float64))
        self.horizon = self.task.horizon if start.horizon is None else self.elapsed + start.horizon
        return self._observe(observation)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action."""
        share = (np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0) + 1.0) / 2.0
        space = self.env.action_space
        own = np.clip(self.low + share * (self.high - self.low), self.low, self.high)
        observation, reward, ended, cut, info = self.env.step(own.reshape(space.shape).astype(space.dtype))
        self.elapsed += 1
        success = bool(info[self.success_key]) if self.success_key in info else bool(ended and float(reward) > 0.0)
        # Once the environment has ended it cannot go on, whatever the reason.
        truncated = bool(ended or cut or self.elapsed >= self.horizon)
        return self._observe(observation), float(success), success, truncated, {"success": success}

    def sim_state(self) -> np.ndarray | None:
        """(S,) float64: steps elapsed, then the environment's state; None where it has none to give."""
        own = self._own_state()
        return None if own is None else np.concatenate([[float(self.elapsed)], own])

    def proprio(self) -> np.ndarray | None:
        """(P,) float32, the wrapped environment's own `proprio()`; None where it has none."""
        own = getattr(self.env.unwrapped, "proprio", None)
        values = own() if callable(own) else None
        return None if values is None else np.asarray(values, dtype=np.float32)

    def camera_view(self) -> np.ndarray | None:
        """(3, 7) float32, the wrapped environment's own `camera_view()`; None where it has none."""
        own = getattr(self.env.unwrapped, "camera_view", None)
        return np.asarray(own(), dtype=np.float32) if callable(own) else None

    def expert_action(self) -> np.ndarray:
        """(A,) float32, the wrapped environment's own expert."""
        expert = getattr(self.env.unwrapped, "expert_action", None)
        if expert is None:
            raise UserError(
                f"environment '{self.name}' has no scripted expert", "use another --policy, or give it expert_action()"
            )
        own = np.asarray(expert(), dtype=np.float64).reshape(-1)
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        return np.clip(2.0 * (own - self.low) / span - 1.0, -1.0, 1.0).astype(np.float32)

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the picture that was looked at last."""
        return self.image

    def close(self) -> None:
        """Close the wrapped environment."""
        viewer = _own_context(self.env.unwrapped)
        if viewer is not None:
            viewer.con.free()  # while its context is current: afterwards it would free another's lists and buffers
        self.env.close()

    def _observe(self, observation: Any) -> dict[str, Any]:
        if self.image_key == RENDER:
            if self.mujoco:
                # A step leaves positions one substep behind: show the state itself, as after a restored one.
                simulator: Any = self.env.unwrapped
                set_physics(simulator.model, simulator.data, read_physics(simulator.model, simulator.data))
                _own_context(simulator)
            if not self.looks:
                return {"image": self.image, "instruction": self.task.instruction}
            picture = self.env.render()
        else:
            picture = observation[self.image_key] if self.image_key else observation
        self.image = resize(_rgb(self.name, picture), self.size)
        return {"image": self.image, "instruction": self.task.instruction}

    def _own_state(self) -> np.ndarray | None:
        simulator: Any = self.env.unwrapped
        if _has_states(simulator):
            return np.asarray(simulator.get_state(), dtype=np.float64).reshape(-1)
        return read_physics(simulator.model, simulator.data) if self.mujoco else None

    def _restore(self, state: np.ndarray) -> Any:
        """Set a state that `sim_state` returned; returns the observation there where the environment gives it."""
        own = self.sim_state()
        if own is None:
            raise UserError(f"environment '{self.name}' cannot restore a state", "start from an initial state")
        if state.shape != own.shape:
            raise UserError(
                f"environment '{self.name}': sim_state has shape {state.shape}, it takes {own.shape}",
                "use a state stored from the same environment",
            )
        simulator: Any = self.env.unwrapped
        self.elapsed = int(state[0])
        if not _has_states(simulator):
            set_physics(simulator.model, simulator.data, state[1:])
            return None
        observation = simulator.set_state(state[1:])
        if observation is None and self.image_key != RENDER:
            raise UserError(f"environment '{self.name}': set_state() returns no observation", "let it return one")
        return observation


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by area: each new pixel is the mean of the part of the picture it covers.

    Args:
        image: (H, W, 3) uint8.
        size: New height and width.

    Returns:
        (*size, 3) uint8.
    """
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    rows, columns = (_coverage(old, new) for old, new in zip(image.shape[:2], size, strict=True))
    half = np.einsum("hi,iwc->hwc", rows, image.astype(np.float32), optimize=True)  # (h, W, 3)
    whole = np.einsum("wj,hjc->hwc", columns, half, optimize=True)  # (h, w, 3)
    return np.rint(whole).clip(0, 255).astype(np.uint8)


def _coverage(old: int, new: int) -> np.ndarray:
    """(new, old) float32: the share of each new pixel that each old one makes up; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(min=0.0) * (new / old)).astype(np.float32)


def _make_with_picture(name: str, image_key: str, arguments: dict[str, Any]) -> tuple[gymnasium.Env, str]:
    """The environment, and where its picture is."""
    env = _make(name, arguments)
    space = env.observation_space
    entries = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
    pictures = [key for key, entry in entries.items() if _is_picture(entry)]
    if image_key and image_key != RENDER and image_key not in entries:
        raise UserError(
            f"environment '{name}' observes no '{image_key}'",
            f"set image_key to one of {', '.join((*filter(None, pictures), RENDER))}",
        )
    if not image_key and len(pictures) > 1:
        raise UserError(
            f"environment '{name}' observes several pictures", f"set image_key to one of {', '.join(pictures)}"
        )
    key = image_key or (pictures[0] if pictures else RENDER)
    if key != RENDER:
        return env, key
    if env.render_mode != "rgb_array":
        env.close()
        env = _make(name, arguments | {"render_mode": "rgb_array"})
    return env, RENDER


def _make(name: str, arguments: dict[str, Any]) -> gymnasium.Env:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None) if attribute else None
        if found is not None:
            # Looked at before it is called: any function of any module can be named this way.
            if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
                raise UserError(f"'{name}' is no gymnasium.Env", _NO_CLASS)
            env = found(**arguments)
        else:
            # Episodes are cut here: the wrapper's own count would not go back with a restored state.
            env = gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True, **arguments)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        remedy = "check its name, its arguments and that its package is installed"
        told = explain_opengl(error) or UserError(f"environment '{name}' cannot be made: {error}", remedy)
        raise told from error
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"'{name}' is no gymnasium.Env", _NO_CLASS)
    return env


def _action_bounds(name: str, space: gymnasium.Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, (A,) float64 each."""
    if not (isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)):
        raise UserError(
            f"environment '{name}' takes actions of {space}", "wrap it so that it takes a bounded Box of numbers"
        )
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    if not low.size or not (np.isfinite(low) & np.isfinite(high)).all():
        raise UserError(f"environment '{name}' has unbounded actions {space}", "wrap it in RescaleAction or bound it")
    return low, high


def _horizon(name: str, env: gymnasium.Env, horizon: int) -> int:
    """Actions of an episode."""
    most = MAX_FRAMES - 1
    if not 0 <= horizon <= most:
        raise UserError(f"gym: horizon {horizon} is out of range", f"choose 1 to {most} actions, or 0 for {name}'s own")
    if horizon:
        return horizon
    own = gymnasium.spec(name).max_episode_steps if env.spec is not None else None
    return min(own or most, most)


def _instruction(name: str, instruction: str) -> str:
    """The instruction, or the environment's name in words: `CarRacing-v3` is `car racing`."""
    own = re.sub(r"-v\d+$", "", re.split(r"[:/]", name)[-1])
    words = instruction or re.sub(r"[_\W]+|(?<=[a-z0-9])(?=[A-Z])", " ", own).strip().lower()
    if len(words) > INSTRUCTION_LENGTH or not PRINTABLE.issuperset(words):
        raise UserError("gym: the instruction is too long or not plain ASCII", f"use {INSTRUCTION_LENGTH} characters")
    return words


def _is_picture(space: gymnasium.Space) -> bool:
    shape = space.shape or ()
    return isinstance(space, Box) and space.dtype == np.uint8 and len(shape) in (2, 3) and min(sorted(shape)[-2:]) >= 8


def _rgb(name: str, picture: Any) -> np.ndarray:
    """Whatever layout a picture has, as (H, W, 3) uint8."""
    image = np.asarray(picture)
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = np.moveaxis(image, 0, 2)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise UserError(
            f"environment '{name}' gives {image.dtype} {image.shape} for a picture",
            "set image_key to an entry that is uint8 (H, W, 3)",
        )
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def _has_states(simulator: Any) -> bool:
    return all(callable(getattr(simulator, method, None)) for method in ("get_state", "set_state"))


def _is_mujoco(simulator: Any) -> bool:
    mujoco = sys.modules.get("mujoco")
    return mujoco is not None and isinstance(getattr(simulator, "model", None), mujoco.MjModel)


def _tune(simulator: Any, size: tuple[int, int]) -> None:
    """Fast rendering; at `size` right away where the renderer is Gymnasium's, which is not made before it is used."""
    model, renderer = simulator.model, getattr(simulator, "mujoco_renderer", None)
    if renderer is None or not {"width", "height"} <= set(vars(renderer)):
        size = (model.vis.global_.offheight, model.vis.global_.offwidth)
    else:
        renderer.height, renderer.width = size
    tune_model(model, size)


def _own_context(simulator: Any) -> Any:
    """Make the context of Gymnasium's MuJoCo renderer current, which it leaves to chance; returns its viewer or None.

    Without this, several environments in one process draw into whichever context was made last.
    """
    viewer = getattr(getattr(simulator, "mujoco_renderer", None), "viewer", None)
    if viewer is not None:
        viewer.make_context_current()
    return viewer
