"""--long split: the pieces of one demonstration share its outcome, wherever outcomes count and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.converters.foreign import PICTURES, foreign_episode, write_lerobot
from tests.data.store import damage
from wovr.cli import main
from wovr.data.converters.lerobot.reader import LeRobotReader
from wovr.data.keyframes.rules import KeyframeRules, find_keyframes
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.demonstrations import DemonstrationData
from wovr.data.training.frames import FrameCache
from wovr.data.training.reward import RewardData
from wovr.data.training.reward_windows import REAL, Recorder

LENGTH = 1100


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes 0 (succeeds), 1 in three pieces (succeeds in the last), and 2 (succeeds)."""
    folder = tmp_path_factory.mktemp("split")
    return convert(folder, success_at=LENGTH - 2)


def convert(folder: Path, success_at: int | None) -> Path:
    long = foreign_episode(1, LENGTH)
    long["next.success"] = np.arange(LENGTH) == (-1 if success_at is None else success_at)
    source = write_lerobot(folder / "arm", pictures=True, **long)
    words = ["data", "convert", str(source), "--out", str(folder / "out"), "--camera", PICTURES, "--size", "16"]
    assert main([*words, "--long", "split"]) == 0
    return folder / "out"


def test_every_piece_counts_as_the_demonstration(split: Path) -> None:
    store = EpisodeStore(split)
    assert [entry.succeeded for entry in store.entries] == [True] * 5
    assert store.datasets[0]["success_rate"] == 1.0
    members = damage.members(next(split.glob("*.tar")))
    stored = [np.load(io.BytesIO(members[f"{entry.key}.success.npy"])) for entry in store.entries]
    assert all(success.any() for success in stored), "whoever reads a shard by itself sees the outcome too"
    assert main(["data", "verify", str(split)]) == 0
    parts = [store.part(shard) for shard in sorted(split.glob("*.tar"))]
    assert [entry.succeeded for part in parts for entry in part.entries] == [True] * 5


def test_no_frame_succeeds_that_does_not(split: Path) -> None:
    store = EpisodeStore(split)
    assert [int(store.success(index).sum()) for index in range(5)] == [2, 0, 0, 1, 2]
    for index in (1, 2):
        assert not store.read(index).success.any()
        assert not store.clip(index, 500, 12).success.any()


def test_a_failed_demonstration_fails_in_every_piece(tmp_path: Path) -> None:
    store = EpisodeStore(convert(tmp_path, None))
    assert [entry.succeeded for entry in store.entries] == [True, False, False, False, True]


def test_an_early_success_is_shared_too(tmp_path: Path) -> None:
    store = EpisodeStore(convert(tmp_path, 100))
    assert [entry.succeeded for entry in store.entries] == [True] * 5
    assert [int(store.success(index).sum()) for index in (1, 2, 3)] == [1, 0, 0]


def test_the_value_function_learns_that_the_pieces_lead_to_success(split: Path) -> None:
    store = EpisodeStore(split)
    outcome, frame = Recorder(FrameCache(0), outcome_window=2), Recorder(FrameCache(0))
    for index in (1, 2):
        judged = outcome.recording(REAL, store, index).success
        assert judged.all()
        assert len(judged) == 512
        assert not frame.recording(REAL, store, index).success.any()


def test_keyframes_take_a_piece_for_a_part_of_a_success(split: Path) -> None:
    found = find_keyframes(EpisodeStore(split), KeyframeRules(memory=2, lead=(1, 2), failure_share=0.5))
    pieces = [one for one in found.found.keyframes if one.episode.endswith(("-0", "-1"))]
    assert pieces
    assert all(one.succeeded for one in pieces)
    assert not any(one.kind in ("near_success", "parting") for one in pieces)
    assert not any(one.kind == "release" and one.failure for one in pieces)


def test_pieces_of_one_demonstration_are_held_out_together(split: Path) -> None:
    for seed in range(6):
        data = RewardData(str(split), window=2, val_fraction=0.5, seed=seed, skip_short=True)
        train, val = data.split()
        assert sorted(train + val) == list(range(5))
        assert not {1, 2, 3} & set(train) or {1, 2, 3} <= set(train)


def test_only_success_takes_the_pieces(split: Path) -> None:
    data: Any = DemonstrationData(str(split), only_success=True, val_fraction=0.0)
    train, _ = data.split()
    assert sorted(train) == list(range(5))


def test_the_way_back_has_the_labels_of_the_source(split: Path, tmp_path: Path) -> None:
    assert main(["data", "convert", str(split), "--out", str(tmp_path / "back")]) == 0
    back = LeRobotReader(tmp_path / "back")
    assert [int(back.column(index, "next.success").sum()) for index in range(5)] == [3, 0, 0, 1, 3]


def test_labels_by_hand_are_shared_by_the_pieces(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["none", "none", "none", "5", "none"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(["data", "label", str(split), "--out", str(tmp_path / "labelled"), "--sheet_frames", "2"]) == 0
    store = EpisodeStore(tmp_path / "labelled")
    assert [entry.succeeded for entry in store.entries] == [False, True, True, True, False]
    assert [bool(store.success(index).any()) for index in range(5)] == [False, False, False, True, False]
    assert store.action_range is not None
