"""Lightning data for the success classifier: balanced windows to train it on, whole episodes to validate it on.

What the classifier will judge are imagined frames: a share of the windows can come from episodes that went through the
autoencoder or the world model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from wovr.data.store.entry import EpisodeEntry
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.base import EpisodeData, as_paths, open_imagined, whole_of
from wovr.data.training.frames import FrameCache, LateFrames
from wovr.data.training.loader import ResumableLoader
from wovr.data.training.reward_windows import (
    IMAGINED,
    REAL,
    RECONSTRUCTED,
    BalancedBuffer,
    BalancedOrder,
    Recorder,
    Recording,
    RewardEpisode,
    RewardEpisodes,
    RewardWindows,
)
from wovr.data.training.streaming import StreamLoader
from wovr.errors import UserError, check_least
from wovr.models.world_model.autoencoders.loading import autoencoder_fingerprint, load_autoencoder
from wovr.runs import fingerprint

_ADD_SUCCESSES = "add episodes that succeed, e.g. demonstrations: wovr collect --policy expert"


class RewardData(EpisodeData):
    """Windows for training a success classifier, and whole episodes for validating it.

    Args:
        folder: Data set of episodes, a folder with a `dataset.json`; or a list of such folders.
        batch_size: Windows a batch (and process).
        window: Frames of a window; the network's.
        judges: What counts as success, as the network has it: `frame`, the frame itself is successful; `outcome`, the
            episode is going to succeed (frames from its first success on are left out).
        positive_share: Share of the windows whose last frame is successful.
        hard_share: Share of the windows that are near misses: no success, but at most `near` frames from one, or in the
            last quarter of an episode that failed.
        near: Frames before or after a success within which a frame that is not successful is a near miss.
        imagined_folder: Data set of imagined episodes, with the success of the real ones they were imagined from; or a
            list of such folders. Those with the key of a validation episode are left out.
        imagined_share: Share of the windows that comes from them.
        autoencoder: Checkpoint of an autoencoder, to send training frames through.
        autoencoder_share: Share of the windows that went through it.
        skip_short: Leave out episodes that are shorter than a window instead of refusing them.
        val_fraction: Share of each task's episodes kept for validation, rounded down.
        cache_mb: Largest size of the decoded frames in memory, MB; frames beyond are decoded again and again.
        num_workers: Processes that load batches; 0 is fastest while the frames fit in memory.
        seed: Of the choice of validation episodes and of the order of windows.
        stream: Read the training episodes shard after shard, for a data set too large for memory, drawn from a buffer
            of `cache_mb`; whole shards are kept for validation.

    Raises:
        UserError: A number out of its range, or half of a pair of options.
    """

    def __init__(
        self,
        folder: str | list[str],
        batch_size: int = 64,
        window: int = 2,
        judges: Literal["frame", "outcome"] = "frame",
        positive_share: float = 0.5,
        hard_share: float = 0.25,
        near: int = 8,
        imagined_folder: str | list[str] | None = None,
        imagined_share: float = 0.0,
        autoencoder: str | None = None,
        autoencoder_share: float = 0.0,
        skip_short: bool = False,
        val_fraction: float = 0.1,
        cache_mb: float = 4000.0,
        num_workers: int = 0,
        seed: int = 0,
        stream: bool = False,
    ) -> None:
        super().__init__(folder, batch_size, val_fraction, cache_mb, num_workers, seed, stream)
        self.window = window
        self.judges = judges
        self.positive_share = positive_share
        self.hard_share = hard_share
        self.near = near
        self.imagined_folders = [] if imagined_folder is None else as_paths(imagined_folder)
        self.imagined_share = imagined_share
        self.autoencoder = None if autoencoder is None else Path(autoencoder)
        self.autoencoder_share = autoencoder_share
        self.skip_short = skip_short
        self._check_options()
        self._imagined: EpisodeStore | None = None
        self._windows: RewardWindows | None = None
        self._order: BalancedOrder | None = None
        self._val: RewardEpisodes | None = None

    @property
    def imagined(self) -> EpisodeStore | None:
        """The imagined episodes; opened at the first use.

        Raises:
            UserError: See `open_imagined`.
        """
        if self._imagined is None and self.imagined_folders:
            self._imagined = open_imagined(self.imagined_folders, self.store)
        return self._imagined

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """Tasks of the training windows, sorted; after `setup`. Of a stream those that `dataset.json` names."""
        if self.stream:
            return sorted(self._listed_tasks())
        assert self._windows is not None, "setup() comes first"
        return sorted({recording.task for recording in self._windows.recordings})

    @property
    def tasks_without_success(self) -> list[tuple[str, int]]:
        """Tasks of the training windows of which none is successful, sorted; after `setup`.

        Of a stream those that `dataset.json` counts no success of.
        """
        if self.stream:
            return sorted(task for task, successes in self._listed_tasks().items() if not successes)
        assert self._windows is not None, "setup() comes first"
        recordings = self._windows.recordings
        with_success = {one.task for one in recordings if one.success[self.window - 1 :].any()}
        return [task for task in self.tasks if task not in with_success]

    def held_out(self) -> Iterator[RewardEpisode]:
        """The validation episodes one after the other; after `setup`."""
        assert self._val is not None, "setup() comes first"
        for index in range(len(self._val)):
            yield self._val[index]

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: primitives only. `fingerprint` stands for all that frames come from."""
        parts = [self.store.fingerprint]
        if self.imagined is not None:
            parts.append(self.imagined.fingerprint)
        if self.autoencoder is not None:
            parts.append(autoencoder_fingerprint(self.autoencoder))
        return {
            "fingerprint": parts[0] if len(parts) == 1 else fingerprint(parts),
            "episodes": parts[0],
            "image_size": list(self.store.image_size),
        }

    def setup(self, stage: str) -> None:
        """Split the episodes and decode them, once.

        Raises:
            UserError: An episode shorter than a window, no successful frame, or no other one.
        """
        if self._windows is not None:
            return
        train, val = self.split()
        recorder = self._recorder(FrameCache(0.0 if self.stream else self.cache_mb))
        if self.stream:
            self._val = RewardEpisodes([recorder.recording(REAL, self.store, index) for index in val])
            if not any(self._listed_tasks().values()):
                raise UserError(f"{', '.join(map(str, self.folders))}: no episode succeeds", _ADD_SUCCESSES)
            return
        recordings = [recorder.recording(REAL, self.store, index) for index in train]
        self._val = RewardEpisodes([recorder.recording(REAL, self.store, index) for index in val])
        self._check_classes(recordings)
        if self.autoencoder is not None:
            network = load_autoencoder(self.autoencoder)
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            # In random order, so that tasks are spread evenly over what there is room for.
            shuffled = [recordings[i] for i in np.random.default_rng(self.seed).permutation(len(recordings))]
            recordings += recorder.reconstructed(shuffled, network.to(device))
        if self.imagined is not None:
            held_out = {(*recording.task, recording.entry.key) for recording in self._val.all}
            for index, entry in enumerate(self.imagined.entries):
                if (entry.meta.suite, entry.meta.task, entry.key) not in held_out and entry.num_frames >= self.window:
                    recordings.append(recorder.recording(IMAGINED, self.imagined, index))
        shares = {REAL: 1 - self.imagined_share - self.autoencoder_share}
        shares |= {RECONSTRUCTED: self.autoencoder_share} if self.autoencoder is not None else {}
        shares |= {IMAGINED: self.imagined_share} if self.imagined is not None else {}
        self._windows = RewardWindows(recordings, self.window, self.near)
        length = sum(len(recording.success) for recording in recordings if recording.origin == REAL)
        self._order = BalancedOrder(self._windows, shares, self.positive_share, self.hard_share, length)

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the episodes for training and for validation.

        Of each folder's and task's episodes, in an order drawn from the seed, the first `val_fraction` are for
        validation.

        Raises:
            UserError: An episode is shorter than a window.
        """
        found: dict[tuple[Path, str, int], list[int]] = defaultdict(list)
        for index in self._long_enough():
            entry = self.store.entries[index]
            found[entry.shard.parent, entry.meta.suite, entry.meta.task].append(index)
        # Folders in the order they were given: the choice does not depend on where they lie.
        in_order = sorted(found.items(), key=lambda item: min(item[1]))
        return self.hold_out((suite, task, episodes) for (_, suite, task), episodes in in_order)

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Balanced batches of the training windows.

        Raises:
            UserError: There are fewer shards of a stream than processes to share them.
        """
        if self.stream:
            buffer = BalancedBuffer(
                partial(
                    _streamed_recording,
                    recorder=self._recorder(LateFrames()),
                    window=self.window,
                    skip_short=self.skip_short,
                    held_out=self.held_out_demonstrations,
                ),
                self.window,
                self.near,
                self.positive_share,
                self.hard_share,
            )
            return self.make_stream(self.together(buffer), self.count_streamed(0))
        assert self._windows is not None, "setup() comes first"
        return self.make_loader(self._windows, shuffle=True, order=self._order)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """The validation episodes one after the other, all of them on every rank; nothing when there are none."""
        assert self._val is not None, "setup() comes first"
        return ResumableLoader(self._val, 1, self.seed, shuffle=False) if len(self._val) else []

    def _long_enough(self) -> list[int]:
        entries = self.store.entries
        short = [index for index, entry in enumerate(entries) if entry.num_frames < self.window]
        if short and (not self.skip_short or len(short) == len(entries)):
            entry = min((entries[index] for index in short), key=lambda entry: entry.num_frames)
            raise _too_short(entry, self.window, f" ({len(short)} of {len(entries)} episodes are too short)")
        left_out = set(short)
        return [index for index in range(len(entries)) if index not in left_out]

    def _recorder(self, cache: FrameCache) -> Recorder:
        return Recorder(cache, self.window if self.judges == "outcome" else None)

    def _listed_tasks(self) -> dict[tuple[str, int], int]:
        """Successful episodes of each task, as `dataset.json` counts them."""
        found: dict[tuple[str, int], int] = defaultdict(int)
        for dataset in self.store.datasets:
            for suite, of_suite in dataset["suites"].items():
                for task, of_task in of_suite["tasks"].items():
                    found[suite, int(task)] += of_task["successes"]
        return found

    def _check_classes(self, recordings: Sequence[Recording]) -> None:
        judged = [recording.success[self.window - 1 :] for recording in recordings]
        of_training = f"{', '.join(map(str, self.folders))}: of the {len(recordings)} training episodes"
        if not any(success.any() for success in judged):
            raise UserError(
                f"{of_training} none has a successful frame that ends a window",
                _ADD_SUCCESSES,
            )
        if all(success.all() for success in judged):
            raise UserError(
                f"{of_training} every frame that ends a window is successful",
                "use episodes from their start, and some that fail",
            )

    def _check_options(self) -> None:
        for name in ("positive_share", "hard_share", "imagined_share", "autoencoder_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}", "give a number in [0, 1)")
        for name, least in (("batch_size", 1), ("window", 1), ("near", 0)):
            check_least(f"data.{name}", getattr(self, name), least)
        if self.positive_share == 0 or self.positive_share + self.hard_share > 1:
            raise UserError(
                f"data.positive_share is {self.positive_share}, data.hard_share {self.hard_share}",
                "give shares that leave room for each other, the first above 0",
            )
        if self.imagined_share + self.autoencoder_share > 1:
            raise UserError(
                f"data.imagined_share is {self.imagined_share}, data.autoencoder_share {self.autoencoder_share}",
                "give shares that leave room for each other",
            )
        for name, there, share in (
            ("imagined_folder", bool(self.imagined_folders), self.imagined_share),
            ("autoencoder", self.autoencoder is not None, self.autoencoder_share),
        ):
            if there != (share > 0):
                of_share = f"data.{name.removesuffix('_folder')}_share"
                raise UserError(
                    f"{of_share} is {share}, and data.{name} is {'given' if there else 'not given'}",
                    f"give both data.{name} and {of_share}, or neither",
                )
            if there and self.stream:
                raise UserError(
                    f"data.stream is true, and data.{name} is given, whose windows go by real ones in memory",
                    f"set data.{name} null, or data.stream false",
                )


def _streamed_recording(
    store: EpisodeStore,
    index: int,
    *,
    recorder: Recorder,
    window: int,
    skip_short: bool,
    held_out: Collection[tuple[Path, str]],
) -> Recording | None:
    """An episode of a stream; None for one that is held out or too short."""
    entry = store.entries[index]
    if entry.num_frames < window and not skip_short:
        raise _too_short(entry, window, "")
    if entry.num_frames < window or whole_of(entry) in held_out:
        return None
    return recorder.recording(REAL, store, index)


def _too_short(entry: EpisodeEntry, window: int, of_how_many: str) -> UserError:
    return UserError(
        f"{entry.shard}: episode {entry.key}: {entry.num_frames} frames, a window has {window}{of_how_many}",
        "set the window of data and network lower, or data.skip_short true",
    )
