"""Recorded actions played again in bare simulators, as fast as they go: the ceiling of collecting."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np

from wovr.envs.registry import make_simulator
from wovr.envs.simulators.rendering import choose_backend
from wovr.envs.workers.spawning import clean_children
from wovr.errors import UserError
from wovr.types import StartState

READY_SECONDS = 600.0
"""Longest wait for all processes to have made their simulator."""


@dataclass(frozen=True)
class RecordedActions:
    """One episode to play again.

    Attributes:
        start: Where it began.
        actions: (T - 1, A) float32, all of which are executed.
    """

    start: StartState
    actions: np.ndarray


def replay_seconds(
    name: str, arguments: Mapping[str, Any], episodes: Sequence[RecordedActions], num_workers: int
) -> float:
    """Play episodes again in `num_workers` processes with a plain loop each: physics and rendering, nothing else.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class.
        episodes: What to play, shared out evenly by steps.
        num_workers: Processes.

    Returns:
        Wall seconds from the first process's first start to the last one's last step; making simulators is not counted.

    Raises:
        UserError: The environment cannot be made, or a process dies.
    """
    shares: list[list[RecordedActions]] = [[] for _ in range(num_workers)]
    for episode in sorted(episodes, key=lambda episode: -len(episode.actions)):
        min(shares, key=lambda share: sum(len(other.actions) for other in share)).append(episode)
    shares = [share for share in shares if share]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(shares))
    with ProcessPoolExecutor(len(shares), context, _keep_barrier, (barrier,)) as pool:
        with clean_children():
            futures = [pool.submit(_play, name, arguments, share) for share in shares]
        try:
            times = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise UserError(f"environment '{name}': a simulator process died", "try fewer --workers") from error
    return max(end for _, end in times) - min(begin for begin, _ in times)


_barrier: Barrier


def _keep_barrier(barrier: Barrier) -> None:
    """Initialise a process: a barrier can be inherited but not sent."""
    global _barrier
    _barrier = barrier


def _play(name: str, arguments: Mapping[str, Any], episodes: Sequence[RecordedActions]) -> tuple[float, float]:
    """In the process: play, and return when that began and ended (CLOCK_MONOTONIC, which processes share)."""
    try:
        with suppress(UserError):  # an environment that needs OpenGL says so itself
            choose_backend()
        env = make_simulator(name, arguments)
        env.start(episodes[0].start)  # the first start compiles models and makes renderers
    except BaseException:
        _barrier.abort()
        raise
    _barrier.wait(READY_SECONDS)
    begin = time.monotonic()
    for episode in episodes:
        env.start(episode.start)
        for action in episode.actions:
            env.step(action)
    end = time.monotonic()
    env.close()
    return begin, end
