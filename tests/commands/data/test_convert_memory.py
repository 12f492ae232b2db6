"""What `wovr data convert` holds in memory: one episode, as it is stored; and what it says when that is too much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, PICTURES, foreign_episode, write_lerobot, write_libero
from wovr.cli import main
from wovr.data.converters import to_shards
from wovr.data.converters.hdf5.files import Hdf5Files
from wovr.data.converters.lerobot.reader import LeRobotReader
from wovr.data.store.members import encode_episode
from wovr.data.store.reader import EpisodeStore


def test_an_episode_is_written_before_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lerobot(tmp_path / "arm")
    done: list[str] = []
    frames = LeRobotReader.frames

    def read(self: LeRobotReader, index: int, camera: str) -> Iterator[np.ndarray]:
        done.append(f"read {index}")
        return frames(self, index, camera)

    def encoded(episode: object, **options: object) -> object:
        done.append(f"write {episode.key[-1]}")  # type: ignore[attr-defined]
        return encode_episode(episode, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LeRobotReader, "frames", read)
    monkeypatch.setattr("wovr.data.store.shards.encode_episode", encoded)
    assert main(["data", "convert", str(source), "--out", str(tmp_path / "o"), "--camera", CAMERA]) == 0
    assert done == ["read 0", "write 0", "read 1", "write 1", "read 2", "write 2"]


def test_a_long_episode_is_split_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lerobot(tmp_path / "arm", pictures=True, **foreign_episode(1, 1100))
    held: list[int] = []
    stack = to_shards._stack

    def counted(*arguments: object) -> np.ndarray:
        found = stack(*arguments)
        held.append(len(found))
        return found

    monkeypatch.setattr("wovr.data.converters.to_shards._stack", counted)
    words = ["data", "convert", str(source), "--out", str(tmp_path / "o"), "--camera", PICTURES, "--long", "split"]
    assert main(words) == 0
    assert held == [14, 512, 512, 78, 11]
    store = EpisodeStore(tmp_path / "o")
    for first, second in ((1, 2), (2, 3)):
        one, other = store.frames(first)[-1].astype(float), store.frames(second)[0].astype(float)
        assert np.abs(one - other).mean() < 3, "a piece begins where the one before ends"


@pytest.mark.parametrize("reader", [LeRobotReader, Hdf5Files])
def test_short_memory_is_said_and_not_the_files_fault(
    reader: type, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader is LeRobotReader:
        source, camera = write_lerobot(tmp_path / "arm"), CAMERA
    else:
        source, camera = write_libero(tmp_path / "libero/a.hdf5"), "agentview_rgb"

    def full(*_: object) -> np.ndarray:
        raise MemoryError("Unable to allocate 18 GiB")

    for place in ("wovr.data.converters.to_shards._prepare", "wovr.data.store.members.encode_video"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--camera", camera)
        assert "out of memory while converting it" in line
        assert "--size" in line
        assert "restore" not in line
    assert main(["data", "convert", str(source), "--out", str(tmp_path / "o"), "--camera", camera]) == 0
