"""Small data sets in other people's formats, written by hand as their descriptions say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.synthetic import tabletop_frames
from wovr.data.store.video import encode_video

CAMERA = "observation.images.top"
WRIST = "observation.images.wrist"
PICTURES = "observation.images.still"
INSTRUCTIONS = ["pick up the cube", "open the drawer"]
NAMES = ["gripper", "x", "y", "z"]
LENGTHS = (14, 9, 11)
FPS = 10


def needs(module: str) -> Any:
    """The module of the extra `convert`, or a skip that says how to get it."""
    return pytest.importorskip(module, reason="needs the extra convert: pip install 'wovr[convert]'")


def foreign_episode(number: int, length: int, scale: float = 3.0) -> dict[str, np.ndarray]:
    """The columns of an episode: actions up to `scale`, a state, and success after the last action but two."""
    rng = np.random.default_rng(number)
    success = np.zeros(length, bool)
    success[-3:] = number != 1
    return {
        "action": rng.uniform(-scale, scale, (length, 4)).astype(np.float32),
        "observation.state": rng.normal(size=(length, 4)).astype(np.float32),
        "next.success": success,
        "frames": tabletop_frames(length, (32, 32), number),
    }


def write_lerobot(
    folder: Path, version: str = "v3.0", *, success: bool = True, pictures: bool = False, **columns: Any
) -> Path:
    """A LeRobotDataset of three episodes, two tasks and two cameras; `columns` replace those of episode 1.

    With `pictures` there is one camera more, whose frames are PNG files in the tables.
    """
    pyarrow, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    episodes = [foreign_episode(number, length) for number, length in enumerate(LENGTHS)]
    episodes[1] |= columns
    (folder / "meta").mkdir(parents=True)
    numbers = {
        "timestamp": {"dtype": "float32", "shape": [1]},
        **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    features: dict[str, Any] = {
        CAMERA: {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channels"]},
        WRIST: {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": [4], "names": ["dx", "dy", "dz", "grip"]},
        "observation.state": {"dtype": "float32", "shape": [4], "names": {"motors": NAMES}},
        **({"next.success": {"dtype": "bool", "shape": [1], "names": None}} if success else {}),
        **({PICTURES: {"dtype": "image", "shape": [32, 32, 3]}} if pictures else {}),
        **numbers,
    }
    two = version.startswith("v2")
    info = {"codebase_version": version, "robot_type": "arm", "fps": FPS, "chunks_size": 1000, "features": features}
    if two:
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    else:
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (folder / "meta/info.json").write_text(json.dumps(info))
    tables, listed, row = [], [], 0
    for number, episode in enumerate(episodes):
        length = len(episode["action"])
        steps = np.arange(length)
        table = {
            "action": pyarrow.array(list(episode["action"])),
            "observation.state": pyarrow.array(list(episode["observation.state"])),
            **({"next.success": pyarrow.array(episode["next.success"])} if success else {}),
            **({PICTURES: [_png(255 - frame) for frame in episode["frames"]]} if pictures else {}),
            "timestamp": pyarrow.array((steps / FPS).astype(np.float32)),
            "frame_index": pyarrow.array(steps),
            "episode_index": pyarrow.array(np.full(length, number)),
            "index": pyarrow.array(row + steps),
            "task_index": pyarrow.array(np.full(length, number % 2)),
        }
        tables.append(pyarrow.table(table))
        line: dict[str, Any] = {"episode_index": number, "tasks": [INSTRUCTIONS[number % 2]], "length": length}
        if not two:
            line |= {"data/chunk_index": 0, "data/file_index": 0}
            for camera in (CAMERA, WRIST):
                line |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
                line[f"videos/{camera}/from_timestamp"] = row / FPS
        listed.append(line)
        row += length
    tasks = {"task_index": [0, 1], "task": INSTRUCTIONS}
    videos = {CAMERA: [e["frames"] for e in episodes], WRIST: [255 - e["frames"] for e in episodes]}
    if two:
        for number, table in enumerate(tables):
            _write_table(parquet, folder / info["data_path"].format(episode_chunk=0, episode_index=number), table)
            for camera, frames in videos.items():
                path = folder / info["video_path"].format(episode_chunk=0, episode_index=number, video_key=camera)
                _write_video(path, frames[number])
        lines = [json.dumps({"task_index": number, "task": text}) for number, text in enumerate(INSTRUCTIONS)]
        (folder / "meta/tasks.jsonl").write_text("\n".join(lines))
        (folder / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, listed)) + "\n")
        return folder
    _write_table(parquet, folder / "data/chunk-000/file-000.parquet", pyarrow.concat_tables(tables))
    _write_table(parquet, folder / "meta/tasks.parquet", pyarrow.table(tasks))
    _write_table(parquet, folder / "meta/episodes/chunk-000/file-000.parquet", pyarrow.Table.from_pylist(listed))
    for camera, frames in videos.items():
        _write_video(folder / f"videos/{camera}/chunk-000/file-000.mp4", np.concatenate(frames))
    return folder


def write_libero(path: Path, demos: int = 2, length: int = 10, **attributes: Any) -> Path:
    """A file as LIBERO ships them, with pictures upside down."""
    h5py = needs("h5py")
    problem = json.dumps({"language_instruction": ["pick up the bowl"]})
    environment = json.dumps({"env_name": "Libero_Tabletop", "env_kwargs": {"control_freq": 20}})
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"problem_info": problem, "env_args": environment, **attributes})
        for number in range(demos):
            rng = np.random.default_rng(number)
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["dones"] = np.eye(length, dtype=np.uint8)[-1]
            demo["rewards"] = np.eye(length, dtype=np.uint8)[-1]
            demo["states"] = rng.normal(size=(length, 20))
            demo["obs/agentview_rgb"] = tabletop_frames(length, (32, 32), number)[:, ::-1]
            demo["obs/eye_in_hand_rgb"] = tabletop_frames(length, (32, 32), number + 50)[:, ::-1]
            demo["obs/ee_pos"] = rng.normal(size=(length, 3))
            demo["obs/ee_ori"] = rng.normal(size=(length, 3))
            demo["obs/gripper_states"] = rng.normal(size=(length, 2))
    return path


def demo(length: int = 6, camera: str = "agentview_image", **replaced: Any) -> dict[str, Any]:
    """A demo in robomimic's layout: arrays by their path, None for none; `attrs` are its attributes."""
    rng = np.random.default_rng(0)
    last = np.eye(length)[-1]
    return {
        "actions": rng.uniform(-1, 1, (length, 7)),
        "dones": last,
        "rewards": last,
        f"obs/{camera}": tabletop_frames(length, (32, 32), 0),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "attrs": {},
        **replaced,
    }


