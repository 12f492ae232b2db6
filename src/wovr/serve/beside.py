"""The real simulator beside the imagined one: the same actions from the same state, and the same bits every time.

It has no state between two questions. Each names the simulator's state to go on from, so rewinding is free, and one
simulator in one process of its own serves every game.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, ActionAxis, ChunkStep, StartState


@dataclass(frozen=True)
class RealFrames:
    """What a simulator showed after n actions.

    Attributes:
        frames: (n, H, W, 3) uint8.
        success: (n,) bool.
        states: (n, S) float64.
        proprio: (n, P) float32; P is 0 where the robot says nothing.
    """

    frames: np.ndarray
    success: np.ndarray
    states: np.ndarray
    proprio: np.ndarray

    def first(self, count: int) -> RealFrames:
        """The first so many."""
        return RealFrames(self.frames[:count], self.success[:count], self.states[:count], self.proprio[:count])

    def then(self, other: RealFrames) -> RealFrames:
        """These, then others."""
        names = ("frames", "success", "states", "proprio")
        return RealFrames(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


class Simulator:
    """One simulator in a process of its own.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class.

    Raises:
        UserError: Unknown environment, arguments it does not take, or it cannot be made.
    """

    def __init__(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.name = name
        self.env = WorkerVectorEnv(name, 1, 1, arguments, record_states=True, steps_after_success=MAX_FRAMES)

    @property
    def action_axes(self) -> Sequence[ActionAxis]:
        """What each dimension of an action does, if the environment says."""
        return self.env.action_axes

    def begin(self, start: StartState) -> RealFrames:
        """A start state: one frame, without success.

        Raises:
            UserError: It does not have that start state, or cannot be put into a state. One that has none is left
                alone: a robot must not be moved to find that out.
        """
        if start.sim_state is None:
            raise UserError("these episodes hold no states to put it into", "collect them in a simulator that has some")
        self._put(start)
        [state], [proprio] = self.env.sim_states(), self.env.proprios()
        if state is None:
            raise UserError(f"environment '{self.name}' says nothing of its state", "play without it: --env ''")
        own = np.zeros(0, np.float32) if proprio is None else proprio
        return RealFrames(self.env.observe().image, np.zeros(1, bool), state[None], own[None])

    def execute(self, start: StartState, state: np.ndarray, actions: np.ndarray) -> RealFrames:
        """What n actions do in a state.

        Args:
            start: Names suite and task.
            state: (S,) float64.
            actions: (n, A) float32.
        """
        self._put(start, state)
        return _read(self.env.step_chunk(actions[None]))

    def expert(self, start: StartState, state: np.ndarray, count: int) -> np.ndarray:
        """(count, A) float32, what the scripted expert does in a state.

        Raises:
            UserError: The task has no expert.
        """
        self._put(start, state)
        return self.env.step_expert(count).actions[0]

    def close(self) -> None:
        """End its process."""
        self.env.close()

    def _put(self, start: StartState, state: np.ndarray | None = None) -> None:
        wanted = replace(start, horizon=MAX_FRAMES, sim_state=start.sim_state if state is None else state)
        self.env.reset(options={"start_states": [wanted]})


def _read(step: ChunkStep) -> RealFrames:
    assert step.sim_state is not None
    assert step.proprio is not None
    return RealFrames(step.images[0], step.success[0], step.sim_state[0], step.proprio[0])


APART = 32
"""Levels of 256 by which a pixel differs that is counted as apart."""


def pixels_apart(imagined: np.ndarray, real: np.ndarray) -> float:
    """Share of pixels that differ by more than APART levels in any colour, in [0, 1].

    Args:
        imagined: (H, W, 3) uint8.
        real: (H, W, 3) uint8.
    """
    difference = np.abs(imagined.astype(np.int16) - real.astype(np.int16)).max(axis=-1)
    return float((difference > APART).mean())
