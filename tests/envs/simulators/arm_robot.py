"""A stand-in for a robot: a hand that moves as commanded, in a picture; its camera can hang."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from wovr.envs.simulators.robot import RobotEnv


class ArmRobot(RobotEnv):
    """A dot in a field of 1 m; an action of 1 moves it 10 cm.

    Args:
        slow: Seconds the camera takes for the second picture of an episode.
        arguments: Of RobotEnv.
    """

    fps = 100.0
    instructions: Sequence[str] = ("pick the banana", "pick the bread")

    def __init__(self, slow: float = 0.0, **arguments: Any) -> None:
        self.slow = slow
        self.hand = np.zeros(3)
        self.motions: list[np.ndarray] = []
        self.halts = 0
        settings: dict[str, Any] = {"workspace": ((0, 0, 0), (1, 1, 1)), "horizon": 6, "timeout": 0.2}
        settings["largest"] = None if "dataset" in arguments else (0.1, 0.1, 0.1, 1.0)
        super().__init__((16, 16), **(settings | arguments))

    def picture(self) -> np.ndarray:
        if self.slow and len(self.motions) == 1:
            time.sleep(self.slow)
        image = np.zeros((16, 16, 3), np.uint8)
        x, y = (self.hand[:2] * 15.99).astype(int).clip(0, 15)
        image[y, x] = 255
        return image

    def measure(self) -> np.ndarray:
        return np.array([*self.hand, len(self.motions)], np.float32)

    def command(self, motion: np.ndarray) -> None:
        self.motions.append(motion)
        self.hand = self.hand + motion[:3]

    def halt(self) -> None:
        self.halts += 1

    def home(self) -> None:
        self.hand = np.full(3, 0.5)
        self.motions = []


class Nameless(ArmRobot):
    """Without tasks."""

    instructions: Sequence[str] = ()
