"""A simulator for tests: a dot that is pushed over a small picture to a goal. No torch, no renderer."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from wovr.envs.base import SimulatorEnv, image_observation_space
from wovr.errors import UserError
from wovr.types import StartState, TaskInfo

COLOURS = ("red", "green", "blue")
SUITES = {
    suite: tuple(
        TaskInfo(suite, i, f"go_{colour}", f"move the {colour} dot", 24, 20) for i, colour in enumerate(COLOURS)
    )
    for suite in ("spatial", "object", "unguided")
}
SPEED = 0.1
REACH = 0.08


class PointEnv(SimulatorEnv):
    """The dot moves by 0.1 x action; success within 0.08 of the goal. Suite `unguided` has no expert.

    Args:
        size: Height and width of the picture.
        wind: Noise of the motion, from the simulator's own seeded generator.
        action_dim: Dimensions of an action; those beyond two do nothing.
        crash_at: Step at which the process kills itself.
        raise_at: Step at which step() raises.
        forbid: A module that must not be imported in this process.
        delay: Seconds a step sleeps.
        busy: Numbers summed at every step, to cost CPU time.
        proprio: What proprio() gives: `place` of the dot, or one that is `none`, `nan`, a `table`, or `grows`.
    """

    fps = 5.0

    def __init__(
        self,
        size: int = 64,
        wind: float = 0.0,
        action_dim: int = 2,
        crash_at: int = -1,
        raise_at: int = -1,
        forbid: str = "",
        delay: float = 0.0,
        busy: int = 0,
        proprio: str = "place",
    ) -> None:
        self.size, self.wind, self.crash_at, self.raise_at = size, wind, crash_at, raise_at
        self.forbid, self.delay, self.busy, self.says = forbid, delay, np.ones(busy), proprio
        self.observation_space = image_observation_space((size, size))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        return SUITES

    def start(self, start: StartState) -> dict[str, Any]:
        if start.suite not in SUITES or not 0 <= start.task < 3:
            raise UserError(f"point has no task {start.suite}/{start.task}")
        self.info = SUITES[start.suite][start.task]
        if not 0 <= start.init_state < self.info.num_init_states:
            raise UserError(f"point: initial state {start.init_state} does not exist", "choose 0 to 19")
        if start.sim_state is not None:
            self.state = start.sim_state.copy()
        else:
            generator = np.random.default_rng([start.task, start.init_state])
            self.state = np.append(generator.uniform(-0.9, 0.9, 4), 0.0)
        return self.observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self.forbid in sys.modules:
            raise RuntimeError(f"{self.forbid} is imported here")
        time.sleep(self.delay)
        self.busy.cumsum().sum()
        assert action.dtype == np.float32
        assert self.action_space.contains(action)
        if self.state[4] == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.state[4] == self.raise_at:
            raise ValueError("the motor\nis on fire")
        self.state[:2] += SPEED * action[:2]
        if self.wind:
            self.state[:2] += self.np_random.normal(0, self.wind, 2)
        self.state[:2] = self.state[:2].clip(-1, 1)
        self.state[4] += 1
        success = bool(np.abs(self.state[:2] - self.state[2:4]).max() < REACH)
        return self.observation(), float(success), success, self.state[4] >= self.info.horizon, {"success": success}

    def sim_state(self) -> np.ndarray:
        return self.state

    def proprio(self) -> np.ndarray | None:
        place = np.append(self.state[:2], 0.0).astype(np.float32)
        return {
            "place": place,
            "none": None,
            "nan": place * np.nan,
            "table": place[None],
            "grows": np.ones(3 + int(self.state[4])),
        }[self.says]

    def expert_action(self) -> np.ndarray:
        if self.info.suite == "unguided":
            raise UserError("point: this task has no scripted expert", "use --policy random")
        action = np.zeros(self.action_space.shape, np.float32)
        action[:2] = np.clip((self.state[2:4] - self.state[:2]) / SPEED, -1, 1)
        return action

    def observation(self) -> dict[str, Any]:
        return {"image": self.picture(), "instruction": self.info.instruction}

    def render(self) -> np.ndarray:
        image = np.full((self.size, self.size, 3), 40, np.uint8)
        for position, colour in (
            (self.state[2:4], (255, 255, 255)),
            (self.state[:2], np.eye(3)[self.info.index] * 255),
        ):
            row, column = ((position + 1) / 2 * (self.size - 2)).astype(int)
            image[row : row + 2, column : column + 2] = colour
        return image
