"""Demonstrations for behaviour cloning: pictures with the actions that followed them, as Lightning data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
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
from wovr.data.training.frames import EpisodeFrames, FrameCache, LateFrames
from wovr.data.training.loader import ResumableLoader
from wovr.data.training.streaming import ShuffleBuffer, StreamLoader
from wovr.errors import UserError
from wovr.types import CHUNK


@dataclass
class DemonstrationBatch:
    """Observations and the chunks of actions that followed.

    Attributes:
        image: (B, H, W, 3) uint8.
        instruction: B sentences.
        actions: (B, K, A) float32 in [-1, 1]; zero beyond the end of the episode.
        mask: (B, K) bool, False beyond the end of the episode.
        proprio: (B, P) float32, or None where the policy does not look at it.
    """

    image: Tensor
    instruction: list[str]
    actions: Tensor
    mask: Tensor
    proprio: Tensor | None = None

    def pin_memory(self) -> DemonstrationBatch:
        """The batch in page-locked memory; torch's loader asks for it where there is a GPU."""
        image, actions, mask = (tensor.pin_memory() for tensor in (self.image, self.actions, self.mask))
        proprio = None if self.proprio is None else self.proprio.pin_memory()
        return DemonstrationBatch(image, self.instruction, actions, mask, proprio)


class DemonstrationSamples:
    """Every (episode, t) with the picture at t, the instruction and the actions t .. t + K - 1.

    Args:
        store: The episodes.
        episodes: Indices of those to use.
        chunk: Actions of a sample, K.
        keep_past_success: Keep samples at and after the first successful frame.
        cache: Keeps decoded frames.
        with_proprio: Whether samples hold the proprioception at t.
    """

    def __init__(
        self,
        store: EpisodeStore,
        episodes: Sequence[int],
        chunk: int,
        keep_past_success: bool,
        cache: FrameCache,
        with_proprio: bool = False,
    ) -> None:
        self.store = store
        self.chunk = chunk
        self.instructions: list[str] = []
        actions = [np.zeros((0, chunk, store.action_dim), np.float32)]
        masks, where = [np.zeros((0, chunk), bool)], [np.zeros((0, 3), np.int64)]
        self.frames: dict[int, EpisodeFrames] = {}
        for row, episode in enumerate(episodes):
            entry = store.entries[episode]
            self.instructions.append(entry.meta.instruction)
            action = store.actions(episode)  # (T - 1, A)
            success = store.success(episode)  # (T,)
            count = len(action)
            if not keep_past_success and success.any():
                count = min(count, int(success.argmax()))
            if count == 0:
                continue
            ahead = np.arange(count)[:, None] + np.arange(chunk)  # (count, K)
            mask = ahead < len(action)
            actions.append(np.where(mask[..., None], action[np.minimum(ahead, len(action) - 1)], 0).astype(np.float32))
            masks.append(mask)
            self.frames[episode] = cache.frames_of(store, episode, count)
            where.append(np.stack([np.full(count, row), np.full(count, episode), np.arange(count)], axis=1))
        self.actions = np.concatenate(actions)  # (samples, K, A)
        self.mask = np.concatenate(masks)  # (samples, K)
        self.where = np.concatenate(where)  # (samples, 3): row of the instruction, episode, t
        self.proprio: np.ndarray | None = None
        if with_proprio and store.proprio_dim:
            used = zip(self.frames, where[1:], strict=True)
            known = [store.signals(episode)["proprio"][: len(rows)] for episode, rows in used]
            self.proprio = np.concatenate([np.zeros((0, store.proprio_dim), np.float32), *known])  # (samples, P)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.where)

    def __getitem__(self, index: int) -> DemonstrationBatch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> DemonstrationBatch:
        """A batch of these samples."""
        where = self.where[indices]
        images = [self.frames[episode].clip(t, t + 1) for _, episode, t in where.tolist()]
        return DemonstrationBatch(
            torch.from_numpy(np.concatenate(images)),
            [self.instructions[row] for row in where[:, 0]],
            torch.from_numpy(self.actions[indices]),
            torch.from_numpy(self.mask[indices]),
            None if self.proprio is None else torch.from_numpy(self.proprio[indices]),
        )


