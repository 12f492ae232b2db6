"""Lightning data for trust: chunks of real episodes that a world model imagined again, beside what really happened.

Of the same actions both are known, what imagination made of them and what they led to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.reader import EpisodeStore
from wovr.data.training.base import EpisodeData, as_paths, open_imagined
from wovr.data.training.frames import EpisodeFrames, FrameCache
from wovr.data.training.loader import ResumableLoader
from wovr.errors import UserError, check_least
from wovr.runs import fingerprint


@dataclass
class ReplayBatch:
    """B chunks, imagined again.

    Attributes:
        reference: (B, H, W, 3) uint8, the first frames of their episodes.
        before: (B, H, W, 3) uint8, the frames that imagination began the chunks at.
        frames: (B, K, H, W, 3) uint8, the frames imagined.
        real: (B, 1 + K, H, W, 3) uint8, the real frames from the chunks' beginnings on.
        actions: (B, K, A) float32 in [-1, 1].
        tasks: The task of each, as (suite, index).
    """

    reference: Tensor
    before: Tensor
    frames: Tensor
    real: Tensor
    actions: Tensor
    tasks: list[tuple[str, int]]


@dataclass(frozen=True)
class ReplayedEpisode:
    """An episode, real and imagined.

    Attributes:
        real: Its frames.
        imagined: The same as a world model imagined them.
        actions: (T - 1, A) float32.
        restart: Imagination began anew, from the real frame, after every so many; 0 for never.
    """

    real: EpisodeFrames
    imagined: EpisodeFrames
    actions: np.ndarray
    restart: int


class ReplayChunks:
    """Every whole chunk of some episodes, by index; those of an episode follow each other.

    Args:
        episodes: The episodes.
        chunk: Actions of a chunk, K.
    """

    def __init__(self, episodes: Sequence[ReplayedEpisode], chunk: int) -> None:
        self.episodes, self.chunk = episodes, chunk
        found = []
        for number, episode in enumerate(episodes):
            piece = episode.restart or max(1, len(episode.actions))
            for begin in range(0, len(episode.actions), piece):
                end = min(begin + piece, len(episode.actions))
                found += [(number, start) for start in range(begin, end - chunk + 1, chunk)]
        self.where = np.array(found, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.where)

    def __getitem__(self, index: int) -> ReplayBatch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ReplayBatch:
        """The batch of these chunks."""
        reference, before, frames, real, actions, tasks = [], [], [], [], [], []
        for number, start in self.where[np.asarray(indices, np.int64)].tolist():
            episode = self.episodes[number]
            stop = start + self.chunk
            truth = episode.real.clip(start, stop + 1)
            shown = episode.imagined.clip(start, stop + 1)
            anew = start == 0 if not episode.restart else start % episode.restart == 0
            reference.append(episode.real.clip(0, 1)[0])
            before.append(truth[0] if anew else shown[0])
            frames.append(shown[1:])
            real.append(truth)
            actions.append(episode.actions[start:stop])
            meta = episode.real.store.entries[episode.real.index].meta
            tasks.append((meta.suite, meta.task))
        return ReplayBatch(
            reference=torch.from_numpy(np.stack(reference)),
            before=torch.from_numpy(np.stack(before)),
            frames=torch.from_numpy(np.stack(frames)),
            real=torch.from_numpy(np.stack(real)),
            actions=torch.from_numpy(np.stack(actions)),
            tasks=tasks,
        )


class ReplayData(EpisodeData):
    """Chunks of episodes that a world model imagined again (`wovr data imagine`), some episodes kept for validation.

    Those of the same folder, `val_fraction` and `seed` as in the world model's training, so that nothing that was
    learned from them has seen them.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        imagined_folder: Data set of what a world model made of them; or a list of such folders, which may hold several
            copies of an episode (other noise, another `restart`). Episodes that they lack are left out.
        batch_size: Chunks a batch (and process).
        chunk: Actions of a chunk, K; the world model's.
        val_fraction: Share of each task's episodes kept for validation, rounded down.
        cache_mb: Largest size of the decoded frames in memory, MB; frames beyond are decoded again and again.
        num_workers: Processes that load batches; 0 is fastest while the frames fit in memory.
        seed: Of the choice of validation episodes and of the order of chunks.

    Raises:
        UserError: A number out of its range.
    """

    def __init__(
        self,
        folder: str | list[str],
        imagined_folder: str | list[str],
        batch_size: int = 64,
        chunk: int = 8,
        val_fraction: float = 0.1,
        cache_mb: float = 4000.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(folder, batch_size, val_fraction, cache_mb, num_workers, seed, stream=False)
        for name, value in (("batch_size", batch_size), ("chunk", chunk)):
            check_least(f"data.{name}", value)
        self.imagined_folders = as_paths(imagined_folder)
        self.chunk = chunk
        self._imagined: EpisodeStore | None = None
        self._train: ReplayChunks | None = None
        self._val: ReplayChunks | None = None

    @property
    def imagined(self) -> EpisodeStore:
        """The imagined episodes; opened at the first use.

        Raises:
            UserError: See `open_imagined`.
        """
        if self._imagined is None:
            self._imagined = open_imagined(self.imagined_folders, self.store)
        return self._imagined

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: primitives only. `fingerprint` stands for all that frames come from."""
        return super().record() | {
            "fingerprint": fingerprint([self.store.fingerprint, self.imagined.fingerprint]),
            "episodes": self.store.fingerprint,
        }

    def setup(self, stage: str) -> None:
        """Pair the episodes, split and decode them, once.

        Raises:
            UserError: Imagined episodes that are none of these, or no training episode as long as a chunk.
        """
        if self._train is not None:
            return
        copies = self._copies()
        train, val = self.split()
        cache = FrameCache(self.cache_mb)
        self._train, self._val = (
            ReplayChunks([self._replayed(of, copy, cache) for of in part for copy in copies.get(of, [])], self.chunk)
            for part in (train, val)
        )
        if not len(self._train):
            raise UserError(
                f"{', '.join(map(str, self.imagined_folders))}: no training episode of {self.folders[0]} was imagined "
                f"for {self.chunk} actions",
                "imagine episodes of this folder: wovr data imagine",
            )

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the episodes for training and for validation, those imagined or not.

        Of each folder's and task's episodes, in an order drawn from the seed, the first `val_fraction` are for
        validation.
        """
        found: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        folders = [Path(folder) for folder in self.store.folders]
        for index, entry in enumerate(self.store.entries):
            found[folders.index(entry.shard.parent), entry.meta.suite, entry.meta.task].append(index)
        return self.hold_out((suite, task, episodes) for (_, suite, task), episodes in sorted(found.items()))

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches of the chunks of the training episodes."""
        assert self._train is not None, "setup() comes first"
        return self.make_loader(self._train, shuffle=True)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Batches of the chunks of the validation episodes, in order; nothing when there are none."""
        return self.make_loader(self._val, shuffle=False) if self._val is not None and len(self._val) else []

    def held_out(self) -> ReplayChunks:
        """The chunks of the validation episodes; after `setup`."""
        assert self._val is not None, "setup() comes first"
        return self._val

    def _copies(self) -> dict[int, list[int]]:
        """Index of a real episode -> those of its imagined copies.

        Raises:
            UserError: A copy of an episode that is not there, or of other actions.
        """
        entries = self.store.entries
        keys = unique_keys([entry.key for entry in entries])
        places = {(e.meta.suite, e.meta.task, key): i for i, (e, key) in enumerate(zip(entries, keys, strict=True))}
        copies: dict[int, list[int]] = defaultdict(list)
        for index, entry in enumerate(self.imagined.entries):
            place = places.get((entry.meta.suite, entry.meta.task, entry.key))
            if place is None or not np.array_equal(self.imagined.actions(index), self.store.actions(place)):
                raise UserError(
                    f"{entry.shard}: episode {entry.key} is no imagined copy of one of "
                    f"{', '.join(map(str, self.folders))}",
                    "give the folders that it was imagined from, in their order",
                )
            copies[place].append(index)
        return copies

    def _replayed(self, index: int, copy: int, cache: FrameCache) -> ReplayedEpisode:
        entry = self.imagined.entries[copy]
        folders = [Path(folder) for folder in self.imagined.folders]
        made = self.imagined.datasets[folders.index(entry.shard.parent)].get("extra", {}).get("imagine")
        restart = made.get("restart") if isinstance(made, dict) else None
        if type(restart) is not int or restart < 0 or restart % self.chunk:
            raise UserError(
                f"{entry.shard.parent}: imagination began anew after every {restart} frames, not after whole chunks of "
                f"{self.chunk}",
                "imagine the episodes again with --restart 0 or so many chunks",
            )
        real, imagined = cache.frames_of(self.store, index), cache.frames_of(self.imagined, copy)
        return ReplayedEpisode(real, imagined, self.store.actions(index), restart)


def unique_keys(keys: Sequence[str]) -> list[str]:
    """The keys of several data sets as those of one: KEY, then KEY-2 of the next one that has it too, ..."""
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return found
