"""Decoded frames in memory, up to `data.cache_mb`: what does not fit is decoded whenever it is asked for.

Samples are drawn uniformly, so replacing the frames of one episode by those of another would win nothing: who comes
first stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wovr.data.store.reader import EpisodeStore


def decoded_size(store: EpisodeStore, count: int) -> int:
    """Bytes of so many frames of a store's size."""
    height, width = store.image_size
    return count * height * width * 3


@dataclass
class EpisodeFrames:
    """Frames of a stored episode.

    Attributes:
        store: Where the episode lies.
        index: Its index there.
        decoded: (T, H, W, 3) uint8, as many of its frames as will be asked for; None where they are not in memory.
        later: T, to decode them when the first is asked for, and to keep them then; None to decode what is asked for.
    """

    store: EpisodeStore
    index: int
    decoded: np.ndarray | None = None
    later: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole episode's frames."""
        return decoded_size(self.store, self.store.entries[self.index].num_frames)

    def clip(self, start: int, stop: int) -> np.ndarray:
        """Frames start .. stop - 1: (stop - start, H, W, 3) uint8."""
        decoded = self._decoded()
        return self.store.frames(self.index, start, stop) if decoded is None else decoded[start:stop]

    def window(self, numbers: np.ndarray) -> np.ndarray:
        """The first frame and some others: (L,) int64, 0 and then rising -> (L, H, W, 3) uint8."""
        decoded = self._decoded()
        if decoded is not None:
            return decoded[numbers]
        first, last = int(numbers[1]), int(numbers[-1])
        clip = self.store.clip(self.index, first, last - first + 1)
        return np.concatenate([clip.reference[None], clip.frames[numbers[1:] - first]])

    def _decoded(self) -> np.ndarray | None:
        if self.decoded is None and self.later is not None:
            self.decoded = self.store.frames(self.index, 0, self.later)
        return self.decoded


class FrameCache:
    """Room for decoded frames.

    Args:
        cache_mb: MB, for the episodes of all stores together.
    """

    def __init__(self, cache_mb: float) -> None:
        self._left = cache_mb * 1e6

    def frames_of(self, store: EpisodeStore, index: int, count: int | None = None) -> EpisodeFrames:
        """The first `count` frames of an episode (None for all), decoded now where there is room for them."""
        count = store.entries[index].num_frames if count is None else count
        return EpisodeFrames(store, index, store.frames(index, 0, count) if self.reserve(store, count) else None)

    def reserve(self, store: EpisodeStore, count: int) -> bool:
        """Take the room of `count` frames of a store's size; False, and nothing taken, where there is not enough."""
        size = decoded_size(store, count)
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits


class LateFrames(FrameCache):
    """What a stream keeps, which makes room itself: each episode is decoded once, when its first frame is asked for."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def frames_of(self, store: EpisodeStore, index: int, count: int | None = None) -> EpisodeFrames:
        """The first `count` frames of an episode (None for all), not decoded yet."""
        return EpisodeFrames(store, index, later=store.entries[index].num_frames if count is None else count)
