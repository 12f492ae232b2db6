"""`wovr data convert`: cameras out of columns, moved along with the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, write_lerobot
from tests.data.synthetic import make_episode
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard


def test_cameras_go_to_lerobot_and_back_and_follow_the_pictures(tmp_path: Path) -> None:
    camera = np.eye(3, 7, dtype=np.float32)[None].copy()
    camera[0, :2, :3], camera[0, :, 3:6], camera[0, 2, 6] = [[40, 0, 20], [0, 40, 16]], np.eye(3), 1.5
    moving = np.repeat(camera, 24, axis=0)
    moving[:, 0, 6] = np.linspace(0, 1, 24)
    write_shard(shard_path(tmp_path / "a", "s", 0), [make_episode(n, camera=c) for n, c in enumerate((camera, moving))])
    finish_dataset(tmp_path / "a")
    assert main(["data", "convert", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    words = ["data", "convert", str(tmp_path / "b"), "--size", "16", "--out"]
    assert main([*words, str(tmp_path / "c")]) == 0
    store = EpisodeStore(tmp_path / "c")
    still, along = store.camera(0), store.camera(1)
    assert still is not None
    assert along is not None
    assert (len(still), len(along)) == (1, 24)
    np.testing.assert_allclose(still[0, :2, :3], [[20, 0, 10], [0, 20, 8]])  # 32 pixels became 16
    np.testing.assert_allclose(along[:, :, 3:], moving[:, :, 3:])
    assert main([*words, str(tmp_path / "d"), "--calibration", "none"]) == 0
    assert not EpisodeStore(tmp_path / "d").has_cameras


def test_columns_that_are_no_camera_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm", "v3.0")
    options = ["--out", tmp_path / "o", "--camera", CAMERA, "--calibration", "observation.state"]
    assert "4 numbers a row, a camera is 21, or 9 and 12" in refused(capsys, "convert", source, *options)
