"""What a simulator shows when given actions are executed from given states: the truth about other futures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.types import MAX_FRAMES, StartState

_SIDE_BY_SIDE = 16


@dataclass(frozen=True)
class Future:
    """One episode to simulate.

    Attributes:
        start: Suite, task and simulator state to start from.
        actions: (n, A) float32.
    """

    start: StartState
    actions: np.ndarray


@dataclass(frozen=True)
class PlayedFuture:
    """What happened.

    Attributes:
        frames: (1 + m, H, W, 3) uint8, the frame of the start and those after each action; m = n, or less where the
            environment ends the episode earlier by its horizon. Success does not end it.
        success: (1 + m,) bool, the success predicate on each frame; frame 0 counts as not successful.
    """

    frames: np.ndarray
    success: np.ndarray


def future_simulators(name: str, arguments: Mapping[str, Any], rows: int, num_workers: int) -> WorkerVectorEnv:
    """Simulators for `play_futures`, to be closed by the caller.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class.
        rows: Simulators side by side.
        num_workers: Processes.

    Raises:
        UserError: The environment cannot be made.
    """
    return WorkerVectorEnv(name, rows, num_workers, arguments, steps_after_success=MAX_FRAMES)


def play_futures(simulators: WorkerVectorEnv, futures: Sequence[Future]) -> list[PlayedFuture]:
    """Simulate, as many at a time as there are rows.

    Args:
        simulators: Of `future_simulators`.
        futures: What to simulate.

    Raises:
        UserError: The environment has no such states.
    """
    width = simulators.num_envs
    found: list[PlayedFuture] = []
    for first in range(0, len(futures), width):
        group = futures[first : first + width]
        # A row whose actions are used up has reached its horizon, and is not simulated on.
        starts: list[StartState | None] = [
            replace(future.start, horizon=min(len(future.actions), future.start.horizon or MAX_FRAMES))
            for future in group
        ]
        simulators.reset(options={"start_states": starts + [None] * (width - len(group))})
        beginning = simulators.observe().image
        actions = np.zeros((width, max(len(future.actions) for future in group), simulators.action_dim), np.float32)
        for row, future in enumerate(group):
            actions[row, : len(future.actions)] = future.actions
        chunk = simulators.step_chunk(actions)
        for row in range(len(group)):
            count = int(chunk.valid[row].sum())
            found.append(
                PlayedFuture(
                    np.concatenate([beginning[row : row + 1], chunk.images[row, :count]]),
                    np.concatenate([np.zeros(1, bool), chunk.success[row, :count]]),
                )
            )
    return found


def simulate_futures(
    name: str, arguments: Mapping[str, Any], futures: Sequence[Future], num_workers: int
) -> list[np.ndarray]:
    """`play_futures` in simulators made for it: the frames of each future.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class.
        futures: What to simulate.
        num_workers: Processes.

    Returns:
        Of each future (1 + m, H, W, 3) uint8, see PlayedFuture.

    Raises:
        UserError: The environment cannot be made or has no such states.
    """
    width = min(_SIDE_BY_SIDE, len(futures))
    with closing(future_simulators(name, arguments, width, num_workers)) as simulators:
        return [played.frames for played in play_futures(simulators, futures)]
