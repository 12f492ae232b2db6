"""Windows of frames with their success, by index, and the balanced order in which a training sees them.

Successful frames are rare, and the failures that matter look like successes: so half of a batch is successful frames,
and of the others a good part are near misses: frames close in time to a success, and the ends of failed episodes. All
tasks come up equally often.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.entry import EpisodeEntry
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.frames import EpisodeFrames, FrameCache
from wovr.errors import UserError
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.models.world_model.autoencoders.base import Autoencoder

REAL, RECONSTRUCTED, IMAGINED = "real", "reconstructed", "imagined"
"""Where a recording's frames come from."""

POSITIVE, HARD, NEGATIVE = range(3)
"""Kinds of windows; the last are all that are not successful, the hard ones among them."""

_PIECE = 33
"""Frames that go through the autoencoder at a time: a first frame and eight groups of four."""


@dataclass
class RewardBatch:
    """B windows of frames.

    Attributes:
        frames: (B, window, H, W, 3) uint8.
        success: (B,) bool, whether the last frame of each is successful.
        tasks: The task of each, as (suite, index).
    """

    frames: Tensor
    success: Tensor
    tasks: list[tuple[str, int]]


@dataclass
class RewardEpisode:
    """A whole episode, to be judged frame by frame.

    Attributes:
        frames: (T, H, W, 3) uint8.
        success: (T,) bool.
        task: Its task, as (suite, index).
        key: Its key.
    """

    frames: Tensor
    success: Tensor
    task: tuple[str, int]
    key: str


@dataclass
class Recording:
    """Frames of one episode as one kind of recording, and what is known of them.

    Attributes:
        origin: REAL, RECONSTRUCTED or IMAGINED.
        frames: T frames.
        success: (T,) bool.
    """

    origin: str
    frames: EpisodeFrames
    success: np.ndarray

    @property
    def entry(self) -> EpisodeEntry:
        """What is known of the episode."""
        return self.frames.store.entries[self.frames.index]

    @property
    def task(self) -> tuple[str, int]:
        """(suite, index)."""
        return self.entry.meta.suite, self.entry.meta.task


class RewardWindows:
    """Every window of some recordings, by index; the window's last frame runs fastest.

    Args:
        recordings: The recordings, each at least a window long.
        window: Frames of a window.
        near: A frame that is not successful, at most so many frames from a successful one, is a hard negative.

    Attributes:
        recording: (M,) int64, each window's recording.
        last: (M,) int64, each window's last frame.
        kind: (M,) int64: POSITIVE, HARD or NEGATIVE.
    """

    def __init__(self, recordings: Sequence[Recording], window: int, near: int) -> None:
        self.recordings = recordings
        self.window = window
        kinds = [_kinds(recording.success, near)[window - 1 :] for recording in recordings]
        self.recording = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds])
        self.last = np.concatenate([np.arange(len(kind)) + window - 1 for kind in kinds])
        self.kind = np.concatenate(kinds)

    def __len__(self) -> int:
        return len(self.last)

    def __getitem__(self, index: int) -> RewardBatch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> RewardBatch:
        """The batch of these windows."""
        chosen = [(self.recordings[self.recording[i]], int(self.last[i])) for i in indices]
        frames = np.stack([recording.frames.clip(last + 1 - self.window, last + 1) for recording, last in chosen])
        success = self.kind[np.asarray(indices)] == POSITIVE
        return RewardBatch(
            torch.from_numpy(frames), torch.from_numpy(success), [recording.task for recording, _ in chosen]
        )


