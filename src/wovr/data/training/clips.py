"""Training clips: every window of every episode by index, and a sampler that orders them by seed, epoch and rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.types import Clip, Episode, EpisodeMeta


@dataclass
class ClipBatch:
    """B clips side by side.

    Attributes:
        frames: (B, L, H, W, 3) uint8, frames start .. start + L - 1 of each episode.
        actions: (B, L - 1, A) float32 in [-1, 1], the actions between them.
        success: (B, L) bool, the success predicate on each frame.
        reference: (B, H, W, 3) uint8, each episode's first frame.
        start: (B,) int64, index of the first frame in its episode.
        keys: Keys of the episodes.
        metas: Their meta data.
    """

    frames: Tensor
    actions: Tensor
    success: Tensor
    reference: Tensor
    start: Tensor
    keys: list[str]
    metas: list[EpisodeMeta]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def instructions(self) -> list[str]:
        """The B instructions."""
        return [meta.instruction for meta in self.metas]

    def to(self, *args: Any, **kwargs: Any) -> ClipBatch:
        """The batch with its tensors moved as `Tensor.to` moves them."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory; a DataLoader with `pin_memory=True` calls it."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


def collate_clips(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of one length: the `collate_fn` for a DataLoader over a ClipDataset."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(clip, name) for clip in clips]))

    return ClipBatch(
        frames=stack("frames"),
        actions=stack("actions"),
        success=stack("success"),
        reference=stack("reference"),
        start=torch.tensor([clip.start for clip in clips]),
        keys=[clip.key for clip in clips],
        metas=[clip.meta for clip in clips],
    )


class ClipDataset(Dataset[Clip]):
    """All windows of L frames of all episodes: window w of the data set is (episode, start), start running fastest.

    Args:
        store: The episodes.
        length: Frames of a clip, L >= 2.
        skip_short: Leave out episodes shorter than a clip instead of refusing them.
        cache_bytes: Keep this many bytes of decoded episodes in memory, in each process that reads; 0 for none.

    Raises:
        UserError: An episode is shorter than a clip, or none is left.
    """

    def __init__(
        self, store: EpisodeStore, length: int = 13, *, skip_short: bool = False, cache_bytes: int = 0
    ) -> None:
        if length < 2:
            raise UserError(f"a clip of {length} frames", "use a clip length of at least 2")
        self.store = store
        self.length = length
        frames = np.array([entry.num_frames for entry in store.entries], np.int64)
        short = frames < length
        if short.any() and (not skip_short or short.all()):
            entry = store.entries[int(np.argmax(short))]
            remedy = f"use a clip length of at most {int(frames.min())}"
            raise UserError(
                f"{entry.shard}: episode {entry.key}: {entry.num_frames} frames, shorter than a clip of {length}"
                f" ({int(short.sum())} of {len(frames)} episodes are)",
                remedy if short.all() else f"{remedy} or skip_short: true",
            )
        self._windows = np.maximum(frames - length + 1, 0)  # of each episode
        self._ends = np.cumsum(self._windows)  # index after each episode's last window
        self._cache = _EpisodeCache(cache_bytes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Clip:
        episode, start = self.window(index)
        cached = self._cache.get(self.store, episode)
        if cached is None:
            return self.store.clip(episode, start, self.length)
        return Clip(
            frames=cached.frames[start : start + self.length],
            actions=cached.actions[start : start + self.length - 1],
            success=cached.success[start : start + self.length],
            reference=cached.frames[0],
            key=cached.key,
            start=start,
            meta=cached.meta,
        )

    def window(self, index: int) -> tuple[int, int]:
        """(episode, start) of a window.

        Raises:
            IndexError: No such window.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        episode = int(np.searchsorted(self._ends, index, side="right"))
        return episode, int(index - self._ends[episode] + self._windows[episode])

    def first_windows(self) -> np.ndarray:
        """(episodes,) int64, the window at the beginning of each episode that is long enough."""
        return (self._ends - self._windows)[self._windows > 0]


class ClipSampler(Sampler[int]):
    """The order of clips in an epoch: a function of seed and epoch alone, dealt out to the ranks one by one.

    Every window comes equally often: an epoch goes through a random permutation of all of them (through several, or
    through the beginning of one, when `samples` asks for more or fewer than there are). On top of that a share of the
    clips can be made to begin where an episode begins.

    With several ranks give Lightning's Trainer `use_distributed_sampler=False`: the dealing is done here.

    Args:
        dataset: The windows.
        seed: Of the order.
        samples: Clips of an epoch over all ranks; None for every window once.
        start_fraction: Share of clips replaced by the first window of a random episode, in [0, 1].
        rank: This process among those that train together.
        world_size: How many those are. Each gets the same number of clips (the last few come twice if need be).

    Raises:
        UserError: A number out of its range.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        *,
        seed: int = 0,
        samples: int | None = None,
        start_fraction: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0.0 <= start_fraction <= 1.0:
            raise UserError(f"start_fraction {start_fraction}", "give a share between 0 and 1")
        if samples is not None and samples < 1:
            raise UserError(f"{samples} samples an epoch", "give at least 1")
        if not 0 <= rank < world_size:
            raise UserError(f"rank {rank} of {world_size}", "give a rank below the world size")
        self.dataset = dataset
        self.seed = seed
        self.samples = len(dataset) if samples is None else samples
        self.start_fraction = start_fraction
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._consumed = 0

    def __len__(self) -> int:
        return -(-self.samples // self.world_size)

    def __iter__(self) -> Iterator[int]:
        order = self.order()[self._consumed :]
        self._consumed = 0
        return iter(order.tolist())

    def order(self) -> np.ndarray:
        """(len(self),) int64, the windows of this rank in the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        windows, wanted = len(self.dataset), len(self) * self.world_size
        rounds = [rng.permutation(windows) for _ in range(-(-self.samples // windows))]
        order = np.concatenate(rounds)[: self.samples]
        from_start = rng.random(self.samples) < self.start_fraction
        order[from_start] = rng.choice(self.dataset.first_windows(), int(from_start.sum()))
        return np.resize(order, wanted)[self.rank :: self.world_size]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this before each."""
        if epoch != self.epoch:
            self._consumed = 0
        self.epoch = epoch

    def resume(self, epoch: int, consumed: int) -> None:
        """Go on inside an epoch: the next iteration leaves out what was consumed before.

        Args:
            epoch: The epoch that was interrupted.
            consumed: Clips of it that this rank has trained on.
        """
        self.epoch = epoch
        self._consumed = consumed


class _EpisodeCache:
    """Decoded episodes, kept until the room is used up. Windows are drawn uniformly: replacing would win nothing.

    Args:
        room: Bytes.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.episodes: dict[int, Episode] = {}

    def get(self, store: EpisodeStore, index: int) -> Episode | None:
        """The episode from memory, read into it if there is room; else None."""
        if index not in self.episodes:
            height, width = store.image_size
            size = store.entries[index].num_frames * height * width * 3
            if size > self.room:
                return None
            episode = store.read(index)
            for array in (episode.frames, episode.actions, episode.success):
                array.flags.writeable = False  # clips are views of it
            self.room -= size
            self.episodes[index] = episode
        return self.episodes[index]
