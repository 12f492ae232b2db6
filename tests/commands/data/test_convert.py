"""`wovr data convert`, through the real command line."""

from __future__ import annotations

import builtins
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import (
    CAMERA,
    FPS,
    INSTRUCTIONS,
    LENGTHS,
    PICTURES,
    WRIST,
    foreign_episode,
    needs,
    write_lerobot,
    write_libero,
    write_trajectories,
)
from tests.data.synthetic import tabletop_frames, write_dataset
from wovr.cli import main
from wovr.data.converters.lerobot.reader import LeRobotReader
from wovr.data.store.reader import EpisodeStore


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """dB."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_becomes_episodes(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm", version)
    out = tmp_path / "shards"
    assert main(["data", "convert", str(source), "--out", str(out), "--camera", CAMERA]) == 0
    assert "3 episodes, 34 frames, SR 0.667" in capsys.readouterr().out
    assert main(["data", "verify", str(out)]) == 0
    store = EpisodeStore(out)
    low = np.min([foreign_episode(n, length)["action"].min(0) for n, length in enumerate(LENGTHS)], axis=0)
    high = np.max([foreign_episode(n, length)["action"].max(0) for n, length in enumerate(LENGTHS)], axis=0)
    stored = store.datasets[0]["extra"]["convert"]["action_range"]
    assert stored == {"kind": "range", "low": low.astype(float).tolist(), "high": high.astype(float).tolist()}
    for number, length in enumerate(LENGTHS):
        expected, episode = foreign_episode(number, length), store.read(number)
        assert psnr(episode.frames, expected["frames"]) > 30
        scaled = 2 * (expected["action"][:-1] - low) / (high - low) - 1
        np.testing.assert_allclose(episode.actions, scaled, atol=1e-6)
        # The state is (gripper, x, y, z): the hand's position comes first.
        np.testing.assert_array_equal(episode.proprio, expected["observation.state"][:, [1, 2, 3, 0]])
        after = np.append(False, expected["next.success"][:-1])
        np.testing.assert_array_equal(episode.success, after)
        assert (episode.meta.instruction, episode.meta.task) == (INSTRUCTIONS[number % 2], number % 2)
        assert (episode.meta.fps, episode.meta.source) == (FPS, "lerobot:arm")


def test_lerobot_to_shards_and_back_is_the_same(tmp_path: Path) -> None:
    source = write_lerobot(tmp_path / "arm")
    shards, back = tmp_path / "shards", tmp_path / "back"
    assert main(["data", "convert", str(source), "--out", str(shards), "--camera", CAMERA]) == 0
    assert main(["data", "convert", str(shards), "--out", str(back)]) == 0
    before, after = LeRobotReader(source), LeRobotReader(back)
    assert len(after) == len(before)
    assert after.cameras == [CAMERA]
    for key in ("action", "observation.state"):
        assert after.features[key]["names"] == before.features[key]["names"]
    for index in range(len(before)):
        for key in before.columns:
            one, other = before.column(index, key), after.column(index, key)
            assert one.dtype == other.dtype
            if key == "action":  # there and back through [-1, 1] in float32
                np.testing.assert_allclose(other, one, atol=5e-7)
            else:
                np.testing.assert_array_equal(one, other, err_msg=key)
        assert before.task(index) == after.task(index)
        one, other = (np.stack(list(reader.frames(index, CAMERA))) for reader in (before, after))
        assert psnr(one, other) > 28
    assert (after.info["fps"], after.info["robot_type"]) == (FPS, "arm")


def test_the_written_statistics_are_those_of_the_values(tmp_path: Path) -> None:
    needs("pyarrow")
    shards, back = write_dataset(tmp_path / "data"), tmp_path / "lerobot"
    assert main(["data", "convert", str(shards), "--out", str(back)]) == 0
    stats = json.loads((back / "meta/stats.json").read_text())
    reader = LeRobotReader(back)
    actions = np.concatenate([reader.column(index, "action") for index in range(len(reader))])
    for name, expected in (("mean", actions.mean(0)), ("std", actions.std(0)), ("max", actions.max(0))):
        np.testing.assert_allclose(stats["action"][name], expected, atol=1e-6)
    store = EpisodeStore(shards)
    frames = np.concatenate([store.frames(index) for index in range(len(store))]) / 255
    colours = stats[reader.cameras[0]]
    np.testing.assert_allclose(np.ravel(colours["mean"]), frames.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.ravel(colours["std"]), frames.std((0, 1, 2)), atol=1e-6)
    assert (np.shape(colours["min"]), stats["action"]["count"]) == ((3, 1, 1), [len(actions)])


def test_libero_files_become_upright_episodes_with_states(tmp_path: Path) -> None:
    write_libero(tmp_path / "suite/pick_up_the_bowl_demo.hdf5")
    out = tmp_path / "shards"
    words = ["data", "convert", str(tmp_path / "suite"), "--out", str(out), "--camera", "agentview_rgb"]
    assert main(words) == 0
    store = EpisodeStore(out)
    h5py = needs("h5py")
    with h5py.File(tmp_path / "suite/pick_up_the_bowl_demo.hdf5") as file:
        for number in range(2):
            demo, episode = file[f"data/demo_{number}"], store.read(number)
            np.testing.assert_array_equal(episode.actions, demo["actions"][:-1].astype(np.float32))
            np.testing.assert_array_equal(episode.sim_state, demo["states"][()])
            assert episode.proprio is not None
            np.testing.assert_array_equal(episode.proprio[:, :3], demo["obs/ee_pos"][()].astype(np.float32))
            assert episode.proprio.shape == (10, 8)
            assert psnr(episode.frames, tabletop_frames(10, (32, 32), number)) > 30
            assert episode.success.tolist() == [False] * 9 + [True]
            assert (episode.meta.instruction, episode.meta.fps) == ("pick up the bowl", 20)
    assert store.datasets[0]["extra"]["convert"]["action_range"]["kind"] == "none"


def test_robomimic_files_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = needs("h5py")
    frames = tabletop_frames(6, (32, 32), 1)
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "lift.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {}})
        for key in ("demo_10", "demo_9"):
            demo = file["data"].create_group(key)
            demo["actions"] = rng.uniform(-2, 2, (6, 7))
            demo["obs/agentview_image"] = frames
            demo["obs/robot0_eef_quat"] = rng.normal(size=(6, 4))
            demo["obs/robot0_gripper_qpos"] = rng.normal(size=(6, 2))
            demo["obs/robot0_eef_pos"] = np.full((6, 3), int(key[5:]), float)
    with h5py.File(tmp_path / "low_dim.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((6, 7))
    assert "no camera's frames" in refused(capsys, "convert", tmp_path / "low_dim.hdf5", "--out", tmp_path / "o")
    words = ["data", "convert", str(tmp_path / "lift.hdf5"), "--out", str(tmp_path / "o"), "--success", "none"]
    assert main([*words, "--fps", "20"]) == 0
    store = EpisodeStore(tmp_path / "o")
    for index, number in enumerate((9, 10)):  # by number, not by letters
        episode = store.read(index)
        assert episode.proprio is not None
        assert (episode.proprio[:, :3] == number).all()
        assert psnr(episode.frames, frames) > 30
        assert not episode.succeeded
        assert episode.meta.instruction == "Lift"
    assert store.datasets[0]["extra"]["convert"]["action_range"]["kind"] == "range"


def test_files_of_different_rates_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_libero(tmp_path / "suite/a.hdf5")
    write_libero(tmp_path / "suite/b.hdf5", env_args=json.dumps({"env_kwargs": {"control_freq": 10}}))
    line = refused(capsys, "convert", tmp_path / "suite", "--out", tmp_path / "o", "--camera", "agentview_rgb")
    assert "b.hdf5: 10 Hz" in line
    assert "a.hdf5 has 20 Hz" in line


def test_the_authors_files_are_read_only_when_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_trajectories(tmp_path / "traj"), tmp_path / "shards"
    line = refused(capsys, "convert", source, "--out", out, "--fps", 20)
    assert "traj0.npy" in line
    assert "--trust true" in line
    assert not out.exists()
    assert main(["data", "convert", str(source), "--out", str(out), "--fps", "20", "--trust", "true"]) == 0
    store = EpisodeStore(out)
    assert len(store) == 2  # not the keyframes of traj0_kir.npy
    for number in range(2):
        rows = np.load(source / f"traj{number}.npy", allow_pickle=True)
        episode = store.read(number)
        # The action beside a frame is the one that led to it.
        np.testing.assert_array_equal(episode.actions, np.stack([row["delta_action"] for row in rows[1:]]))
        assert psnr(episode.frames, np.stack([row["image"] for row in rows])) > 30
        assert episode.success.tolist() == [False] * 6 + [True] * 2
        assert episode.meta.instruction == INSTRUCTIONS[number]


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return builtins.open, (str(TRAP), "w")


TRAP = Path("trap")


def test_code_in_a_trusted_file_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(__name__), "TRAP", tmp_path / "sprung")
    source = write_trajectories(tmp_path / "traj", extra=Trap())
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--fps", 20, "--trust", "true")
    assert "traj0.npy" in line
    assert "open" in line
    assert not (tmp_path / "sprung").exists()


def test_pictures_in_tables_are_read(tmp_path: Path) -> None:
    source = write_lerobot(tmp_path / "arm", pictures=True)
    assert main(["data", "convert", str(source), "--out", str(tmp_path / "o"), "--camera", PICTURES]) == 0
    assert psnr(EpisodeStore(tmp_path / "o").frames(2), 255 - foreign_episode(2, 11)["frames"]) > 30


def test_the_hand_and_the_pairing_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm")
    words = ["convert", source, "--camera", CAMERA]
    expected = foreign_episode(0, 14)
    out = tmp_path / "hand"
    assert main(["data", *map(str, words), "--out", str(out), "--hand", "3,0,2", "--pairing", "produced"]) == 0
    episode = EpisodeStore(out).read(0)
    np.testing.assert_array_equal(episode.proprio, expected["observation.state"][:, [3, 0, 2, 1]])
    found = EpisodeStore(out).datasets[0]["extra"]["convert"]["action_range"]
    raw = (episode.actions + 1) / 2 * (np.array(found["high"]) - found["low"]) + found["low"]
    np.testing.assert_allclose(raw, expected["action"][1:], atol=1e-6)
    assert main(["data", *map(str, words), "--out", str(tmp_path / "none"), "--state", "none"]) == 0
    assert EpisodeStore(tmp_path / "none").proprio_dim == 0
    for option, value, said in (
        ("--hand", "0,1", "three different numbers"),
        ("--hand", "1,2,9", "from 0 to 3"),
        ("--state", "joints", "no column 'joints'"),
        ("--pairing", "both", "taken, produced"),
        ("--long", "cut", "split, skip"),
        ("--normalise", "std", "quantile"),
        ("--action", "torque", "no column 'torque'"),
    ):
        assert said in refused(capsys, *words, "--out", tmp_path / "x", option, value)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = ["shoulder", "elbow", "wrist", "gripper"]
    (source / "meta/info.json").write_text(json.dumps(info))
    assert main(["data", *map(str, words), "--out", str(tmp_path / "joints")]) == 0
    assert "does not say where the hand is" in capsys.readouterr().out
    np.testing.assert_array_equal(EpisodeStore(tmp_path / "joints").proprio(0), expected["observation.state"])


def test_a_stopped_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, whole, parts = write_lerobot(tmp_path / "arm"), tmp_path / "whole", tmp_path / "parts"
    monkeypatch.setattr("wovr.data.converters.to_shards.SHARD_EPISODES", 1)
    words = ["data", "convert", str(source), "--camera", CAMERA]
    assert main([*words, "--out", str(whole)]) == 0
    frames = LeRobotReader.frames
    with monkeypatch.context() as patch:
        patch.setattr(LeRobotReader, "frames", lambda self, i, c: _stop() if i == 2 else frames(self, i, c))
        assert main([*words, "--out", str(parts)]) == 130
    assert len(list(parts.glob("*.tar"))) == 2
    read: list[int] = []
    monkeypatch.setattr(LeRobotReader, "frames", lambda self, i, c: read.append(i) or frames(self, i, c))
    assert main([*words, "--out", str(parts)]) == 0
    assert read == [2]
    for path in [*sorted(whole.glob("*.tar")), whole / "dataset.json"]:
        assert (parts / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("pyarrow")
    data, whole, parts = write_dataset(tmp_path / "data"), tmp_path / "whole", tmp_path / "parts"
    monkeypatch.setattr("wovr.data.converters.lerobot.writer.FILE_EPISODES", 2)
    assert main(["data", "convert", str(data), "--out", str(whole)]) == 0
    read = EpisodeStore.read
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStore, "read", lambda self, index: _stop() if index == 3 else read(self, index))
        assert main(["data", "convert", str(data), "--out", str(parts)]) == 130
    assert not (parts / "meta/info.json").exists()
    again: list[int] = []
    monkeypatch.setattr(EpisodeStore, "read", lambda self, index: again.append(index) or read(self, index))
    assert main(["data", "convert", str(data), "--out", str(parts)]) == 0
    assert again == [2, 3, 4, 5]
    made = [path for path in whole.rglob("*.*") if path.is_file() and path.name != "convert.json"]
    files = sorted(path.relative_to(whole) for path in made)
    assert len(files) == 3 * 3 + 3  # video, table and list of episodes of three files; info, stats, tasks
    for path in files:
        assert (parts / path).read_bytes() == (whole / path).read_bytes()


def _stop() -> None:
    raise KeyboardInterrupt


def test_long_episodes_are_refused_split_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = foreign_episode(1, 600)
    source = write_lerobot(tmp_path / "arm", **long)
    words = ["convert", source, "--camera", CAMERA]
    assert "--long split or skip" in refused(capsys, *words, "--out", tmp_path / "a")
    for how, lengths in (("split", [14, 512, 89, 11]), ("skip", [14, 11])):
        out = tmp_path / how
        assert main(["data", *map(str, words), "--long", how, "--out", str(out)]) == 0
        store = EpisodeStore(out)
        assert [entry.num_frames for entry in store.entries] == lengths
    parts = EpisodeStore(tmp_path / "split")
    assert sum(parts.entries[index].num_actions for index in (1, 2)) == 599
    np.testing.assert_allclose(
        np.concatenate([parts.actions(1), parts.actions(2)])[:, 0].argmax(), long["action"][:-1, 0].argmax()
    )


def test_frames_are_cut_square_and_resized(tmp_path: Path) -> None:
    source, out = write_lerobot(tmp_path / "arm"), tmp_path / "o"
    words = ["data", "convert", str(source), "--camera", CAMERA, "--size", "16", "--out", str(out)]
    assert main(words) == 0
    expected = foreign_episode(0, 14)["frames"].reshape(14, 16, 2, 16, 2, 3).mean((2, 4))
    assert psnr(EpisodeStore(out).frames(0), expected) > 28


def test_what_a_source_does_not_say_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm", success=False)
    out = tmp_path / "o"
    line = refused(capsys, "convert", source, "--out", out)
    assert f"--camera, one of: {CAMERA}, {WRIST}" in line
    assert "no camera 'front'" in refused(capsys, "convert", source, "--out", out, "--camera", "front")
    words = ("convert", source, "--out", out, "--camera", WRIST)
    line = refused(capsys, *words)
    assert "no success labels" in line
    assert "--success last" in line
    assert "20" in refused(capsys, *words, "--success", "last", "--fps", 20)
    assert "no column 'reward'" in refused(capsys, *words, "--success", "reward")
    assert "outside [-1, 1]" in refused(capsys, *words, "--success", "last", "--normalise", "none")
    assert main(["data", *map(str, words), "--success", "last"]) == 0
    assert all(EpisodeStore(out).success(index).tolist()[-2:] == [False, True] for index in range(3))
    assert "a finished result of other inputs: success" in refused(capsys, *words, "--success", "none")


def test_bad_values_name_file_row_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    actions = foreign_episode(1, 9)["action"]
    actions[4, 2] = np.nan
    source = write_lerobot(tmp_path / "arm", action=actions)
    words = ("convert", source, "--out", tmp_path / "o", "--camera", CAMERA)
    line = refused(capsys, *words)
    assert "file-000.parquet: episode 1: action: row 4, dimension 2: nan is not finite" in line
    assert "--skip 1" in line
    assert main(["data", *map(str, words), "--skip", "1"]) == 0
    assert len(EpisodeStore(tmp_path / "o")) == 2


def test_other_rates_than_the_stated_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm", pictures=True)
    info = json.loads((source / "meta/info.json").read_text())
    (source / "meta/info.json").write_text(json.dumps(info | {"fps": 30}))
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--camera", CAMERA)
    assert "meta/info.json says 30" in line
    # Pictures in tables have no rate of their own; the rows' time stamps tell.
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--camera", PICTURES)
    assert "episode 0: time stamps 0.1 s apart, meta/info.json says 30 fps" in line


def test_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lerobot(tmp_path / "arm")
    words = ("convert", source, "--out", tmp_path / "o", "--camera", CAMERA)
    for name in (f"videos/{CAMERA}/chunk-000/file-000.mp4", "data/chunk-000/file-000.parquet", "meta/tasks.parquet"):
        whole = (source / name).read_bytes()
        (source / name).write_bytes(whole[: len(whole) // 2])
        assert str(source / name) in refused(capsys, *words)
        (source / name).unlink()
        assert f"{source / name}: missing" in refused(capsys, *words)
        (source / name).write_bytes(whole)
    assert main(["data", *map(str, words)]) == 0
    (tmp_path / "cut.hdf5").write_bytes(write_libero(tmp_path / "libero/a.hdf5").read_bytes()[:1000])
    assert "cut.hdf5: not a readable HDF5 file" in refused(capsys, "convert", tmp_path / "cut.hdf5", "--out", "o")
    assert "no known format" in refused(capsys, "convert", tmp_path / "o/convert.json", "--out", "o")


def test_a_folder_of_something_else_is_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_lerobot(tmp_path / "arm"), write_dataset(tmp_path / "data")
    before = sorted(out.iterdir())
    assert "not empty" in refused(capsys, "convert", source, "--out", out, "--camera", CAMERA)
    assert sorted(out.iterdir()) == before
    line = refused(capsys, "convert", out, "--out", tmp_path / "o", "--camera", "front")
    assert "--camera: not an option of writing a LeRobotDataset" in line


def test_a_missing_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lerobot(tmp_path / "arm")
    monkeypatch.setitem(importlib.import_module("sys").modules, "pyarrow.parquet", None)
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "needs pyarrow" in line
    assert "pip install 'wovr[convert]'" in line