class BalancedOrder:
    """The order of an epoch: a source, a kind and a task are drawn for each window, then one of those windows.

    Where a source has no window of a kind, real ones stand in; where real episodes have no hard negative, any negative;
    where a stream's buffer has no such window at all, what it has.

    Args:
        windows: The windows.
        shares: Origin -> its share of the windows; together 1.
        positive_share: Share of successful windows.
        hard_share: Share of hard negatives.
        length: Windows of an epoch.
    """

    def __init__(
        self,
        windows: RewardWindows,
        shares: Mapping[str, float],
        positive_share: float,
        hard_share: float,
        length: int,
    ) -> None:
        self.origins = list(shares)
        self.shares = list(shares.values())
        self.kind_shares = [positive_share, hard_share, 1 - positive_share - hard_share]
        self.length = length
        found: dict[tuple[str, int], dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, (row, kind) in enumerate(zip(windows.recording.tolist(), windows.kind.tolist(), strict=True)):
            recording = windows.recordings[row]
            for member_of in {kind, NEGATIVE} if kind == HARD else {kind}:
                found[recording.origin, member_of][recording.task].append(index)
        pools = {key: [np.array(of_task) for _, of_task in sorted(tasks.items())] for key, tasks in found.items()}
        self.pools = {
            (origin, kind): next(
                pools[key] for key in ((origin, kind), (REAL, kind), (REAL, NEGATIVE), (REAL, POSITIVE)) if key in pools
            )
            for origin in self.origins
            for kind in (POSITIVE, HARD, NEGATIVE)
        }

    def __len__(self) -> int:
        """Windows of an epoch."""
        return self.length

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """(len(self),) int64, windows in the order of an epoch."""
        origin = random.choice(len(self.origins), self.length, p=self.shares)
        kind = random.choice(3, self.length, p=self.kind_shares)
        order = np.empty(self.length, np.int64)
        for (name, of_kind), pools in self.pools.items():
            here = np.flatnonzero((origin == self.origins.index(name)) & (kind == of_kind))
            task = random.integers(len(pools), size=len(here))
            for number, pool in enumerate(pools):
                of_task = here[task == number]
                order[of_task] = random.choice(pool, len(of_task))
        return order


class BalancedBuffer:
    """Balanced windows of a stream, see `streaming.Buffer`: `BalancedOrder` over the episodes that are in the buffer.

    As many are drawn in a pass as its episodes have frames. When a quarter of the buffer is new, as many as came in are
    drawn from all of it. Those that came first leave first, but the last success of a task stays, whatever the room,
    until another comes.

    Args:
        recording_of: A streamed episode as a recording; None where it is not to be used.
        window: Frames of a window.
        near: See RewardWindows.
        positive_share: See BalancedOrder.
        hard_share: See BalancedOrder.
    """

    def __init__(
        self,
        recording_of: Callable[[EpisodeStore, int], Recording | None],
        window: int,
        near: int,
        positive_share: float,
        hard_share: float,
    ) -> None:
        self.recording_of = recording_of
        self.window = window
        self.near = near
        self.positive_share = positive_share
        self.hard_share = hard_share

    def __call__(
        self, episodes: Iterator[tuple[EpisodeStore, int]], room: float, random: np.random.Generator
    ) -> Iterator[tuple[RewardWindows, int]]:
        """See `streaming.Buffer`."""
        held: list[Recording] = []
        arrived, wanted = [], room  # at first the whole of it
        for store, index in episodes:
            recording = self.recording_of(store, index)
            if recording is None:
                continue
            arrived.append(recording)
            wanted -= recording.frames.size
            if wanted <= 0:
                held = self._kept(held + arrived, room)
                yield from self._drawn(held, arrived, random)
                arrived, wanted = [], room / 4
        if arrived:
            yield from self._drawn(self._kept(held + arrived, room), arrived, random)

    def _drawn(
        self, held: Sequence[Recording], arrived: Sequence[Recording], random: np.random.Generator
    ) -> Iterator[tuple[RewardWindows, int]]:
        windows = RewardWindows(held, self.window, self.near)
        length = sum(len(recording.success) for recording in arrived)
        order = BalancedOrder(windows, {REAL: 1.0}, self.positive_share, self.hard_share, length)
        for index in order(random).tolist():
            yield windows, index

    def _kept(self, recordings: list[Recording], room: float) -> list[Recording]:
        """What stays where there is so much room, in the order in which it came."""
        successes = Counter(one.task for one in recordings if one.success.any())
        size = sum(one.frames.size for one in recordings)
        kept: list[Recording] = []
        for number, one in enumerate(recordings):
            succeeds = bool(one.success.any())
            is_last = number == len(recordings) - 1 and not kept
            if size > room and not is_last and not (succeeds and successes[one.task] == 1):
                size -= one.frames.size
                successes[one.task] -= succeeds
            else:
                kept.append(one)
        return kept


class RewardEpisodes:
    """Whole episodes by index, one a batch.

    Args:
        recordings: The episodes.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.all = recordings

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> RewardEpisode:
        """One episode."""
        recording = self.all[index]
        frames = torch.from_numpy(recording.frames.clip(0, len(recording.success)))
        return RewardEpisode(frames, torch.from_numpy(recording.success), recording.task, recording.entry.key)

    def __getitems__(self, indices: Sequence[int]) -> RewardEpisode:
        """A batch of one."""
        [index] = indices
        return self[index]


class Recorder:
    """Makes recordings.

    Args:
        cache: Where frames are kept while there is room.
        outcome_window: Window of a network that judges outcomes: all frames of an episode that succeeds count as
            successful, and those from its first success on are left out, as long as a window is left. None for one that
            judges frames.
    """

    def __init__(self, cache: FrameCache, outcome_window: int | None = None) -> None:
        self.cache = cache
        self.outcome_window = outcome_window

    def recording(self, origin: str, store: EpisodeStore, index: int) -> Recording:
        """A recording of a stored episode."""
        success = store.success(index)
        if self.outcome_window is not None and store.entries[index].succeeded:
            # A piece that shares the success of another one is on its way there in all its frames.
            before = int(success.argmax()) if success.any() else len(success)
            success = np.ones(max(self.outcome_window, before), bool)
        return Recording(origin, self.cache.frames_of(store, index, len(success)), success)

    @torch.no_grad()
    def reconstructed(self, recordings: Sequence[Recording], autoencoder: Autoencoder) -> list[Recording]:
        """What an autoencoder makes of as many episodes as there is room for: only memory can hold these frames.

        Raises:
            UserError: There is room for none, or the pictures have a size that the autoencoder does not take.
        """
        made = []
        for recording in recordings:
            store, length = recording.frames.store, len(recording.success)
            if not self.cache.reserve(store, length):
                break
            frames = EpisodeFrames(
                store, recording.frames.index, reconstruct(autoencoder, recording.frames.clip(0, length))
            )
            made.append(Recording(RECONSTRUCTED, frames, recording.success))
        if not any(recording.success.any() for recording in made):
            raise UserError(
                "data.cache_mb leaves no room for a successful episode that went through the autoencoder",
                "set data.cache_mb higher",
            )
        return made


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, frames: np.ndarray) -> np.ndarray:
    """Frames through an autoencoder and back, in pieces as long as a few chunks.

    Args:
        autoencoder: In evaluation mode.
        frames: (T, H, W, 3) uint8.

    Returns:
        (T, H, W, 3) uint8.
    """
    device = next((tensor.device for tensor in autoencoder.state_dict().values()), torch.device("cpu"))
    given = torch.from_numpy(frames).to(device)
    reference = frames_to_float(given[None, :1])[:, :, 0]  # (1, 3, H, W)
    pieces = []
    for piece in given.split(_PIECE):
        missing = (1 - len(piece)) % autoencoder.frames_per_latent
        whole = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)])  # (1 + 4n, H, W, 3)
        decoded = frames_to_uint8(autoencoder(frames_to_float(whole[None]), reference))[0]
        pieces.append(decoded[: len(piece)])
    return torch.cat(pieces).cpu().numpy()


def _kinds(success: np.ndarray, near: int) -> np.ndarray:
    """(T,) int64: POSITIVE, HARD or NEGATIVE for each frame of an episode."""
    kinds = np.where(success, POSITIVE, NEGATIVE)
    frame = np.arange(len(success))
    if success.any():
        distance = np.abs(frame[:, None] - np.flatnonzero(success)).min(1)
        hard = distance <= near
    else:
        hard = frame >= len(success) - max(1, len(success) // 4)
    kinds[hard & ~success] = HARD
    return kinds
