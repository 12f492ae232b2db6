"""Rows and frames of a LeRobotDataset meet by frame_index and time stamp, or the row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, FPS, needs, write_lerobot
from tests.data.converters.lerobot.files import VIDEO, change_info, coded, episode, pairs, write_dataset_2
from wovr.cli import main
from wovr.data.converters.lerobot.rows import frame_order

STEPS = np.arange(20)


def convert(source: Path, *words: str) -> list[tuple[int, int]]:
    out = source.parent / "out"
    assert main(["data", "convert", str(source), "--out", str(out), "--success", "last", *words]) == 0
    return pairs(out)


def picked(rows: np.ndarray, renumbered: bool = False, restamped: bool = False) -> dict:
    """An episode of 40 frames of which only some rows are left, in their order."""
    count = np.arange(len(rows))
    action = list(np.stack([rows / 100] * 2, 1).astype(np.float32))
    stamps = ((count if restamped else rows) / FPS).astype(np.float32)
    columns = {"action": action, "frame_index": count if renumbered else rows, "timestamp": stamps}
    return {**episode(len(rows), **columns), "frames": coded(40)}


@pytest.mark.parametrize("rows", [np.r_[10:40], np.r_[12:30], np.r_[20:40, 0:20], np.r_[39:9:-1]], ids=str)
def test_each_frame_meets_its_own_row(rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = np.sort(rows)[:-1].tolist()
    assert convert(write_dataset_2(tmp_path / "src", [picked(rows)])) == list(zip(expected, expected, strict=True))
    assert ("frames without a row are left out" in capsys.readouterr().out) == (rows.min() > 0)


def test_a_column_that_is_not_declared_identifies_too(tmp_path: Path) -> None:
    source = write_dataset_2(tmp_path / "src", [picked(np.r_[20:40, 0:20])])
    features = json.loads((source / "meta/info.json").read_text())["features"]
    change_info(source, features={key: features[key] for key in features if key not in ("frame_index", "timestamp")})
    assert convert(source) == [(t, t) for t in range(39)]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (picked(np.r_[0:10, 15:30]), "row 10: frame_index says a hole of 5 frames"),
        (picked(np.r_[0:10, 9:30]), "row 10: frame_index says frame 9 twice"),
        (picked(np.r_[10:40], renumbered=True), "row 0: frame_index is 0, timestamp 1 s is frame 10"),
        (picked(np.r_[10:40], restamped=True), "row 0: frame_index is 10, timestamp 0 s is frame 0"),
        # Nothing says which 30 of the 40 frames these rows are.
        (picked(np.r_[10:40], renumbered=True, restamped=True), "40 frames, the episode has 30 rows"),
        (picked(np.r_[0:30]), "40 frames, the episode has 30 rows"),
        (picked(np.r_[30:50]), "frames 30 to 50 asked for, the video has 40"),
    ],
)
def test_rows_that_are_not_all_frames_are_refused(
    one: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [one])
    assert said in refused(capsys, "convert", source, "--out", tmp_path / "o", "--success", "last")


def test_a_hole_in_the_video_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(200)])
    path = source / VIDEO.format(episode_chunk=0, episode_index=0, video_key=CAMERA)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for t, picture in enumerate(coded(200)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = t + (t > 12)  # half a per cent: the mean rate does not show it
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = refused(capsys, "convert", source, "--out", tmp_path / "o", "--success", "last")
    assert "no frame at 1.3 s, the next is at 1.4 s" in found


def test_the_list_of_episodes_says_how_many_frames_are_an_episode_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_lerobot(tmp_path / "arm")
    pyarrow, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    path = source / "meta/episodes/chunk-000/file-000.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[1][f"videos/{CAMERA}/from_timestamp"] -= 3 / FPS
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--camera", CAMERA)
    assert "episode 0: observation.images.top: 11 frames, 14 rows from frame 0 on" in line


@pytest.mark.parametrize(
    ("numbers", "stamps", "said"),
    [
        (None, np.delete(np.arange(21), 7) / 10.0, "row 7: timestamp says a hole of 1 frames"),
        (STEPS, STEPS / 30.0, "time stamps 0.03333 s apart"),
        (STEPS, np.where(STEPS == 12, np.nan, STEPS / 10.0), "row 12: timestamp is not finite"),
        (STEPS, np.where(STEPS == 5, 0.9, STEPS / 10.0), "row 5: frame_index is 5, timestamp 0.9 s is frame 9"),
        (STEPS - 1, None, "row 0: frame_index is frame -1"),
        (STEPS + 0.5, None, "row 0: frame_index is frame 0.5"),
        (STEPS, 1.7e9 + STEPS / 10.0, "row 0: frame_index is 0, timestamp 1.7e"),
        (np.arange(60), np.arange(60) / 9.9, "row 40: frame_index is 40"),  # a drift that no single step shows
    ],
)
def test_columns_that_cannot_be_right_name_the_row(
    numbers: np.ndarray | None, stamps: np.ndarray | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        frame_order(20 if numbers is None else len(numbers), numbers, stamps, 10.0)


def test_jitter_is_no_hole_and_rows_without_columns_are_frames() -> None:
    stamps = STEPS / 10.0 + np.random.default_rng(0).uniform(-0.03, 0.03, 20)
    for given in ((STEPS, stamps), (None, stamps), (None, None)):
        order, first = frame_order(20, *given, 10.0)
        np.testing.assert_array_equal(order, STEPS)
        assert first == 0
