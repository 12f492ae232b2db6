"""Training windows from shards that are read one after the other: for data sets that no memory or local disk holds.

WebDataset's pipeline, from a list of shards over the workers to episodes, with readers of our own: its own read every
member whatever its size, unpack compressed archives, and unpickle. An episode waits in a buffer of bounded size until
its windows are drawn from there; it is decoded once, when the first of them is.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from wovr.data.store.reader import EpisodeStore
from wovr.data.training.frames import decoded_size
from wovr.data.training.loader import BatchSource, EpochLoader, as_it_is
from wovr.errors import UserError

_EMPTY_PASSES = 3
"""Passes over a share of the shards in which nothing is found to train on, after which nothing will be."""

Draw = tuple[BatchSource, int]
"""A window: samples and an index of them."""


class Buffer(Protocol):
    """Draws windows from the episodes that it holds."""

    def __call__(
        self, episodes: Iterator[tuple[EpisodeStore, int]], room: float, random: np.random.Generator
    ) -> Iterator[Draw]:
        """The windows of one pass.

        Args:
            episodes: The episodes of the pass: a shard and an index of it.
            room: Bytes that decoded frames may take.
            random: Decides all there is to decide, so that the same generator gives the same windows.
        """


@dataclass(frozen=True)
class StreamedShards:
    """Shards whose windows are drawn together.

    Attributes:
        store: Knows the shards.
        shards: Paths of them.
        buffer: Draws their windows.
        share: Of the windows of a training, beside that of other shards.
    """

    store: EpisodeStore
    shards: Sequence[Path]
    buffer: Buffer
    share: float = 1.0


class ShuffleBuffer:
    """Every window once a pass: each that is left of the episodes in the buffer is as likely to be the next.

    Args:
        windows_of: The windows of an episode, none where it is not to be used.
        start_fraction: Share of windows replaced by the first one of an episode in the buffer.
    """

    def __init__(self, windows_of: Callable[[EpisodeStore, int], BatchSource], start_fraction: float = 0.0) -> None:
        self.windows_of = windows_of
        self.start_fraction = start_fraction

    def __call__(
        self, episodes: Iterator[tuple[EpisodeStore, int]], room: float, random: np.random.Generator
    ) -> Iterator[Draw]:
        """See Buffer."""
        waiting: list[tuple[_Held, int]] = []
        coming = self._held(episodes)
        following = next(coming, None)
        while True:
            while following is not None and (not waiting or following.size <= room):
                waiting += [(following, window) for window in range(following.left)]
                room -= following.size
                following = next(coming, None)
            if not waiting:
                return
            place = int(random.integers(len(waiting)))
            waiting[place], waiting[-1] = waiting[-1], waiting[place]
            drawn, window = waiting.pop()
            drawn.left -= 1
            room += 0 if drawn.left else drawn.size
            if self.start_fraction and random.random() < self.start_fraction:
                drawn, window = (waiting[int(random.integers(len(waiting)))][0] if waiting else drawn), 0
            yield drawn.windows, window

    def _held(self, episodes: Iterator[tuple[EpisodeStore, int]]) -> Iterator[_Held]:
        for store, index in episodes:
            windows = self.windows_of(store, index)
            if len(windows):
                yield _Held(windows, len(windows), decoded_size(store, store.entries[index].num_frames))


@dataclass
class _Held:
    """An episode in the buffer.

    Attributes:
        windows: Its windows.
        left: How many of them were not drawn yet.
        size: Bytes of its frames.
    """

    windows: BatchSource
    left: int
    size: int


class WindowStream(IterableDataset[Any]):
    """Batches without end. A pass has every shard once, in an order drawn from the seed and the number of the pass.

    Its shards are dealt out over the processes that train and their workers, anew in each pass; each of them shuffles
    by a buffer of its own. What comes when is a function of the seed and the numbers of processes and workers alone.

    Args:
        parts: The shards; several parts are mixed by their shares.
        batch_size: Windows a batch.
        cache_mb: Largest size of the decoded frames in memory, MB, of all workers together.
        seed: Of all orders.
        rank: This process among `ranks`.
        ranks: Processes that share the shards.

    Attributes:
        skip: Batches of each worker that are left out. Nothing of them is decoded, only headers are read.
    """

    def __init__(
        self, parts: Sequence[StreamedShards], batch_size: int, cache_mb: float, seed: int, rank: int, ranks: int
    ) -> None:
        self.parts = parts
        self.batch_size = batch_size
        self.cache_mb = cache_mb
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.skip = 0

    def __iter__(self) -> Iterator[Any]:
        """Batches of this worker."""
        draws = itertools.islice(self.draws(), self.skip * self.batch_size, None)
        while True:
            yield batch_of(list(itertools.islice(draws, self.batch_size)))

    def draws(self) -> Iterator[Draw]:
        """Windows of this worker, one after the other."""
        worker, workers = _worker()
        room = self.cache_mb * 1e6 / (workers * len(self.parts))
        parts = [self._passes(number, room) for number in range(len(self.parts))]
        shares = np.array([part.share for part in self.parts])
        random = np.random.default_rng([self.seed, self.rank, worker])
        while True:
            yield next(parts[0] if len(parts) == 1 else parts[random.choice(len(parts), p=shares / shares.sum())])

    def draw_pass(self, part: int, number: int, room: float) -> Iterator[Draw]:
        """Windows of one pass over a part's shards that fall to this worker."""
        worker, _ = _worker()
        shards = self.parts[part].shards
        order = np.random.default_rng([self.seed, part, number]).permutation(len(shards))
        return iter(
            webdataset.DataPipeline(
                webdataset.SimpleShardList([str(shards[i]) for i in order[self.rank :: self.ranks]]),
                webdataset.split_by_worker,
                partial(_episodes, store=self.parts[part].store),
                partial(
                    self.parts[part].buffer,
                    room=room,
                    random=np.random.default_rng([self.seed, part, number, self.rank, worker]),
                ),
            )
        )

    def _passes(self, part: int, room: float) -> Iterator[Draw]:
        empty = 0
        for number in itertools.count():
            empty += 1
            for draw in self.draw_pass(part, number, room):
                empty = 0
                yield draw
            if empty == _EMPTY_PASSES:
                shards = self.parts[part].shards
                raise UserError(
                    f"{shards[0].parent}: nothing to train on was found in {empty} passes over a share of"
                    f" {len(shards)} shards",
                    "loosen the filters of data, or set data.stream false",
                )


