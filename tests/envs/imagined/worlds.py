"""Imagined environments small enough for tests: a tiny world model, an oracle that looks at red, three start states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.models.world_model.tiny_world import pictures, tiny_world
from wovr.envs.imagined.env import ImaginedVectorEnv
from wovr.models.world_model.model import WorldModel
from wovr.types import StartState, TaskInfo

SUITE = "spatial"
SIGMAS = [1.0, 0.6]


class RedOracle:
    """A frame's probability of success grows with how red the mean over its window is."""

    window = 3

    def __init__(self, threshold: float = 2.0, consecutive: int = 1) -> None:
        self.threshold = threshold
        self.consecutive = consecutive
        self.tasks = [(SUITE, task) for task in range(3)]
        self.seen: list[tuple[int, int]] = []
        self.clips: list[Tensor] = []

    def probability(self, frames: Tensor, tasks: Sequence[tuple[str, int]]) -> Tensor:
        assert frames.dtype == torch.uint8
        assert len(tasks) == len(frames)
        self.seen.append((frames.shape[0], frames.shape[1]))
        self.clips.append(frames)
        red = frames[..., 0].float().mean((2, 3)) / 255  # (N, L)
        return red.unfold(1, self.window, 1).mean(-1)


class Starts:
    """A pool of the first frames of three tasks."""

    image_size = (16, 16)
    fps = 5.0
    action_repeat = None

    def __init__(self, horizon: int = 20, action_dim: int = 3) -> None:
        self.action_dim = action_dim
        self.tasks = [TaskInfo(SUITE, i, f"task_{i}", f"do task {i}", horizon, 5) for i in range(3)]

    def instruction(self, suite: str, task: int) -> str:
        return self.tasks[task].instruction

    def horizon(self, suite: str, task: int) -> int:
        return self.tasks[task].horizon

    def draw(self, count: int, generator: np.random.Generator) -> list[StartState]:
        return [start(int(number)) for number in generator.integers(100, size=count)]


def start(number: int, **arguments: Any) -> StartState:
    """A start state whose picture and task depend on its number."""
    return StartState(SUITE, number % 3, number, reference=pictures(seed=number).numpy(), **arguments)


def make_env(num_envs: int = 3, threshold: float = 2.0, consecutive: int = 1, **arguments: Any) -> ImaginedVectorEnv:
    """An environment; with a threshold above 1 nothing ever succeeds."""
    settings: dict[str, Any] = {"sigmas": SIGMAS, "device": "cpu"} | arguments
    world: WorldModel = settings.pop("world", None) or tiny_world()
    starts = settings.pop("starts", None) or Starts()
    return ImaginedVectorEnv(world, RedOracle(threshold, consecutive), starts, num_envs, **settings)


def some_actions(rows: int, steps: int = 8, seed: int = 0) -> np.ndarray:
    """(rows, steps, 3) float32."""
    return np.random.default_rng(seed).uniform(-1, 1, (rows, steps, 3)).astype(np.float32)


def begin(env: ImaginedVectorEnv, *starts: StartState | None, seeds: list[int] | None = None) -> None:
    """Start every row, idle where None."""
    env.reset(seed=seeds or list(range(10, 10 + env.num_envs)), options={"start_states": list(starts)})
