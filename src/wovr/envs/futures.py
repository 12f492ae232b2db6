"""What a simulator shows when given actions are executed from given states: the truth about other futures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from wovr.envs.workers import WorkerVectorEnv
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


def simulate_futures(
    name: str, arguments: Mapping[str, Any], futures: Sequence[Future], num_workers: int
) -> list[np.ndarray]:
    """Simulate.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class.
        futures: What to simulate.
        num_workers: Processes.

    Returns:
        Of each future (1 + m, H, W, 3) uint8, the frame of the start and those after each action; m = n, or less where
        the environment ends the episode earlier by its horizon. Success does not end it.

    Raises:
        UserError: The environment cannot be made or has no such states.
    """
    found: list[np.ndarray] = []
    width = min(_SIDE_BY_SIDE, len(futures))
    with closing(
        WorkerVectorEnv(name, width, min(num_workers, width), arguments, steps_after_success=MAX_FRAMES)
    ) as simulators:
        for first in range(0, len(futures), width):
            group = futures[first : first + width]
            starts: list[StartState | None] = [future.start for future in group]
            simulators.reset(options={"start_states": starts + [None] * (width - len(group))})
            beginning = simulators.observe().image
            actions = np.zeros((width, max(len(future.actions) for future in group), simulators.action_dim), np.float32)
            for row, future in enumerate(group):
                actions[row, : len(future.actions)] = future.actions
            chunk = simulators.step_chunk(actions)
            for row, future in enumerate(group):
                count = int(chunk.valid[row, : len(future.actions)].sum())
                found.append(np.concatenate([beginning[row : row + 1], chunk.images[row, :count]]))
    return found
