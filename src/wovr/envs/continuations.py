"""Rollouts of a few chunks in a simulator, and what becomes of them: many continuations from where they are then.

A policy sees the present picture only, so a continuation from the simulator's state is what the rollout would have gone
on as, but for its luck.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from wovr.envs.actors.base import Actor
from wovr.envs.progress import ActingProgress
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.functional.windows import last_frames
from wovr.types import Observation, StartState


@dataclass(frozen=True)
class Beginning:
    """The first chunks of a rollout, C of them at most; success does not end them.

    Attributes:
        start: Where it began, with the horizon of the whole rollout.
        instruction: What the policy was told.
        images: (C, H, W, 3) uint8, what it saw at the start of each chunk.
        actions: (T, A) float32, what was executed, at most C * K.
        tokens: (T, A) int64, the policy's; None of an actor without.
        success: (T,) bool, of the frames after each action.
        ended: The environment ended it before it was cut.
        states: n -> (S,) float64, the simulator's state after n chunks, where the rollout got so far.
        clips: n -> (window, H, W, 3) uint8, the last frames then; frames before the start are its memory, or its first
            frame repeated.
        proprio: (C, P) float32, what the policy knew of the robot at the start of each chunk, or None.
    """

    start: StartState
    instruction: str
    images: np.ndarray
    actions: np.ndarray
    tokens: np.ndarray | None
    success: np.ndarray
    ended: bool
    states: dict[int, np.ndarray]
    clips: dict[int, np.ndarray]
    proprio: np.ndarray | None = None

    @classmethod
    def of(cls, rollout: Rollout, start: StartState, chunk: int, chunks: Sequence[int], window: int) -> Beginning:
        """Keep what is needed of a rollout.

        Args:
            rollout: It, with the simulator's states; the horizon of its start is where it was cut.
            start: Its start with the horizon of the whole.
            chunk: Actions of a chunk, K.
            chunks: After how many of them it is looked at.
            window: Frames of a clip.

        Raises:
            UserError: The simulator does not tell its state.
        """
        if rollout.sim_state is None:
            raise UserError(
                "the environment does not tell its state, so no rollout can be continued from it",
                "give an environment that can save its state with --env",
            )
        length = len(rollout.actions)
        before = rollout.frames[:1] if start.memory is None or not len(start.memory) else start.memory
        reached = [n for n in chunks if n * chunk <= length]
        return cls(
            start=start,
            instruction=rollout.instruction,
            images=rollout.frames[:length:chunk].copy(),  # a copy: the other frames need not be kept
            actions=rollout.actions,
            tokens=rollout.info.get("tokens"),
            success=rollout.success[1:],
            ended=length < (rollout.start.horizon or 0),
            states={n: rollout.sim_state[n * chunk].copy() for n in reached},
            clips={
                n: last_frames(np.concatenate([before, rollout.frames[1 : n * chunk + 1]]), window) for n in reached
            },
            proprio=rollout.info["proprio"][:length:chunk].copy() if "proprio" in rollout.info else None,
        )

    def observation(self, chunk: int) -> Observation:
        """What the policy saw at the start of a chunk: of one environment."""
        proprio = None if self.proprio is None else self.proprio[chunk : chunk + 1]
        return Observation(self.images[chunk : chunk + 1], [self.instruction], proprio)

    def valid(self, steps: int) -> int:
        """Actions up to and including the first success, of the first `steps`."""
        executed = self.success[:steps]
        return int(executed.argmax()) + 1 if executed.any() else len(executed)

    def outcome(self, steps: int) -> float | None:
        """1 where it has succeeded within so many actions, 0 where it has ended without; None where it goes on."""
        if self.success[:steps].any():
            return 1.0
        over = self.start.horizon is not None and steps >= self.start.horizon
        return 0.0 if over or (self.ended and steps >= len(self.actions)) else None


def play_beginnings(
    simulators: WorkerVectorEnv,
    actor: Actor,
    starts: Sequence[StartState],
    group_size: int,
    chunks: Sequence[int],
    window: int,
    seed: int,
    progress: ActingProgress,
) -> list[Beginning]:
    """Play the first chunks of `group_size` rollouts from each start state.

    Args:
        simulators: Which record their states and do not end at success.
        actor: Who acts.
        starts: Where groups begin, each with its horizon.
        group_size: Rollouts of a group, G.
        chunks: After how many chunks they are looked at.
        window: Frames of a clip.
        seed: Of all sampling.
        progress: Told of every rollout.

    Returns:
        Group after group.

    Raises:
        UserError: An actor that cannot act here, or states that are not the simulator's or that it does not tell.
    """
    most = max(chunks) * actor.chunk
    plan = []
    for number in range(len(starts) * group_size):
        start = starts[number // group_size]
        plan.append(EpisodeStart(number, replace(start, horizon=min(most, start.horizon or most))))
    found: dict[int, Beginning] = {}
    for rollout in roll_out(simulators, actor, plan, seed, progress.steps):
        start = starts[rollout.number // group_size]
        found[rollout.number] = Beginning.of(rollout, start, actor.chunk, chunks, window)
        progress.episode(rollout.succeeded)
    return [found[number] for number in range(len(plan))]


def count_open(beginnings: Sequence[Beginning], chunk: int, chunks: Sequence[int]) -> int:
    """Pairs of a rollout and a number of chunks after which it goes on."""
    return sum(beginning.outcome(n * chunk) is None for beginning in beginnings for n in chunks)


def play_continuations(
    simulators: WorkerVectorEnv,
    actor: Actor,
    beginnings: Sequence[Beginning],
    chunks: Sequence[int],
    continuations: int,
    seed: int,
    progress: ActingProgress,
) -> dict[int, np.ndarray]:
    """Let every rollout go on from where it is after n chunks, several times, to its end.

    Args:
        simulators: Which end at success.
        actor: Who goes on.
        beginnings: R of them.
        chunks: After how many chunks.
        continuations: From each place, C.
        seed: Of all sampling; the numbers of these rollouts begin where those of the beginnings end.
        progress: Told of every continuation.

    Returns:
        n -> (R, C) float64, 1 for success; of a rollout that had ended, C times its own outcome.

    Raises:
        UserError: See `roll_out`.
    """
    outcomes = {n: np.zeros((len(beginnings), continuations)) for n in chunks}
    places: dict[int, tuple[int, int, int]] = {}

    def plan() -> Iterator[EpisodeStart]:
        numbers = count(len(beginnings))
        for n in chunks:
            steps = n * actor.chunk
            for row, beginning in enumerate(beginnings):
                known = beginning.outcome(steps)
                if known is not None:
                    outcomes[n][row] = known
                    continue
                start = beginning.start
                left = None if start.horizon is None else start.horizon - steps
                state = beginning.states[n]
                there = StartState(start.suite, start.task, start.init_state, sim_state=state, horizon=left)
                for index in range(continuations):
                    number = next(numbers)
                    places[number] = n, row, index
                    yield EpisodeStart(number, there)

    for rollout in roll_out(simulators, actor, plan(), seed, progress.steps):
        n, row, index = places.pop(rollout.number)
        outcomes[n][row, index] = rollout.succeeded
        progress.episode(rollout.succeeded)
    return outcomes
