"""Episodes as a stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tests.data.store import damage
from tests.data.synthetic import assert_same, make_episode, write_dataset
from wovr.data.training.streaming import stream_episodes
from wovr.errors import UserError
from wovr.types import Episode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), shards=4, episodes=2)


def first(batch: list[Episode]) -> Episode:
    return batch[0]


def keys(episodes: list[Episode]) -> list[str]:
    return [episode.key for episode in episodes]


EVERY = [f"spatial-{number:06d}" for number in range(8)]


def test_in_order(folder: Path) -> None:
    episodes = list(stream_episodes([folder]))
    assert keys(episodes) == EVERY
    for number, episode in enumerate(episodes):
        assert_same(episode, make_episode(number), frames_too=False)


def test_shuffled_by_seed_and_epoch(folder: Path) -> None:
    orders = [
        keys(list(stream_episodes([folder], shuffle=4, seed=seed, epoch=epoch)))
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == EVERY for order in orders)
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders[1:]} | {tuple(EVERY)}) == 4


def test_workers_share_the_shards(folder: Path) -> None:
    loader = DataLoader(stream_episodes([folder]), batch_size=1, num_workers=2, collate_fn=first)
    assert sorted(keys(list(loader))) == EVERY


def test_ranks_share_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        found.append(keys(list(stream_episodes([folder], shuffle=2, seed=3))))
    assert [len(part) for part in found] == [4, 4]
    assert sorted(found[0] + found[1]) == EVERY


def test_a_pickle_is_refused_and_never_opened(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    bomb = f"cos\nsystem\n(S'touch {tmp_path}/opened'\ntR.".encode()
    damage.change(folder / "spatial-000000.tar", "spatial-000000.notes.pyd", bomb)
    with pytest.raises(UserError, match=r"member 'spatial-000000.notes.pyd' is not part of"):
        list(stream_episodes([folder]))
    assert not os.path.exists(tmp_path / "opened")


def test_a_shard_cut_after_the_start_is_named(folder: Path, tmp_path: Path) -> None:
    copy = write_dataset(tmp_path / "data", shards=1, episodes=2)
    path = copy / "spatial-000000.tar"
    whole = path.read_bytes()
    stream = iter(stream_episodes([copy]))
    path.write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UserError, match=r"spatial-000000.tar: truncated"):
        list(stream)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image_size", "frames.mp4: pictures of 32 x 32, must be 5 x 5"),
        ("action_dim", "action_statistics are of 4 dimensions, not 5"),
    ],
)
def test_what_does_not_agree_with_the_summary(tmp_path: Path, name: str, words: str) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    damage.change_dataset(folder, lambda dataset: dataset.update({name: 5 if name == "action_dim" else [5, 5]}))
    with pytest.raises(UserError, match=words):
        list(stream_episodes([folder]))
