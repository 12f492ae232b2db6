"""Episodes of one's own as a data set, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from wovr.data.store.shards import DATASET_FILE, finish_dataset, shard_path, write_shard
from wovr.errors import UserError, check_least
from wovr.types import Episode


def save_episodes(folder: Path | str, episodes: Iterable[Episode], *, shard_episodes: int = 64) -> dict[str, Any]:
    """Write episodes as shards and `dataset.json`, as `wovr collect` does, for all that reads episodes.

    Args:
        folder: Where they go; made when missing, and holding no episodes yet.
        episodes: At least one, with keys that differ and pictures and actions of one size; taken one at a time.
        shard_episodes: Episodes a shard.

    Returns:
        What `dataset.json` says: counts, success rates, action statistics, shards.

    Raises:
        UserError: The folder holds episodes already, an episode breaks the format, or the disk is full.
    """
    folder = Path(folder)
    if (folder / DATASET_FILE).exists() or any(folder.glob("*.tar")):
        raise UserError(f"{folder}: holds episodes already", "choose another folder")
    check_least("shard_episodes", shard_episodes)
    for index, some in enumerate(_in_parts(iter(episodes), shard_episodes)):
        write_shard(shard_path(folder, "episodes", index), some)
    return finish_dataset(folder)


def _in_parts(episodes: Iterator[Episode], size: int) -> Iterator[Iterator[Episode]]:
    """So many at a time; each part is to be used up before the next is asked for."""
    for first in episodes:
        yield chain([first], islice(episodes, size - 1))
