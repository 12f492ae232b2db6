"""`wovr bench loader`, through the real command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.data.synthetic import write_dataset
from wovr.cli import main


@pytest.fixture(autouse=True)
def keep_number_of_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_loader_prints_all_speeds_and_their_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    assert main(["bench", "loader", "--data", str(folder), "--seconds", "0.5"]) == 0
    out = capsys.readouterr().out
    speeds = [float(number.replace(",", "")) for number in re.findall(r"([\d,]+) windows/s", out)]
    share = float(re.search(r"of raw decoding +(\d+)%", out)[1])  # type: ignore[index]
    assert "windows of 13 frames, 32 x 32" in out
    assert len(speeds) == 3
    assert min(speeds) > 0
    assert share == pytest.approx(100 * speeds[0] / speeds[2], abs=1.0)


def test_windows_longer_than_the_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1, num_frames=8)
    assert main(["bench", "loader", "--data", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "spatial-000000.tar: episode spatial-000000: 8 frames, a window needs 9" in line


@pytest.mark.parametrize("arguments", [["--data", "nowhere"], ["--data", "nowhere", "--seconds", "0"]])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loader", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
