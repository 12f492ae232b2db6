"""Random access to stored episodes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.data.store import damage
from tests.data.synthetic import assert_same, make_episode, write_dataset
from wovr.data.store import tar_index
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.errors import UserError
from wovr.types import Episode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set to break, with one shard of two episodes."""
    return write_dataset(tmp_path / "broken", shards=1, episodes=2)


def shard(folder: Path) -> Path:
    return folder / "spatial-000000.tar"


def test_every_episode_comes_back(folder: Path) -> None:
    store = EpisodeStore(folder)
    assert (len(store), store.image_size, store.action_dim) == (6, (32, 32), 4)
    for number, entry in enumerate(store.entries):
        episode = make_episode(number)
        assert (entry.key, entry.meta, entry.num_frames, entry.num_actions, entry.action_dim, entry.succeeded) == (
            episode.key,
            episode.meta,
            24,
            23,
            4,
            episode.succeeded,
        )
        assert_same(store.read(number), episode, frames_too=False)
        np.testing.assert_array_equal(store.actions(number), episode.actions)
        np.testing.assert_array_equal(store.success(number), episode.success)


def feeling(number: int, dim: int = 7) -> Episode:
    """An episode with proprioception of `dim` numbers."""
    return make_episode(number, proprio=np.random.default_rng(number).normal(size=(24, dim)).astype(np.float32))


def store_of(folder: Path, *episodes: Episode) -> EpisodeStore:
    write_shard(shard_path(folder, "s", 0), episodes)
    finish_dataset(folder)
    return EpisodeStore(folder)


def test_proprioception(folder: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path / "all", feeling(0), feeling(1))
    assert store.proprio_dim == 7
    for number in range(2):
        np.testing.assert_array_equal(store.proprio(number), feeling(number).proprio)
        np.testing.assert_array_equal(store.read(number).proprio, feeling(number).proprio)
    some = store_of(tmp_path / "some", feeling(0), make_episode(1))
    assert some.proprio(0) is not None
    assert some.proprio(1) is None
    two_kinds = store_of(tmp_path / "kinds", feeling(0), feeling(1, 8))
    without = EpisodeStore(folder)
    assert [found.proprio_dim for found in (some, two_kinds, without)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "proprio",
            damage.npy(np.zeros((23, 7), np.float32)),
            r"float32 \(23, 7\), must be float32 with one row",
        ),
        ("proprio", damage.npy(np.zeros((24, 7))), r"float64 \(24, 7\), must be float32"),
        ("proprio", damage.npy(np.zeros(24, np.float32)), r"float32 \(24,\), must be"),
        ("proprio", damage.npy(np.zeros((24, 7), np.float32))[:-4], r"float32 \(24, 7\) in \d+ bytes"),
        ("proprio", damage.npy(np.zeros((24, 7), np.float32)).replace(b"7), }", b"777777), }"), r"in 80\d bytes"),
        ("sim_state", damage.npy(np.array([{"a": 1}] * 24), allow_pickle=True), "not a plain .npy array"),
        ("sim_state", damage.npy(np.zeros((24, 3), np.float32)), r"float32 \(24, 3\), must be float64"),
        ("camera", damage.npy(np.zeros(24, np.float32)), r"float32 \(24,\), must be float32 with one row"),
    ],
)
def test_what_an_optional_member_says_of_itself_is_checked_when_a_store_is_opened(
    tmp_path: Path, name: str, value: bytes, words: str
) -> None:
    """Also where nothing is going to read its values, with sums that agree."""
    store_of(tmp_path, feeling(0), feeling(1))
    damage.change(tmp_path / "s-000000.tar", f"spatial-000001.{name}.npy", value)
    with pytest.raises(UserError, match=f"s-000000.tar: episode spatial-000001: {name}.*{words}"):
        EpisodeStore(tmp_path)


