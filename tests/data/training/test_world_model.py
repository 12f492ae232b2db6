from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode, write_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.frames import FrameCache
from wovr.data.training.latents import LatentCache
from wovr.data.training.world_model import MixedOrder, WorldModelBatch, WorldModelData, WorldModelWindows
from wovr.errors import UserError
from wovr.functional.images import frames_to_float
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder

LENGTHS = (9, 12, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of LENGTHS."""
    path = tmp_path_factory.mktemp("episodes")
    write_shard(shard_path(path, "spatial", 0), [make_episode(n, length) for n, length in enumerate(LENGTHS)])
    finish_dataset(path)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty episodes of 12 frames, ten of each of two tasks."""
    return write_dataset(tmp_path_factory.mktemp("large"), shards=2, episodes=10, num_frames=12, size=(16, 16))


def windows_of(folder: Path, cache_mb: float = 100.0) -> WorldModelWindows:
    return WorldModelWindows(EpisodeStore(folder), range(len(LENGTHS)), memory=4, chunk=8, cache=FrameCache(cache_mb))


def same(one: WorldModelBatch, other: WorldModelBatch) -> bool:
    return all(
        torch.equal(value, getattr(other, name)) if isinstance(value, torch.Tensor) else value == getattr(other, name)
        for name, value in vars(one).items()
    )


def test_every_window_is_what_the_episode_holds(folder: Path) -> None:
    store, windows = EpisodeStore(folder), windows_of(folder)
    assert len(windows) == 1 + 4 + 22
    batch = windows.__getitems__(range(len(windows)))
    assert batch.frames.shape == (27, 13, 32, 32, 3)
    for row, (key, start) in enumerate(zip(batch.keys, batch.start.tolist(), strict=True)):
        episode = store.read(int(key[-6:]))
        assert torch.equal(batch.frames[row, 0], torch.from_numpy(episode.frames[0]))
        for place in range(12):
            frame = start - 3 + place
            assert torch.equal(batch.frames[row, 1 + place], torch.from_numpy(episode.frames[max(0, frame)]))
            assert batch.known[row, place] == (frame > 0)
            expected = episode.actions[frame - 1] if frame > 0 else np.zeros(4)
            np.testing.assert_array_equal(batch.actions[row, place], expected)
    # From the episode's first frame to its last.
    starts = [batch.start[[key == f"spatial-{n:06d}" for key in batch.keys]].tolist() for n in range(3)]
    assert starts == [list(range(length - 8)) for length in LENGTHS]


def test_proprioception_stands_at_every_memory_and_new_frame(folder: Path, tmp_path: Path) -> None:
    batch = windows_of(folder).__getitems__([0, 3, 26])
    assert (batch.signals, batch.chunk) == ({}, 8)
    values = [np.random.default_rng(n).normal(size=(length, 5)).astype(np.float32) for n, length in enumerate(LENGTHS)]
    told = [make_episode(n, length, proprio=values[n]) for n, length in enumerate(LENGTHS)]
    write_shard(shard_path(tmp_path, "spatial", 0), told)
    finish_dataset(tmp_path)
    windows = windows_of(tmp_path)
    batch = windows.__getitems__(range(len(windows)))
    felt = batch.signals["proprio"]
    assert (felt.dtype, felt.shape) == (torch.float32, (27, 12, 5))
    for key, start, proprio in zip(batch.keys, batch.start.tolist(), felt.numpy(), strict=True):
        frames = np.maximum(np.arange(start - 3, start + 9), 0)
        np.testing.assert_array_equal(proprio, values[int(key[-6:])][frames])
    assert torch.equal(batch.chunk_signals["proprio"], felt[:, 3:])


@pytest.mark.parametrize("cache_mb", [0.0, 0.05])  # none, the first episode and a half
def test_what_is_not_in_memory_is_decoded(folder: Path, cache_mb: float) -> None:
    chosen = [0, 3, 4, 5, 26, 13, 6]
    assert same(windows_of(folder, cache_mb).__getitems__(chosen), windows_of(folder).__getitems__(chosen))


def test_cached_latents_are_those_of_the_frames(folder: Path) -> None:
    torch.manual_seed(0)
    autoencoder = GroupedAutoencoder(8, 4, [8, 8]).eval()
    for memory, chunk in ((4, 8), (8, 4)):
        windows = WorldModelWindows(EpisodeStore(folder), range(3), memory, chunk, FrameCache(100.0))
        windows.latents = LatentCache(windows.store, autoencoder)
        batch = windows.__getitems__(range(len(windows)))
        assert batch.latents is not None
        with torch.no_grad():
            expected = autoencoder.encode(frames_to_float(batch.frames))
        torch.testing.assert_close(batch.latents.transpose(1, 2), expected, atol=2e-3, rtol=2e-3)


def test_an_epoch_has_every_window_once(folder: Path) -> None:
    windows = windows_of(folder)
    order = MixedOrder(windows, [[0, 1, 2]], None, start_fraction=0.0)
    one, two = (order(np.random.default_rng(seed)) for seed in (0, 1))
    assert sorted(one) == sorted(two) == list(range(27))
    assert one.tolist() != two.tolist()


def test_starts_of_episodes_come_more_often(folder: Path) -> None:
    windows = windows_of(folder)
    order = MixedOrder(windows, [[0, 1, 2]], None, start_fraction=0.3)
    drawn = np.concatenate([order(np.random.default_rng(seed)) for seed in range(200)])
    share = (windows.locate(drawn)[1] == 0).mean()
    assert share == pytest.approx(0.3 + 0.7 * 3 / 27, abs=0.02)


def test_folders_are_mixed_as_told(folder: Path) -> None:
    windows = windows_of(folder)
    order = MixedOrder(windows, [[0], [1, 2]], [0.5, 0.5], start_fraction=0.0)
    drawn = order(np.random.default_rng(0))
    assert len(drawn) == len(order) == 27
    counts = np.bincount(drawn, minlength=27)
    assert counts[0] == 14  # the one window of the first folder, again and again
    assert sorted(set(counts[1:])) == [0, 1]  # half of the windows of the second, none twice
    only = MixedOrder(windows, [[0, 1], [2]], [0.0, 1.0], start_fraction=0.0)
    assert set(windows.locate(only(np.random.default_rng(0)))[0]) == {2}


def loaders(folder: Path, **arguments: Any) -> WorldModelData:
    data = WorldModelData(str(folder), **{"batch_size": 4, "val_fraction": 0.2} | arguments)
    data.setup("fit")
    return data


def test_resuming_inside_an_epoch_gives_the_rest_of_it(large: Path) -> None:
    whole = loaders(large).train_dataloader()
    batches = [batch for _ in range(2) for batch in whole]
    first = loaders(large).train_dataloader()
    iterator = iter(first)
    for _ in range(5):
        next(iterator)
    again = loaders(large).train_dataloader()
    again.load_state_dict(first.state_dict())
    rest = [batch for _ in range(2) for batch in again]
    assert len(rest) == len(batches) - 5
    assert all(same(*pair) for pair in zip(rest, batches[5:], strict=True))


def test_episodes_held_out_are_never_trained_on(large: Path) -> None:
    data = loaders(large)
    trained = {key for _ in range(3) for batch in data.train_dataloader() for key in batch.keys}
    held_out = {key for batch in data.val_dataloader() for key in batch.keys}
    assert len(trained) == 16
    assert len(held_out) == 4
    assert not trained & held_out
    assert set(data.record()["held_out"]) == held_out
    tasks = [data.store.entries[index].meta.task for index in data.split()[1]]
    assert sorted(tasks) == [0, 0, 1, 1]


def test_the_split_of_a_folder_does_not_depend_on_the_others(large: Path, folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", shards=1, episodes=4, num_frames=12, size=(16, 16))
    alone = loaders(large).record()["held_out"]
    both = WorldModelData([str(other), str(large)], val_fraction=0.2)
    _, held_out = both.split()
    assert {both.store.entries[i].key for i in held_out if both.store.entries[i].shard.parent == large} == set(alone)


def test_validation_looks_at_the_same_windows_every_time(large: Path) -> None:
    data = loaders(large, val_windows=6)
    one, two = list(data.val_dataloader()), list(data.val_dataloader())
    assert [len(batch) for batch in one] == [4, 2]
    assert all(same(*pair) for pair in zip(one, two, strict=True))
    starts = torch.cat([batch.start for batch in one])
    assert starts[0] == 0  # from the first window of the first episode
    assert starts[-1] == 3  # to the last of the last
    assert loaders(large, val_fraction=0.0).val_dataloader() == []


def test_episodes_that_are_too_short(folder: Path, tmp_path: Path) -> None:
    data = WorldModelData(str(folder), chunk=12)
    with pytest.raises(
        UserError, match=r"spatial-000000.tar: episode spatial-000000: 9 frames, a window needs 13 \(2 of 3"
    ):
        data.setup("fit")
    data = WorldModelData(str(folder), chunk=12, skip_short=True)
    data.setup("fit")
    assert {key for batch in data.train_dataloader() for key in batch.keys} == {"spatial-000002"}
    with pytest.raises(UserError, match=r"set data\.chunk lower"):
        WorldModelData(str(folder), chunk=40, skip_short=True).setup("fit")


def test_folders_of_other_sizes(folder: Path, large: Path) -> None:
    with pytest.raises(UserError, match="use folders of one image size"):
        WorldModelData([str(folder), str(large)]).setup("fit")


def test_a_folder_of_which_nothing_is_left(large: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", shards=1, episodes=1, num_frames=8, size=(16, 16))
    with pytest.raises(UserError, match=f"{other}: no episode is left for training"):
        WorldModelData([str(large), str(other)], skip_short=True).setup("fit")


@pytest.mark.parametrize(
    "arguments",
    [
        {"mix": [0.5, 0.5]},
        {"mix": [-1.0]},
        {"mix": [0.0]},
        {"start_fraction": 1.0},
        {"val_fraction": 1.0},
        {"batch_size": 0},
        {"memory": 0},
        {"val_windows": 0},
        {"folder": ["data/a", "data/a"]},
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\."):
        WorldModelData(**{"folder": "data/a"} | arguments)
