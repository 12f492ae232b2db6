"""Decoded frames in memory, up to `data.cache_mb`: what does not fit is decoded whenever it is asked for.

Samples are drawn uniformly, so replacing the frames of one episode by those of another would win nothing: who comes
first stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wovr.data.store.reader import EpisodeStore


@dataclass(frozen=True)
class EpisodeFrames:
    """Frames of a stored episode.

    Attributes:
        store: Where the episode lies.
        index: Its index there.
        decoded: (T, H, W, 3) uint8, as many of its frames as will be asked for; None to decode them each time.
    """

    store: EpisodeStore
    index: int
    decoded: np.ndarray | None

    def clip(self, start: int, stop: int) -> np.ndarray:
        """Frames start .. stop - 1: (stop - start, H, W, 3) uint8."""
        return self.store.frames(self.index, start, stop) if self.decoded is None else self.decoded[start:stop]

    def window(self, numbers: np.ndarray) -> np.ndarray:
        """The first frame and some others: (L,) int64, 0 and then rising -> (L, H, W, 3) uint8."""
        if self.decoded is not None:
            return self.decoded[numbers]
        first, last = int(numbers[1]), int(numbers[-1])
        clip = self.store.clip(self.index, first, last - first + 1)
        return np.concatenate([clip.reference[None], clip.frames[numbers[1:] - first]])


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
        size = count * store.image_size[0] * store.image_size[1] * 3
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits
