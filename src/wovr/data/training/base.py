"""What every Lightning data module of stored episodes has: folders, their store, a record of it, resumable loaders."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule

from wovr.data.store.reader import EpisodeStore, demonstration_of
from wovr.data.training.loader import BatchSource, ResumableLoader, SampleOrder
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

    Raises:
        UserError: `val_fraction` is out of its range.
    """

    def __init__(
        self,
        folder: str | list[str],
        batch_size: int,
        val_fraction: float,
        cache_mb: float,
        num_workers: int,
        seed: int,
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
        self._store: EpisodeStore | None = None

    @property
    def store(self) -> EpisodeStore:
        """The episodes; opened at the first use.

        Raises:
            UserError: A folder is missing or broken, or folders differ in image size or action dimensions.
        """
        if self._store is None:
            self._store = EpisodeStore(*self.folders)
        return self._store

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: primitives only."""
        return {
            "fingerprint": self.store.fingerprint,
            "action_dim": self.store.action_dim,
            "action_statistics": self.store.action_statistics.to_json(),
            "image_size": list(self.store.image_size),
            "suites": sorted({entry.meta.suite for entry in self.store.entries}),
            **self.range_record(),
        }

    def range_record(self) -> dict[str, Any]:
        """What -1 and 1 are in the units of whoever recorded the actions, for a checkpoint; empty where unknown."""
        found = self.store.action_range
        return {} if found is None else {"action_range": found.to_json()}

    def make_loader(
        self, source: BatchSource, *, shuffle: bool, order: SampleOrder | None = None, pin_memory: bool = False
    ) -> ResumableLoader:
        """A loader of this process's share of the samples; see ResumableLoader."""
        trainer = self.trainer
        return ResumableLoader(
            source,
            self.batch_size,
            self.seed,
            shuffle,
            self.num_workers,
            rank=trainer.global_rank if trainer is not None else 0,
            ranks=trainer.world_size if trainer is not None else 1,
            pin_memory=pin_memory,
            order=order,
        )

    def hold_out(self, groups: Iterable[tuple[str, int, list[int]]]) -> tuple[list[int], list[int]]:
        """Divide groups of episodes, each by itself, into those for training and those for validation.

        In an order drawn from the seed and the task alone, the first `val_fraction` of a group, rounded down, are for
        validation. The choice does not depend on the other groups, nor on the order of the shards. The pieces of one
        demonstration stay together.

        Args:
            groups: Suite, task and the indices of the episodes of each.

        Returns:
            Indices for training and for validation, group after group.
        """
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


def as_paths(folder: str | list[str]) -> list[Path]:
    """One folder or several, as options give them."""
    return [Path(folder)] if isinstance(folder, str) else [Path(name) for name in folder]