class StreamLoader(EpochLoader):
    """Iterates over batches of a stream, which goes on where it was after each epoch: so do the workers.

    Args:
        stream: The batches.
        length: Batches that are called an epoch.
        num_workers: Processes that load; 0 to load in this one.
        pin_memory: Put batches in page-locked memory, for a GPU; a batch that is no tensor needs a method `pin_memory`.

    Raises:
        UserError: There are fewer shards than processes to share them.
    """

    def __init__(self, stream: WindowStream, length: int, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__(num_workers, pin_memory)
        self.stream = stream
        self.length = length
        for part in stream.parts:
            if len(part.shards) // stream.ranks < max(1, num_workers):
                by_workers = f" of {num_workers} workers" if num_workers > 1 else ""
                raise UserError(
                    f"data.stream: {part.shards[0].parent}: {len(part.shards)} shards to train on are fewer than the"
                    f" {stream.ranks} processes{by_workers} that share them",
                    "use fewer, store fewer episodes a shard, or set data.stream false",
                )

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever is left of the present one."""
        return self.length

    def state_dict(self) -> dict[str, int]:
        """Where the loader is, and who shares the stream: primitives."""
        return super().state_dict() | {"ranks": self.stream.ranks, "workers": self.num_workers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a `state_dict`: with the windows that were left, if as many share the stream as did."""
        super().load_state_dict(state)
        before = state.get("ranks", self.stream.ranks), state.get("workers", self.num_workers)
        if before != (self.stream.ranks, self.num_workers):
            warnings.warn(
                f"data.stream: {before[0]} processes of {before[1]} workers shared the shards, now {self.stream.ranks}"
                f" of {self.num_workers}: other windows follow than would have",
                stacklevel=2,
            )

    def _begin(self) -> Iterator[Any]:
        done = self.epoch * self.length + self.batch
        # Batch i comes from worker i modulo their number.
        self.stream.skip, rest = divmod(done, max(1, self.num_workers))
        loader: DataLoader[Any] = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=as_it_is,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # or the seeds of the workers, which draw nothing, were taken from everyone's
        )
        return itertools.islice(loader, rest, None)


def batch_of(draws: Sequence[Draw]) -> Any:
    """The batch of some windows, a dataclass of tensors, lists, dictionaries of tensors, and what is alike in all."""
    runs = itertools.groupby(draws, key=lambda draw: id(draw[0]))
    batches = []
    for _, run in runs:
        windows, indices = zip(*run, strict=True)
        batches.append(windows[0].__getitems__(list(indices)))
    if len(batches) == 1:
        return batches[0]
    fields = [field.name for field in dataclasses.fields(batches[0])]
    return type(batches[0])(**{name: _joined([getattr(batch, name) for batch in batches]) for name in fields})


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, dict):
        return {name: torch.cat([value[name] for value in values]) for name in first}
    return [entry for value in values for entry in value] if isinstance(first, list) else first


def _episodes(shards: Iterable[dict[str, str]], store: EpisodeStore) -> Iterator[tuple[EpisodeStore, int]]:
    """Pipeline stage: shards as WebDataset names them -> their episodes."""
    for shard in shards:
        part = store.part(Path(shard["url"]))
        for index in range(len(part)):
            yield part, index


def _worker() -> tuple[int, int]:
    """This worker of a DataLoader, and how many there are: as `split_by_worker` has it."""
    _, _, worker, workers = webdataset.utils.pytorch_worker_info()
    return worker, workers
