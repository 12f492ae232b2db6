from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.synthetic import write_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.frames import FrameCache
from wovr.data.training.sequences import SequenceData, SequenceSamples
from wovr.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), num_frames=10, size=(16, 16))


@pytest.mark.parametrize("cache_mb", [10.0, 0.02, 0.0])
def test_a_run_is_what_the_store_reads(folder: Path, cache_mb: float) -> None:
    store = EpisodeStore(folder)
    samples = SequenceSamples(store, [0, 2, 5], 4, 1, FrameCache(cache_mb))
    assert len(samples) == 3 * 7
    indices = [0, 6, 7, 20]
    batch = samples.__getitems__(indices)
    assert batch.episode.tolist() == [0, 0, 2, 5]
    assert batch.start.tolist() == [0, 6, 0, 6]
    for row, (episode, start) in enumerate(zip(batch.episode.tolist(), batch.start.tolist(), strict=True)):
        clip = store.clip(episode, start, 4)
        np.testing.assert_array_equal(batch.frames[row], clip.frames)
        np.testing.assert_array_equal(batch.actions[row], clip.actions)
    kept = [frames for frames in samples.frames.values() if frames.decoded is not None]
    assert len(kept) == {10.0: 3, 0.02: 2, 0.0: 0}[cache_mb]


def test_every_run_of_the_training_episodes_comes_up_and_none_of_the_others(folder: Path) -> None:
    data = SequenceData(str(folder), length=3, batch_size=5, val_fraction=0.34)
    data.setup("fit")
    train, val = data.split()
    assert sorted(train + val) == list(range(6))
    assert len(val) == 2
    seen = [
        (int(e), int(s)) for batch in data.train_dataloader() for e, s in zip(batch.episode, batch.start, strict=True)
    ]
    assert len(set(seen)) == len(seen) == 30, "32 runs in batches of 5"
    assert {episode for episode, _ in seen} == set(train)
    checked = [
        (int(e), int(s)) for batch in data.val_dataloader() for e, s in zip(batch.episode, batch.start, strict=True)
    ]
    assert checked == [(episode, start) for episode in val for start in (0, 3, 6)], "side by side"


def test_short_episodes_are_left_out_until_none_is_left(folder: Path, tmp_path: Path) -> None:
    short = write_dataset(tmp_path / "short", shards=1, episodes=2, num_frames=4, size=(16, 16))
    data = SequenceData([str(folder), str(short)], length=6, val_fraction=0.0)
    data.setup("fit")
    assert data.val_dataloader() == []
    assert {int(e) for batch in data.train_dataloader() for e in batch.episode} <= set(range(6))
    with pytest.raises(UserError, match="no training episode has 11 frames, the longest has 10"):
        SequenceData(str(folder), length=11).setup("fit")


@pytest.mark.parametrize("arguments", [{"val_fraction": 1.0}, {"batch_size": 0}, {"length": 0}])
def test_wrong_numbers_are_said(arguments: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(arguments))}"):
        SequenceData("nowhere", **arguments)  # type: ignore[arg-type]
