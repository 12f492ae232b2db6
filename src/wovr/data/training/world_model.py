"""Training windows of the world model, from whole episodes of one or several data sets.

Every window of every episode comes up, from the one that starts at the first frame to the one that ends at the last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.entry import EpisodeEntry
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.base import EpisodeData, whole_of
from wovr.data.training.frames import FrameCache, LateFrames
from wovr.data.training.latents import LatentCache
from wovr.data.training.loader import Chosen, ResumableLoader
from wovr.data.training.streaming import ShuffleBuffer, StreamedShards, StreamLoader
from wovr.errors import UserError
from wovr.functional.windows import NO_ACTION, count_windows, window_index
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.types import CHUNK


@dataclass
class WorldModelBatch:
    """B windows [reference | memory | new], see `wovr.functional.windows`.

    Attributes:
        frames: (B, 1 + M + K, H, W, 3) uint8.
        actions: (B, M + K, A) float32 in [-1, 1], the action that produced each memory and new frame; 0 where none did.
        known: (B, M + K) bool, False where no action produced the frame: the first frame, and repetitions of it.
        start: (B,) int64, index of the last memory frame in its episode.
        keys: Keys of the episodes.
        signals: What else all episodes hold, at each of these frames, by name: (B, M + K, P) float32 each.
        chunk: K.
        latents: (B, 1 + (M + K) / 4, C, h, w) float32, the frames encoded: the first, then each group of four. None
            where they are not cached.
    """

    frames: Tensor
    actions: Tensor
    known: Tensor
    start: Tensor
    keys: list[str]
    signals: dict[str, Tensor]
    chunk: int
    latents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def chunk_signals(self) -> dict[str, Tensor]:
        """(B, 1 + K, P) float32 each, the signals before and after each action of the chunk."""
        return {name: values[:, -1 - self.chunk :] for name, values in self.signals.items()}


class WorldModelWindows:
    """Every window of some episodes, by index; start runs fastest.

    Args:
        store: The episodes.
        episodes: Indices of those to use, all longer than a chunk.
        memory: Memory frames of a window, M.
        chunk: New frames of a window, K.
        cache: Keeps decoded frames.

    Attributes:
        latents: The store's cached latents, to be handed out with the frames; None for no latents.
    """

    def __init__(
        self, store: EpisodeStore, episodes: Sequence[int], memory: int, chunk: int, cache: FrameCache
    ) -> None:
        self.store = store
        self.episodes = np.asarray(episodes, np.int64)
        self.memory = memory
        self.chunk = chunk
        self.latents: LatentCache | None = None
        lengths = np.array([store.entries[index].num_frames for index in episodes], np.int64)
        self.windows = count_windows(lengths, chunk)  # of each episode
        self._ends = np.cumsum(self.windows)
        self._frames = [cache.frames_of(store, index) for index in episodes]
        # One row more, of zeros, which index NO_ACTION finds.
        self._actions: list[np.ndarray] = []
        self._signals: list[dict[str, np.ndarray]] = []
        for index in episodes:
            self._actions.append(np.concatenate([store.actions(index), np.zeros((1, store.action_dim), np.float32)]))
            self._signals.append(store.signals(index))

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> WorldModelBatch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> WorldModelBatch:
        """The batch of these windows."""
        episode, start = self.locate(np.asarray(indices, np.int64))
        index = window_index(start, self.memory, self.chunk)
        frames = np.stack([self._frames[e].window(of) for e, of in zip(episode, index.frames, strict=True)])
        actions = np.stack([self._actions[e][of] for e, of in zip(episode, index.actions, strict=True)])
        signals = {
            name: np.stack([self._signals[e][name][of[1:]] for e, of in zip(episode, index.frames, strict=True)])
            for name in self.store.signal_dims
        }
        return WorldModelBatch(
            frames=torch.from_numpy(frames),
            actions=torch.from_numpy(actions),
            known=torch.from_numpy(index.actions != NO_ACTION),
            start=torch.from_numpy(start),
            keys=[self.store.entries[e].key for e in self.episodes[episode]],
            signals={name: torch.from_numpy(values) for name, values in signals.items()},
            chunk=self.chunk,
            latents=None if self.latents is None else self._latents(self.latents, episode, index.frames),
        )

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position in `episodes` and start of each window: (B,) int64 each."""
        episode = np.searchsorted(self._ends, windows, side="right")
        return episode, windows - (self._ends - self.windows)[episode]

    def of(self, positions: Sequence[int]) -> np.ndarray:
        """All windows of the episodes at these positions, (...,) int64."""
        first = self._ends - self.windows
        return np.concatenate([np.arange(first[p], self._ends[p]) for p in positions] or [np.empty(0, np.int64)])

    def first(self, positions: Sequence[int]) -> np.ndarray:
        """The window that starts at the first frame, of each of the episodes at these positions."""
        return (self._ends - self.windows)[np.asarray(positions, np.int64)]

    def _latents(self, cache: LatentCache, episode: np.ndarray, frames: np.ndarray) -> Tensor:
        # Groups end at the reference, at the last memory frame, four frames before and after that, and so on.
        starts = frames[:, ::FRAMES_PER_LATENT] - (FRAMES_PER_LATENT - 1)
        return torch.stack([cache.latents(int(self.episodes[e]), of) for e, of in zip(episode, starts, strict=True)])