class DemonstrationData(EpisodeData):
    """Demonstrations for behaviour cloning.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        batch_size: Samples a batch (and process).
        per_task: Demonstrations used of each task; null for all. One is the paper's setting.
        only_success: Use only episodes that succeeded.
        keep_past_success: Use also the frames at and after the first success; a policy is never asked to act there.
        suites: Comma list of suites; empty for all.
        tasks: Comma list of task indices; empty for all.
        val_fraction: Share of each task's demonstrations kept for validation, rounded down.
        chunk: Actions of a sample, K; that of the policy.
        cache_mb: Largest size of the decoded frames in memory, MB; frames beyond are decoded again and again.
        num_workers: Processes that load batches; 0 is fastest while the frames fit in memory.
        seed: Of the choice of demonstrations and of the order of samples.
        stream: Read the training episodes shard after shard, for a data set too large for memory, shuffled by a buffer
            of `cache_mb`; whole shards are kept for validation.

    Attributes:
        with_proprio: Whether samples hold proprioception; set by the training before `setup`.
    """

    with_proprio = False

    def __init__(
        self,
        folder: str | list[str],
        batch_size: int = 64,
        per_task: int | None = None,
        only_success: bool = True,
        keep_past_success: bool = False,
        suites: str = "",
        tasks: str = "",
        val_fraction: float = 0.1,
        chunk: int = CHUNK,
        cache_mb: float = 2000.0,
        num_workers: int = 0,
        seed: int = 0,
        stream: bool = False,
    ) -> None:
        super().__init__(folder, batch_size, val_fraction, cache_mb, num_workers, seed, stream)
        self.per_task = per_task
        self.keep_past_success = keep_past_success
        suite_names = [word.strip() for word in suites.split(",") if word.strip()]
        self.wanted = Wanted(suite_names, _task_indices(tasks), only_success)
        self.chunk = chunk
        if batch_size < 1 or (per_task is not None and per_task < 1):
            raise UserError(f"data.batch_size is {batch_size}, data.per_task {per_task}", "give numbers above 0")
        if stream and per_task is not None:
            raise UserError(
                f"data.per_task is {per_task}, and which demonstrations of a stream those are only its end would tell",
                "set data.per_task null, or data.stream false",
            )
        self._train: DemonstrationSamples | None = None
        self._val: DemonstrationSamples | None = None

    def setup(self, stage: str) -> None:
        """Choose the demonstrations and decode them, once.

        Raises:
            UserError: No demonstration is left by the filters, or none with a frame before its first success.
        """
        if self._train is not None:
            return
        train, val = self.split()
        held_out = self._samples(val)
        self._val = held_out if len(held_out) else None
        if self.stream:
            return
        self._train = self._samples(train)
        if not len(self._train):
            raise UserError(
                f"the {len(train)} chosen episodes hold no frame before the first success",
                "set data.keep_past_success true, or choose other episodes",
            )

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the episodes for training and for validation.

        Of each task's demonstrations, in an order drawn from the seed, the first `val_fraction` are for validation and
        the next `per_task` for training.

        Raises:
            UserError: No demonstration is left by the filters.
        """
        found: dict[tuple[str, int], list[int]] = defaultdict(list)
        for index, entry in enumerate(self.store.entries):
            if self.wanted(entry):
                found[entry.meta.suite, entry.meta.task].append(index)
        if self.stream:
            return [], [index for of_task in found.values() for index in of_task] if self.shards[1] else []
        if not found:
            folders = ", ".join(map(str, self.folders))
            raise UserError(
                f"{folders}: none of {len(self.store)} episodes passes data.suites, data.tasks and data.only_success",
                "loosen the filters, or see what is there with: wovr data inspect DIR",
            )
        train: list[int] = []
        val: list[int] = []
        random = np.random.default_rng(self.seed)
        for _, episodes in sorted(found.items()):
            # By key first: the choice does not depend on the order of the shards.
            ordered = sorted(episodes, key=lambda index: self.store.entries[index].key)
            shuffled = [ordered[i] for i in random.permutation(len(ordered))]
            num_val = int(self.val_fraction * len(shuffled))
            val += shuffled[:num_val]
            train += shuffled[num_val:][: self.per_task]
        return train, val

    def proprio(self) -> np.ndarray:
        """(samples, P) float32, the proprioception of all samples for training.

        Raises:
            UserError: The episodes are a stream.
        """
        self.whole_store("a policy that looks at proprioception is scaled by that of all episodes")
        assert self._train is not None, "setup() comes first"
        assert self._train.proprio is not None, "with_proprio was not set"
        return self._train.proprio

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Shuffled batches of the training episodes.

        Raises:
            UserError: There are fewer shards of a stream than processes to share them.
        """
        if self.stream:
            buffer = ShuffleBuffer(
                partial(
                    _streamed_samples,
                    wanted=self.wanted,
                    chunk=self.chunk,
                    keep_past_success=self.keep_past_success,
                    held_out=self.held_out_demonstrations,
                )
            )
            windows = self.count_streamed(1)
            return self.make_stream(self.together(buffer), windows, pin_memory=torch.cuda.is_available())
        assert self._train is not None, "setup() comes first"
        return self._loader(self._train, shuffle=True)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Batches of the validation episodes in order; nothing when there are none."""
        return [] if self._val is None else self._loader(self._val, shuffle=False)

    def _samples(self, episodes: list[int]) -> DemonstrationSamples:
        cache = FrameCache(0.0 if self.stream else self.cache_mb)
        return DemonstrationSamples(self.store, episodes, self.chunk, self.keep_past_success, cache, self.with_proprio)

    def _loader(self, samples: DemonstrationSamples, shuffle: bool) -> ResumableLoader:
        return self.make_loader(samples, shuffle=shuffle, pin_memory=torch.cuda.is_available())


@dataclass(frozen=True)
class Wanted:
    """Which episodes are demonstrations to clone.

    Attributes:
        suites: Names of suites; none for all.
        tasks: Indices of tasks; none for all.
        only_success: Only episodes that succeeded.
    """

    suites: Sequence[str]
    tasks: Collection[int]
    only_success: bool

    def __call__(self, entry: EpisodeEntry) -> bool:
        """Whether an episode is one."""
        return (
            (not self.suites or entry.meta.suite in self.suites)
            and (not self.tasks or entry.meta.task in self.tasks)
            and (entry.succeeded or not self.only_success)
        )


def _streamed_samples(
    store: EpisodeStore,
    index: int,
    *,
    wanted: Wanted,
    chunk: int,
    keep_past_success: bool,
    held_out: Collection[tuple[Path, str]],
) -> DemonstrationSamples:
    """Samples of an episode of a stream; none of one that is held out or not wanted."""
    entry = store.entries[index]
    used = [index] if wanted(entry) and whole_of(entry) not in held_out else []
    return DemonstrationSamples(store, used, chunk, keep_past_success, LateFrames())


def _task_indices(tasks: str) -> set[int]:
    try:
        return {int(word) for word in tasks.split(",") if word.strip()}
    except ValueError as error:
        raise UserError(f"data.tasks is '{tasks}'", "give task indices separated by commas, e.g. 0,3,7") from error
