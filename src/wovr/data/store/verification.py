"""Every byte of a data set held against its `dataset.json`: SHA-256, every sample decoded, every count made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.store.dataset import check_shard_file, read_dataset, unlisted_error, unlisted_shards
from wovr.data.store.members import check_actions, check_image_size, decode_episode, remedy_of
from wovr.data.store.shards import DATASET_FILE, EpisodeRecord, summarise
from wovr.data.store.statistics import ActionStatistics
from wovr.data.store.tar_index import RESTORE, read_member, scan_shard
from wovr.errors import UserError
from wovr.runs import file_sha256


@dataclass
class Verification:
    """What was found.

    Attributes:
        shards: Shards looked at.
        episodes: Episodes decoded whole and found right.
        frames: Their frames.
        bytes: Size of the shards.
        problems: One line each, naming file and key.
    """

    shards: int = 0
    episodes: int = 0
    frames: int = 0
    bytes: int = 0
    problems: list[UserError] = field(default_factory=list)


def verify_dataset(folder: Path, on_episode: Callable[[], None] = lambda: None) -> Verification:
    """Check everything there is to check in a folder, going on after what is broken.

    Args:
        folder: The data set.
        on_episode: Called after each episode, for a progress bar.

    Returns:
        Totals and problems.

    Raises:
        UserError: `dataset.json` itself cannot be read, so there is nothing to check against.
    """
    dataset = read_dataset(folder)
    verifier = _Verifier(folder, dataset, on_episode)
    for path in unlisted_shards(folder, dataset):
        verifier.result.problems.append(unlisted_error(path))
    for shard in dataset["shards"]:
        verifier.check_shard(shard)
    if not verifier.result.problems:
        verifier.check_summary()
    return verifier.result


class _Verifier:
    """What has been seen so far.

    Args:
        folder: The data set.
        dataset: Its `dataset.json`.
        on_episode: Called after each episode.
    """

    def __init__(self, folder: Path, dataset: dict[str, Any], on_episode: Callable[[], None]) -> None:
        self.folder = folder
        self.dataset = dataset
        self.on_episode = on_episode
        self.result = Verification()
        self.records: list[EpisodeRecord] = []
        self.actions: list[np.ndarray] = []
        self.owner: dict[str, str] = {}

    def check_shard(self, shard: dict[str, Any]) -> None:
        """Check one shard: its samples, then its counts and SHA-256, unless something in it is broken already."""
        path = self.folder / shard["file"]
        problems, episodes, frames = len(self.result.problems), self.result.episodes, self.result.frames
        self.result.shards += 1
        try:
            check_shard_file(path, shard)
            self.result.bytes += shard["bytes"]
            self._check_samples(path)
            if len(self.result.problems) > problems:
                return
            counted = {"episodes": self.result.episodes - episodes, "frames": self.result.frames - frames}
            for name, value in counted.items():
                if shard[name] != value:
                    raise UserError(f"{path}: {value} {name}, {DATASET_FILE} says {shard[name]}", RESTORE)
            if file_sha256(path) != shard["sha256"]:
                raise UserError(f"{path}: its SHA-256 is not the one in {DATASET_FILE}", RESTORE)
        except UserError as error:
            self.result.problems.append(error)

    def check_summary(self) -> None:
        """Check the counts and statistics over all shards."""
        expected = summarise(self.records, ActionStatistics.of(self.actions))
        for name, value in expected.items():
            if self.dataset.get(name) != value:
                problem = f"{self.folder / DATASET_FILE}: {name} is {self.dataset.get(name)}, counted {value}"
                self.result.problems.append(UserError(problem, "run the collection's command again to write it anew"))

    def _check_samples(self, path: Path) -> None:
        with path.open("rb") as file:
            for key, places in scan_shard(path).items():
                members = {name: read_member(file, place) for name, place in places.items()}
                try:
                    self._check_sample(path, key, members)
                except ValueError as error:
                    self.result.problems.append(UserError(f"{path}: episode {key}: {error}", remedy_of(error)))
                self.on_episode()

    def _check_sample(self, path: Path, key: str, members: dict[str, bytes]) -> None:
        episode = decode_episode(key, members, self.dataset["image_size"])
        check_actions(episode.actions, len(episode.frames), self.dataset["action_dim"])
        check_image_size(episode.frames, self.dataset["image_size"])
        if episode.meta.fps != self.dataset["fps"]:
            raise ValueError(f"meta: {episode.meta.fps:g} fps, the data set has {self.dataset['fps']:g}")
        if key in self.owner:
            raise ValueError(f"{self.owner[key]} has an episode of this key too")
        self.owner[key] = path.name
        self.records.append(EpisodeRecord.of(key, episode.meta, episode.success))
        self.actions.append(episode.actions)
        self.result.episodes += 1
        self.result.frames += len(episode.frames)
