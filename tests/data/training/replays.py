"""Episodes, and copies of them in which imagination lies from a known step on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.data.synthetic import make_episode
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.types import Episode

CHUNK = 4


def truth(number: int, length: int = 21, action_dim: int = 3) -> Episode:
    """A real episode of 16 x 16 pictures."""
    return make_episode(number, length, (16, 16), action_dim, sim_state=None)


def lied_from(number: int) -> int:
    """The first frame of episode `number` that imagination shows otherwise."""
    return 5 + 4 * (number % 4)


def copy_of(episode: Episode, number: int) -> Episode:
    """The same as imagined: 40 grey levels off in every number from `lied_from` on."""
    frames = episode.frames.astype(int)
    lies = frames[lied_from(number) :]
    frames[lied_from(number) :] = np.where(lies > 127, lies - 40, lies + 40)
    return replace(episode, frames=frames.astype(np.uint8))


def write_replays(folder: Path, count: int = 12, restart: int | None = 0, **arguments: int) -> tuple[Path, Path]:
    """Folders of `count` episodes and of their copies."""
    real = [truth(number, **arguments) for number in range(count)]
    for name, episodes in (("real", real), ("imagined", [copy_of(e, n) for n, e in enumerate(real)])):
        write_shard(shard_path(folder / name, name, 0), episodes, lossless=True)
    finish_dataset(folder / "real")
    finish_dataset(folder / "imagined", **({} if restart is None else {"imagine": {"restart": restart}}))
    return folder / "real", folder / "imagined"
