"""A tiny foreign environment, written as anybody's would be: knows nothing of wovr, shows a dot in one of many ways."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 48, 96


class DotEnv(gymnasium.Env):
    """Move a dot by (0 .. 4, -2 .. 2) units a step until it is within 3 units of (30, 5); leaving the field loses.

    Args:
        picture: How it is shown: `rgb`, `gray`, `chw`, `dict`, `two` or `none` as observation; `render` by render().
        told: Whether info tells of success.
        discrete: Whether the actions are numbers of choices.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, picture: str = "rgb", told: bool = True, discrete: bool = False, render_mode: str | None = None
    ) -> None:
        self.picture, self.told, self.render_mode = picture, told, render_mode
        self.action_space: Any = spaces.Box(np.array([0.0, -2.0]), np.array([4.0, 2.0]), dtype=np.float64)
        if discrete:
            self.action_space = spaces.Discrete(4)
        box = {
            "rgb": spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
            "gray": spaces.Box(0, 255, (HEIGHT, WIDTH), np.uint8),
            "chw": spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8),
        }
        where = spaces.Box(-100, 100, (2,))
        self.observation_space: Any = box.get(picture, where)
        if picture == "dict":
            self.observation_space = spaces.Dict(where=where, eye=box["rgb"])
        if picture == "two":
            self.observation_space = spaces.Dict(left=box["rgb"], right=box["gray"])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform((0.0, -5.0), (10.0, 5.0))
        self.over = False
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert not self.over, "stepped after its end"
        assert self.action_space.contains(action), action
        self.last_action = action
        self.position = self.position + action
        won = bool(np.abs(self.position - (30.0, 5.0)).max() < 3.0)
        lost = bool(self.position[0] > 40.0)
        self.over = won or lost
        return self._observe(), float(won) - float(lost), self.over, False, {"success": won} if self.told else {}

    def expert_action(self) -> np.ndarray:
        return np.clip(np.array([30.0, 5.0]) - self.position, self.action_space.low, self.action_space.high)

    def proprio(self) -> np.ndarray | None:
        return np.append(self.position, 0.0) if self.told else None

    def get_state(self) -> np.ndarray:
        return np.array([*self.position, self.over])

    def set_state(self, state: np.ndarray) -> Any:
        self.position, self.over = np.array(state[:2]), bool(state[2])
        return self._observe()

    def render(self) -> np.ndarray | None:
        return self._draw() if self.render_mode == "rgb_array" else None

    def _draw(self) -> np.ndarray:
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        x, y = self.position
        dot = np.hypot(columns - 2 * x, rows - 24 - 2 * y) < 6
        return np.where(dot[..., None], [250, 40, 10], [0, 90, 200]).astype(np.uint8)

    def _observe(self) -> Any:
        image = self._draw()
        return {
            "rgb": image,
            "gray": image[..., 0],
            "chw": np.moveaxis(image, 2, 0),
            "dict": {"where": self.position.astype(np.float32), "eye": image},
            "two": {"left": image, "right": image[..., 0]},
        }.get(self.picture, self.position.astype(np.float32))
