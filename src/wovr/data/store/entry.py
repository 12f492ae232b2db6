"""What is known of a stored episode without reading its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wovr.data.store.shards import EpisodeRecord
from wovr.data.store.tar_index import Place
from wovr.types import EpisodeMeta


@dataclass(frozen=True)
class EpisodeEntry:
    """What is known of a stored episode without reading its arrays.

    Attributes:
        key: Its key.
        shard: Path of its shard.
        num_frames: T.
        action_dim: A.
        meta: Instruction, task and provenance.
        succeeded: Any frame satisfies the success predicate, or it is a piece of a demonstration that succeeded.
        places: Field (`actions.npy`) -> where its bytes lie in the shard.
    """

    key: str
    shard: Path
    num_frames: int
    action_dim: int
    meta: EpisodeMeta
    succeeded: bool
    places: dict[str, Place]

    @property
    def num_actions(self) -> int:
        """T - 1."""
        return self.num_frames - 1

    @property
    def record(self) -> EpisodeRecord:
        """What is counted of it."""
        meta = self.meta
        return EpisodeRecord(self.key, meta.suite, meta.task, meta.instruction, self.num_frames, self.succeeded)


def demonstration_of(entry: EpisodeEntry) -> str:
    """The key that the pieces of one demonstration have in common; an episode's own where it was not cut up."""
    part, parts = entry.meta.extra.get("part"), entry.meta.extra.get("parts")
    return entry.key.removesuffix(f"-{part}") if isinstance(parts, int) and parts > 1 else entry.key