def test_proprioception_that_is_not_finite_is_found_when_it_is_read(tmp_path: Path) -> None:
    store_of(tmp_path, feeling(0), feeling(1))
    damage.change_array(
        tmp_path / "s-000000.tar", "spatial-000001.proprio.npy", lambda values: values * np.float32(np.nan)
    )
    store = EpisodeStore(tmp_path)
    for read in (store.read, store.proprio):
        with pytest.raises(UserError, match=r"s-000000\.tar: episode spatial-000001: proprio: not finite"):
            read(1)


@pytest.mark.parametrize("lossless", [False, True])
def test_pieces_of_the_frames(tmp_path: Path, lossless: bool) -> None:
    write_shard(shard_path(tmp_path, "s", 0), [make_episode(0)], lossless=lossless)
    finish_dataset(tmp_path)
    store = EpisodeStore(tmp_path)
    whole = store.read(0).frames
    np.testing.assert_array_equal(store.frames(0), whole)
    if lossless:
        np.testing.assert_array_equal(whole, make_episode(0).frames)
    for start in range(12):
        clip = store.clip(0, start, 13)
        np.testing.assert_array_equal(store.frames(0, start, start + 13), whole[start : start + 13])
        np.testing.assert_array_equal(clip.frames, whole[start : start + 13])
        np.testing.assert_array_equal(clip.reference, whole[0])
        np.testing.assert_array_equal(clip.actions, make_episode(0).actions[start : start + 12])
        np.testing.assert_array_equal(clip.success, make_episode(0).success[start : start + 13])
        assert (clip.key, clip.start, clip.meta) == ("spatial-000000", start, make_episode(0).meta)
    with pytest.raises(UserError, match=r"s-000000.tar: episode spatial-000000: frames.*20.*30"):
        store.frames(0, 20, 30)


def test_several_folders_are_one_store(folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path, shards=1, episodes=2, num_frames=30)
    store = EpisodeStore(folder, other)
    assert [entry.num_frames for entry in store.entries] == [24] * 6 + [30] * 2
    actions = np.concatenate([store.actions(index) for index in range(8)])
    np.testing.assert_allclose(store.action_statistics.q99, np.quantile(actions.astype(float), 0.99, axis=0))
    assert store.action_statistics.count == 6 * 23 + 2 * 29
    assert len({store.fingerprint, EpisodeStore(folder).fingerprint, EpisodeStore(other).fingerprint}) == 3
    assert EpisodeStore(folder).fingerprint == EpisodeStore(folder).fingerprint


@pytest.mark.parametrize(("change", "words"), [({"size": (32, 48)}, "image_size"), ({"action_dim": 7}, "action_dim")])
def test_folders_that_do_not_agree(folder: Path, tmp_path: Path, change: dict, words: str) -> None:
    other = write_dataset(tmp_path / "other", shards=1, episodes=1, **change)
    with pytest.raises(UserError, match=rf"other: {words} .*, {folder} has"):
        EpisodeStore(folder, other)


def frame_sums(store: EpisodeStore) -> list[int]:
    return [int(store.frames(index).sum(dtype=np.int64)) for index in range(len(store))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_in_use_goes_to_other_processes(folder: Path, method: str) -> None:
    store = EpisodeStore(folder)
    expected = frame_sums(store)  # files are open now
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(frame_sums, (store,)) == expected
    assert frame_sums(store) == expected


def test_pickling_keeps_no_open_files(folder: Path) -> None:
    store = EpisodeStore(folder)
    copy = pickle.loads(pickle.dumps(store))
    del store
    assert frame_sums(copy) == frame_sums(EpisodeStore(folder))


def test_more_shards_than_files_may_be_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_index, "_OPEN_FILES", 1)
    store = EpisodeStore(folder)
    for index in (0, 5, 1, 4, 0):
        assert_same(store.read(index), make_episode(index), frames_too=False)


