"""`wovr data convert` of HDF5 files: what their writers mean, and what no reader should follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import demo, needs, write_demos, write_libero
from tests.data.synthetic import tabletop_frames
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore

LAST, NEVER, EARLY = np.eye(6)[-1], np.zeros(6), np.array([0, 0, 1, 1, 1, 1.0])


def converted(source: Path, *words: object) -> EpisodeStore:
    """The data set that a command makes of a source."""
    out = source.parent / f"out{len(list(source.parent.glob('out*')))}"
    assert main(["data", "convert", str(source), "--out", str(out), *map(str, words)]) == 0
    return EpisodeStore(out)


def succeeded(store: EpisodeStore) -> list[bool]:
    return [store.read(index).succeeded for index in range(len(store))]


@pytest.mark.parametrize(
    ("done", "early"),
    [(LAST, NEVER), (np.maximum(LAST, EARLY), EARLY), (LAST, EARLY), (EARLY, EARLY)],
    ids=["mode 2, failed", "mode 2", "mode 1", "mode 0"],
)
def test_done_is_not_success(tmp_path: Path, done: np.ndarray, early: np.ndarray) -> None:
    source = write_demos(tmp_path / "mg.hdf5", demo(dones=done, rewards=early), demo())
    store = converted(source)
    assert succeeded(store) == [bool(early.any()), True]
    assert store.datasets[0]["extra"]["convert"]["success"] == "rewards"
    assert store.success(0).tolist() == [False, *early[:-2].astype(bool), bool(early[-2:].any())]


def test_done_alone_and_dense_rewards_are_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(rewards=None))
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "no success labels (dones marks the end of an episode" in line
    assert "--success last" in line
    assert succeeded(converted(source, "--success", "dones")) == [True]
    source = write_demos(tmp_path / "b.hdf5", demo(), demo(rewards=np.linspace(0, 0.7, 6)))
    for words in ((), ("--success", "rewards")):
        line = refused(capsys, "convert", source, "--out", tmp_path / "o", *words)
        assert "demo_1: rewards: row 1 is 0.14, neither 0 nor 1" in line
    assert not (tmp_path / "o").exists()  # seen before anything is written


@pytest.mark.parametrize(
    ("content", "said", "settled", "result"),
    [
        ({"rewards": EARLY, "dones": NEVER}, "dones never says done", "rewards", True),
        ({"rewards": NEVER, "dones": EARLY}, "dones ends it at frame 3", "dones", True),
        ({"attrs": {"success": False}}, "success says that it fails, rewards that it succeeds", "success", False),
        ({"success": NEVER}, "success says that it fails, rewards that it succeeds", "rewards", True),
        ({"success": LAST, "attrs": {"episode_success": False}}, "episode_success says that it fails", "success", True),
    ],
)
def test_contradictions_are_refused_with_what_settles_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, said: str, settled: str, result: bool
) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(**content))
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert said in line
    assert f"--success {settled}" in line
    assert succeeded(converted(source, "--success", settled)) == [result]


def test_isaac_lab_files_with_groups_for_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joints = {"states/articulation/robot/joint_position": np.zeros((6, 9)), "obs/subtasks/grasp": np.zeros((6, 1))}
    demos = [
        demo(camera="table_cam", dones=None, rewards=None, **joints, attrs={"success": success, "num_samples": 6})
        for success in (True, np.bool_(False), "True")
    ]
    source = write_demos(tmp_path / "isaac.hdf5", *demos, env_args=json.dumps({"env_name": "Isaac-Stack", "type": 2}))
    store = converted(source, "--fps", 20)
    assert succeeded(store) == [True, False, True]
    assert store.read(0).sim_state is None
    # `last` does not make a success of what the recorder calls a failure.
    assert succeeded(converted(source, "--fps", 20, "--success", "last")) == [True, False, True]
    assert "1 episodes are marked as failed" in capsys.readouterr().out
    assert "no column 'subtasks'" in refused(
        capsys, "convert", source, "--out", tmp_path / "o", "--fps", 20, "--state", "subtasks"
    )
    source = write_demos(tmp_path / "flat.hdf5", demo(**{"obs/agentview_image": None, "obs/robot0_eef_pos": None}))
    with needs("h5py").File(source, "a") as file:
        file["data/demo_0/obs"] = np.zeros((6, 12))
    assert "no camera's frames" in refused(capsys, "convert", source, "--out", tmp_path / "o")
    del demos[1]["attrs"]["success"]
    source = write_demos(tmp_path / "some.hdf5", *demos)
    assert "demo_1: no attribute success" in refused(capsys, "convert", source, "--out", tmp_path / "o")
    demos[1]["attrs"]["success"] = "maybe"
    source = write_demos(tmp_path / "some.hdf5", *demos)
    assert "attribute success is 'maybe'" in refused(capsys, "convert", source, "--out", tmp_path / "o")


@pytest.mark.parametrize(
    "say",
    [
        lambda text: {"attrs": {"ep_meta": json.dumps({"lang": text})}},
        lambda text: {"attrs": {"task_description": text}},
        lambda text: {"attrs": {"language_instruction": np.bytes_(text)}},
        lambda text: {"attrs": {"task_instruction": [text]}},
        lambda text: {"attrs": {"problem_info": json.dumps({"language_instruction": [text[:5], text[5:]]})}},
        lambda text: {"language_instruction": text},
        lambda text: {"obs/language": [text] * 6},
    ],
)
def test_the_instruction_is_the_demos_own(tmp_path: Path, say: Callable[[str], dict[str, Any]]) -> None:
    texts = ["pick the apple", "pick the mug"]
    source = write_demos(tmp_path / "PnP.hdf5", *(demo(**say(text)) for text in texts), language="do something")
    store = converted(source)
    assert [(e.meta.instruction, e.meta.task) for e in store.entries] == [(texts[0], 0), (texts[1], 1)]


def test_where_no_demo_says_it_the_file_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.dumps({"env_name": "PnP", "env_lang": "put it there", "env_kwargs": {"control_freq": 20}})
    for attributes, text, note in (
        ({"env_args": said}, "put it there", ""),
        ({"problem_info": json.dumps({"language_instruction": '"close it"'})}, "close it", ""),
        ({}, "Lift", "environment's name, 'Lift'"),
        ({"env_args": None}, "open the drawer", "file's name, 'open the drawer'"),
    ):
        source = write_demos(tmp_path / text / "open_the_drawer_demo.hdf5", demo(), **attributes)
        assert main(["data", "convert", str(source), "--out", str(tmp_path / f"{text} o"), *_rate(attributes)]) == 0
        assert EpisodeStore(tmp_path / f"{text} o").entries[0].meta.instruction == text
        assert note in capsys.readouterr().out


def _rate(attributes: dict[str, Any]) -> list[str]:
    return ["--fps", "20"] if attributes.get("env_args", "") is None else []


def test_two_instructions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attributes = {"ep_meta": json.dumps({"lang": "pick the apple"}), "task_description": "pick the mug"}
    source = write_demos(tmp_path / "a.hdf5", demo(attrs=attributes))
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "a.hdf5: demo_0: two instructions: ep_meta says 'pick the apple', task_description says" in line
    assert "--instruction ep_meta" in line
    store = converted(source, "--instruction", "task_description")
    assert store.entries[0].meta.instruction == "pick the mug"
    attributes["task_description"] = "Pick the  apple."  # the same sentence
    assert len(converted(write_demos(tmp_path / "b.hdf5", demo(attrs=attributes)))) == 1
    source = write_demos(tmp_path / "c.hdf5", demo(**{"obs/language": ["reach"] * 3 + ["lift"] * 3}))
    assert "two instructions in one demo, 'reach' and 'lift'" in refused(
        capsys, "convert", source, "--out", tmp_path / "o"
    )
    source = write_demos(tmp_path / "d.hdf5", demo(attrs={"language": np.bytes_(b"\xff\xfe")}))
    assert "d.hdf5: demo_0: damaged" in refused(capsys, "convert", source, "--out", tmp_path / "o")


def test_column_vectors_are_columns(tmp_path: Path) -> None:
    frames = tabletop_frames(6, (32, 32), 0)
    flat = demo(**{"obs/gripper": np.arange(6.0)})
    upright = {"dones": LAST[:, None], "rewards": LAST[:, None, None], "actions": flat["actions"][:, :1]}
    tall = demo(**upright, **{"obs/gripper": np.arange(6.0)[:, None], "obs/agentview_image": frames})
    one = converted(write_demos(tmp_path / "a.hdf5", flat), "--state", "robot0_eef_pos,gripper")
    other = converted(write_demos(tmp_path / "b.hdf5", tall), "--state", "robot0_eef_pos,gripper")
    np.testing.assert_array_equal(one.success(0), other.success(0))
    np.testing.assert_array_equal(one.proprio(0), other.proprio(0))
    assert other.actions(0).shape == (5, 1)


def test_filter_keys_are_named_and_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = {"train": ["demo_0", "demo_2"], "valid": ["demo_1"]}
    source = write_demos(tmp_path / "a.hdf5", demo(), demo(length=7), demo(), mask=mask)
    assert len(converted(source)) == 3
    assert "filter keys: train (2), valid (1) of 3 episodes; all are taken" in capsys.readouterr().out
    assert [entry.num_frames for entry in converted(source, "--filter", "train").entries] == [6, 6]
    store = converted(source, "--filter", "valid")
    assert [(entry.num_frames, entry.meta.extra["episode"]) for entry in store.entries] == [(7, 1)]
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--filter", "test")
    assert "no filter key 'test'; there are: train (2), valid (1)" in line
    assert "--skip names episode 9" in refused(capsys, "convert", source, "--out", tmp_path / "o", "--skip", 9)
    source = write_demos(tmp_path / "b.hdf5", demo(), mask={"train": ["demo_0", "demo_7"]})
    assert "mask/train names 'demo_7'" in refused(capsys, "convert", source, "--out", tmp_path / "o")


def test_files_without_a_filter_key_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_demos(tmp_path / "all/a.hdf5", demo(), demo(), mask={"train": ["demo_1"]})
    write_demos(tmp_path / "all/b.hdf5", demo())
    assert [e.meta.extra["episode"] for e in converted(tmp_path / "all", "--filter", "train").entries] == [1]
    said = capsys.readouterr().out
    assert "b.hdf5: no filter key train; --filter train takes nothing of 1 files" in said
    assert "(3 episodes, 2 left out)" in said


def test_a_demo_that_cannot_be_read_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = needs("h5py")
    source = write_demos(tmp_path / "a.hdf5", demo(), demo(attrs={"lang": "a", "language": "b"}), demo(), demo())
    with h5py.File(source, "a") as file:
        del file["data/demo_0"], file["data/demo_2/obs"]
        file["data/demo_0"] = np.zeros(3)
        file["data/demo_2/obs"] = h5py.ExternalLink("other.hdf5", "/")
    for skip, said in (("", "demo_0: no group"), ("0", "two instructions"), ("0,1", "link into another file")):
        line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--skip", skip)
        assert said in line
        assert "leave the episode out with --skip" in line
    assert len(converted(source, "--skip", "0,1,2")) == 1


def test_pictures_are_turned_where_the_format_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = tabletop_frames(6, (32, 32), 0)
    for name, attributes, turned, said in (
        ("gl", {"macros_image_convention": "opengl"}, True, "pictures turned upside down"),
        ("cv", {"macros_image_convention": "opencv"}, False, ""),
        ("none", {}, False, "do not say how pictures are stored"),
    ):
        camera = "agentview_rgb" if name != "none" else "front_rgb"
        source = write_demos(tmp_path / name / "a.hdf5", demo(camera=camera), **attributes)
        found = converted(source).frames(0)
        expected = frames[:, ::-1] if turned else frames
        assert np.abs(found.astype(float) - expected).mean() < 8
        assert np.abs(found.astype(float) - expected[:, ::-1]).mean() > 8
        assert said in capsys.readouterr().out
    write_libero(tmp_path / "both/a.hdf5")
    write_libero(tmp_path / "both/b.hdf5", macros_image_convention="opencv")
    line = refused(capsys, "convert", tmp_path / "both", "--out", tmp_path / "o", "--camera", "agentview_rgb")
    assert "b.hdf5: pictures the right way up" in line


@pytest.mark.parametrize(
    ("name", "pictures", "said"),
    [
        ("depth", np.zeros((6, 32, 32, 1), np.float32), "float32 (6, 32, 32, 1), one channel (grey, depth or a mask)"),
        ("depth16", np.zeros((6, 32, 32), np.uint16), "uint16 (6, 32, 32), one channel (grey, depth or a mask)"),
        ("grey", np.zeros((6, 32, 32, 1), np.uint8), "uint8 (6, 32, 32, 1), one channel (grey, depth or a mask)"),
        ("mask", np.zeros((6, 32, 32), bool), "bool (6, 32, 32), one channel"),
        ("unit", np.zeros((6, 32, 32, 3), np.float32), "float32 (6, 32, 32, 3)"),
        ("rgba", np.zeros((6, 32, 32, 4), np.uint8), "uint8 (6, 32, 32, 4), four channels"),
        ("first", np.zeros((6, 3, 32, 32), np.uint8), "uint8 (6, 3, 32, 32), channels first"),
        ("sixteen", np.zeros((6, 32, 32, 3), np.uint16), "uint16 (6, 32, 32, 3)"),
        ("jpeg", np.array([b"\xff\xd8" + b"x" * 400] * 6), "picture files (JPEG or PNG bytes)"),
    ],
)
def test_other_pictures_than_8_bit_colour_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, pictures: np.ndarray, said: str
) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(**{f"obs/{name}": pictures}))
    line = refused(capsys, "convert", source, "--out", tmp_path / "o", "--camera", name)
    assert f"{name}: {said}" in line
    assert "not 8-bit colour pictures; give --camera, one of: agentview_image" in line
    assert len(converted(source)) == 1  # it is no choice of camera
    source = write_demos(tmp_path / "b.hdf5", demo(), demo(**{"obs/agentview_image": pictures}))
    assert "demo_1: agentview_image: " in refused(capsys, "convert", source, "--out", tmp_path / "p")
    source = write_demos(tmp_path / "c.hdf5", demo(**{"obs/agentview_image": pictures}))
    assert f"no camera's frames of 8-bit colour (agentview_image: {said}" in refused(
        capsys, "convert", source, "--out", tmp_path / "p"
    )


def test_layouts_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = needs("h5py")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["action"] = np.zeros((6, 14))
        file["observations/images/cam_high"] = np.zeros((6, 32, 32, 3), np.uint8)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["joint_action/vector"] = np.zeros((6, 14))
        file["observation/head_camera/rgb"] = np.array([b"\xff\xd8"] * 6)
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["data/demo_0"] = np.zeros(3)
    for name, said in (("a", "ALOHA's layout"), ("b", "RoboTwin's"), ("c", "no group data/demo_N"), ("d", "no group")):
        assert said in refused(capsys, "convert", tmp_path / f"{name}.hdf5", "--out", tmp_path / "o")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"obs/agentview_image": tabletop_frames(5, (32, 32), 0)}, "agentview_image: 5 rows, actions has 6"),
        ({"rewards": np.eye(5)[-1], "dones": None}, "rewards: 5 rows, actions has 6"),
        ({"obs/robot0_eef_pos": np.zeros((7, 3))}, "robot0_eef_pos: 7 rows, actions has 6"),
        ({"states": np.zeros((5, 9))}, "states: 5 rows, actions has 6"),
        ({"states": np.float64(3)}, "states: missing, other demos of the file have it"),
        ({"states": None}, "states: missing, other demos of the file have it"),
        ({"obs/robot0_eef_pos": None}, "no column 'robot0_eef_pos'"),
        ({"obs/robot0_eef_pos": np.array([b"abc"] * 6)}, "robot0_eef_pos: text, not numbers"),
        ({"obs/robot0_eef_pos": np.zeros((6, 3, 2))}, "robot0_eef_pos: shape (6, 3, 2), must be numbers side by side"),
        ({"obs/robot0_eef_pos": np.zeros((6, 4))}, "dimensions"),
        ({"obs/agentview_image": None}, "no camera 'agentview_image'"),
        ({"rewards": None}, "no column 'rewards'"),
        ({"attrs": {"num_samples": 9}}, "num_samples is"),
        ({"actions": np.array([["a"] * 7] * 6, "S1")}, "actions: text, not numbers"),
        ({"actions": np.zeros((6, 7), complex)}, "actions: complex numbers, not numbers"),
        ({"actions": np.zeros(6, [("x", float), ("y", float)])}, "actions: records, not numbers"),
        ({"actions": None}, "no column 'actions'"),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, said: str
) -> None:
    other = demo(states=np.zeros((6, 9)), **{"obs/robot0_eef_quat": np.zeros((6, 4))})
    other["obs/robot0_gripper_qpos"] = np.zeros((6, 2, 1))
    wrong = {**other, **content}
    for number, demos in enumerate(((other, wrong), (wrong, other))):
        source = write_demos(tmp_path / f"{number}/a.hdf5", *demos)
        words = ("convert", source, "--out", tmp_path / f"o{number}", "--camera", "agentview_image")
        line = refused(capsys, *words)
        assert "a.hdf5: demo_" in line
        assert said in line
        assert main(["data", *map(str, words), "--skip", str(1 - number)]) == 0
        assert EpisodeStore(tmp_path / f"o{number}").proprio_dim == 9


@pytest.mark.parametrize(
    ("arguments", "rate"),
    [
        ({"env_name": "Lift", "env_kwargs": None}, None),
        ({"env_name": None, "env_kwargs": {"control_freq": "20"}}, 20),
        ({"env_name": 3, "env_kwargs": {"control_freq": [20]}}, None),
        ({"env_kwargs": {"control_freq": -1}}, None),
        ({"env_kwargs": {"control_freq": float("nan")}}, None),
        ([], None),
        ("[" * 100_000, None),
    ],
)
def test_odd_attributes_are_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Any, rate: float | None
) -> None:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    source = write_demos(tmp_path / "a.hdf5", demo())
    h5py = needs("h5py")
    with h5py.File(tmp_path / "b.hdf5", "w", libver="latest") as file, h5py.File(source) as old:
        old.copy("data", file)
        file["data"].attrs["env_args"] = text
    if rate is None:
        line = refused(capsys, "convert", tmp_path / "b.hdf5", "--out", tmp_path / "o")
        assert "control rate is not stored; give --fps" in line
    else:
        assert converted(tmp_path / "b.hdf5").entries[0].meta.fps == rate
