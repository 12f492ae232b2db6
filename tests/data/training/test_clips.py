"""Clips by index, their batches, and the order they are drawn in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.store import damage
from tests.data.synthetic import make_episode, write_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.clips import ClipBatch, ClipDataset, ClipSampler, collate_clips
from wovr.errors import UserError

LENGTHS = [24, 13, 30]
WINDOWS = [(episode, start) for episode, length in enumerate(LENGTHS) for start in range(length - 12)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    folder = tmp_path_factory.mktemp("data")
    write_shard(shard_path(folder, "spatial", 0), [make_episode(n, frames) for n, frames in enumerate(LENGTHS)])
    finish_dataset(folder)
    return EpisodeStore(folder)


@pytest.mark.parametrize("cache_bytes", [0, 24 * 32 * 32 * 3 + 100, 10**9])
def test_every_window_of_every_episode(store: EpisodeStore, cache_bytes: int) -> None:
    dataset = ClipDataset(store, cache_bytes=cache_bytes)
    assert [dataset.window(index) for index in range(len(dataset))] == WINDOWS
    for _ in range(2):  # the second time from memory
        for index, (episode, start) in enumerate(WINDOWS):
            clip, expected = dataset[index], store.clip(episode, start, 13)
            for name in ("frames", "actions", "success", "reference"):
                np.testing.assert_array_equal(getattr(clip, name), getattr(expected, name))
            assert (clip.key, clip.start, clip.meta) == (expected.key, expected.start, expected.meta)


def test_the_cache_keeps_to_its_room(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ClipDataset(store, cache_bytes=24 * 32 * 32 * 3)
    for index in range(len(dataset)):
        dataset[index]
    read = []
    monkeypatch.setattr(EpisodeStore, "clip", lambda self, episode, *rest: read.append(episode))
    monkeypatch.setattr(EpisodeStore, "read", lambda self, episode: pytest.fail("there was no room"))
    for index in range(len(dataset)):
        dataset[index]
    assert set(read) == {1, 2}


@pytest.mark.parametrize("index", [-1, len(WINDOWS)])
def test_no_such_window(store: EpisodeStore, index: int) -> None:
    with pytest.raises(IndexError):
        ClipDataset(store)[index]


def test_episodes_shorter_than_a_clip(store: EpisodeStore) -> None:
    with pytest.raises(UserError) as caught:
        ClipDataset(store, 20)
    for words in ("spatial-000000.tar", "episode spatial-000001", "13 frames", "1 of 3", "at most 13", "skip_short"):
        assert words in str(caught.value)
    dataset = ClipDataset(store, 20, skip_short=True)
    assert {dataset.window(index)[0] for index in range(len(dataset))} == {0, 2}
    assert [dataset.window(index) for index in dataset.first_windows()] == [(0, 0), (2, 0)]
    with pytest.raises(UserError, match="3 of 3 episodes are"):
        ClipDataset(store, 31, skip_short=True)
    with pytest.raises(UserError, match="at least 2"):
        ClipDataset(store, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(store: EpisodeStore, workers: int) -> None:
    dataset = ClipDataset(store)
    loader = DataLoader(dataset, 4, sampler=ClipSampler(dataset, seed=1), num_workers=workers, collate_fn=collate_clips)
    batches = list(loader)
    assert sum(map(len, batches)) == len(dataset)
    batch = batches[0]
    assert isinstance(batch, ClipBatch)
    assert {
        name: (tuple(value.shape), value.dtype) for name, value in vars(batch).items() if torch.is_tensor(value)
    } == {
        "frames": ((4, 13, 32, 32, 3), torch.uint8),
        "actions": ((4, 12, 4), torch.float32),
        "success": ((4, 13), torch.bool),
        "reference": ((4, 32, 32, 3), torch.uint8),
        "start": ((4,), torch.int64),
    }
    for row, (key, start) in enumerate(zip(batch.keys, batch.start.tolist(), strict=True)):
        expected = store.clip(int(key[-6:]), start, 13)
        np.testing.assert_array_equal(batch.frames[row], expected.frames)
        np.testing.assert_array_equal(batch.actions[row], expected.actions)
        assert batch.instructions[row] == expected.meta.instruction


def test_a_batch_moves_as_a_whole(store: EpisodeStore) -> None:
    batch = collate_clips([ClipDataset(store)[0]]).to("meta")
    assert {value.device.type for value in vars(batch).values() if torch.is_tensor(value)} == {"meta"}
    assert batch.keys == ["spatial-000000"]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_broken_is_still_one_line(tmp_path: Path, workers: int) -> None:
    folder = write_dataset(tmp_path, shards=1, episodes=1)
    path = folder / "spatial-000000.tar"
    damage.change_array(path, "spatial-000000.actions.npy", lambda actions: actions * 3)
    loader = DataLoader(ClipDataset(EpisodeStore(folder)), 12, num_workers=workers, collate_fn=collate_clips)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{path}: episode spatial-000000: actions: step ")
    assert "Traceback" not in str(caught.value)


def test_an_epoch_is_every_window_once_in_an_order_of_its_own(store: EpisodeStore) -> None:
    dataset = ClipDataset(store)
    sampler, same, other = (ClipSampler(dataset, seed=seed) for seed in (5, 5, 6))
    first = list(sampler)
    assert sorted(first) == list(range(len(WINDOWS)))
    assert first != sorted(first)
    assert list(sampler) == first == list(same) != list(other)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(second) == sorted(first)
    assert second != first
    same.set_epoch(1)
    assert list(same) == second


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("samples", [None, 10, 75])
def test_ranks_share_an_epoch(store: EpisodeStore, world_size: int, samples: int | None) -> None:
    dataset = ClipDataset(store)
    whole = list(ClipSampler(dataset, seed=2, samples=samples))
    ranks = [
        ClipSampler(dataset, seed=2, samples=samples, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    shares = [list(rank) for rank in ranks]
    assert {len(share) for share in shares} == {len(ranks[0])} == {-(-len(whole) // world_size)}
    dealt = [window for turn in zip(*shares, strict=True) for window in turn]
    assert dealt[: len(whole)] == whole
    assert dealt[len(whole) :] == whole[: len(dealt) - len(whole)]


def test_other_numbers_of_samples(store: EpisodeStore) -> None:
    dataset = ClipDataset(store)
    assert len(set(ClipSampler(dataset, samples=10))) == 10
    counts = np.bincount(list(ClipSampler(dataset, samples=3 * len(dataset) + 5)))
    assert len(counts) == len(dataset)
    assert (counts.min(), counts.max(), (counts == 4).sum()) == (3, 4, 5)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_a_share_of_clips_begins_where_an_episode_begins(store: EpisodeStore, fraction: float) -> None:
    dataset = ClipDataset(store)
    starts = {index for index, (_, start) in enumerate(WINDOWS) if start == 0}
    drawn = np.array(list(ClipSampler(dataset, samples=6000, start_fraction=fraction)))
    share = np.isin(drawn, list(starts)).mean()
    uniform = len(starts) / len(WINDOWS)
    assert share == pytest.approx(fraction + (1 - fraction) * uniform, abs=0.02)
    if fraction == 1.0:
        assert np.bincount(drawn)[sorted(starts)] == pytest.approx(2000, rel=0.1)


def test_resuming_inside_an_epoch(store: EpisodeStore) -> None:
    dataset = ClipDataset(store)
    sampler = ClipSampler(dataset, seed=3, world_size=2, rank=1)
    sampler.set_epoch(4)
    whole = list(sampler)
    resumed = ClipSampler(dataset, seed=3, world_size=2, rank=1)
    resumed.resume(4, consumed=6)
    resumed.set_epoch(4)  # as Lightning does before it iterates
    assert list(resumed) == whole[6:]
    assert list(resumed) == whole  # only once
    resumed.resume(4, consumed=6)
    resumed.set_epoch(5)
    assert len(list(resumed)) == len(whole)


@pytest.mark.parametrize(
    "arguments",
    [{"start_fraction": 1.5}, {"start_fraction": -0.1}, {"samples": 0}, {"rank": 2, "world_size": 2}],
)
def test_numbers_out_of_range(store: EpisodeStore, arguments: dict) -> None:
    with pytest.raises(UserError):
        ClipSampler(ClipDataset(store), **arguments)
