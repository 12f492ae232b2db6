"""Runs of successive frames of random episodes, for training the networks that measure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.reader import EpisodeStore
from wovr.data.training.base import EpisodeData, whole_of
from wovr.data.training.frames import FrameCache, LateFrames
from wovr.data.training.loader import ResumableLoader
from wovr.data.training.streaming import ShuffleBuffer, StreamLoader
from wovr.errors import UserError
from wovr.types import Episode


@dataclass
class SequenceBatch:
    """B runs of L successive frames.

    Attributes:
        frames: (B, L, H, W, 3) uint8.
        actions: (B, L - 1, A) float32 in [-1, 1], the actions between them.
        episode: (B,) int64, index of each run's episode in the store; of a stream, in its shard.
        start: (B,) int64, index of its first frame in the episode.
    """

    frames: Tensor
    actions: Tensor
    episode: Tensor
    start: Tensor


class SequenceSamples:
    """Runs of successive frames of some episodes, by index.

    Args:
        store: The episodes.
        episodes: Indices of those to use; those shorter than a run are left out.
        length: Frames of a run, L.
        stride: Frames between the starts of two runs.
        cache: Keeps decoded frames.
    """

    def __init__(self, store: EpisodeStore, episodes: list[int], length: int, stride: int, cache: FrameCache) -> None:
        self.store = store
        self.length = length
        self.actions = {episode: store.actions(episode) for episode in episodes}
        self.frames = {episode: cache.frames_of(store, episode) for episode in episodes}
        self.where = np.array(
            [
                (episode, start)
                for episode in episodes
                for start in range(0, store.entries[episode].num_frames - length + 1, stride)
            ],
            np.int64,
        ).reshape(-1, 2)

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.where)

    def __getitem__(self, index: int) -> SequenceBatch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> SequenceBatch:
        """The batch of these runs."""
        where = self.where[indices]
        frames, actions = [], []
        for episode, start in where.tolist():
            stop = start + self.length
            frames.append(self.frames[episode].clip(start, stop))
            actions.append(self.actions[episode][start : stop - 1])
        return SequenceBatch(
            torch.from_numpy(np.stack(frames)),
            torch.from_numpy(np.stack(actions)),
            torch.from_numpy(where[:, 0].copy()),
            torch.from_numpy(where[:, 1].copy()),
        )


class SequenceData(EpisodeData):
    """Runs of successive frames, some episodes kept for validation.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        length: Frames of a run.
        batch_size: Runs a batch (and process).
        val_fraction: Share of the episodes kept for validation, rounded down.
        cache_mb: Largest size of the decoded frames in memory, MB; frames beyond are decoded again and again.
        num_workers: Processes that load batches; 0 is fastest while the frames fit in memory.
        seed: Of the choice of episodes and of the order of runs.
        stream: Read the training episodes shard after shard, for a data set too large for memory, shuffled by a buffer
            of `cache_mb`; whole shards are kept for validation.

    Raises:
        UserError: A number out of its range.
    """

    def __init__(
        self,
        folder: str | list[str],
        length: int = 8,
        batch_size: int = 16,
        val_fraction: float = 0.1,
        cache_mb: float = 2000.0,
        num_workers: int = 0,
        seed: int = 0,
        stream: bool = False,
    ) -> None:
        super().__init__(folder, batch_size, val_fraction, cache_mb, num_workers, seed, stream)
        if batch_size < 1 or length < 1:
            raise UserError(f"data.batch_size is {batch_size}, data.length {length}", "give numbers above 0")
        self.length = length
        self._train: SequenceSamples | None = None
        self._val: SequenceSamples | None = None

    def setup(self, stage: str) -> None:
        """Split the episodes and decode them, once.

        Raises:
            UserError: No training episode is as long as a run.
        """
        if self._train is not None:
            return
        train, val = self.split()
        cache_mb = 0.0 if self.stream else self.cache_mb
        self._val = SequenceSamples(self.store, val, self.length, self.length, FrameCache(cache_mb))
        if self.stream:
            return
        self._train = SequenceSamples(self.store, train, self.length, 1, FrameCache(cache_mb))
        if not len(self._train):
            longest = max(entry.num_frames for entry in self.store.entries)
            raise UserError(
                f"{', '.join(map(str, self.folders))}: no training episode has {self.length} frames, the longest has "
                f"{longest}",
                "set data.length lower or collect longer episodes",
            )

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the episodes for training and for validation, each in ascending order."""
        if self.stream:
            return [], list(range(len(self.store))) if self.shards[1] else []
        order = np.random.default_rng(self.seed).permutation(len(self.store))
        num_val = int(self.val_fraction * len(order))
        return sorted(order[num_val:].tolist()), sorted(order[:num_val].tolist())

    def episodes(self) -> list[tuple[int, Episode]]:
        """Every episode with its index, read whole: for what is computed once, such as targets.

        Raises:
            UserError: They are a stream.
        """
        store = self.whole_store("what every episode's frames should say is computed before the first step")
        return [(index, store.read(index)) for index in range(len(store))]

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Shuffled batches of all runs of the training episodes.

        Raises:
            UserError: There are fewer shards of a stream than processes to share them.
        """
        if self.stream:
            buffer = ShuffleBuffer(
                partial(_streamed_samples, length=self.length, held_out=self.held_out_demonstrations)
            )
            return self.make_stream(self.together(buffer), self.count_streamed(self.length - 1))
        assert self._train is not None, "setup() comes first"
        return self.make_loader(self._train, shuffle=True)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Batches of runs of the validation episodes, side by side and in order; nothing when there are none."""
        return self.make_loader(self._val, shuffle=False) if self._val is not None and len(self._val) else []


def _streamed_samples(
    store: EpisodeStore, index: int, *, length: int, held_out: Collection[tuple[Path, str]]
) -> SequenceSamples:
    """Runs of an episode of a stream; none of one that is held out or too short."""
    used = [] if whole_of(store.entries[index]) in held_out else [index]
    return SequenceSamples(store, used, length, 1, LateFrames())