def write_demos(path: Path, *demos: dict[str, Any], mask: Any = (), **attributes: Any) -> Path:
    """A file of `demo`s, 20 Hz; `attributes` are those of its group `data`, None for none."""
    h5py = needs("h5py")
    environment = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        given = {"env_args": environment, **attributes}
        data.attrs.update({name: value for name, value in given.items() if value is not None})
        for number, content in enumerate(demos):
            group = data.create_group(f"demo_{number}")
            group.attrs.update(content["attrs"])
            for name, value in content.items():
                if name != "attrs" and value is not None:
                    group[name] = value
        for name, keys in dict(mask).items():
            file[f"mask/{name}"] = np.array(keys, "S")
    return path


def write_trajectories(folder: Path, count: int = 2, length: int = 8, **replaced: Any) -> Path:
    """Files as the authors' release has them; `replaced` goes into every frame's dictionary."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        frames = tabletop_frames(length, (32, 32), number)
        rows = np.empty(length, object)
        for t in range(length):
            action = rng.uniform(-1, 1, 7).astype(np.float32) if t else np.array([0] * 6 + [-1], np.float32)
            rows[t] = {
                "image": frames[t],
                "delta_action": action,
                "abs_action": np.arange(7.0) + t,
                "instruction": INSTRUCTIONS[number % 2],
                "reward": np.float64(t >= length - 2),
                **replaced,
            }
        np.save(folder / f"traj{number}.npy", rows, allow_pickle=True)
    np.save(folder / "traj0_kir.npy", np.array([{}], object), allow_pickle=True)
    return folder


def _png(frame: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def _write_table(parquet: Any, path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def _write_video(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_video(frames, FPS))
