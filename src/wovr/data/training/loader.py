"""A loader whose order is a function of a seed, and which takes up where it stopped in the middle of an epoch.

Lightning saves `state_dict()` in every checkpoint and gives it back to `load_state_dict()` on resuming; a
`torch.utils.data.DataLoader` has neither, and would start the epoch again.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader


class BatchSource(Protocol):
    """Samples that come as whole batches: a map-style dataset with `__getitems__`."""

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, index: int) -> Any:
        """One sample as a batch of one."""

    def __getitems__(self, indices: list[int]) -> Any:
        """The batch made of these samples."""


class SampleOrder(Protocol):
    """Which samples an epoch is made of: a function of a generator alone."""

    def __len__(self) -> int:
        """Samples of every epoch."""

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """(len(self),) int64, samples in the order of an epoch."""


class Chosen:
    """Some of the samples there are.

    Args:
        source: All of them.
        chosen: (N,) int64, which.
    """

    def __init__(self, source: BatchSource, chosen: np.ndarray) -> None:
        self.source = source
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        """One sample as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Any:
        """The batch made of these samples."""
        return self.source.__getitems__(self.chosen[indices].tolist())


class EpochLoader(ABC):
    """Batches without end, cut into epochs of one length: workers live, and load ahead, from one epoch to the next.

    Args:
        num_workers: Processes that load; 0 to load in this one.
        pin_memory: Put batches in page-locked memory, for a GPU; a batch that is no tensor needs a method `pin_memory`.
    """

    def __init__(self, num_workers: int, pin_memory: bool) -> None:
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.epoch = 0
        self.batch = 0
        self._going_on: Iterator[Any] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Batches of a whole epoch, whatever is left of the present one."""

    @abstractmethod
    def _begin(self) -> Iterator[Any]:
        """All batches from `epoch` and `batch` on."""

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch."""
        if self._going_on is None:
            self._going_on = self._begin()
        for batch in self._going_on:
            # Counted before it is handed over: a checkpoint is saved while the caller holds the batch, and who knows
            # the length does not come back after the last one.
            self.batch += 1
            if self.batch == len(self):
                self.epoch, self.batch = self.epoch + 1, 0
            yield batch
            if self.batch == 0:
                return

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: primitives."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a `state_dict`."""
        self.epoch, self.batch, self._going_on = state["epoch"], state["batch"], None


class ResumableLoader(EpochLoader):
    """Iterates over batches; each pass is one epoch.

    Sample order in epoch e is drawn from (seed, e) alone, so it does not depend on what ran before, nor on the number
    of workers. It is a permutation of all samples, unless `order` says otherwise. With several ranks each takes every
    `ranks`-th sample of the same order, and the few samples that would make ranks uneven are left out of the epoch.

    Args:
        source: The samples.
        batch_size: Samples a batch and rank.
        seed: Of the order.
        shuffle: False to keep the order 0, 1, 2, ... and the last, smaller batch (validation).
        num_workers: Processes that load; 0 to load in this one.
        rank: This process among `ranks`.
        ranks: Processes that share the samples.
        pin_memory: Put batches in page-locked memory, for a GPU; a batch that is no tensor needs a method `pin_memory`.
        order: What an epoch is made of when `shuffle` is set; None for all samples in random order.
    """

    def __init__(
        self,
        source: BatchSource,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        num_workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        pin_memory: bool = False,
        order: SampleOrder | None = None,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.ranks = ranks
        self.order = order

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever is left of the present one."""
        share = (len(self.source) if self.order is None else len(self.order)) // self.ranks
        # Training batches are all of one size, unless there is less than one batch.
        return max(1, share // self.batch_size) if self.shuffle else math.ceil(share / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch; of validation, everything."""
        if not self.shuffle:
            self.batch, self._going_on = 0, None
        yield from super().__iter__()

    def _begin(self) -> Iterator[Any]:
        return iter(
            DataLoader(
                self.source,  # type: ignore[arg-type]
                batch_sampler=self._coming(),
                num_workers=self.num_workers,
                collate_fn=as_it_is,
                pin_memory=self.pin_memory,
            )
        )

    def _coming(self) -> Iterator[list[int]]:
        """The samples of each batch from now on; of validation, of one epoch."""
        first = self.epoch  # by the time the next one comes, the loader may be there already, or not yet
        yield from self._batches(first)[self.batch :]
        for epoch in itertools.count(first + 1) if self.shuffle else ():
            yield from self._batches(epoch)

    def _batches(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng((self.seed, epoch))
        order = np.arange(len(self.source))
        if self.shuffle:
            order = random.permutation(order) if self.order is None else self.order(random)
        share = order[: len(order) // self.ranks * self.ranks][self.rank :: self.ranks]
        return [share[i * self.batch_size :][: self.batch_size].tolist() for i in range(len(self))]


def as_it_is(batch: Any) -> Any:
    """What a DataLoader does to batches that are batches already."""
    return batch
