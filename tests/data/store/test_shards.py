"""Shards: bytes, atomicity, counting, resuming."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import webdataset

from tests.data.synthetic import assert_same, make_episode, write_dataset, write_one
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import complete_shards, encode_episode, finish_dataset, shard_path, write_shard
from wovr.data.store.verification import verify_dataset
from wovr.errors import UserError
from wovr.runs import file_sha256


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = write_dataset(tmp_path / "one"), write_dataset(tmp_path / "two")
    assert names(one) == names(two) == ["dataset.json", "spatial-000000.tar", "spatial-000001.tar"]
    assert [file_sha256(one / name) for name in names(one)] == [file_sha256(two / name) for name in names(two)]


def test_encoded_episodes_are_as_good_as_episodes(tmp_path: Path) -> None:
    episodes = [make_episode(number) for number in range(3)]
    one = write_shard(tmp_path / "one-000000.tar", episodes)
    two = write_shard(tmp_path / "two-000000.tar", [encode_episode(episodes[0]), *episodes[1:]])
    assert one.sha256 == two.sha256 == file_sha256(tmp_path / "one-000000.tar")


def test_nothing_of_this_machine_is_in_the_tar(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-000000.tar", [make_episode(0)])
    with tarfile.open(tmp_path / "a-000000.tar") as tar:
        assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode, i.isreg()) for i in tar} == {
            (0, 0, 0, "", "", 0o644, True)
        }


def test_plain_webdataset_reads_the_shards(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"spatial-{number:06d}" for number in range(6)]
    for number, sample in enumerate(samples):
        episode = make_episode(number)
        np.testing.assert_array_equal(np.load(io.BytesIO(sample["actions.npy"])), episode.actions)
        np.testing.assert_array_equal(np.load(io.BytesIO(sample["success.npy"])), episode.success)
        assert json.loads(sample["meta.json"])["instruction"] == episode.meta.instruction


def test_dataset_json_counts_what_is_there(tmp_path: Path) -> None:
    for index in range(2):
        numbers = range(index * 4, index * 4 + 4)
        write_shard(shard_path(tmp_path, "spatial", index), [make_episode(n, num_frames=20 + n) for n in numbers])
    dataset = finish_dataset(tmp_path, policy="expert")
    assert dataset == json.loads((tmp_path / "dataset.json").read_text())
    assert {name: dataset[name] for name in ("schema_version", "episodes", "successes", "success_rate", "frames")} == {
        "schema_version": 1,
        "episodes": 8,
        "successes": 3,
        "success_rate": 0.375,
        "frames": sum(range(20, 28)),
    }
    assert (dataset["image_size"], dataset["action_dim"], dataset["fps"]) == ([32, 32], 4, 10.0)
    assert dataset["extra"] == {"policy": "expert"}
    task = dataset["suites"]["spatial"]["tasks"]["1"]
    assert task == {
        "instructions": ["put cube 1 on the pad"],
        "episodes": 4,
        "successes": 1,
        "success_rate": 0.25,
    }
    first = dataset["shards"][0]
    path = tmp_path / first["file"]
    assert (first["bytes"], first["sha256"]) == (path.stat().st_size, file_sha256(path))
    assert (first["episodes"], first["frames"]) == (4, 20 + 21 + 22 + 23)


def test_action_statistics_are_those_of_all_actions(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    actions = np.concatenate([make_episode(number).actions for number in range(6)]).astype(np.float64)
    found = EpisodeStore(tmp_path).action_statistics
    expected = {
        "min": actions.min(0),
        "max": actions.max(0),
        "mean": actions.sum(0) / len(actions),
        "std": np.sqrt(np.square(actions - actions.mean(0)).sum(0) / len(actions)),
        "q01": np.percentile(actions, 1, axis=0),
        "q99": np.percentile(actions, 99, axis=0),
    }
    assert found.count == len(actions)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-7, atol=1e-9)


def test_a_shard_without_its_record_is_counted_anew(tmp_path: Path) -> None:
    paths = [shard_path(tmp_path, "spatial", index) for index in (0, 3)]
    for path in paths:
        write_shard(path, [make_episode(int(path.stem[-1]))])
    write_shard(shard_path(tmp_path, "other", 1), [make_episode(9)])
    with_records = complete_shards(tmp_path, "spatial")
    assert list(with_records) == [0, 3]
    assert [episode.key for episode in with_records[3].episodes] == ["spatial-000003"]
    for record in tmp_path.glob(".*.json"):
        record.unlink()
    assert complete_shards(tmp_path, "spatial") == with_records
    assert complete_shards(tmp_path / "nowhere", "spatial") == {}


def test_a_record_of_an_older_shard_is_not_believed(tmp_path: Path) -> None:
    path = shard_path(tmp_path, "spatial", 0)
    write_shard(path, [make_episode(0), make_episode(1)])
    old = (tmp_path / ".spatial-000000.tar.json").read_bytes()
    write_shard(path, [make_episode(2)])
    (tmp_path / ".spatial-000000.tar.json").write_bytes(old)
    assert [episode.key for episode in complete_shards(tmp_path, "spatial")[0].episodes] == ["spatial-000002"]


def test_several_processes_fill_one_folder(tmp_path: Path) -> None:
    paths = [shard_path(tmp_path / "together", "spatial", index) for index in range(4)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        together = list(pool.map(write_one, paths))
    assert together == [write_one(shard_path(tmp_path / "alone", "spatial", index)) for index in range(4)]
    assert finish_dataset(tmp_path / "together") == finish_dataset(tmp_path / "alone")


def test_finishing_twice_changes_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    before = (tmp_path / "dataset.json").read_bytes()
    finish_dataset(tmp_path)
    assert (tmp_path / "dataset.json").read_bytes() == before


@pytest.mark.parametrize("moment", ["before the shard appears", "before its record appears"])
def test_a_killed_writer_leaves_whole_shards_and_no_half_ones(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "data"
    write_shard(shard_path(folder, "spatial", 0), [make_episode(0)])
    kept = file_sha256(shard_path(folder, "spatial", 0))
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.data.synthetic import make_episode; from wovr.data.store.shards import write_shard\n"
        "calls, real = [], os.fsync\n"
        "def fsync(descriptor):\n"
        "    calls.append(descriptor)\n"
        "    if len(calls) == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(descriptor)\n"
        "os.fsync = fsync\n"
        "write_shard(Path(sys.argv[1]), [make_episode(1)])\n"
    )
    path = shard_path(folder, "spatial", 1)
    count = "1" if moment == "before the shard appears" else "2"
    killed = subprocess.run([sys.executable, "-c", script, str(path), count], check=False)
    assert killed.returncode == -signal.SIGKILL
    half = [name for name in names(folder) if name.endswith(".tmp")]
    assert len(half) == 1
    expected = [0] if moment == "before the shard appears" else [0, 1]
    assert list(complete_shards(folder, "spatial")) == expected
    if 1 not in expected:
        write_shard(path, [make_episode(1)])
    finish_dataset(folder)
    assert names(folder) == ["dataset.json", "spatial-000000.tar", "spatial-000001.tar"]
    assert file_sha256(shard_path(folder, "spatial", 0)) == kept
    assert verify_dataset(folder).problems == []
    assert_same(EpisodeStore(folder).read(1), make_episode(1), frames_too=False)


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard_path(tmp_path, "spatial", 0)
    write_shard(path, [make_episode(0)])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for target in (path, shard_path(tmp_path, "spatial", 1)):
        with pytest.raises(UserError, match=f"{target}: cannot be written: No space left on device; free some space"):
            write_shard(target, [make_episode(1)])
    monkeypatch.undo()
    assert names(tmp_path) == ["spatial-000000.tar"]
    assert path.read_bytes() == before
    assert list(complete_shards(tmp_path, "spatial")) == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    # The shard's bytes go to a device that has no space: the failure comes in the middle of the tar.
    monkeypatch.setattr(
        Path, "open", lambda self, *args: real(Path("/dev/full") if self.suffix == ".tmp" else self, *args)
    )
    with pytest.raises(UserError, match=r"spatial-000000.tar: cannot be written: No space left on device"):
        write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0, size=(64, 64), num_frames=60)])
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_shard(shard_path(tmp_path / "data", "spatial", 0), [make_episode(0)])


@pytest.mark.parametrize("change", [{"size": (32, 48)}, {"action_dim": 7}], ids=["another image size", "other actions"])
def test_a_shard_holds_one_kind_of_episode(tmp_path: Path, change: dict) -> None:
    with pytest.raises(UserError, match=r"spatial-000000.tar: episode spatial-000001: .* before; keep"):
        write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0), make_episode(1, **change)])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"), [({"size": (32, 48)}, r"image_size \(32, 48\)"), ({"action_dim": 7}, "action_dim 7")]
)
def test_a_folder_holds_one_kind_of_episode(tmp_path: Path, change: dict, words: str) -> None:
    write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0)])
    write_shard(shard_path(tmp_path, "spatial", 1), [make_episode(1, **change)])
    with pytest.raises(UserError, match=rf"spatial-000001.tar: {words}, spatial-000000.tar has"):
        finish_dataset(tmp_path)


def test_no_episode_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="episode spatial-000000 twice"):
        write_shard(shard_path(tmp_path, "spatial", 0), [make_episode(0), make_episode(0)])
    for index in range(2):
        write_shard(shard_path(tmp_path, "spatial", index), [make_episode(0)])
    with pytest.raises(UserError, match=r"000001.tar: episode spatial-000000: spatial-000000.tar has it too"):
        finish_dataset(tmp_path)


def test_nothing_to_write_or_finish(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no episode to write"):
        write_shard(shard_path(tmp_path, "spatial", 0), [])
    with pytest.raises(UserError, match="not a shard's name"):
        write_shard(tmp_path / "spatial.tar", [make_episode(0)])
    with pytest.raises(UserError, match="holds no shard"):
        finish_dataset(tmp_path)


def test_long_episodes_fit(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, "long", 0), [make_episode(0, num_frames=512, size=(8, 8))])
    finish_dataset(tmp_path)
    assert EpisodeStore(tmp_path).frames(0, 500, 512).shape == (12, 8, 8, 3)
