"""Start states as what imagined rollouts begin with: reference and memory frames, instruction, horizon, age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wovr.errors import UserError
from wovr.functional.windows import last_frames
from wovr.types import StartState, TaskInfo


class StartPool(Protocol):
    """Where rollouts begin: `wovr.data.keyframes.start_states.StartStates`."""

    @property
    def tasks(self) -> Sequence[TaskInfo]:
        """The tasks there are start states for."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""

    @property
    def action_dim(self) -> int:
        """A."""

    @property
    def fps(self) -> float:
        """Control rate, Hz."""

    @property
    def action_repeat(self) -> int | None:
        """Steps of the simulator an action takes; None for unknown."""

    def instruction(self, suite: str, task: int) -> str:
        """The English sentence of a task."""

    def horizon(self, suite: str, task: int) -> int:
        """Actions after which an episode of a task is cut."""

    def draw(self, count: int, generator: np.random.Generator) -> list[StartState]:
        """Draw start states."""


@dataclass(frozen=True)
class Beginnings:
    """Where R rollouts begin.

    Attributes:
        reference: (R, H, W, 3) uint8, the first frame of each episode.
        memory: (R, M, H, W, 3) uint8, frames up to and including the start, the first one repeated where there are
            fewer than M.
        memory_actions: (R, M, A) float32, the action that produced each; neutral where none did.
        signals: What else is known at the starts, by name: (R, P) float32 each.
        age: (R,) float32, frames from the reference to the start.
        horizon: (R,) int64, actions left.
        instructions: R sentences.
        tasks: R times (suite, index).
    """

    reference: np.ndarray
    memory: np.ndarray
    memory_actions: np.ndarray
    signals: dict[str, np.ndarray]
    age: np.ndarray
    horizon: np.ndarray
    instructions: list[str]
    tasks: list[tuple[str, int]]


def prepare_starts(
    starts: Sequence[StartState], pool: StartPool, known: Sequence[tuple[str, int]], length: int, neutral: np.ndarray
) -> Beginnings:
    """Put start states side by side.

    Args:
        starts: One or more.
        pool: Knows instructions and horizons.
        known: The tasks that success can be judged of.
        length: Frames of memory wanted, M.
        neutral: (A,) float32, the action that stands for none.

    Raises:
        UserError: A start state without a reference frame, with arrays of other shapes, without a horizon, or of a task
            that is not known; a signal that only some have, or that differs in size.
    """
    judged = set(known)
    references, memories, actions, ages, horizons = [], [], [], [], []
    for start in starts:
        where = f"start state of {start.suite}/{start.task}"
        if (start.suite, start.task) not in judged:
            raise UserError(
                f"{where}: the success classifier does not know this task", "train one on episodes of this task"
            )
        reference = _checked(start.reference, where, "reference frame", pool.image_size)
        memory = reference[None]
        if start.memory is not None and len(start.memory):
            memory = _checked(start.memory, where, "memory", pool.image_size, many=True)
        made = np.tile(neutral, (len(memory), 1))
        if start.memory is not None and start.memory_actions is not None:
            made = np.asarray(start.memory_actions, np.float32)
            if made.shape != (len(memory), len(neutral)):
                raise UserError(
                    f"{where}: memory_actions have shape {made.shape}, {len(memory)} memory frames and the world model "
                    f"make it {(len(memory), len(neutral))}",
                    "make the keyframes anew from episodes of this robot",
                )
        whole = pool.horizon(start.suite, start.task)
        horizon = whole if start.horizon is None else start.horizon
        if horizon < 1:
            raise UserError(f"{where}: horizon is {horizon}", "give 1 or more, or none for the task's own")
        missing = max(0, length - len(memory))
        references.append(reference)
        memories.append(last_frames(memory, length))
        actions.append(np.concatenate([np.tile(neutral, (missing, 1)), made[len(made) + missing - length :]]))
        # A keyframe's horizon is what is left of its task's, so what is gone of it is its age.
        ages.append(0 if start.memory is None else max(0, whole - horizon))
        horizons.append(horizon)
    return Beginnings(
        np.stack(references),
        np.stack(memories),
        np.stack(actions).astype(np.float32),
        _signals(starts),
        np.array(ages, np.float32),
        np.array(horizons, np.int64),
        [pool.instruction(start.suite, start.task) for start in starts],
        [(start.suite, start.task) for start in starts],
    )


def _signals(starts: Sequence[StartState]) -> dict[str, np.ndarray]:
    """(R, P) float32 each, by name."""
    found = {}
    for name in sorted({name for start in starts for name in start.signals}):
        if name == "camera" and any(start.camera is None for start in starts):
            continue  # who needs it says so: only few world models look at it
        shapes = sorted({np.shape(start.signals.get(name, [])) for start in starts})
        if len(shapes) > 1 or len(shapes[0]) != 1:
            what = f"with and without {name}" if (0,) in shapes else f"with {name} of shapes {shapes}"
            raise UserError(f"start states {what}", "collect the episodes again")
        found[name] = np.stack([start.signals[name] for start in starts]).astype(np.float32)
    return found


def _checked(frames: np.ndarray | None, where: str, what: str, size: tuple[int, int], many: bool = False) -> np.ndarray:
    """Frames of a start state, (H, W, 3) or (M, H, W, 3) uint8."""
    if frames is None:
        raise UserError(
            f"{where}: it has no {what}, and an imagined rollout begins with one", "draw start states from episodes"
        )
    frames = np.asarray(frames)
    if frames.shape[many:] != (*size, 3) or frames.dtype != np.uint8 or frames.ndim != 3 + many:
        raise UserError(
            f"{where}: its {what} has shape {frames.shape} and type {frames.dtype}, pictures here are {size[0]} x "
            f"{size[1]} x 3 uint8",
            "use start states of the size the world model was trained on",
        )
    return frames
