"""Rollouts for GRPO: groups from one start state each, collected anew with the present policy for every update.

All randomness of update u is a function of (seed, u): start states, actions and the environment's own noise. So a run
that was killed goes on with the rollouts it would have made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wovr.envs.actors.base import Actor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.episodes import plan_episodes
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.errors import UserError, check_least
from wovr.types import Observation, StartState, TaskInfo


class StartSource(Protocol):
    """Where the start states of an update come from."""

    def starts(self, update: int, groups: int) -> Sequence[StartState]:
        """`groups` start states for update number `update`, the same whenever asked."""
        ...


class DrawsStarts(Protocol):
    """A pool such as `wovr.data.keyframes.start_states.StartStates`."""

    def draw(self, count: int, generator: np.random.Generator) -> Sequence[StartState]:
        """`count` start states, decided by the generator."""
        ...


class PlannedStarts:
    """Numbered initial states of a simulator, tasks in turn, none repeated before all were used; see `plan_episodes`.

    Args:
        tasks: The chosen tasks of a suite.
        init_states: A slice, see `wovr.envs.episodes.choose_init_states`.
        groups: Start states of every update but a shorter last one.
        seed: Seed of the order.

    Raises:
        UserError: A bad slice.
    """

    def __init__(self, tasks: Sequence[TaskInfo], init_states: str, groups: int, seed: int) -> None:
        plan_episodes(tasks, 1, init_states, seed)  # a bad slice is reported now
        self.tasks, self.init_states, self.groups, self.seed = tasks, init_states, groups, seed

    def starts(self, update: int, groups: int) -> Sequence[StartState]:
        """The next `groups` of the plan."""
        first = update * self.groups
        plan = plan_episodes(self.tasks, first + groups, self.init_states, self.seed)
        return [episode.start for episode in plan[first:]]


class DrawnStarts:
    """Start states drawn from a pool, by a generator of the update's own.

    Args:
        pool: The pool.
        suite: Suite that every start state must be of.
        seed: Seed of the draws.
    """

    def __init__(self, pool: DrawsStarts, suite: str, seed: int) -> None:
        self.pool, self.suite, self.seed = pool, suite, seed

    def starts(self, update: int, groups: int) -> Sequence[StartState]:
        """Draw.

        Raises:
            UserError: A start state of another suite.
        """
        drawn = self.pool.draw(groups, np.random.default_rng([self.seed, update, 2]))
        for start in drawn:
            if start.suite != self.suite:
                raise UserError(
                    f"a start state is of suite '{start.suite}', the run of suite '{self.suite}'",
                    "give data and keyframes of the run's suite, or another --suite",
                )
        return drawn


@dataclass
class Trajectory:
    """What GRPO needs of a rollout: the pictures at which the policy chose, and what it chose.

    Attributes:
        start: Where it began.
        instruction: The English sentence.
        images: (C, H, W, 3) uint8, the frame at the start of each chunk.
        tokens: (C, K, A) int64, 0 after the end.
        log_probs: (C, K, A) float32, log-probability of each token when it was drawn, 0 after the end.
        success: (C * K,) bool, the predicate on the frame each action produced, False after the end.
        length: Actions executed, in [1, C * K]; 0 and C = 0 where the very first chunk was taken back.
        value: Probability that the rollout would have succeeded where it was cut before its horizon, else 0.
        foreseen: (C - 1,) float32, what a value function said at the end of each chunk but the last, or None.
        trust: Least trust of its chunks, in [0, 1]; None where none was measured.
        taken_back: The environment did not stand by the chunk after its last one, see `Rollout`.
        weight: How much it counts in its group, in [0, 1].
        proprio: (C, P) float32, what the policy knew of the robot at the start of each chunk, or None.
    """

    start: StartState
    instruction: str
    images: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    success: np.ndarray
    length: int
    value: float = 0.0
    foreseen: np.ndarray | None = None
    trust: float | None = None
    taken_back: bool = False
    weight: float = 1.0
    proprio: np.ndarray | None = None

    @classmethod
    def of(cls, rollout: Rollout, chunk: int, weighed: bool = False) -> Trajectory:
        """Keep what is needed of a rollout whose policy acted every `chunk` steps; `weighed`: it counts as trusted.

        One that was taken back counts for what a value function says of its last frame; without one, or without any
        chunk, nothing is known of it and it does not count.
        """
        length = len(rollout.actions)
        chunks = -(-length // chunk)

        def padded(values: np.ndarray) -> np.ndarray:
            """(length, ...) -> (C * K, ...), zeros at the end."""
            return np.concatenate([values, np.zeros((chunks * chunk - length, *values.shape[1:]), values.dtype)])

        tokens, log_probs = (padded(rollout.info[name]) for name in ("tokens", "log_probs"))
        trust = float(rollout.info["trust"].min()) if length and "trust" in rollout.info else None
        known = length > 0 and ("value" in rollout.info or not rollout.taken_back)
        return cls(
            start=rollout.start,
            instruction=rollout.instruction,
            images=rollout.frames[:length:chunk].copy(),  # a copy: the other frames need not be kept
            tokens=tokens.reshape(chunks, chunk, tokens.shape[-1]),  # (C, K, A)
            log_probs=log_probs.reshape(chunks, chunk, log_probs.shape[-1]),  # (C, K, A)
            success=padded(rollout.success[1:]),
            length=length,
            value=float(rollout.info["value"][-1]) if length and "value" in rollout.info else 0.0,
            foreseen=rollout.info["value"][chunk - 1 : max(0, length - 1) : chunk].copy()
            if "value" in rollout.info
            else None,
            trust=trust,
            taken_back=rollout.taken_back,
            weight=float(known) * (trust if weighed and trust is not None else 1.0),
            proprio=rollout.info["proprio"][:length:chunk].copy() if "proprio" in rollout.info else None,
        )

    def observation(self, chunk: int) -> Observation:
        """What the policy saw at the start of a chunk: of one environment."""
        proprio = None if self.proprio is None else self.proprio[chunk : chunk + 1]
        return Observation(self.images[chunk : chunk + 1], [self.instruction], proprio)

    @property
    def succeeded(self) -> bool:
        """True when any frame satisfies the success predicate."""
        return bool(self.success.any())

    @property
    def outcome(self) -> float:
        """1 for success, else `value`."""
        return 1.0 if self.succeeded else self.value

    @property
    def from_keyframe(self) -> bool:
        """True when the rollout began at a keyframe."""
        return self.start.memory is not None


@dataclass
class RolloutBatch:
    """All rollouts of an update, or this process's share of them.

    Attributes:
        update: Number of the update, from 0.
        trajectories: Group after group.
        group_size: Rollouts of a group, G.
        real: They were made in a simulator or by a robot, not imagined.
        rollouts_so_far: Rollouts of all processes over the whole run, these included.
        seconds: What they took.
    """

    update: int
    trajectories: list[Trajectory]
    group_size: int
    real: bool
    rollouts_so_far: int
    seconds: float


class RolloutCollector:
    """Yields the rollouts of one update after the other; what it yields is made when it is asked for, not before.

    It has a length, so that Lightning does not fetch a batch ahead: rollouts of update u + 1 must see the weights that
    update u has left. Its `state_dict` goes into Lightning's checkpoints.

    Args:
        env: Where; any environment.
        actor: Who acts; must keep `tokens` and `log_probs` in the chunk's `info`.
        source: Where groups start.
        groups: Groups of an update, over all processes.
        group_size: Rollouts of a group, G.
        updates: Updates of the run.
        seed: The run's seed.
        shared_noise: The rollouts of a group share the seed of the environment's own noise, so that they differ by
            their actions alone.
        max_rollouts: Rollouts of the whole run; the last update has fewer groups where need be, and there may be fewer
            than `updates`. A multiple of `group_size`; None for no limit.
        real: See RolloutBatch.
        trust_weight: Rollouts count as much as they are trusted, see `Trajectory.of`.
        on_steps: Told the number of steps simulated after every chunk.
        phase: Makes a context that the rollouts of an update are made in; entered once an update, left when all are
            made, by all processes alike.

    Raises:
        UserError: Numbers that do not fit each other.
    """

    def __init__(
        self,
        env: ChunkVectorEnv,
        actor: Actor,
        source: StartSource,
        groups: int,
        group_size: int,
        updates: int,
        seed: int,
        *,
        shared_noise: bool = False,
        max_rollouts: int | None = None,
        real: bool = True,
        trust_weight: bool = False,
        on_steps: Callable[[int], None] | None = None,
        phase: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        for name, value, least in (("groups", groups, 1), ("group_size", group_size, 2), ("updates", updates, 1)):
            check_least(f"--{name}", value, least)
        if max_rollouts is not None and (max_rollouts < 1 or max_rollouts % group_size):
            raise UserError(
                f"--max_real_episodes is {max_rollouts}", f"give a multiple of {group_size}: whole groups only"
            )
        self.env, self.actor, self.source = env, actor, source
        self.groups, self.group_size, self.seed = groups, group_size, seed
        self.shared_noise, self.real, self.on_steps = shared_noise, real, on_steps
        self.trust_weight = trust_weight
        self.phase = phase
        self.rank, self.ranks = 0, 1
        self._max_groups = None if max_rollouts is None else max_rollouts // group_size
        self.updates = updates if self._max_groups is None else min(updates, -(-self._max_groups // groups))
        self.update = 0

    def share_out(self, rank: int, ranks: int) -> None:
        """Collect one process's share of the groups only.

        Args:
            rank: Number of this process.
            ranks: Number of processes.

        Raises:
            UserError: An update's groups cannot be dealt out evenly.
        """
        for groups in {self.groups, self._groups_of(self.updates - 1)}:
            if groups % ranks:
                raise UserError(
                    f"{groups} groups for {ranks} processes",
                    f"make --groups (and what is left last) a multiple of {ranks}",
                )
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        """Updates of the whole run, whatever is left of it."""
        return self.updates

    def __iter__(self) -> Iterator[RolloutBatch]:
        """Yield what is left of the run."""
        while self.update < self.updates:
            batch = self.collect(self.update)
            # Counted before it is handed over: a checkpoint is saved while the caller holds the batch.
            self.update += 1
            yield batch

    def collect(self, update: int) -> RolloutBatch:
        """This process's rollouts of an update, with the policy as it is now.

        Raises:
            UserError: A start state the environment does not have, or an action it does not take.
        """
        began = time.monotonic()
        groups = self._groups_of(update)
        starts = self.source.starts(update, groups)
        share = groups // self.ranks
        mine = range(self.rank * share, (self.rank + 1) * share)
        plan = self._plan(update, starts, mine)
        with self.phase():
            found = {
                rollout.number: Trajectory.of(rollout, self.actor.chunk, self.trust_weight)
                for rollout in roll_out(self.env, self.actor, plan, self.seed, self.on_steps)
            }
        return RolloutBatch(
            update=update,
            trajectories=[found[number] for number in sorted(found)],
            group_size=self.group_size,
            real=self.real,
            rollouts_so_far=(update * self.groups + groups) * self.group_size,
            seconds=time.monotonic() - began,
        )

    def state_dict(self) -> dict[str, int]:
        """Where the collector is: primitives."""
        return {"update": self.update}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a `state_dict`."""
        self.update = state["update"]

    def _groups_of(self, update: int) -> int:
        """Groups of an update: all, or what is left of the budget."""
        return self.groups if self._max_groups is None else min(self.groups, self._max_groups - update * self.groups)

    def _plan(self, update: int, starts: Sequence[StartState], mine: Iterable[int]) -> list[EpisodeStart]:
        """The rollouts of the groups `mine`; numbers are unique over the run and ascend group by group."""
        plan = []
        for group in mine:
            first = (update * self.groups + group) * self.group_size
            shared = first if self.shared_noise else None
            plan += [EpisodeStart(first + i, starts[group], shared) for i in range(self.group_size)]
        return plan
