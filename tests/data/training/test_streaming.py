"""Training windows from a stream of shards, beside the same windows by index."""

from __future__ import annotations

import json
import multiprocessing
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode, write_dataset
from tests.data.training.streamed import EPISODE_MB, EPISODES, FRAMES, KINDS, SHARDS, content, made, windows
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training import streaming
from wovr.data.training.streaming import StreamLoader, WindowStream
from wovr.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of two episodes of 14 frames; every third episode succeeds in its last three frames."""
    return write_dataset(
        tmp_path_factory.mktemp("data"), shards=SHARDS, episodes=EPISODES, num_frames=FRAMES, size=(16, 16)
    )


def one_pass(loader: StreamLoader) -> list[str]:
    """Every window of the first pass over this process's share."""
    stream: WindowStream = loader.stream
    room = stream.cache_mb * 1e6
    return windows(streaming.batch_of([draw]) for draw in stream.draw_pass(0, 0, room))


@pytest.mark.parametrize("kind", ["world model", "demonstrations", "sequences"])
@pytest.mark.parametrize("episodes_in_buffer", [0.5, 2.5, 100])
def test_a_pass_has_the_windows_of_an_epoch_by_index(folder: Path, kind: str, episodes_in_buffer: float) -> None:
    by_index = windows(made(kind, folder, stream=False, batch_size=1).train_dataloader())
    streamed = one_pass(made(kind, folder, cache_mb=episodes_in_buffer * EPISODE_MB).train_dataloader())
    assert Counter(streamed) == Counter(by_index)
    assert streamed != by_index


@pytest.mark.parametrize("kind", ["world model", "demonstrations", "sequences"])
def test_an_epoch_is_a_pass_where_the_number_of_windows_is_known(folder: Path, kind: str) -> None:
    options = {"only_success": False, "keep_past_success": True} if kind == "demonstrations" else {}
    by_index = made(kind, folder, stream=False, batch_size=1, **options).train_dataloader()
    loader = made(kind, folder, batch_size=1, **options).train_dataloader()
    assert len(loader) == len(by_index)
    for _ in range(2):
        assert Counter(windows(loader)) == Counter(windows(by_index))


@pytest.mark.parametrize("kind", ["classifier", "value"])
def test_balanced_windows_are_those_of_the_episodes(folder: Path, kind: str) -> None:
    data = made(kind, folder, stream=False)
    known = set(windows(data._windows[index] for index in range(len(data._windows))))
    loader = made(kind, folder, cache_mb=3.5 * EPISODE_MB, positive_share=0.5, hard_share=0.25).train_dataloader()
    drawn = windows(batch for _ in range(20) for batch in loader)
    assert set(drawn) <= known
    assert len(set(drawn)) > 0.9 * len(known), "every episode comes through the buffer"
    positive = np.mean([json.loads(window)["success"] for window in drawn])
    assert positive == pytest.approx(0.5, abs=0.05)


