from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.training.replays import CHUNK, copy_of, truth, write_replays
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.replay import ReplayChunks, ReplayData, unique_keys
from wovr.data.training.reward import RewardData
from wovr.errors import UserError


def replay(folder: Path, **arguments: Any) -> ReplayData:
    real, imagined = folder / "real", folder / "imagined"
    data = ReplayData(str(real), str(imagined), **{"chunk": CHUNK, "batch_size": 2} | arguments)
    data.setup("fit")
    return data


def training_chunks(data: ReplayData) -> ReplayChunks:
    chunks = data.train_dataloader().source
    assert isinstance(chunks, ReplayChunks)
    return chunks


def test_chunks_stand_beside_what_really_happened(tmp_path: Path) -> None:
    write_replays(tmp_path, 4)
    chunks = training_chunks(replay(tmp_path, val_fraction=0.0))
    assert len(chunks) == 4 * 5
    for index in (0, 3, 7):
        chunk, start = chunks[index], index % 5 * CHUNK
        number = chunks.episodes[index // 5].real.index
        real = truth(number)
        copy = copy_of(real, number)
        np.testing.assert_array_equal(chunk.reference[0], real.frames[0])
        np.testing.assert_array_equal(chunk.before[0], copy.frames[start])
        np.testing.assert_array_equal(chunk.frames[0], copy.frames[start + 1 : start + 1 + CHUNK])
        np.testing.assert_array_equal(chunk.real[0], real.frames[start : start + 1 + CHUNK])
        np.testing.assert_array_equal(chunk.actions[0], real.actions[start : start + CHUNK])
        assert chunk.tasks == [("spatial", number % 2)]
    assert chunks[0].frames.dtype == torch.uint8


def test_imagination_that_begins_anew_begins_at_real_frames(tmp_path: Path) -> None:
    write_replays(tmp_path, 1, restart=2 * CHUNK)
    chunks = training_chunks(replay(tmp_path, val_fraction=0.0))
    assert chunks.where.tolist() == [[0, start] for start in (0, 4, 8, 12, 16)]
    real, copy = truth(0), copy_of(truth(0), 0)
    for index, frames in enumerate((real, copy, real, copy, real)):
        np.testing.assert_array_equal(chunks[index].before[0], frames.frames[index * CHUNK])


def test_a_chunk_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    write_replays(tmp_path, 1, length=12)
    chunks = training_chunks(replay(tmp_path, val_fraction=0.0))
    assert chunks.where.tolist() == [[0, 0], [0, 4]]


def test_the_held_out_episodes_are_those_of_other_trainings(tmp_path: Path) -> None:
    real, _ = write_replays(tmp_path)
    data = replay(tmp_path, val_fraction=0.34, seed=3)
    reward = RewardData(str(real), val_fraction=0.34, seed=3, window=1)
    train, val = data.split()
    assert (sorted(train), sorted(val)) == tuple(sorted(part) for part in reward.split())
    held_out = {episode.real.index for episode in data.held_out().episodes}
    assert held_out == set(val)
    assert len(data.val_dataloader()) == len(val) * 5 / 2
    assert replay(tmp_path, val_fraction=0.0).val_dataloader() == []


def test_of_several_folders_copies_are_told_apart(tmp_path: Path) -> None:
    episodes = [truth(0), truth(0)]
    episodes[1].frames = 255 - episodes[1].frames
    for name, episode in zip("ab", episodes, strict=True):
        write_shard(shard_path(tmp_path / name, name, 0), [episode], lossless=True)
        finish_dataset(tmp_path / name)
    keys = unique_keys([episode.key for episode in episodes])
    assert keys == ["spatial-000000", "spatial-000000-2"]
    for episode, key in zip(episodes, keys, strict=True):
        episode.key = key
    write_shard(shard_path(tmp_path / "imagined", "imagined", 0), episodes, lossless=True)
    finish_dataset(tmp_path / "imagined", imagine={"restart": 0})
    data = ReplayData([str(tmp_path / name) for name in "ab"], str(tmp_path / "imagined"), chunk=CHUNK, val_fraction=0)
    data.setup("fit")
    for index in (0, 5):
        chunk = training_chunks(data)[index]
        np.testing.assert_array_equal(chunk.frames[0], chunk.real[0, 1:])


def test_an_episode_may_have_several_copies(tmp_path: Path) -> None:
    real, imagined = write_replays(tmp_path, 2)
    _, other = write_replays(tmp_path / "again", 2, restart=CHUNK)
    data = ReplayData(str(real), [str(imagined), str(other)], chunk=CHUNK, val_fraction=0)
    data.setup("fit")
    chunks = training_chunks(data)
    assert [(one.real.index, one.restart) for one in chunks.episodes] == [(0, 0), (0, CHUNK), (1, 0), (1, CHUNK)]
    assert len(chunks) == 4 * 5


def test_a_record_says_what_it_was_made_of(tmp_path: Path) -> None:
    real, _ = write_replays(tmp_path, 3)
    record = replay(tmp_path).record()
    assert record["episodes"] == EpisodeStore(real).fingerprint != record["fingerprint"]
    assert (record["action_dim"], record["image_size"]) == (3, [16, 16])


@pytest.mark.parametrize(
    ("restart", "line"),
    [
        (6, r"imagination began anew after every 6 frames, not after whole chunks of 4; imagine the episodes again"),
        (-4, "after every -4 frames"),
        (None, "after every None frames"),
    ],
)
def test_a_restart_within_a_chunk_is_refused(restart: int | None, line: str, tmp_path: Path) -> None:
    write_replays(tmp_path, 2, restart=restart)
    with pytest.raises(UserError, match=line):
        replay(tmp_path)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    real, imagined = write_replays(tmp_path / "three", 2)
    write_replays(tmp_path / "two", 2, action_dim=2)
    with pytest.raises(UserError, match=r"actions of 2 dimensions, those of .* are 3"):
        ReplayData(str(real), str(tmp_path / "two/imagined"), chunk=CHUNK).setup("fit")
    other = truth(0)
    other.actions = -other.actions
    write_shard(shard_path(tmp_path / "other", "other", 0), [other])
    finish_dataset(tmp_path / "other", imagine={"restart": 0})
    with pytest.raises(UserError, match="episode spatial-000000 is no imagined copy of one of"):
        ReplayData(str(real), str(tmp_path / "other"), chunk=CHUNK).setup("fit")
    with pytest.raises(UserError, match=r"no training episode of .* was imagined for 21 actions"):
        ReplayData(str(real), str(imagined), chunk=21).setup("fit")
    with pytest.raises(UserError, match=r"data.chunk is 0; give 1 or more"):
        ReplayData(str(real), str(imagined), chunk=0)
