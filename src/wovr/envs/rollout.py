"""Acting: episodes run from numbered start states, many at a time, by an expert, at random or by a policy.

Determinism. The environments run in lockstep, a chunk at a time, in as many rows as the vector environment has, which
is part of a command's options and has nothing to do with the number of worker processes. Free rows are filled in the
order of the list at chunk boundaries, lowest row first. An actor always sees all N rows, ended and idle ones included,
and draws the randomness of each episode from a generator of its own, seeded by (seed, episode number): neither the row
nor the company an episode finds itself in changes what is drawn. So one call of `roll_out` gives the same bytes for any
number of workers. Its company may change an episode's last bits all the same (a policy pads instructions to the longest
of the batch), so commands that can be resumed call it once per shard: a shard is a function of its own list. Rows that
stay idle at the end of a list cost little, because an idle row is not simulated and the running ones are spread over
the workers; the background work of a shard (video encoding, writing) goes on beside the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wovr.envs.actors.base import Actor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.envs.workers.worker import Recorded
from wovr.types import ChunkStep, StartState


@dataclass(frozen=True)
class EpisodeStart:
    """One episode to be run.

    Attributes:
        number: Its number in the command: with the seed, it decides all randomness of the episode.
        start: Where it begins.
        env_number: Number that decides the environment's randomness instead, so that episodes can share it while their
            actions differ; None for `number`.
    """

    number: int
    start: StartState
    env_number: int | None = None


@dataclass
class Rollout:
    """A finished trajectory.

    Attributes:
        number: The episode's number.
        start: Where it began.
        instruction: The English sentence the actor was given.
        frames: (T, H, W, 3) uint8.
        actions: (T - 1, A) float32 in [-1, 1].
        success: (T,) bool; frame 0 counts as not successful.
        sim_state: (T, S) float64, or None where states are not recorded or not to be had.
        info: Further arrays (T - 1, ...), those of ChunkStep.info: what the environment and the actor add.
        proprio: (T, P) float32, what the robot knew of itself, or None like `sim_state`.
        taken_back: The environment did not stand by what it showed after the last frame (a chunk of imagination that is
            not trusted), so nothing is known of how it ended; T may be 1.
        camera: (T, 3, 7) float32, the camera at each frame, (1, 3, 7) where it stood still, or None like `sim_state`.
    """

    number: int
    start: StartState
    instruction: str
    frames: np.ndarray
    actions: np.ndarray
    success: np.ndarray
    sim_state: np.ndarray | None
    info: dict[str, np.ndarray] = field(default_factory=dict)
    proprio: np.ndarray | None = None
    camera: np.ndarray | None = None
    taken_back: bool = False

    @property
    def succeeded(self) -> bool:
        """True when any frame satisfies the success predicate."""
        return bool(self.success.any())

    @property
    def steps_to_success(self) -> int | None:
        """Actions up to the first successful frame; None when there is none."""
        return int(self.success.argmax()) if self.succeeded else None


def roll_out(
    env: ChunkVectorEnv,
    actor: Actor,
    episodes: Iterable[EpisodeStart],
    seed: int,
    on_steps: Callable[[int], None] | None = None,
) -> Iterator[Rollout]:
    """Run episodes to their ends.

    Args:
        env: Where; whatever runs in it is stopped first.
        actor: Who acts.
        episodes: What to run, in the order in which free rows take it.
        seed: Seed of the command.
        on_steps: Told the number of steps simulated after every chunk.

    Yields:
        Each episode at the end of the chunk it ended in, by row within a chunk: an order that is always the same.

    Raises:
        UserError: A start state the environment does not have, or an action it does not take.
    """
    waiting = deque(episodes)
    rows: list[_Row | None] = [None] * env.num_envs
    fresh = True
    while waiting or any(row is not None for row in rows):
        free = [index for index, row in enumerate(rows) if row is None]
        filled = [(index, waiting.popleft()) for index in free[: len(waiting)]]
        if filled:
            _start(env, rows, filled, seed, everything=fresh)
            fresh = False
        chunk = actor.act(env, [row.generator if row else None for row in rows])
        if on_steps is not None:
            on_steps(int(chunk.valid.sum()))
        done = chunk.done
        for index, row in enumerate(rows):
            if row is not None:
                row.append(chunk, index)
                if done[index]:
                    rows[index] = None
                    yield row.rollout()


def environment_seed(seed: int, number: int) -> int:
    """What seeds the environment's own randomness in an episode, by the command's seed and the episode's number."""
    return int(np.random.SeedSequence([seed, number, 1]).generate_state(1)[0])


