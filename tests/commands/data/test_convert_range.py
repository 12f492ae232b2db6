"""What -1 and 1 are: hairs above one, joints that stand still, one range for several data sets, and a robot's units."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, foreign_episode, needs, write_lerobot
from tests.data.synthetic import tabletop_frames, write_dataset
from tests.envs.simulators.arm_robot import ArmRobot
from wovr.cli import main
from wovr.data.converters.action_range import ActionRange
from wovr.data.store.dataset import check_trained_range
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.demonstrations import DemonstrationData
from wovr.errors import UserError
from wovr.runs import read_json


def write_robomimic(path: Path, *actions: np.ndarray) -> Path:
    """A file of robomimic's layout, a demonstration for each (T, A) of actions."""
    h5py = needs("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'
        for number, rows in enumerate(actions):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = rows
            demo["rewards"] = np.eye(len(rows))[-1]
            demo["obs/agentview_image"] = tabletop_frames(len(rows), (16, 16), number)
    return path


def convert(source: Path, out: Path, *options: str) -> EpisodeStore:
    assert main(["data", "convert", str(source), "--out", str(out), *options]) == 0
    return EpisodeStore(out)


def simulators(rows: int = 12, dims: int = 7) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.8, 0.8, (rows, dims))


@pytest.mark.parametrize("above", [1.0000001, -1.0000002, 1.0009765625])
def test_a_hair_above_one_is_clipped_and_said(above: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    actions = simulators()
    actions[4, 2] = above
    source = write_robomimic(tmp_path / "lift.hdf5", actions)
    for name, options in (("auto", ()), ("none", ("--normalise", "none"))):
        store = convert(source, tmp_path / name, *options)
        assert "actions as they are; 1 actions that were above 1 by rounding clipped" in capsys.readouterr().out
        np.testing.assert_array_equal(store.actions(0), np.clip(actions[:-1], -1, 1).astype(np.float32))
    actions[4, 2] = 1.3 * np.sign(above)
    source = write_robomimic(tmp_path / "far/lift.hdf5", actions)
    line = refused(capsys, "convert", source, "--out", tmp_path / "far_none", "--normalise", "none")
    assert "row 4, dimension 2" in line
    assert convert(source, tmp_path / "far_auto").datasets[0]["extra"]["convert"]["action_range"]["kind"] == "range"


@pytest.mark.parametrize("kind", ["range", "quantile"])
def test_what_trembles_is_not_blown_up(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    actions = rng.uniform(-3, 3, (300, 4))
    actions[:, 1] = 0.7 + 1e-6 * rng.uniform(-1, 1, 300)  # a joint in rad
    actions[:, 2] = 180.0 + 1e-3 * rng.uniform(-1, 1, 300)  # the same in degrees
    actions[:, 3] = 0.0
    actions[150, 3] = 1.0  # a gripper that closes once moves
    store = convert(write_robomimic(tmp_path / "a.hdf5", actions), tmp_path / "out", "--normalise", kind)
    assert "dimensions that stand still, stored as 0: 1, 2" in capsys.readouterr().out
    stored = store.actions(0)
    assert np.abs(stored[:, 1]).max() < 0.01
    assert np.abs(stored[:, 2]).max() < 0.02
    assert (stored[150, 3], stored[0, 3]) == (1.0, -1.0)
    assert store.action_range is not None
    np.testing.assert_allclose(store.action_range.invert(stored)[:, 1:], actions[:-1, 1:], atol=1e-4)


def test_one_range_for_training_and_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm", action=2 * foreign_episode(1, 9)["action"])
    options = ("--camera", CAMERA)
    convert(source, tmp_path / "train", *options, "--skip", "1")
    convert(source, tmp_path / "other", *options, "--skip", "0,2")
    capsys.readouterr()
    for verb in ("keyframes", "imagine"):
        last = ("--world_model", "none.ckpt") if verb == "imagine" else ()
        line = refused(capsys, verb, tmp_path / "train", tmp_path / "other", "--out", tmp_path / "x", *last)
        assert f"{tmp_path / 'other'}: its actions' range is" in line
        assert f"--range_of {tmp_path / 'train'}" in line
    held = convert(source, tmp_path / "held", *options, "--skip", "0,2", "--range_of", str(tmp_path / "train"))
    said = capsys.readouterr().out
    assert "scaled by the range of --range_of" in said
    assert "actions clipped" in said, "it moves farther than the training episodes"
    both = EpisodeStore(tmp_path / "train", tmp_path / "held")
    assert both.action_range is not None
    assert held.action_range is not None
    assert held.action_range.agrees(both.action_range)
    raw = 2 * foreign_episode(1, 9)["action"][:-1]
    inside = np.abs(held.actions(0)) < 1
    np.testing.assert_allclose(held.action_range.invert(held.actions(0))[inside], raw[inside], atol=1e-5)


def test_the_labelled_copy_keeps_its_range_and_simulators_need_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_robomimic(tmp_path / "a.hdf5", simulators(), simulators())
    converted = convert(source, tmp_path / "as_they_are", "--suite", "spatial")
    collected = write_dataset(tmp_path / "collected", shards=1, episodes=2, num_frames=12, size=(16, 16))
    with pytest.raises(UserError, match="action_dim"):
        EpisodeStore(tmp_path / "as_they_are", collected)
    narrow = write_robomimic(tmp_path / "b.hdf5", simulators(dims=4) * 5)
    convert(narrow, tmp_path / "scaled")
    with pytest.raises(UserError, match=r"that of .*collected is as they are, so -1 and 1 are other motions"):
        EpisodeStore(collected, tmp_path / "scaled")
    convert(write_robomimic(tmp_path / "c.hdf5", simulators(dims=4)), tmp_path / "alike")
    assert len(EpisodeStore(collected, tmp_path / "alike")) == 3
    line = refused(capsys, "convert", narrow, "--out", tmp_path / "x", "--range_of", collected)
    assert "holds no range; give a folder that `data convert` made" in line
    line = refused(capsys, "convert", narrow, "--out", tmp_path / "x", "--range_of", tmp_path / "as_they_are")
    assert "actions has 4 dimensions, the range of --range_of 7" in line
    line = refused(capsys, "convert", narrow, "--out", tmp_path / "x", "--range_of", tmp_path / "alike")
    assert "is outside [-1, 1]; convert both anew" in line
    words = ("--range_of", tmp_path / "scaled", "--normalise", "quantile")
    assert "give one of the two" in refused(capsys, "convert", narrow, "--out", tmp_path / "x", *words)
    assert converted.action_range is not None


def test_a_robot_moves_in_the_units_of_converted_episodes(tmp_path: Path) -> None:
    actions = np.linspace(-2, 2, 48).reshape(12, 4)
    convert(write_robomimic(tmp_path / "a.hdf5", actions), tmp_path / "data")
    mine, theirs = pty.openpty()
    env = ArmRobot(terminal=os.ttyname(theirs), dataset=str(tmp_path / "data"), smoothest=2.0, workspace=None)
    env.before = np.zeros(4)
    stored = EpisodeStore(tmp_path / "data").actions(0)
    np.testing.assert_allclose(env.limited(stored[0].astype(float)), actions[0], atol=1e-6)
    np.testing.assert_allclose(env.limited(np.ones(4)), actions.max(0), atol=1e-6)
    env.close()
    os.close(mine)
    os.close(theirs)
    content = read_json(tmp_path / "data/dataset.json")
    assert ActionRange.from_json(content["extra"]["convert"]["action_range"]).agrees(env.action_range)


def test_the_range_travels_in_checkpoints_and_is_held_against_episodes_and_robots(tmp_path: Path) -> None:
    convert(write_robomimic(tmp_path / "a.hdf5", simulators(dims=4) * 2), tmp_path / "data")
    other = convert(write_robomimic(tmp_path / "b.hdf5", simulators(dims=4) * 5), tmp_path / "other")
    record = DemonstrationData(str(tmp_path / "data"), val_fraction=0.0).record()
    own = EpisodeStore(tmp_path / "data").action_range
    check_trained_range(Path("p.ckpt"), record, tmp_path / "data", own)
    for found in (other.action_range, None):
        with pytest.raises(UserError, match=r"p.ckpt: was trained on actions of the range \["):
            check_trained_range(Path("p.ckpt"), record, tmp_path / "other", found)
    check_trained_range(Path("p.ckpt"), {}, tmp_path / "other", other.action_range)  # an older one does not say
    with pytest.raises(UserError, match=r"p.ckpt: action_range: not a range of actions"):
        damaged = {"action_range": {"kind": "range", "low": [1.0], "high": [0.0]}}
        check_trained_range(Path("p.ckpt"), damaged, tmp_path / "data", own)
