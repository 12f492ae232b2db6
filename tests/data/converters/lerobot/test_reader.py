"""Other people's LeRobotDatasets, through the real command line: what they hold is compared, bounded and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.converters.foreign import CAMERA, needs, write_lerobot
from tests.data.converters.lerobot.files import (
    FRAMES,
    ROWS,
    SIZE,
    change_info,
    coded,
    convert,
    episode,
    line,
    pairs,
    write_dataset_2,
    write_lines,
)
from wovr.cli import main
from wovr.data.converters.lerobot import pictures as lerobot_pictures


@pytest.mark.parametrize(
    "values",
    [
        {"data_path": "../outside/{episode_index}.parquet"},
        {"data_path": "/etc/{episode_index:06d}.parquet"},
        {"video_path": "../{video_key}/{episode_index}.mp4"},
        {"data_path": "data/{episode_index.__class__}"},
        {"data_path": "data/{0.__class__}"},
        {"data_path": "data/{episode_index:999999999d}"},
        {"data_path": "data/{episode_index!r}"},
        {"data_path": "data/{nothing}"},
        {"data_path": "data/{"},
        {"data_path": 7},
        {"video_path": None},
        {"data_path": "data/\0"},
    ],
    ids=str,
)
def test_patterns_of_paths_name_numbers_and_stay_inside(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    change_info(source, **values)
    assert f"info.json: {next(iter(values))}: " in line(capsys, source)


@pytest.mark.parametrize("name", [ROWS, FRAMES, "meta/tasks.jsonl", "meta/info.json", "README.md"])
def test_links_out_of_the_folder_are_not_followed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    (source / "README.md").write_text("a data set")
    shutil.move(source / name, tmp_path / "elsewhere")
    (source / name).symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in line(capsys, source)


def test_a_snapshot_of_the_hub_s_cache_is_read_through_its_links(tmp_path: Path) -> None:
    source = write_dataset_2(tmp_path / "datasets--a--b/snapshots/0f", [episode(6)])
    blobs = tmp_path / "datasets--a--b/blobs"
    blobs.mkdir()
    for number, path in enumerate([p for p in source.rglob("*") if p.is_file()]):
        shutil.move(path, blobs / str(number))
        path.symlink_to(blobs / str(number))
    convert(source)
    assert pairs(source.parent / "out") == [(t, t) for t in range(5)]


HUGE = 10**400
DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": -10}, "fps is -10"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 1e308}, "fps is 1e+308"),
        ({"fps": HUGE}, "fps is 1000"),
        ({"fps": "10"}, "fps is '10'"),
        ({"fps": None}, "fps is None"),
        ({"chunks_size": 0}, "chunks_size is 0"),
        ({"chunks_size": -1000}, "chunks_size is -1000"),
        ({"chunks_size": "many"}, "chunks_size is 'many'"),
        ({"chunks_size": float("inf")}, "chunks_size is inf"),
        ({"features": []}, "features is []"),
        ({"features": {"action": 5}}, "features is"),
        ({"features": {"action": {"dtype": ["float32"]}}}, "features is"),
        ({"codebase_version": 2}, "LeRobotDataset 2"),
        ({"total_episodes": 3}, "total_episodes is 3, the list of episodes has 1"),
        ({"total_frames": 7}, "total_frames is 7, the list of episodes has 6"),
        ({"total_frames": [6]}, "total_frames is [6]"),
        ({"splits": "all"}, "splits is 'all'"),
    ],
    ids=str,
)
def test_wrong_values_of_info_json_are_one_line(
    values: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    change_info(source, **values)
    assert said in line(capsys, source)


@pytest.mark.parametrize(
    ("key", "feature", "said"),
    [
        ("action", {"shape": [3]}, "row 0 has 2 numbers, meta/info.json declares the shape [3]"),
        ("action", {"shape": [10**9]}, "features.action.shape is [1000000000]"),
        ("action", {"shape": [-2]}, "features.action.shape is [-2]"),
        ("action", {"shape": "2"}, "features.action.shape is '2'"),
        ("action", {"shape": None}, "features.action.shape is None"),
        ("frame_index", {"shape": [2]}, "1 numbers a row, meta/info.json declares the shape [2]"),
        (CAMERA, {"shape": [32, 32]}, "features.observation.images.top.shape is [32, 32]"),
        (CAMERA, {"shape": [2**20, 2**20, 3]}, "must be 4096 x 4096 or smaller"),
        (CAMERA, {"shape": [32, 32, 1]}, "pictures of 1 channel"),
        (CAMERA, {"info": {"video.is_depth_map": True}}, "depth maps"),
        (CAMERA, {"info": {"video.pix_fmt": "gray12le"}}, "gray12le"),
    ],
)
def test_cells_and_pictures_are_of_the_declared_shape(
    key: str, feature: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    features = json.loads((source / "meta/info.json").read_text())["features"]
    change_info(source, features=features | {key: features[key] | feature})
    assert said in line(capsys, source)


def test_a_video_of_another_size_than_declared_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    features = json.loads((source / "meta/info.json").read_text())["features"]
    change_info(source, features=features | {CAMERA: features[CAMERA] | {"shape": [480, 640, 3]}})
    assert convert(source).image_size == (SIZE, SIZE)
    said = "pictures of 32 x 32, meta/info.json declares 480 x 640; taken as they are"
    assert said in capsys.readouterr().out


def test_an_episode_that_is_left_out_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = {"observation.state": np.zeros(6, np.float32)}
    holes = episode(6, frame_index=[0, 1, 2, 4, 5, 6], **states)
    source = write_dataset_2(tmp_path / "src", [holes, episode(6, **states)])
    assert "--skip 0" in line(capsys, source)
    assert len(convert(source, "--skip", "0")) == 1


def test_channels_may_be_declared_first(tmp_path: Path) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    features = json.loads((source / "meta/info.json").read_text())["features"]
    features[CAMERA] |= {"shape": [3, 32, 32], "names": ["channels", "height", "width"]}
    change_info(source, features=features)
    convert(source)


def test_single_numbers_in_lists_are_numbers(tmp_path: Path) -> None:
    labels = [[t >= 4] for t in range(6)]
    columns = {"frame_index": [[t] for t in range(6)], "task_index": [[1]] * 6, "next.success": labels}
    source = write_dataset_2(tmp_path / "src", [{**episode(6, **columns), "tasks": ["lift"]}])
    store = convert(source, "--success", "next.success")
    assert store.success(0).tolist() == [False] * 5 + [True]
    assert store.entries[0].meta.instruction == "lift"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"task_index": [None] * 6}, "task_index: row 0 is empty"),
        ({"task_index": ["a"] * 6}, "task_index: string, not numbers"),
        ({"task_index": [0.5] * 6}, "task_index: 0.5 is not a whole number"),
        ({"task_index": [7] * 6}, "task_index: 7 is not in the list of tasks"),
        ({"action": [[0.0, 0.0]] * 4 + [None, [0.0, 0.0]]}, "action: row 4 is empty"),
        ({"action": [[0.0, 0.0]] * 4 + [[0.0], [0.0, 0.0]]}, "action: row 4 has 1 numbers"),
        ({"action": [[0.0, None]] * 6}, "action: row 0 is empty"),
        ({"action": [[[0.0, 0.0]]] * 6}, "action: row 0 has 1 numbers"),
        ({"episode_index": [0] * 5 + [1]}, "5 rows, the list of episodes says 6"),
        ({"action": [[0.0] * 50_000] * 6}, "action: 300,000 values"),
    ],
)
def test_cells_of_other_kinds_name_column_and_row(
    columns: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in line(capsys, write_dataset_2(tmp_path / "src", [episode(6, **columns)]))


def test_a_table_of_absurd_length_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    rows = 3_000_000
    numbers = np.zeros(rows, np.int8)
    parquet.write_table(pyarrow.table({"episode_index": numbers, "frame_index": numbers}), source / ROWS)
    assert (source / ROWS).stat().st_size < 50_000
    assert "3,000,000 rows in the file, the list of episodes says 6" in line(capsys, source)
    write_lines(source / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": ["reach"], "length": rows}])
    assert "length: 3000000 is not a whole number from 1 to 1000000" in line(capsys, source)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"episode_index": 0, "length": 6}] * 2, "episode 0 twice"),
        ([{"episode_index": 0, "length": HUGE}], "length: "),
        ([{"episode_index": 0, "length": -6}], "length: -6"),
        ([{"episode_index": 0, "length": "6"}], "length: '6'"),
        ([{"episode_index": -1, "length": 6}], "episode_index: -1"),
        ([{"length": 6}], "episode_index: None"),
        ([{"episode_index": 0, "length": 6, "tasks": float("inf")}], "tasks is inf"),
        ([{"episode_index": 0, "length": 6, "tasks": [0]}], "tasks is [0]"),
        ([[0, 6]], "line 1: not a JSON object"),
        ([], "no list of episodes"),
    ],
)
def test_a_damaged_list_of_episodes_is_one_line(
    lines: list, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    write_lines(source / "meta/episodes.jsonl", lines)
    assert said in line(capsys, source)


def test_half_a_character_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    for name in ("meta/tasks.jsonl", "meta/info.json"):
        text = (source / name).read_text()
        (source / name).write_text(text.replace("reach", "\\ud800").replace("observation.images.top", "\\udfff"))
        assert "not valid JSON" in line(capsys, source)


def test_nested_json_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    for name in ("meta/tasks.jsonl", "meta/info.json"):
        (source / name).write_text(DEEP)
        assert "not valid JSON" in line(capsys, source)


def test_only_as_many_frames_are_decoded_as_there_are_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_dataset_2(tmp_path / "src", [{**episode(10), "frames": np.zeros((900, SIZE, SIZE, 3), np.uint8)}])
    decoded: list[int] = []
    monkeypatch.setattr(lerobot_pictures, "_checked_kind", lambda path, kind: decoded.append(1) or kind.name)
    assert "900 frames, the episode has 10 rows" in line(capsys, source)
    assert len(decoded) <= 1  # the header's


def test_a_long_episode_is_refused_before_anything_is_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6), {**episode(600), "frames": coded(3)}])
    monkeypatch.setattr(lerobot_pictures.av, "open", None)
    assert "600 frames, an episode has at most 512; give --long split or skip" in line(capsys, source)


def test_an_episode_of_one_row_is_named_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6), episode(1), episode(6)])
    assert "episode 1: one frame only; leave it out with --skip 1" in line(capsys, source)
    assert len(convert(source, "--skip", "1")) == 2


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_damage_is_one_line(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut short, bits turned, bytes overwritten: converted or refused in a line, never a traceback."""
    source = write_lerobot(tmp_path / "arm", version)
    files = sorted(path for path in source.rglob("*") if path.is_file() and "wrist" not in str(path))
    rng = np.random.default_rng(0)
    for number in range(40):
        path = files[number % len(files)]
        whole = path.read_bytes()
        broken = bytearray(whole)
        how = number // len(files) % 3
        if how == 0:
            del broken[int(rng.integers(len(broken))) :]
        else:
            for place in rng.integers(len(broken), size=1 if how == 1 else 20):
                broken[place] = int(rng.integers(256))
        path.write_bytes(bytes(broken))
        out = tmp_path / f"out{number}"
        status = main(["data", "convert", str(source), "--out", str(out), "--camera", CAMERA])
        said = capsys.readouterr().err.splitlines()
        assert status in (0, 2), path
        assert len(said) == (status == 2), said
        path.write_bytes(whole)
