"""From rollouts to shards, beside the simulation: encoding in threads, writing in one more, never half a shard.

Video encoding and hashing leave the interpreter's lock, so these threads use the processor time that simulators and
policy leave; while a shard is being finished the next one is already running. A shard is a function of its own episodes
(see `wovr.envs.rollout`), so an interrupted collection makes only those that are missing and gives the same bytes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wovr.data.store.shards import ShardRecord, complete_shards, encode_episode, shard_path, write_shard
from wovr.envs.actors.base import Actor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.types import Episode, EpisodeMeta

PENDING_PER_THREAD = 4
"""Rollouts that may wait for an encoder before the simulation does: what bounds the memory."""


@dataclass(frozen=True)
class RecordingPlan:
    """Episodes of one suite and the folder they go to.

    Attributes:
        folder: The data set's folder.
        suite: Suite name; shards are called after it.
        episodes: What to run, in order; number e is the e-th.
        shard_episodes: Episodes a shard.
        seed: Seed of the command.
        source: `EpisodeMeta.source`, the environment's name.
    """

    folder: Path
    suite: str
    episodes: Sequence[EpisodeStart]
    shard_episodes: int
    seed: int
    source: str

    @property
    def name(self) -> str:
        """The suite as a name for shards and keys."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", self.suite)

    def shards(self) -> list[Sequence[EpisodeStart]]:
        """The episodes of each shard."""
        size = self.shard_episodes
        return [self.episodes[first : first + size] for first in range(0, len(self.episodes), size)]

    def paths(self) -> list[Path]:
        """Where each shard goes."""
        return [shard_path(self.folder, self.name, index) for index in range(len(self.shards()))]

    def complete(self) -> dict[int, ShardRecord]:
        """The shards that are on disk, whole.

        Raises:
            UserError: One of them is damaged.
        """
        return complete_shards(self.folder, self.name)

    def episode(self, rollout: Rollout, fps: float, policy: str) -> Episode:
        """A rollout as it is stored."""
        start = rollout.start
        meta = EpisodeMeta(
            instruction=rollout.instruction,
            suite=start.suite,
            task=start.task,
            seed=self.seed,
            fps=fps,
            policy=policy,
            source=self.source,
            init_state=start.init_state,
        )
        return Episode(
            key=f"{self.name}-{rollout.number:06d}",
            frames=rollout.frames,
            actions=rollout.actions,
            success=rollout.success,
            meta=meta,
            sim_state=rollout.sim_state,
            proprio=rollout.proprio,
            camera=rollout.camera,
        )


def record(
    recording: RecordingPlan,
    env: ChunkVectorEnv,
    actor: Actor,
    *,
    threads: int,
    skip: Sequence[int] = (),
    on_steps: Callable[[int], None] | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> None:
    """Run the episodes of a recording and write its shards.

    Args:
        recording: What to run and where it goes.
        env: Where the episodes take place.
        actor: Who acts.
        threads: Encoder threads.
        skip: Shards that are there already.
        on_steps: Told the number of steps simulated after every chunk.
        on_rollout: Told of every finished episode.

    Raises:
        UserError: A start state or action the environment does not take, a dead worker, a full disk.
    """
    encoders, writer = ThreadPoolExecutor(threads, "encode"), ThreadPoolExecutor(1, "write")
    written: list[Future[ShardRecord]] = []
    encoding: deque[Future[dict[str, bytes]]] = deque()
    try:
        for index, (path, episodes) in enumerate(zip(recording.paths(), recording.shards(), strict=True)):
            if index in skip:
                continue
            members: dict[int, Future[dict[str, bytes]]] = {}
            for rollout in roll_out(env, actor, episodes, recording.seed, on_steps):
                episode = recording.episode(rollout, env.fps, actor.name)
                _make_room(encoding, threads * PENDING_PER_THREAD)
                members[rollout.number] = encoders.submit(encode_episode, episode)
                encoding.append(members[rollout.number])
                if on_rollout is not None:
                    on_rollout(rollout)
                for shard in written:
                    if shard.done():
                        shard.result()  # a full disk ends the collection now, not at its end
            written.append(writer.submit(_write, path, [members[number] for number in sorted(members)]))
        for shard in written:
            shard.result()
    finally:
        encoders.shutdown(cancel_futures=True)
        writer.shutdown(cancel_futures=True)


def _make_room(encoding: deque[Future[dict[str, bytes]]], limit: int) -> None:
    """Wait until fewer than `limit` episodes are being encoded."""
    while len(encoding) >= limit:
        wait(encoding, return_when=FIRST_COMPLETED)
        for done in [future for future in encoding if future.done()]:
            encoding.remove(done)
            done.result()


def _write(path: Path, members: Sequence[Future[dict[str, bytes]]]) -> ShardRecord:
    encoded: list[Mapping[str, Any]] = [future.result() for future in members]
    return write_shard(path, encoded)