def _start(
    env: ChunkVectorEnv,
    rows: list[_Row | None],
    filled: Sequence[tuple[int, EpisodeStart]],
    seed: int,
    everything: bool,
) -> None:
    """Start episodes in free rows; `everything` idles all other rows, whatever an earlier user left in them."""
    starts: list[StartState | None] = [None] * env.num_envs
    seeds: list[int | None] = [None] * env.num_envs
    mask = np.full(env.num_envs, everything)
    for index, episode in filled:
        starts[index], mask[index] = episode.start, True
        number = episode.number if episode.env_number is None else episode.env_number
        seeds[index] = environment_seed(seed, number)
    env.reset(seed=seeds, options={"start_states": starts, "reset_mask": mask})  # type: ignore[arg-type]
    observation = env.observe()
    recorded = [Recorded()] * len(filled)
    if isinstance(env, WorkerVectorEnv) and env.record_states:
        started = [index for index, _ in filled]
        parts = env.sim_states(started), env.proprios(started), env.cameras(started)
        recorded = [Recorded(*of_row) for of_row in zip(*parts, strict=True)]
    for (index, episode), first in zip(filled, recorded, strict=True):
        generator = np.random.default_rng([seed, episode.number, 0])
        rows[index] = _Row(episode, generator, observation.instruction[index], observation.image[index], first)


class _Row:
    """What has been seen so far of the episode in one row."""

    def __init__(
        self,
        episode: EpisodeStart,
        generator: np.random.Generator,
        instruction: str,
        image: np.ndarray,
        first: Recorded,
    ) -> None:
        self.episode = episode
        self.generator = generator
        self.instruction = instruction
        self.frames = [image[None]]
        self.actions: list[np.ndarray] = []
        self.success = [np.zeros(1, bool)]
        self.states = None if first.sim_state is None else [first.sim_state[None]]
        self.proprio = None if first.proprio is None else [first.proprio[None]]
        self.camera = None if first.camera is None else [first.camera[None]]
        self.info: dict[str, list[np.ndarray]] = {}
        self.taken_back = False

    def append(self, chunk: ChunkStep, index: int) -> None:
        """Take over the valid steps of a chunk. Copies, so that one long episode does not keep every row's pictures."""
        count = int(chunk.valid[index].sum())
        self.taken_back = count == 0  # it was running, and not one step of the chunk stands
        self.frames.append(chunk.images[index, :count].copy())
        self.actions.append(chunk.actions[index, :count].copy())
        self.success.append(chunk.success[index, :count].copy())
        if self.states is not None and chunk.sim_state is not None:
            self.states.append(chunk.sim_state[index][:count])
        if self.proprio is not None and chunk.proprio is not None:
            self.proprio.append(chunk.proprio[index][:count])
        if self.camera is not None and chunk.camera is not None:
            self.camera.append(chunk.camera[index][:count])
        for name, values in chunk.info.items():
            self.info.setdefault(name, []).append(values[index, :count].copy())

    def rollout(self) -> Rollout:
        """The finished trajectory."""
        return Rollout(
            number=self.episode.number,
            start=self.episode.start,
            instruction=self.instruction,
            frames=np.concatenate(self.frames),
            actions=np.concatenate(self.actions),
            success=np.concatenate(self.success),
            sim_state=None if self.states is None else np.concatenate(self.states),
            proprio=None if self.proprio is None else np.concatenate(self.proprio),
            camera=None if self.camera is None else _once(np.concatenate(self.camera)),
            info={name: np.concatenate(values) for name, values in self.info.items()},
            taken_back=self.taken_back,
        )


def _once(cameras: np.ndarray) -> np.ndarray:
    """(T, 3, 7) -> (1, 3, 7) where all are the same."""
    return cameras[:1] if (cameras == cameras[:1]).all() else cameras
