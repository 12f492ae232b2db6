"""A changed byte of a data set is found by whoever opens it, through the real command line and the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.refusal import refused
from tests.data.store.damage import change, change_dataset, members
from tests.data.synthetic import write_dataset
from wovr.cli import main
from wovr.data.store import seals
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.seals import SEAL
from wovr.data.store.shards import DATASET_FILE, complete_shards, finish_dataset
from wovr.errors import UserError
from wovr.runs import file_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", episodes=2, size=(16, 16), num_frames=8)


def flip(path: Path, place: int) -> None:
    """Change one bit; the file stays as long as it was."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def inside(path: Path, field: str) -> int:
    """Where the last value of a member of the shard's first episode lies."""
    name = next(name for name in members(path) if name.endswith(field))
    return path.read_bytes().index(members(path)[name]) + len(members(path)[name]) - 2


VERBS = [["inspect"], ["verify"], ["keyframes", "--out", "out"], ["convert", "--out", "out"], ["label"]]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
@pytest.mark.parametrize("field", ["actions.npy", "sim_state.npy", "frames.mp4"])
def test_no_verb_works_with_a_shard_of_which_a_bit_has_changed(
    words: list[str], field: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    shard = folder / "spatial-000001.tar"
    flip(shard, inside(shard, field))
    assert "spatial-000001.tar: " in refused(capsys, words[0], "data", *words[1:])
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda dataset: dataset["action_statistics"]["std"].reverse(),
        lambda dataset: dataset["extra"].update(collect={"env_args": {"size": 128}}),
        lambda dataset: dataset.update(fps=20.0),
        lambda dataset: dataset["suites"]["spatial"]["tasks"].pop("1"),
        lambda dataset: dataset.update(note="one key more"),
    ],
)
def test_dataset_json_reveals_that_it_has_changed(
    edit: Callable[[dict[str, Any]], Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / DATASET_FILE
    dataset = json.loads(path.read_text())
    edit(dataset)
    path.write_text(json.dumps(dataset))
    assert f"{path}: its content is not what its key sha256 was made of" in refused(capsys, "inspect", folder)


def test_data_sets_from_before_the_sum_are_read(folder: Path) -> None:
    before = EpisodeStore(folder).fingerprint
    dataset = json.loads((folder / DATASET_FILE).read_text())
    del dataset[SEAL]
    (folder / DATASET_FILE).write_text(json.dumps(dataset))
    assert EpisodeStore(folder).fingerprint == before
    assert main(["data", "verify", str(folder)]) == 0


@pytest.mark.parametrize(
    ("key", "value"), [("task", 7), ("suite", "object"), ("instruction", "do nothing"), ("fps", 30)]
)
def test_episodes_that_dataset_json_does_not_count_are_refused_though_the_sums_agree(
    key: str, value: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(
        folder / "spatial-000000.tar",
        "spatial-000001.meta.json",
        lambda data: json.dumps(json.loads(data) | {key: value}).encode(),
    )
    assert str(folder) in refused(capsys, "inspect", folder)


def test_an_episode_in_two_shards_is_refused_though_the_sums_agree(folder: Path) -> None:
    (folder / "spatial-000001.tar").write_bytes((folder / "spatial-000000.tar").read_bytes())

    def agree(dataset: dict[str, Any]) -> None:
        dataset["shards"][1] |= {"sha256": file_sha256(folder / "spatial-000001.tar")}
        dataset["shards"][1] |= {"bytes": (folder / "spatial-000001.tar").stat().st_size}
        dataset["successes"] = 2
        dataset["success_rate"] = 0.5

    change_dataset(folder, agree)
    with pytest.raises(UserError, match=r"dataset.json: .*not what its shards hold"):
        EpisodeStore(folder)


def test_damage_is_not_sealed_by_finishing_again(folder: Path) -> None:
    shard = folder / "spatial-000000.tar"
    flip(shard, inside(shard, "sim_state.npy"))
    for again in (lambda: complete_shards(folder, "spatial"), lambda: finish_dataset(folder)):
        with pytest.raises(UserError, match=r"spatial-000000.tar: its SHA-256 is not the one in dataset.json"):
            again()


def test_a_part_is_checked_before_its_first_frame(folder: Path) -> None:
    shard = folder / "spatial-000001.tar"
    store = EpisodeStore(folder, only=[folder / "spatial-000000.tar"])
    flip(shard, inside(shard, "sim_state.npy"))
    part = store.part(shard)
    for read in (part.frames, part.read, part.encoded_video, lambda index: part.clip(index, 2, 3)):
        with pytest.raises(UserError, match=r"spatial-000001.tar: its SHA-256"):
            read(0)
    with pytest.raises(UserError, match=r"spatial-000001.tar: its SHA-256"):
        EpisodeStore(folder, only=[shard])


def test_a_file_is_read_once_a_process_unless_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(seals, "file_sha256", lambda path: read.append(path.name) or file_sha256(path))
    for _ in range(2):
        EpisodeStore(folder)
    assert sorted(read) == ["spatial-000000.tar", "spatial-000001.tar"]
    shard = folder / "spatial-000000.tar"
    flip(shard, inside(shard, "sim_state.npy"))
    with pytest.raises(UserError):
        EpisodeStore(folder)


def test_a_finished_collection_is_not_called_complete_when_a_shard_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["collect", "--env", "tests.envs.point_env:PointEnv", "--suite", "spatial", "--policy", "random"]
    words += ["--episodes", "2", "--num_envs", "2", "--workers", "1", "--env_args.size", "16", "--out", "data"]
    assert main(words) == 0
    assert main(words) == 0
    assert "is complete" in capsys.readouterr().out
    [shard] = Path("data").glob("*.tar")
    flip(shard, inside(shard, "actions.npy"))
    assert main(words) == 2
    assert f"{shard}: its SHA-256 is not the one in dataset.json" in capsys.readouterr().err
