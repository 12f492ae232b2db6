"""Episodes as a stream, shard after shard, for sets too large to index: WebDataset's pipeline with our readers only.

WebDataset's own are not used: they read every member whatever its size, unpack compressed archives, and unpickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from wovr.data.store.dataset import check_shard_file, check_shard_list, read_dataset
from wovr.data.store.members import check_actions, check_image_size, decode_episode, remedy_of
from wovr.data.store.seals import check_sums
from wovr.data.store.tar_index import read_member, scan_shard
from wovr.errors import UserError
from wovr.types import Episode


def stream_episodes(
    folders: Sequence[Path | str], *, shuffle: int = 0, seed: int = 0, epoch: int = 0
) -> webdataset.DataPipeline:
    """Stream episodes, every value of them checked.

    Shards are shared out over the ranks of torch.distributed (or RANK and WORLD_SIZE) and over the workers of a
    DataLoader: each episode comes once, in one of them. So there should be at least as many shards as workers.

    Args:
        folders: Folders with shards and `dataset.json`.
        shuffle: Episodes held back to be drawn from in random order, the shards being shuffled too; 0 keeps the order.
        seed: Of the order.
        epoch: Each epoch has its own order under the same seed.

    Returns:
        A torch IterableDataset of Episode.

    Raises:
        UserError: A folder is broken; while streaming, a shard or a member is.
    """
    formats: dict[str, tuple[list[int], int, dict[str, Any]]] = {}
    for folder in map(Path, folders):
        dataset = read_dataset(folder)
        check_shard_list(folder, dataset)
        of_folder = (dataset["image_size"], dataset["action_dim"])
        formats |= {str(folder.resolve() / shard["file"]): (*of_folder, shard) for shard in dataset["shards"]}
    urls = list(formats)
    stages: list[Any] = [webdataset.split_by_node, webdataset.split_by_worker, _Samples(formats)]
    if shuffle:
        urls = [urls[index] for index in np.random.default_rng([seed, epoch]).permutation(len(urls))]
        stages.append(webdataset.shuffle(shuffle, initial=shuffle, seed=seed + 1_000_003 * epoch))
    return webdataset.DataPipeline(webdataset.SimpleShardList(urls), *stages)


class _Samples:
    """The stage from shards to episodes.

    Args:
        formats: Path of a shard -> image size (H, W) and action dimensions of its data set, and what dataset.json says
            of the shard.
    """

    def __init__(self, formats: dict[str, tuple[list[int], int, dict[str, Any]]]) -> None:
        self.formats = formats

    def __call__(self, shards: Iterable[dict[str, str]]) -> Iterator[Episode]:
        for shard in shards:
            path = Path(shard["url"])
            listed = self.formats[str(path)][2]
            check_shard_file(path, listed)
            check_sums([(path, listed["sha256"])])
            with path.open("rb") as file:
                for key, places in scan_shard(path).items():
                    yield self._decode(path, key, {field: read_member(file, at) for field, at in places.items()})

    def _decode(self, path: Path, key: str, members: Mapping[str, bytes]) -> Episode:
        image_size, action_dim, _ = self.formats[str(path)]
        try:
            episode = decode_episode(key, members, image_size)
            check_actions(episode.actions, len(episode.frames), action_dim)
            check_image_size(episode.frames, image_size)
        except ValueError as error:
            raise UserError(f"{path}: episode {key}: {error}", remedy_of(error)) from error
        return episode
