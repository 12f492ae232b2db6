"""What shards kept for the way back to LeRobot is held to types: a stranger's values name no path and end in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import needs
from tests.data.synthetic import make_episode, write_dataset
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.types import EpisodeMeta


@pytest.mark.parametrize(
    "convert",
    [
        {"camera": "../../../escaped"},
        {"camera": "/tmp/escaped"},
        {"camera": ".."},
        {"camera": "a\0b"},
        {"camera": ["front"]},
        {"camera": ""},
        {"state_order": [0, 0, 1]},
        {"state_order": "012"},
        {"state_order": {"0": 1}},
        {"about": 5},
        {"about": {"names": ["a"]}},
        7,
    ],
    ids=str,
)
def test_a_stranger_s_dataset_json_leads_nowhere(
    convert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("pyarrow")
    data = write_dataset(tmp_path / "data", 1, 1, proprio=np.zeros((24, 3), np.float32))
    values = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(values | {"extra": {"convert": convert}}))
    before = sorted(tmp_path.rglob("*"))
    assert "dataset.json: " in refused(capsys, "convert", data, "--out", tmp_path / "deep/er/out")
    assert [path for path in tmp_path.rglob("*") if path not in before and "deep" not in str(path)] == []


@pytest.mark.parametrize(
    "extra",
    [
        {"unused_action": [1.0]},
        {"unused_action": "1234"},
        {"unused_action": [1.0, 2.0, 3.0, None]},
        {"unused_action": [1.0, 2.0, 3.0, 1e300]},
        {"last_labels": [True]},
        {"last_labels": [1.5, 2]},
        {"part": "first"},
        {"parts": None},
    ],
    ids=str,
)
def test_a_stranger_s_episode_ends_in_a_line(extra: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("pyarrow")
    meta = EpisodeMeta("put it there", "spatial", 0, 7, 10.0, "expert", "tabletop", extra=extra)
    write_shard(shard_path(tmp_path / "data", "spatial", 0), [make_episode(0, meta=meta)])
    finish_dataset(tmp_path / "data")
    found = refused(capsys, "convert", tmp_path / "data", "--out", tmp_path / "out")
    assert f"spatial-000000: meta.json: {next(iter(extra)).split('s')[0]}" in found


def test_a_turned_bit_of_a_written_table_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("pyarrow")
    assert main(["data", "convert", str(write_dataset(tmp_path / "data", 1, 2)), "--out", str(tmp_path / "le")]) == 0
    path = tmp_path / "le/data/chunk-000/file-000.parquet"
    whole = path.read_bytes()
    for place in range(30, 600, 57):  # in the pages, which come before the footer
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        out = tmp_path / f"out{place}"
        found = refused(capsys, "convert", tmp_path / "le", "--out", out, "--success", "last")
        assert "not a readable parquet file" in found
