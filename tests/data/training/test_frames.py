"""Decoded frames in memory: within their room, and the same whether in memory or not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.synthetic import write_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.frames import FrameCache

EPISODE_MB = 24 * 32 * 32 * 3 / 1e6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return EpisodeStore(write_dataset(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("room", [0.0, 1.0, 2.5, 100.0])
def test_who_comes_first_stays(store: EpisodeStore, room: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrameCache(room * EPISODE_MB)
    kept = [cache.frames_of(store, index) for index in range(len(store))]
    assert [frames.decoded is not None for frames in kept] == [index < int(room) for index in range(len(store))]
    for index, frames in enumerate(kept):
        np.testing.assert_array_equal(frames.clip(3, 9), store.frames(index, 3, 9))
        np.testing.assert_array_equal(frames.window(np.array([0, 5, 5, 8])), store.frames(index)[[0, 5, 5, 8]])
    asked = []
    monkeypatch.setattr(EpisodeStore, "frames", lambda self, index, *of: asked.append(index))
    for frames in kept:
        frames.clip(0, 2)
    assert asked == list(range(int(room), len(store)))


def test_only_what_will_be_asked_for_takes_room(store: EpisodeStore) -> None:
    cache = FrameCache(EPISODE_MB)
    short = cache.frames_of(store, 0, 20)
    assert short.decoded is not None
    assert len(short.decoded) == 20
    assert cache.frames_of(store, 1).decoded is None
    assert cache.frames_of(store, 1, 4).decoded is not None
    assert not cache.reserve(store, 1)
