"""Balanced windows of frames with their success: what comes up how often, and where it comes from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode, write_dataset
from tests.models.world_model.autoencoders.small import small_grouped
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.reward import RewardData
from wovr.data.training.reward_windows import HARD, NEGATIVE, POSITIVE, RewardBatch, reconstruct
from wovr.errors import UserError
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.models.checkpoint import KEY, record
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes of 16 frames; 0, 3, 6 and 9 succeed in their last three: two of each of two tasks."""
    return write_dataset(tmp_path_factory.mktemp("data"), shards=2, episodes=6, num_frames=16, size=(16, 16))


def made(folder: Path | list[Path], **arguments: Any) -> RewardData:
    folders = [str(path) for path in folder] if isinstance(folder, list) else str(folder)
    data = RewardData(folders, **({"val_fraction": 0.0, "near": 2} | arguments))
    data.setup("fit")
    return data


def epochs(data: RewardData, count: int) -> list[RewardBatch]:
    loader = data.train_dataloader()
    return [batch for _ in range(count) for batch in loader]


@pytest.mark.parametrize("cache_mb", [10.0, 0.03, 0.0])
def test_a_window_is_what_the_store_reads(folder: Path, cache_mb: float) -> None:
    data = made(folder, window=3, cache_mb=cache_mb)
    windows, store = data._windows, EpisodeStore(folder)
    assert windows is not None
    assert len(windows) == 12 * 14
    kept = [recording for recording in windows.recordings if recording.frames.decoded is not None]
    assert len(kept) == {10.0: 12, 0.03: 2, 0.0: 0}[cache_mb]
    for index in (0, 13, 14, 100):
        batch = windows[index]
        recording, last = windows.recordings[windows.recording[index]], int(windows.last[index])
        clip = store.clip(recording.frames.index, last - 2, 3)
        np.testing.assert_array_equal(batch.frames[0], clip.frames)
        assert batch.success.tolist() == [clip.success[-1]]
        assert batch.tasks == [(clip.meta.suite, clip.meta.task)]


def test_near_misses_are_frames_beside_a_success_and_the_ends_of_failures(folder: Path, tmp_path: Path) -> None:
    success = np.zeros(16, bool)
    success[[6, 7, 12]] = True
    write_shard(
        shard_path(tmp_path, "s", 0), [make_episode(0, 16, (16, 16), success=success), make_episode(1, 16, (16, 16))]
    )
    finish_dataset(tmp_path)
    windows = made(tmp_path, window=2)._windows
    assert windows is not None
    kinds = {row: windows.kind[windows.recording == row].tolist() for row in (0, 1)}
    by_success = {bool(windows.recordings[row].success.any()): kinds[row] for row in (0, 1)}
    near = {4, 5, 8, 9, 10, 11, 13, 14}
    assert by_success[True] == [POSITIVE if success[t] else HARD if t in near else NEGATIVE for t in range(1, 16)]
    assert by_success[False] == [HARD if t >= 12 else NEGATIVE for t in range(1, 16)]


def test_half_is_successful_and_tasks_come_equally_often(tmp_path: Path) -> None:
    # Of task 0 three times as many episodes as of task 1.
    numbers = [0, 2, 4, 6, 8, 10, 3, 1]
    write_shard(shard_path(tmp_path, "s", 0), [make_episode(number, 64, (16, 16)) for number in numbers])
    finish_dataset(tmp_path)
    data = made(tmp_path, batch_size=32, positive_share=0.5, hard_share=0.3)
    seen = [(task, bool(s)) for b in epochs(data, 8) for task, s in zip(b.tasks, b.success, strict=True)]
    count = Counter(seen)
    total = len(seen)
    assert total == 8 * 512
    for task in (0, 1):
        for success in (True, False):
            assert count[("spatial", task), success] / total == pytest.approx(0.25, abs=0.03)
    order = data._order
    assert order is not None
    assert data._windows is not None
    kind = data._windows.kind[order(np.random.default_rng(0))]
    near = (data._windows.kind == HARD).sum() / (data._windows.kind != POSITIVE).sum()
    assert (kind == POSITIVE).mean() == pytest.approx(0.5, abs=0.07)
    assert (kind == HARD).mean() == pytest.approx(0.3 + 0.2 * near, abs=0.07)
    np.testing.assert_array_equal(order(np.random.default_rng(5)), order(np.random.default_rng(5)))


def test_validation_is_whole_episodes_that_are_not_trained_on(folder: Path) -> None:
    data = made(folder, val_fraction=0.34)
    train, val = data.split()
    assert sorted(train + val) == list(range(12))
    assert len(val) == 4, "two of six of each task"
    assert data._windows is not None
    assert {recording.frames.index for recording in data._windows.recordings} == set(train)
    store = EpisodeStore(folder)
    for index, episode in zip(val, data.val_dataloader(), strict=True):
        assert episode.key == store.entries[index].key
        np.testing.assert_array_equal(episode.frames, store.frames(index))
        np.testing.assert_array_equal(episode.success, store.success(index))
    assert [episode.key for episode in data.held_out()] == [episode.key for episode in data.val_dataloader()]
    assert made(folder).val_dataloader() == []


