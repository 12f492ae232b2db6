"""What a stored simulator state means in space: the points of a scene, for measuring what is seen in frames.

An environment says so with a function that needs no simulator, so it may run beside torch; it is registered here by the
name that its episodes carry as `EpisodeMeta.source`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np

from wovr.errors import UserError
from wovr.types import EpisodeMeta


@dataclass(frozen=True)
class ScenePositions:
    """Where n points of a scene are in T states.

    Attributes:
        names: n names, each once.
        looks: n names of appearance: equal for points that a picture cannot tell apart (two red cubes).
        positions: (T, n, 3) float32, metres.
        movable: (n,) bool, an object that can be picked up or pushed.
        held: (T, n) bool, the gripper holds it.
    """

    names: tuple[str, ...]
    looks: tuple[str, ...]
    positions: np.ndarray
    movable: np.ndarray
    held: np.ndarray


READERS: dict[str, str] = {"tabletop": "wovr.envs.simulators.tabletop.positions:object_positions"}
"""Source of an episode -> import path of a function (suite, task, sim_state (T, S)) -> ScenePositions."""


def knows_states_of(source: str) -> bool:
    """Whether `scene_positions` can read the states of episodes from a source."""
    return source in READERS


def scene_positions(meta: EpisodeMeta, sim_state: np.ndarray | None, where: str) -> ScenePositions:
    """Positions in an episode's states.

    Args:
        meta: Meta data of the episode.
        sim_state: (T, S) float64, or None where the episode holds none.
        where: Shard and key, for messages.

    Raises:
        UserError: The episode holds no states, or nobody knows what they mean.
    """
    if not knows_states_of(meta.source):
        raise UserError(
            f"{where}: what a simulator state of '{meta.source}' means is not known",
            f"use episodes of {', '.join(READERS)}, or leave out state_error",
        )
    if sim_state is None:
        raise UserError(f"{where}: holds no sim_state", "use episodes collected with states, or leave out state_error")
    module, _, name = READERS[meta.source].partition(":")
    found: ScenePositions = getattr(importlib.import_module(module), name)(meta.suite, meta.task, sim_state)
    return found
