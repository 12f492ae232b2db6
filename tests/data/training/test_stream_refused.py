"""What a stream refuses: damage, too few shards, options that need every episode first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.store import damage
from tests.data.synthetic import make_episode, write_dataset
from tests.data.training.streamed import EPISODES, FRAMES, SHARDS, made
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.streaming import StreamLoader, WindowStream
from wovr.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of two episodes of 14 frames; every third episode succeeds in its last three frames."""
    return write_dataset(
        tmp_path_factory.mktemp("data"), shards=SHARDS, episodes=EPISODES, num_frames=FRAMES, size=(16, 16)
    )


def test_a_shard_that_has_changed_is_named_before_anything_of_it_is_used(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, shards=3, episodes=2, num_frames=FRAMES, size=(16, 16))
    path = shard_path(folder, "spatial", 2)
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 40] ^= 1
    path.write_bytes(data)
    loader = made("world model", folder, batch_size=1).train_dataloader()
    seen: list[str] = []
    with pytest.raises(UserError, match=r"spatial-000002.tar: its SHA-256 is not the one in dataset.json"):
        seen.extend(batch.keys[0] for batch in loader)
    assert not {"spatial-000004", "spatial-000005"} & set(seen)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_video_is_one_line(tmp_path: Path, workers: int) -> None:
    folder = write_dataset(tmp_path, shards=2, episodes=1, num_frames=FRAMES, size=(16, 16))
    path = shard_path(folder, "spatial", 1)
    [video] = [name for name in damage.members(path) if name.endswith(".mp4")]
    damage.change(path, video, lambda data: data[:-500] + bytes(500))
    with pytest.raises(UserError) as caught:
        list(made("world model", folder, num_workers=workers).train_dataloader())
    assert str(caught.value).startswith(f"{path}: episode spatial-000001: ")
    assert "Traceback" not in str(caught.value)


def test_a_shard_cut_after_the_start_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, shards=2, episodes=2, num_frames=FRAMES, size=(16, 16))
    loader = made("world model", folder).train_dataloader()
    path = shard_path(folder, "spatial", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UserError, match=r"spatial-000001.tar: truncated"):
        list(loader)


@pytest.mark.parametrize(
    ("ranks", "workers", "words"), [(6, 0, "6 processes that"), (2, 3, "2 processes of 3 workers")]
)
def test_fewer_shards_than_processes(folder: Path, ranks: int, workers: int, words: str) -> None:
    stream = made("world model", folder).train_dataloader().stream
    shared = WindowStream(stream.parts, 4, 100.0, 0, 0, ranks)
    with pytest.raises(UserError, match=f"5 shards to train on are fewer than the {words}"):
        StreamLoader(shared, 10, workers)


def test_nothing_to_train_on(folder: Path) -> None:
    loader = made("demonstrations", folder, suites="goal").train_dataloader()
    with pytest.raises(UserError, match="nothing to train on was found in 3 passes"):
        next(iter(loader))


def test_episodes_that_are_too_short(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0, 20, (16, 16))])
    write_shard(shard_path(tmp_path, "spatial", 1), [make_episode(1, 8, (16, 16)), make_episode(2, 20, (16, 16))])
    finish_dataset(tmp_path)
    with pytest.raises(UserError, match="spatial-000001: 8 frames, a window needs 9"):
        list(made("world model", tmp_path).train_dataloader())
    loader = made("world model", tmp_path, skip_short=True).train_dataloader()
    assert {key for batch in loader for key in batch.keys} == {"spatial-000000", "spatial-000002"}


def test_shards_of_which_some_hold_proprioception(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0, 20, (16, 16))])
    proprio = np.zeros((20, 3), np.float32)
    write_shard(shard_path(tmp_path, "spatial", 1), [make_episode(1, 20, (16, 16), proprio=proprio)])
    finish_dataset(tmp_path)
    with pytest.raises(UserError, match=r"spatial-000001.tar: holds {'proprio': 3} beside frames"):
        list(made("world model", tmp_path).train_dataloader())


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("demonstrations", {"per_task": 1}, "which demonstrations of a stream those are only its end would tell"),
        ("classifier", {"imagined_folder": "x", "imagined_share": 0.5}, r"data\.imagined_folder is given"),
        ("classifier", {"autoencoder": "x", "autoencoder_share": 0.5}, r"data\.autoencoder is given"),
        ("world model", {"cache_mb": 0.0}, r"data\.cache_mb is 0\.0, in which data\.stream shuffles"),
    ],
)
def test_what_a_stream_cannot_serve(folder: Path, kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(kind, folder, **options)


def test_what_needs_every_episode_first_says_why(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.stream is true, and what every episode's frames should say"):
        made("sequences", folder).episodes()