class MixedOrder:
    """The order of an epoch: each data set's share of it, all its windows equally often, starts of episodes more.

    Args:
        windows: The windows.
        groups: For each data set the positions of its episodes in `windows.episodes`.
        mix: Share of each data set in an epoch; None for its share of the windows.
        start_fraction: Share of windows replaced by one that starts at the first frame of a random episode.
    """

    def __init__(
        self,
        windows: WorldModelWindows,
        groups: Sequence[Sequence[int]],
        mix: Sequence[float] | None,
        start_fraction: float,
    ) -> None:
        self.start_fraction = start_fraction
        self._windows = [windows.of(group) for group in groups]
        self._first = [windows.first(group) for group in groups]
        total = len(windows)
        shares = np.array([len(found) for found in self._windows] if mix is None else mix, np.float64)
        # Rounded so that they add up to the whole.
        ends = np.round(np.cumsum(shares) / shares.sum() * total).astype(np.int64)
        self.counts = np.diff(ends, prepend=0)

    def __len__(self) -> int:
        """Windows of an epoch."""
        return int(self.counts.sum())

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """(len(self),) int64, windows in the order of an epoch."""
        parts = []
        for windows, first, count in zip(self._windows, self._first, self.counts, strict=True):
            rounds = [random.permutation(windows) for _ in range(-(-int(count) // max(1, len(windows))))]
            part = np.concatenate([*rounds, np.empty(0, np.int64)])[:count].astype(np.int64)
            replaced = random.random(len(part)) < self.start_fraction
            part[replaced] = random.choice(first, int(replaced.sum()))
            parts.append(part)
        return random.permutation(np.concatenate(parts))


class WorldModelData(EpisodeData):
    """Windows for training a world model.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        batch_size: Windows a batch (and process).
        mix: Share of each folder in training, e.g. [0.5, 0.5] for as much of a small new one as of a large old one;
            null for shares by their numbers of windows.
        memory: Memory frames of a window; null for what the training needs, or 4.
        chunk: New frames of a window, K; that of the world model.
        start_fraction: Share of windows, beyond those that come anyway, that start at an episode's first frame, where
            the memory is that frame repeated.
        skip_short: Leave out episodes that are not longer than a chunk instead of refusing them.
        val_fraction: Share of each task's episodes kept for validation, rounded down.
        val_windows: Windows of the validation episodes that are looked at, evenly spread; null for all.
        cache_mb: Largest size of the decoded frames in memory, MB; frames beyond are decoded again and again.
        num_workers: Processes that load batches; 0 is fastest while the frames fit in memory.
        seed: Of the choice of validation episodes and of the order of windows.
        stream: Read the training episodes shard after shard, for a data set too large for memory, shuffled by a buffer
            of `cache_mb`; whole shards are kept for validation.
    """

    def __init__(
        self,
        folder: str | list[str],
        batch_size: int = 32,
        mix: list[float] | None = None,
        memory: int | None = None,
        chunk: int = CHUNK,
        start_fraction: float = 0.05,
        skip_short: bool = False,
        val_fraction: float = 0.1,
        val_windows: int | None = 256,
        cache_mb: float = 4000.0,
        num_workers: int = 0,
        seed: int = 0,
        stream: bool = False,
    ) -> None:
        super().__init__(folder, batch_size, val_fraction, cache_mb, num_workers, seed, stream)
        self.mix = mix
        self.memory = memory
        self.chunk = chunk
        self.start_fraction = start_fraction
        self.skip_short = skip_short
        self.val_windows = val_windows
        if not 0 <= start_fraction < 1:
            raise UserError(f"data.start_fraction is {start_fraction}", "give a number in [0, 1)")
        for name in ("batch_size", "memory", "chunk", "val_windows"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}", "give a number above 0")
        if len(set(self.folders)) != len(self.folders):
            raise UserError("data.folder names a folder twice", "name each once; data.mix sets their shares")
        if mix is not None and (len(mix) != len(self.folders) or min(mix) < 0 or sum(mix) == 0):
            raise UserError(
                f"data.mix is {mix} for {len(self.folders)} folders", "give one share a folder, none below 0"
            )
        self._train: WorldModelWindows | None = None
        self._val: WorldModelWindows | None = None
        self._order: MixedOrder | None = None

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: primitives only. `held_out` are the episodes never trained on."""
        _, val = self.split()
        return {**super().record(), "held_out": [self.store.entries[index].key for index in val]}

    def setup(self, stage: str) -> None:
        """Divide the episodes and decode them, once.

        Raises:
            UserError: Episodes that are not longer than a chunk, or a folder with a share of which nothing is left.
        """
        if self._train is not None:
            return
        train, val = self.split()
        self.memory = FRAMES_PER_LATENT if self.memory is None else self.memory
        if val:
            cache = FrameCache(0.0 if self.stream else self.cache_mb)
            self._val = WorldModelWindows(self.store, val, self.memory, self.chunk, cache)
        if self.stream:
            return
        self._train = WorldModelWindows(self.store, train, self.memory, self.chunk, FrameCache(self.cache_mb))
        groups = [
            [position for position, index in enumerate(train) if self._folder_of(index) == folder]
            for folder in self.folders
        ]
        for folder, group, share in zip(self.folders, groups, self.mix or [1.0] * len(groups), strict=True):
            if share > 0 and not group:
                raise UserError(f"{folder}: no episode is left for training", "lower data.val_fraction or data.mix")
        self._order = MixedOrder(self._train, groups, self.mix, self.start_fraction)

    def use_latents(self, cache: LatentCache) -> None:
        """Hand out cached latents with the frames, from now on; after `setup`."""
        for windows in (self._train, self._val):
            if windows is not None:
                windows.latents = cache

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the episodes for training and for validation.

        Of each folder's and task's episodes, in an order drawn from the seed, the first `val_fraction` are for
        validation. The choice within a folder does not depend on the other folders.

        Raises:
            UserError: An episode is not longer than a chunk.
        """
        found: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        for index in self._long_enough():
            meta = self.store.entries[index].meta
            found[self.folders.index(self._folder_of(index)), meta.suite, meta.task].append(index)
        return self.hold_out((suite, task, episodes) for (_, suite, task), episodes in sorted(found.items()))

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Batches of the training episodes' windows in an order drawn from the seed.

        Raises:
            UserError: There are fewer shards of a stream than processes to share them.
        """
        if self.stream:
            windows_of = partial(
                _streamed_windows,
                memory=FRAMES_PER_LATENT if self.memory is None else self.memory,
                chunk=self.chunk,
                skip_short=self.skip_short,
                signals=self.store.signal_dims,
                held_out=self.held_out_demonstrations,
            )
            buffer = ShuffleBuffer(windows_of, self.start_fraction)
            if self.mix is None:
                parts = self.together(buffer)
            else:
                shares = zip(self.shards[0], self.mix, strict=True)
                parts = [StreamedShards(self.store, shards, buffer, share) for shards, share in shares if share > 0]
            return self.make_stream(parts, self.count_streamed(self.chunk))
        assert self._train is not None, "setup() comes first"
        return self.make_loader(self._train, shuffle=True, order=self._order)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Batches of the validation episodes' windows, always the same; nothing when there are none."""
        if self._val is None:
            return []
        count = min(len(self._val), self.val_windows or len(self._val))
        spread = np.linspace(0, len(self._val) - 1, count).round().astype(np.int64)
        return self.make_loader(Chosen(self._val, spread), shuffle=False)

    def _long_enough(self) -> list[int]:
        entries = self.store.entries
        short = [index for index, entry in enumerate(entries) if entry.num_frames <= self.chunk]
        if short and (not self.skip_short or len(short) == len(entries)):
            raise _too_short(
                entries[short[0]],
                self.chunk,
                f" ({len(short)} of {len(entries)} episodes are too short)",
                "set data.chunk lower" if len(short) == len(entries) else "set data.skip_short true",
            )
        left_out = set(short)
        return [index for index in range(len(entries)) if index not in left_out]

    def _folder_of(self, index: int) -> Path:
        return self.store.entries[index].shard.parent


def _streamed_windows(
    store: EpisodeStore,
    index: int,
    *,
    memory: int,
    chunk: int,
    skip_short: bool,
    signals: Mapping[str, int],
    held_out: Collection[tuple[Path, str]],
) -> WorldModelWindows:
    """Windows of an episode of a stream; none of one that is held out or too short."""
    entry = store.entries[index]
    if entry.num_frames <= chunk and not skip_short:
        raise _too_short(entry, chunk, "", "set data.skip_short true")
    if store.signal_dims != signals:
        raise UserError(
            f"{entry.shard}: holds {store.signal_dims or 'nothing'} beside frames and actions, other shards hold"
            f" {dict(signals) or 'nothing'}",
            "keep what differs in folders of its own, or set data.stream false",
        )
    used = [] if whole_of(entry) in held_out or entry.num_frames <= chunk else [index]
    return WorldModelWindows(store, used, memory, chunk, LateFrames())


def _too_short(entry: EpisodeEntry, chunk: int, of_how_many: str, remedy: str) -> UserError:
    return UserError(
        f"{entry.shard}: episode {entry.key}: {entry.num_frames} frames, a window needs {chunk + 1}{of_how_many}",
        remedy,
    )