def test_outcomes_are_asked_of_all_frames_before_the_first_success(folder: Path) -> None:
    data = made(folder, window=3, judges="outcome", hard_share=0.0)
    windows, store = data._windows, EpisodeStore(folder)
    assert windows is not None
    for recording in windows.recordings:
        success = store.success(recording.frames.index)
        assert len(recording.success) == (13 if success.any() else 16)
        assert (recording.success == success.any()).all()
        assert recording.frames.decoded is not None
        expected = store.frames(recording.frames.index)[: len(recording.success)]
        np.testing.assert_array_equal(recording.frames.decoded, expected)
    long = made(folder, window=15, judges="outcome", hard_share=0.0)._windows
    assert long is not None
    assert {len(recording.success) for recording in long.recordings} == {15, 16}, "a window is left"


def test_imagined_episodes_are_mixed_in_but_for_the_held_out_ones(folder: Path, tmp_path: Path) -> None:
    black = np.zeros((16, 16, 16, 3), np.uint8)
    write_shard(
        shard_path(tmp_path, "i", 0), [make_episode(number, frames=black, num_frames=16) for number in range(12)]
    )
    finish_dataset(tmp_path)
    data = made(folder, val_fraction=0.34, imagined_folder=str(tmp_path), imagined_share=0.25, batch_size=16)
    assert data._windows is not None
    held_out = {episode.key for episode in data.held_out()}
    imagined = [r for r in data._windows.recordings if r.origin == "imagined"]
    assert {r.entry.key for r in imagined} == {entry.key for entry in data.store.entries if entry.key not in held_out}
    dark = [float(frames.max()) < 20 for batch in epochs(data, 8) for frames in batch.frames]
    assert np.mean(dark) == pytest.approx(0.25, abs=0.05)
    assert data.record()["fingerprint"] != made(folder).record()["fingerprint"] == data.record()["episodes"]


def test_frames_go_through_the_autoencoder(folder: Path, tmp_path: Path) -> None:
    autoencoder = small_grouped()
    state = {f"autoencoder.{name}": value for name, value in autoencoder.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"autoencoder": autoencoder}, {})}, tmp_path / "ae.ckpt")
    data = made(folder, autoencoder=str(tmp_path / "ae.ckpt"), autoencoder_share=0.5)
    assert data._windows is not None
    real = {r.frames.index: r for r in data._windows.recordings if r.origin == "real"}
    decoded = [r for r in data._windows.recordings if r.origin == "reconstructed"]
    assert sorted(r.frames.index for r in decoded) == sorted(real)
    whole = torch.from_numpy(decoded[0].frames.store.frames(decoded[0].frames.index))
    padded = frames_to_float(torch.cat([whole, whole[-1:]])[None])  # 16 frames, filled up to 17
    with torch.no_grad():
        expected = frames_to_uint8(autoencoder(padded, padded[:, :, 0]))[0, :16]
    np.testing.assert_array_equal(decoded[0].frames.decoded, expected)
    np.testing.assert_array_equal(decoded[0].success, real[decoded[0].frames.index].success)
    with pytest.raises(UserError, match="cache_mb leaves no room"):
        made(folder, autoencoder=str(tmp_path / "ae.ckpt"), autoencoder_share=0.5, cache_mb=0.0)


@pytest.mark.parametrize("length", [1, 4, 33, 34, 70])
def test_an_exact_autoencoder_changes_nothing_at_any_length(length: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (length, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(reconstruct(PatchAutoencoder(8), frames), frames)


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    failures = tmp_path / "failures"
    write_shard(shard_path(failures, "s", 0), [make_episode(number, 9, (16, 16)) for number in (1, 2)])
    finish_dataset(failures)
    with pytest.raises(UserError, match="of the 2 training episodes none has a successful frame that ends a window"):
        made(failures)
    successes = tmp_path / "successes"
    write_shard(shard_path(successes, "s", 0), [make_episode(0, 9, (16, 16), success=np.ones(9, bool))])
    finish_dataset(successes)
    with pytest.raises(UserError, match="every frame that ends a window is successful"):
        made(successes)
    short = write_dataset(tmp_path / "short", 1, 1, num_frames=3, size=(16, 16))
    long = write_dataset(tmp_path / "long", 1, 4, num_frames=9, size=(16, 16))
    with pytest.raises(UserError, match=r"episode spatial-000000: 3 frames, a window has 4 \(1 of 5 episodes are"):
        made([long, short], window=4)
    data = made([long, short], window=4, skip_short=True)
    assert sorted(data.split()[0]) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="3 frames, a window has 10"):
        made([long, short], window=10, skip_short=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"window": 0}, "data.window is 0"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"near": -1}, "data.near is -1"),
        ({"val_fraction": 1.0}, "data.val_fraction is 1.0"),
        ({"positive_share": 0.0}, "data.positive_share is 0.0"),
        ({"positive_share": 0.8, "hard_share": 0.3}, "data.positive_share is 0.8, data.hard_share 0.3"),
        ({"imagined_share": 0.3}, "data.imagined_share is 0.3, and data.imagined_folder is not given"),
        ({"imagined_folder": "x"}, "data.imagined_share is 0.0, and data.imagined_folder is given"),
        ({"autoencoder_share": 0.3}, "data.autoencoder_share is 0.3, and data.autoencoder is not given"),
        (
            {"imagined_folder": "x", "imagined_share": 0.6, "autoencoder": "y", "autoencoder_share": 0.6},
            "data.imagined_share is 0.6, data.autoencoder_share 0.6",
        ),
    ],
)
def test_wrong_numbers_are_said(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        RewardData("nowhere", **arguments)


def test_imagined_pictures_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", 1, 1, num_frames=9, size=(32, 32))
    with pytest.raises(UserError, match=r"pictures of \(32, 32\), those of .* are \(16, 16\)"):
        made(folder, imagined_folder=str(other), imagined_share=0.5)