def test_a_buffer_keeps_the_last_success_of_a_task(tmp_path: Path) -> None:
    """One success, that came first, of twelve episodes; there is room for three."""
    folder = write_dataset(tmp_path, shards=1, episodes=1, num_frames=FRAMES, size=(16, 16))
    for index in range(1, 6):
        numbers = [number for number in range(6 * index, 6 * index + 6) if number % 3]
        episodes = [make_episode(number, FRAMES, (16, 16)) for number in numbers if number % 2 == 0]
        write_shard(shard_path(folder, "spatial", index), episodes)
    finish_dataset(folder)
    loader = made("classifier", folder, cache_mb=3.1 * EPISODE_MB, hard_share=0.0).train_dataloader()
    drawn = [json.loads(window)["success"] for window in windows(batch for _ in range(8) for batch in loader)]
    late = drawn[len(drawn) // 2 :]
    assert np.mean(late) == pytest.approx(0.5, abs=0.15)


def test_two_ranks_of_two_workers_share_every_window_once(folder: Path) -> None:
    """Two processes that know their ranks from gloo, as trainings do, each with two workers."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, str(folder), results)) for rank in range(2)]
    for process in ranks:
        process.start()
    found: dict[tuple[int, int], list[str]] = dict(results.get(timeout=120) for _ in range(4))
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(found.values())
    together = [window for part in found.values() for window in part]
    assert Counter(together) == Counter(windows(made("world model", folder, stream=False).train_dataloader()))


def _rank(rank: int, folder: str, results: Any) -> None:
    store = Path(folder).parent / f"gloo-{Path(folder).name}"
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    stream = made("world model", Path(folder)).train_dataloader().stream
    parts = WindowStream(stream.parts, 1, 100.0, 0, torch.distributed.get_rank(), torch.distributed.get_world_size())
    passes = torch.utils.data.DataLoader(_FirstPass(parts), batch_size=None, num_workers=2, collate_fn=_same)
    of_worker: dict[int, list[str]] = {0: [], 1: []}
    for worker, batch in passes:
        of_worker[worker] += windows([batch])
    for worker, found in of_worker.items():
        results.put(((rank, worker), found))
    torch.distributed.destroy_process_group()


class _FirstPass(torch.utils.data.IterableDataset[Any]):
    """The first pass of a stream, each window with the worker it came from."""

    def __init__(self, stream: WindowStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        for draw in self.stream.draw_pass(0, 0, 1e9):
            yield info.id, streaming.batch_of([draw])


def _same(batch: Any) -> Any:
    return batch


def test_an_order_is_a_function_of_the_seed(folder: Path) -> None:
    one, two, other = (
        windows(islice(made("world model", folder, seed=seed).train_dataloader(), 10)) for seed in (0, 0, 1)
    )
    assert one == two
    assert one != other


def test_two_passes_differ(folder: Path) -> None:
    loader = made("world model", folder, batch_size=1).train_dataloader()
    one, two = windows(loader), windows(loader)
    assert Counter(one) == Counter(two)
    assert one != two


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("workers", "taken"), [(0, 17), (2, 7)])
def test_resuming_gives_the_same_bits(folder: Path, kind: str, workers: int, taken: int) -> None:
    options: dict[str, Any] = {"num_workers": workers, "cache_mb": 3 * EPISODE_MB}
    if kind == "world model":
        options["start_fraction"] = 0.3
    whole = made(kind, folder, **options).train_dataloader()
    expected = [content(batch) for batch in islice((batch for _ in range(99) for batch in whole), taken + 6)]
    first = made(kind, folder, **options).train_dataloader()
    for batch, _ in zip((batch for _ in range(99) for batch in first), range(taken), strict=False):
        last = content(batch)
    assert last == expected[taken - 1]
    again = made(kind, folder, **options).train_dataloader()
    again.load_state_dict({"epoch": taken // len(again), "batch": taken % len(again), "ranks": 1, "workers": workers})
    rest = [content(batch) for batch in islice((batch for _ in range(99) for batch in again), 6)]
    assert rest == expected[taken:]


def test_what_is_skipped_on_resuming_is_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    frames = EpisodeStore.frames
    monkeypatch.setattr(
        EpisodeStore, "frames", lambda self, index, *of: decoded.append(index) or frames(self, index, *of)
    )
    loader = made("world model", folder, batch_size=1, cache_mb=2 * EPISODE_MB).train_dataloader()
    loader.load_state_dict({"epoch": 3, "batch": 5})
    next(iter(loader))
    assert len(decoded) == 1


def test_each_episode_is_decoded_once_a_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    frames = EpisodeStore.frames
    monkeypatch.setattr(
        EpisodeStore, "frames", lambda self, index, *of: decoded.append(index) or frames(self, index, *of)
    )
    list(made("world model", folder, batch_size=1, cache_mb=2 * EPISODE_MB).train_dataloader())
    assert len(decoded) == SHARDS * EPISODES


def test_a_state_of_other_processes_is_said_to_go_on_otherwise(folder: Path) -> None:
    loader = made("world model", folder).train_dataloader()
    with pytest.warns(UserWarning, match="4 processes of 2 workers shared the shards, now 1 of 0"):
        loader.load_state_dict({"epoch": 0, "batch": 3, "ranks": 4, "workers": 2})


@pytest.mark.parametrize("room", [1, 2, 4])
def test_no_more_is_decoded_than_there_is_room_for(folder: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays: list[weakref.ref[np.ndarray]] = []
    frames = EpisodeStore.frames

    def noted(self: EpisodeStore, *of: Any) -> np.ndarray:
        found = frames(self, *of)
        arrays.append(weakref.ref(found))
        return found

    monkeypatch.setattr(EpisodeStore, "frames", noted)
    stream = made("world model", folder).train_dataloader().stream
    held = []
    for draw in stream.draw_pass(0, 0, 1.01 * room * EPISODE_MB * 1e6):
        streaming.batch_of([draw])
        held.append(sum(array() is not None for array in arrays))
    assert len(arrays) == SHARDS * EPISODES
    assert max(held) in (room, room + 1)  # one more whose last window was just drawn


def test_whole_shards_are_held_out(folder: Path) -> None:
    data = made("world model", folder, val_fraction=0.3)
    held_out = set(data.record()["held_out"])
    assert len(held_out) == 2 * EPISODES  # 0.3 of five shards, rounded up
    trained = {key for _ in range(2) for batch in data.train_dataloader() for key in batch.keys}
    assert len(trained) == 3 * EPISODES
    assert not held_out & trained
    assert {key for batch in data.val_dataloader() for key in batch.keys} == held_out
    assert {entry.key for entry in data.store.entries} == held_out, "no other shard is indexed"


def test_no_shard_is_left_to_train_on(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, shards=1, episodes=1, num_frames=FRAMES, size=(16, 16))
    with pytest.raises(UserError, match=r"1 shards, of which data\.stream keeps 1 for validation"):
        made("world model", folder, val_fraction=0.1)


def test_a_demonstration_of_which_a_piece_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    def piece(number: int, part: int) -> Any:
        meta = make_episode(number).meta
        meta.extra = {"part": part, "parts": 2}
        return make_episode(number, FRAMES, (16, 16), key=f"demo-{number}-{part}", meta=meta)

    # Of demonstration 0, 1, 2 a piece lies in each of two shards.
    for index in range(3):
        write_shard(shard_path(tmp_path, "demo", index), [piece(index, 1), piece((index + 1) % 3, 2)])
    finish_dataset(tmp_path)
    data = made("world model", tmp_path, val_fraction=0.3)
    held_out = {key.rpartition("-")[0] for key in data.record()["held_out"]}
    trained = {key.rpartition("-")[0] for batch in data.train_dataloader() for key in batch.keys}
    assert len(held_out) == 2
    assert len(trained) == 1
    assert not held_out & trained


def test_folders_are_mixed_by_their_shares(folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path, shards=1, episodes=1, num_frames=FRAMES, size=(16, 16))
    data = made("world model", [folder, other], mix=[0.25, 0.75], batch_size=1)
    batches = list(islice((batch for _ in range(99) for batch in data.train_dataloader()), 300))
    # Keys are the same in both folders: only windows of the first episode may come from the small one.
    assert np.mean([batch.keys == ["spatial-000000"] for batch in batches]) == pytest.approx(0.75 + 0.025, abs=0.06)
    alone = made("world model", [folder, other], mix=[0.0, 1.0]).train_dataloader()
    assert {key for batch in alone for key in batch.keys} == {"spatial-000000"}


def test_starts_of_episodes_come_more_often(folder: Path) -> None:
    loader = made("world model", folder, start_fraction=0.3).train_dataloader()
    starts = torch.cat([batch.start for _ in range(10) for batch in loader])
    assert float((starts == 0).float().mean()) == pytest.approx(0.3 + 0.7 / (FRAMES - 8), abs=0.06)


def test_statistics_of_several_folders_are_pooled(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_shard(shard_path(other, "spatial", 0), [make_episode(number, 30, (16, 16)) for number in (20, 21)])
    finish_dataset(other)
    pooled = made("world model", [folder, other]).store.action_statistics
    counted = EpisodeStore(folder, other).action_statistics
    assert pooled.count == counted.count
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(counted, name), rtol=1e-6, atol=1e-7)
    parts = [EpisodeStore(one).action_statistics for one in (folder, other)]
    np.testing.assert_array_equal(pooled.q01, np.minimum(parts[0].q01, parts[1].q01))
    np.testing.assert_array_equal(pooled.q99, np.maximum(parts[0].q99, parts[1].q99))
