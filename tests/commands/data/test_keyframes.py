"""`wovr data keyframes`, through the real command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.keyframes.episodes import SUCCEEDED, episode, write, write_mixed
from wovr.cli import main
from wovr.data.keyframes.start_states import StartStates
from wovr.data.keyframes.store import load_keyframes
from wovr.data.store.reader import EpisodeStore


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return write_mixed(tmp_path / "mixed")


def test_keyframes_are_found_drawn_and_counted(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    other = write(tmp_path / "other", [episode(40, SUCCEEDED, 26, task=3), episode(41, "ooo", None, task=3)])
    out = tmp_path / "out"
    words = ["data", "keyframes", str(mixed), str(other), "--out", str(out), "--lead", "5,7", "--memory", "3"]
    assert main([*words, "--failure_share", "0.5", "--rows", "5"]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    found = load_keyframes(out)
    assert {keyframe.event - keyframe.frame for keyframe in found.keyframes} == {5, 6, 7}
    assert found.memory == 3
    assert found.options["lead"] == [5, 7]
    assert {keyframe.task for keyframe in found.keyframes} == {0, 1, 3}
    failures = sum(keyframe.failure for keyframe in found.keyframes)
    plain = " ".join(re.sub(r"[^\x21-\x7e]+", " ", printed).split())
    assert f"all {len(found.keyframes)} ({failures})" not in plain  # the row has a column a kind first
    assert f"{len(found.keyframes)} ({failures}) {out}: {len(found.keyframes)} keyframes of 13 of 14" in plain
    assert "1 episodes are too short for one" in plain
    assert "suite task grasp release parting near_success all" in plain
    sheet = np.asarray(Image.open(out / "keyframes.png"))
    assert sheet.shape[1] == (3 + 3) * (96 + 8)
    assert sheet.shape[0] == 5 * (96 + 8 + 18)
    # The first row: the reference, the start in blue.
    first = min((k for k in found.keyframes if k.kind == "grasp"), key=found.keyframes.index)
    np.testing.assert_array_equal(sheet[22:118, 4:100], np.kron(first.reference, np.ones((3, 3, 1), np.uint8)))
    np.testing.assert_array_equal(sheet[22:118, 316:412], np.kron(first.memory[-1], np.ones((3, 3, 1), np.uint8)))
    assert (sheet[18, 320] == [40, 80, 220]).all()
    pool = StartStates([mixed, other], out, 1.0)
    assert all(start.memory is not None for start in pool.draw(6, np.random.default_rng(0)))


def test_the_same_command_gives_the_same_bytes(mixed: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["data", "keyframes", str(mixed), "--out", str(tmp_path / name)]) == 0
    for file in ("keyframes.json", "keyframes.npz", "keyframes.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lead", "4"], "--lead 4; give two numbers of frames, e.g. 4,12"),
        (["--lead", "a,b"], "--lead a,b"),
        (["--lead", "9,4"], "lead is 9,4"),
        (["--memory", "40"], "takes episodes of 45 frames, the longest has 50|no keyframe in 12 episodes"),
        (["--memory", "60"], "takes episodes of 65 frames, the longest has 50; set --memory or --lead lower"),
        (["--failure_share", "2"], "failure_share is 2"),
        (["--rows", "0"], "a picture of 0 rows"),
        (["--gripper", "9"], "gripper is dimension 9, actions have 4"),
        (["--luck", "1"], "luck"),
        # What the states of these episodes claim to be, they are not.
        (["--use_sim_state", "true"], r"tabletop: sim_state has shape \(31, 2\)"),
    ],
)
def test_bad_options_are_one_line(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["data", "keyframes", str(mixed), "--out", str(tmp_path / "out"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "out").exists()


def test_bad_folders_are_one_line(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = write(tmp_path / "large", [episode(50, SUCCEEDED, 26, size=48)])
    still = write(tmp_path / "still", [episode(51, "o" * 30, None)])
    out = str(tmp_path / "out")
    for folders, message in (
        ([mixed, large], "image_size [48, 48]"),
        ([still], "no keyframe in 1 episodes"),
        ([tmp_path / "nowhere"], "nowhere"),
        ([], "folders"),
    ):
        assert main(["data", "keyframes", *map(str, folders), "--out", out]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert message in lines[0]


def test_states_that_are_not_there_or_not_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = write(tmp_path / "plain", [episode(60, SUCCEEDED, 26, states=False)])
    one = episode(61, SUCCEEDED, 26)
    one.meta.source = "robot"
    foreign = write(tmp_path / "foreign", [one])
    out = str(tmp_path / "out")
    for folder, message in (
        (plain, "episode spatial-000060: holds no sim_state; set use_sim_state to false"),
        (foreign, "what simulator states of robot mean is not known; use episodes of tabletop, or set use_sim_state"),
    ):
        assert EpisodeStore(folder).sim_state(0) is None or folder == foreign
        assert main(["data", "keyframes", str(folder), "--out", out, "--use_sim_state", "true"]) == 2
        assert message in capsys.readouterr().err
        assert main(["data", "keyframes", str(folder), "--out", out]) == 0