def test_opening_reads_no_frames(broken: Path) -> None:
    damage.change(shard(broken), "spatial-000001.frames.mp4", b"no video")
    store = EpisodeStore(broken)
    assert store.actions(1).shape == (23, 4)
    for read in (store.read, store.frames, lambda index: store.clip(index, 3, 5)):
        with pytest.raises(UserError, match=r"spatial-000000.tar: episode spatial-000001: frames.mp4: not a readable"):
            read(1)


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.5, "step 3, dimension 1: 1.5 is outside"), (np.nan, "step 3, dimension 1: nan is not finite")],
)
def test_bad_actions_are_found_when_they_are_read(broken: Path, value: float, words: str) -> None:
    def spoil(actions: np.ndarray) -> np.ndarray:
        actions[3, 1] = value
        return actions

    damage.change_array(shard(broken), "spatial-000001.actions.npy", spoil)
    store = EpisodeStore(broken)
    store.read(0)
    for read in (store.read, store.actions, lambda index: store.clip(index, 0, 5)):
        with pytest.raises(UserError, match=f"spatial-000000.tar: episode spatial-000001: actions: {words}.*; normal"):
            read(1)


def test_frames_of_another_size_are_found_when_they_are_read(broken: Path) -> None:
    damage.change_dataset(broken, lambda dataset: dataset.update(image_size=[16, 32]))
    store = EpisodeStore(broken)
    for read in (store.read, store.frames):
        with pytest.raises(UserError, match=r"000000: frames.mp4: pictures of 32 x 32, must be 16 x 32"):
            read(0)


def test_a_shard_that_shrinks_while_in_use(broken: Path) -> None:
    store = EpisodeStore(broken)
    shard(broken).write_bytes(shard(broken).read_bytes()[:2000])
    with pytest.raises(UserError, match=r"spatial-000000.tar: truncated"):
        store.read(1)
    shard(broken).unlink()
    with pytest.raises(UserError, match=r"spatial-000000.tar: cannot be read: No such file"):
        EpisodeStore.read(pickle.loads(pickle.dumps(store)), 1)


@pytest.mark.parametrize("lost", ["schema_version", "shards", "action_statistics", "image_size", "suites", "frames"])
def test_a_summary_with_a_hole(broken: Path, lost: str) -> None:
    damage.change_dataset(broken, lambda dataset: dataset.pop(lost))
    with pytest.raises(UserError, match=rf"dataset.json: .*{lost.replace('_', '.')}"):
        EpisodeStore(broken)


def test_a_summary_cannot_point_out_of_its_folder(broken: Path) -> None:
    damage.change_dataset(broken, lambda dataset: dataset["shards"][0].update(file="../spatial-000000.tar"))
    with pytest.raises(UserError, match="is not the name of a shard in this folder"):
        EpisodeStore(broken)


def test_no_folder() -> None:
    with pytest.raises(UserError, match="no data folder given"):
        EpisodeStore()


def test_lengths_that_do_not_match(broken: Path) -> None:
    damage.change_array(shard(broken), "spatial-000001.success.npy", lambda success: success[:-1])
    with pytest.raises(UserError, match="episode spatial-000001: actions: 23 of them for 23 frames"):
        EpisodeStore(broken)


def test_fewer_frames_than_the_actions_say(broken: Path) -> None:
    short = make_episode(1, num_frames=20)
    path = broken / "x-000000.tar"
    write_shard(path, [dataclasses.replace(short, key="other")])
    video = damage.members(path)["other.frames.mp4"]
    path.unlink()
    damage.change(shard(broken), "spatial-000001.frames.mp4", video)
    store = EpisodeStore(broken)
    with pytest.raises(UserError, match=r"episode spatial-000001: frames.mp4: 20 frames, must be 24"):
        store.read(1)
    with pytest.raises(UserError, match=r"episode spatial-000001: frames.mp4: 20 frames, must be 24"):
        store.frames(1, 15, 24)
