from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode, write_dataset
from tests.models.world_model.autoencoders.small import small_grouped, small_wan
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.latents import LatentCache, encode_episode
from wovr.errors import UserError
from wovr.functional.images import frames_to_float
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of two episodes of 11 frames."""
    return write_dataset(tmp_path / "data", shards=2, episodes=2, num_frames=11)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.latents-*.npy"))


@torch.no_grad()
def test_rows_are_the_latents_of_the_groups(folder: Path) -> None:
    store, autoencoder = EpisodeStore(folder), small_grouped()
    cache = LatentCache(store, autoencoder)
    assert cache.shape == (6, 4, 4)
    for episode in range(len(store)):
        frames = frames_to_float(torch.from_numpy(store.frames(episode))[None])
        found = cache.latents(episode, [-3, 0, 7, -1])
        assert (found.shape, found.dtype) == ((4, 6, 4, 4), torch.float32)
        expected = [
            autoencoder.encode_first(frames[:, :, 0]),
            autoencoder.encode_group(frames[:, :, 0:4]),
            autoencoder.encode_group(frames[:, :, 7:11]),
            autoencoder.encode_group(frames[:, :, [0, 0, 1, 2]]),  # the first frame is repeated before the first
        ]
        torch.testing.assert_close(found, torch.cat(expected), atol=2e-3, rtol=2e-3)  # float16 on disk


def test_groups_outside_the_episode_are_refused(folder: Path) -> None:
    cache = LatentCache(EpisodeStore(folder), small_grouped())
    assert cache.latents(0, []).shape == (0, 6, 4, 4)
    for start in (-4, 8):
        with pytest.raises(IndexError, match=rf"start at \[{start}\] in an episode of 11 frames"):
            cache.latents(0, [start])


def test_what_is_there_is_used_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LatentCache(EpisodeStore(folder), small_grouped())
    assert "latents of 44 frames in 2 shards made in" in capsys.readouterr().out
    before = [(path, path.stat().st_mtime_ns) for path in files(folder)]
    assert len(before) == 2
    LatentCache(EpisodeStore(folder), small_grouped())
    assert [(path, path.stat().st_mtime_ns) for path in files(folder)] == before
    assert capsys.readouterr().out == ""


def test_another_autoencoder_makes_them_anew_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore(folder)
    first = LatentCache(store, small_grouped())
    old, values = files(folder), first.latents(1, [2])
    capsys.readouterr()
    changed = small_grouped()
    changed.latent_norm.set(torch.ones(6), torch.ones(6))  # no weight, but what latents are
    second = LatentCache(store, changed)
    out = capsys.readouterr().out
    assert all(f"{path}: from another autoencoder or other episodes, made anew" in out for path in old)
    assert len(files(folder)) == 2
    assert not set(files(folder)) & set(old)
    torch.testing.assert_close(second.latents(1, [2]), values - 1, atol=4e-3, rtol=4e-3)


def test_only_shards_that_changed_are_encoded_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LatentCache(EpisodeStore(folder), small_grouped())
    kept, replaced = files(folder)
    capsys.readouterr()
    write_shard(shard_path(folder, "spatial", 1), [make_episode(7, num_frames=9)])
    write_shard(shard_path(folder, "spatial", 2), [make_episode(8, num_frames=5)])
    finish_dataset(folder)
    store = EpisodeStore(folder)
    cache = LatentCache(store, small_grouped())
    out = capsys.readouterr().out
    assert f"{replaced}: from another" in out
    assert "latents of 14 frames in 2 shards" in out
    assert kept.exists()
    assert not replaced.exists()
    frames = store.frames(2)
    torch.testing.assert_close(
        cache.latents(2, [5])[0], encode_episode(small_grouped(), frames)[8], atol=2e-3, rtol=2e-3
    )


def test_a_broken_file_is_named(folder: Path) -> None:
    store, autoencoder = EpisodeStore(folder), small_grouped()
    LatentCache(store, autoencoder)
    os.truncate(files(folder)[0], 500)
    with pytest.raises(UserError, match=r"latents-\w+\.npy: missing or broken: .*; remove it, it will be made anew"):
        LatentCache(store, autoencoder).latents(0, [0])
    with files(folder)[0].open("wb") as file:
        np.save(file, np.zeros((3, 2), np.float32))
    with pytest.raises(UserError, match=r"npy: holds float32 \(3, 2\); remove it"):
        LatentCache(store, autoencoder).latents(0, [0])


def test_a_killed_writer_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, autoencoder = EpisodeStore(folder), small_grouped()
    whole = store.frames

    def killed_at_the_last(index: int) -> np.ndarray:
        if index == 3:
            raise KeyboardInterrupt
        return whole(index)

    monkeypatch.setattr(store, "frames", killed_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        LatentCache(store, autoencoder)
    assert len(files(folder)) == 1  # the first shard
    assert list(folder.glob(".*tmp")) == []


def test_latents_that_float16_cannot_hold_are_refused(folder: Path) -> None:
    autoencoder = small_grouped()
    autoencoder.latent_norm.set(torch.zeros(6), torch.full((6,), 1e-9))
    with pytest.raises(UserError, match="episode spatial-000000: its latents are not finite in float16"):
        LatentCache(EpisodeStore(folder), autoencoder)
    assert files(folder) == []


def test_only_groupwise_latents_that_cost_something_are_cached(folder: Path) -> None:
    store = EpisodeStore(folder)
    with pytest.raises(UserError, match="PatchAutoencoder are not cached: they are the pixels themselves"):
        LatentCache(store, PatchAutoencoder(8))
    with pytest.raises(UserError, match="WanAutoencoder are not cached: they depend on earlier frames"):
        LatentCache(store, small_wan())


def test_it_travels_into_loader_processes(folder: Path) -> None:
    cache = LatentCache(EpisodeStore(folder), small_grouped())
    here = cache.latents(3, range(8))
    parcel = pickle.dumps(cache)
    assert len(parcel) < 20_000  # neither latents nor the autoencoder are in it
    assert torch.equal(pickle.loads(parcel).latents(3, range(8)), here)


def test_training_mode_is_left_as_it_was(folder: Path) -> None:
    autoencoder = small_grouped().train()
    encode_episode(autoencoder, EpisodeStore(folder).frames(0))
    assert autoencoder.training


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        b"\x93NUMPY\x01\x00" + (6000).to_bytes(2, "little") + b"(" * 6000,
        b"\x93NUMPY\x01\x00\x3e\x00" + b"{'descr': '<f2', 'fortran_order': False, 'shape': (1" + b"0" * 9 + b",), }",
    ],
    ids=["empty", "zip", "parentheses", "more than there is"],
)
def test_a_file_of_latents_that_is_none_is_one_line(folder: Path, data: bytes) -> None:
    store, autoencoder = EpisodeStore(folder), small_grouped()
    LatentCache(store, autoencoder)
    for path in files(folder):
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"latents-.*missing or broken"):
        LatentCache(store, autoencoder).latents(0, [0])


def test_stale_files_of_a_shard_with_signs_in_its_name_are_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name, number in (("*", 0), ("other", 1)):
        write_shard(shard_path(folder, name, 0), [make_episode(number, num_frames=11)])
    finish_dataset(folder)
    store, autoencoder = EpisodeStore(folder), small_grouped()
    LatentCache(store, autoencoder)
    [ours] = [path for path in files(folder) if path.name.startswith("*")]
    ours.unlink()
    kept = folder / "other-000000.latents-0000000000000000.npy"
    kept.write_bytes(b"somebody's")
    LatentCache(store, autoencoder)
    assert kept.exists()
    assert len(files(folder)) == 3
