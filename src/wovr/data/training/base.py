"""What every Lightning data module of stored episodes has: folders, their store, a record of it, resumable loaders."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule

from wovr.data.store.dataset import check_same_range, read_dataset
from wovr.data.store.entry import EpisodeEntry, demonstration_of
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.loader import BatchSource, ResumableLoader, SampleOrder
from wovr.data.training.streaming import Buffer, StreamedShards, StreamLoader, WindowStream
from wovr.errors import UserError


class EpisodeData(LightningDataModule):
    """Episodes of one or several folders, some kept for validation. A subclass makes samples and loaders of them.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        batch_size: Samples a batch (and process).
        val_fraction: Share of the episodes kept for validation.
        cache_mb: Largest size of the decoded frames in memory, MB.
        num_workers: Processes that load batches.
        seed: Of all choices and orders.
        stream: Read the training episodes shard after shard, and keep whole shards for validation: `val_fraction` of
            each folder's, rounded up.

    Raises:
        UserError: `val_fraction` is out of its range, or there is no room to shuffle a stream.
    """

    def __init__(
        self,
        folder: str | list[str],
        batch_size: int,
        val_fraction: float,
        cache_mb: float,
        num_workers: int,
        seed: int,
        stream: bool,
    ) -> None:
        super().__init__()
        self.folders = as_paths(folder)
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.cache_mb = cache_mb
        self.num_workers = num_workers
        self.seed = seed
        if not 0 <= val_fraction < 1:
            raise UserError(f"data.val_fraction is {val_fraction}", "give a number in [0, 1)")
        if stream and cache_mb <= 0:
            raise UserError(
                f"data.cache_mb is {cache_mb}, in which data.stream shuffles", "give the MB that its buffer may take"
            )
        self.stream = stream
        self._store: EpisodeStore | None = None

    @property
    def store(self) -> EpisodeStore:
        """The episodes; opened at the first use. Of a stream those kept for validation; if none are, of a first shard.

        Raises:
            UserError: A folder is missing or broken, or folders differ in image size or action dimensions.
        """
        if self._store is None:
            if self.stream:
                streamed, held_out = self.shards
                self._store = EpisodeStore(*self.folders, only=held_out or streamed[0][:1])
            else:
                self._store = EpisodeStore(*self.folders)
        return self._store

    def whole_store(self, why: str) -> EpisodeStore:
        """The store, for what needs all episodes before the first step.

        Args:
            why: What it needs them for, in the words of a message.

        Raises:
            UserError: They are a stream; and as `store`.
        """
        if self.stream:
            raise UserError(f"data.stream is true, and {why}", "set data.stream false")
        return self.store

    @cached_property
    def shards(self) -> tuple[list[list[Path]], list[Path]]:
        """Of a stream, the shards of each folder that are trained on, and those of all folders that are held out.

        Raises:
            UserError: A folder is missing or broken, or no shard of it is left for training.
        """
        streamed, held_out = [], []
        for folder in self.folders:
            found = sorted(folder / shard["file"] for shard in read_dataset(folder)["shards"])
            shuffled = [found[i] for i in np.random.default_rng(self.seed).permutation(len(found))]
            num_val = math.ceil(self.val_fraction * len(found))
            if num_val == len(found):
                raise UserError(
                    f"{folder}: {len(found)} shards, of which data.stream keeps {num_val} for validation",
                    "set data.val_fraction 0, store fewer episodes a shard, or set data.stream false",
                )
            held_out += shuffled[:num_val]
            streamed.append(sorted(shuffled[num_val:]))
        return streamed, held_out

    @cached_property
    def held_out_demonstrations(self) -> frozenset[tuple[Path, str]]:
        """`whole_of` the episodes of the held-out shards: of some a piece may lie in a shard that is streamed."""
        return frozenset(map(whole_of, self.store.entries if self.shards[1] else []))

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: primitives only."""
        return {
            "fingerprint": self.store.fingerprint,
            "action_dim": self.store.action_dim,
            "action_statistics": self.store.action_statistics.to_json(),
            "image_size": list(self.store.image_size),
            "suites": sorted({suite for dataset in self.store.datasets for suite in dataset["suites"]}),
            **self.motion_record(),
        }

    def motion_record(self) -> dict[str, Any]:
        """What an action of -1 or 1 does, for a checkpoint: its units, times it is executed; empty where unknown."""
        found, repeat = self.store.action_range, self.store.action_repeat
        units = {} if found is None else {"action_range": found.to_json()}
        return units if repeat is None else units | {"action_repeat": repeat}

    def make_loader(
        self, source: BatchSource, *, shuffle: bool, order: SampleOrder | None = None, pin_memory: bool = False
    ) -> ResumableLoader:
        """A loader of this process's share of the samples; see ResumableLoader."""
        rank, ranks = self._share()
        return ResumableLoader(
            source,
            self.batch_size,
            self.seed,
            shuffle,
            self.num_workers,
            rank=rank,
            ranks=ranks,
            pin_memory=pin_memory,
            order=order,
        )

    def together(self, buffer: Buffer) -> list[StreamedShards]:
        """All streamed shards of all folders as one part."""
        return [StreamedShards(self.store, [path for of_folder in self.shards[0] for path in of_folder], buffer)]

    def make_stream(self, parts: Sequence[StreamedShards], windows: int, *, pin_memory: bool = False) -> StreamLoader:
        """A loader of this process's share of streamed shards; `windows` of all processes are called an epoch.

        Raises:
            UserError: There are fewer shards than processes to share them.
        """
        rank, ranks = self._share()
        stream = WindowStream(parts, self.batch_size, self.cache_mb, self.seed, rank, ranks)
        return StreamLoader(stream, max(1, windows // ranks // self.batch_size), self.num_workers, pin_memory)

    def count_streamed(self, fewer: int) -> int:
        """Frames of the streamed shards, less so many of each episode, by what `dataset.json` says."""
        streamed = {path for of_folder in self.shards[0] for path in of_folder}
        listed = [
            shard
            for folder, dataset in zip(self.folders, self.store.datasets, strict=True)
            for shard in dataset["shards"]
            if folder / shard["file"] in streamed
        ]
        return sum(max(0, shard["frames"] - fewer * shard["episodes"]) for shard in listed)

    def _share(self) -> tuple[int, int]:
        """This process among those that train, and how many there are."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def hold_out(self, groups: Iterable[tuple[str, int, list[int]]]) -> tuple[list[int], list[int]]:
        """Divide groups of episodes, each by itself, into those for training and those for validation.

        In an order drawn from the seed and the task alone, the first `val_fraction` of a group, rounded down, are for
        validation. The choice does not depend on the other groups, nor on the order of the shards. The pieces of one
        demonstration stay together. Of a stream all episodes that the store holds are for validation, if any are.

        Args:
            groups: Suite, task and the indices of the episodes of each.

        Returns:
            Indices for training and for validation, group after group.
        """
        if self.stream:
            return [], [index for _, _, episodes in groups for index in episodes] if self.shards[1] else []
        train: list[int] = []
        val: list[int] = []
        for suite, task, episodes in groups:
            pieces: dict[str, list[int]] = defaultdict(list)  # of one demonstration: they begin where others end
            for index in sorted(episodes, key=lambda index: self.store.entries[index].key):
                pieces[demonstration_of(self.store.entries[index])].append(index)
            ordered = list(pieces.values())
            random = np.random.default_rng([self.seed, zlib.crc32(f"{suite}/{task}".encode())])
            shuffled = [ordered[i] for i in random.permutation(len(ordered))]
            num_val = int(self.val_fraction * len(shuffled))
            val += [index for demonstration in shuffled[:num_val] for index in demonstration]
            train += [index for demonstration in shuffled[num_val:] for index in demonstration]
        return train, val


def whole_of(entry: EpisodeEntry) -> tuple[Path, str]:
    """Folder and key of the demonstration that an episode is a piece of, or is."""
    return entry.shard.parent, demonstration_of(entry)


def open_imagined(folders: Sequence[Path], real: EpisodeStore) -> EpisodeStore:
    """Open what a world model made of episodes.

    Args:
        folders: Data sets of imagined episodes.
        real: The episodes.

    Raises:
        UserError: As EpisodeStore; or pictures of another size, other actions or another range of them.
    """
    found = EpisodeStore(*folders)
    for what, own, other in (
        ("pictures of {}", found.image_size, real.image_size),
        ("actions of {} dimensions", found.action_dim, real.action_dim),
    ):
        if own != other:
            raise UserError(
                f"{folders[0]}: {what.format(own)}, those of {real.folders[0]} are {other}",
                "imagine those episodes: wovr data imagine",
            )
    check_same_range(real.folders[0], real.action_range, folders[0], found.action_range)
    return found


def as_paths(folder: str | list[str]) -> list[Path]:
    """One folder or several, as options give them."""
    return [Path(folder)] if isinstance(folder, str) else [Path(name) for name in folder]
