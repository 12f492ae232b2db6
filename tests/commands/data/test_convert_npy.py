"""`wovr data convert` of `.npy` files: what they say of themselves is held against what is in them."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import write_trajectories
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore

OPTIONS = ("--fps", 20, "--trust", "true")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Nothing inside allocates more bytes at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def change(folder: Path, key: str, values: Any) -> Path:
    """Give the frames of traj1.npy other values under a key; a callable is asked for each."""
    path = folder / "traj1.npy"
    rows = np.load(path, allow_pickle=True)
    for number, row in enumerate(rows):
        row[key] = values(number) if callable(values) else values
    np.save(path, rows, allow_pickle=True)
    return folder


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("reward", lambda t: t / 10, "reward: row 1 is 0.1, neither 0 nor 1"),
        ("reward", float("nan"), "reward: row 0 is nan, neither 0 nor 1"),
        ("success", lambda t: t == 3, "no column 'success'"),
        ("delta_action", lambda t: np.zeros(7 - t // 7), "delta_action: rows of different lengths"),
        ("delta_action", lambda t: ["a"] * 7, "delta_action: not numbers"),
        ("delta_action", [[0.0] * 7] * 3, "delta_action: not numbers"),
        ("delta_action", [10**400] * 7, "delta_action: not numbers"),
        ("instruction", lambda t: f"part {t // 4}", "two instructions in one episode, 'part 0' and 'part 1'"),
        ("instruction", b"\xff", "an instruction is no text"),
        ("image", np.zeros((32, 32), np.uint8), "image: row 0 is no 8-bit colour picture: uint8 (32, 32)"),
        ("image", np.zeros((32, 32, 3), np.float32), "picture: float32 (32, 32, 3)"),
        ("image", np.zeros((0, 2**20, 3), np.uint8), "picture: uint8 (0, 1048576, 3)"),
        ("image", lambda t: np.zeros((32 + t, 32, 3), np.uint8), "image: frame 1 is uint8 (33, 32, 3), the first is"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, values: Any, said: str
) -> None:
    folder = change(write_trajectories(tmp_path / "traj"), key, values)
    words = [] if key != "success" else ["--success", "success"]
    line = refused(capsys, "convert", folder, "--out", tmp_path / "o", *OPTIONS, *words)
    assert "traj1.npy: " in line or key == "success"
    assert said in line


@pytest.mark.parametrize(("file", "row"), [(0, 0), (0, 3), (1, 0), (1, 3)])
@pytest.mark.parametrize("key", ["delta_action", "reward", "image", "instruction"])
def test_what_one_frame_lacks_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: int, row: int, key: str
) -> None:
    folder = write_trajectories(tmp_path / "traj")
    rows = np.load(folder / f"traj{file}.npy", allow_pickle=True)
    del rows[row][key]
    np.save(folder / f"traj{file}.npy", rows, allow_pickle=True)
    line = refused(capsys, "convert", folder, "--out", tmp_path / "o", *OPTIONS)
    assert f"traj{file}.npy: " in line
    assert key in line


def test_success_and_reward_must_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectories(tmp_path / "traj", success=False)
    line = refused(capsys, "convert", folder, "--out", tmp_path / "o", *OPTIONS)
    assert "traj0.npy: success says that it fails, reward that it succeeds; give --success success or" in line
    assert (
        main(["data", "convert", str(folder), "--out", str(tmp_path / "o"), *map(str, OPTIONS), "--success", "reward"])
        == 0
    )
    assert EpisodeStore(tmp_path / "o").read(0).succeeded


def test_column_vectors_and_other_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectories(
        tmp_path / "traj", reward=np.ones((1,)), state=[1.0, 2.0, 3.0], depth=np.zeros((32, 32), np.uint16)
    )
    words = ["data", "convert", str(folder), "--out", str(tmp_path / "o"), *map(str, OPTIONS)]
    assert main(words) == 0
    store = EpisodeStore(tmp_path / "o")
    assert store.success(0).all()
    np.testing.assert_array_equal(store.proprio(0)[0], [1, 2, 3])
    line = refused(capsys, "convert", folder, "--out", tmp_path / "p", *OPTIONS, "--camera", "depth")
    assert "depth: uint16 (32, 32), not 8-bit colour pictures; give --camera, one of: image" in line


def header(shape: str, descr: str = "|O") -> bytes:
    """The beginning of a file that claims a shape."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header("(1000000000000,)"), "8 frames, its header says 1000000000000"),
        (header("(9,)"), "8 frames, its header says 9"),
        (header("(8, 1)"), "must be an array of one dictionary a frame"),
        (header("(1000000000000,)", "<f8"), "float64 (1000000000000,), must be an array of one dictionary"),
        (header("(" * 300), "not a .npy file"),
        (header("(8,)", "[(" * 40), "not a .npy file"),
        (header("('a',)"), "not a .npy file"),
        (header("(-8,)"), "its header says -8"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "not a .npy file"),
        (b"\x93NUMPY\x09\x00\xff\xff", "not a .npy file"),
        (b"", "not a .npy file"),
    ],
    ids=range(11),
)
def test_headers_promise_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str) -> None:
    folder = write_trajectories(tmp_path / "traj", count=1)
    file = io.BytesIO((folder / "traj0.npy").read_bytes())
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    (folder / "traj0.npy").write_bytes(data + file.read())
    with at_most(2**25):
        line = refused(capsys, "convert", folder, "--out", tmp_path / "o", *OPTIONS)
    assert f"traj0.npy: {said}" in line or (said in line and "traj0.npy: " in line)


def test_a_plain_array_is_no_episode_and_no_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 7), np.float32))
    line = refused(capsys, "convert", tmp_path / "a.npy", "--out", tmp_path / "o", "--fps", 20)
    assert "a.npy: float32 (8, 7), must be an array of one dictionary a frame" in line


def test_one_episode_is_held_at_a_time(tmp_path: Path) -> None:
    size = 12 * 3 * 512 * 512
    folder = write_trajectories(tmp_path / "traj", count=6, length=12)
    for path in folder.glob("traj?.npy"):
        rows = np.load(path, allow_pickle=True)
        for row in rows:
            row["image"] = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
        np.save(path, rows, allow_pickle=True)
    words = ["data", "convert", str(folder), "--out", str(tmp_path / "o"), *map(str, OPTIONS), "--size", "32"]
    with at_most(3 * size):  # an episode's bytes, and the arrays taken out of them
        assert main(words) == 0
