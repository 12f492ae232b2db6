"""The `lerobot` package itself as the witness: it reads what is written here, and what it writes is read here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.converters.foreign import INSTRUCTIONS, LENGTHS, foreign_episode
from tests.data.synthetic import write_dataset
from tests.extras import needs
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore

CAMERA = "observation.images.top"

pytestmark = [
    *needs("lerobot").marks,
    pytest.mark.filterwarnings("ignore"),  # torchvision's decoder, which lerobot uses, announces its end
]


def open_with_lerobot(folder: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/test", root=folder, video_backend="pyav")


def write_with_lerobot(folder: Path) -> Any:
    """The episodes of `foreign_episode`, as lerobot's own recorder writes them."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        CAMERA: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (4,), "names": ["dx", "dy", "dz", "grip"]},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": ["gripper", "x", "y", "z"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    dataset = LeRobotDataset.create("local/test", fps=10, features=features, root=folder, robot_type="arm")
    for number, length in enumerate(LENGTHS):
        columns = foreign_episode(number, length)
        for t in range(length):
            row = {key: columns[key][t] for key in ("action", "observation.state")}
            frame = columns["frames"][t].repeat(2, axis=0).repeat(2, axis=1)
            success = np.array([columns["next.success"][t]])
            task = INSTRUCTIONS[number % 2]
            dataset.add_frame({CAMERA: frame, "next.success": success, "task": task, **row})
        dataset.save_episode()
    dataset.finalize()
    return open_with_lerobot(folder)


def test_lerobot_to_shards_to_lerobot_by_the_package(tmp_path: Path) -> None:
    before = write_with_lerobot(tmp_path / "before")
    words = ["data", "convert", str(tmp_path / "before"), "--out", str(tmp_path / "shards"), "--suite", "arm"]
    assert main(words) == 0
    assert main(["data", "convert", str(tmp_path / "shards"), "--out", str(tmp_path / "after")]) == 0
    after = open_with_lerobot(tmp_path / "after")
    assert len(after) == len(before) == sum(LENGTHS)
    assert (after.meta.fps, after.meta.robot_type, after.meta.names["action"]) == (
        before.meta.fps,
        before.meta.robot_type,
        before.meta.names["action"],
    )
    differences: dict[str, float] = {}
    for index in range(len(before)):
        one, other = before[index], after[index]
        assert one.keys() == other.keys()
        assert one["task"] == other["task"]
        for key in one.keys() - {"task"}:
            assert one[key].dtype == other[key].dtype
            difference = float(np.abs(one[key].numpy().astype(float) - other[key].numpy().astype(float)).max())
            differences[key] = max(difference, differences.get(key, 0.0))
    video = differences.pop(CAMERA)
    actions = differences.pop("action")
    print(f"{len(before)} rows: action {actions:.2g}, video {255 * video:.0f} of 255, the rest {differences}")
    assert set(differences.values()) == {0.0}
    assert actions < 5e-7  # there and back through [-1, 1] in float32
    assert video < 0.2  # a single sample at an edge; two lossy encodings lie between
    for key, values in before.meta.stats.items():
        if key != CAMERA:
            for name in ("min", "max", "mean", "std", "count"):
                np.testing.assert_allclose(after.meta.stats[key][name], values[name], atol=1e-4)


def test_lerobot_reads_episodes_of_our_own(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", size=(64, 64))
    assert main(["data", "convert", str(tmp_path / "data"), "--out", str(tmp_path / "lerobot")]) == 0
    store, read = EpisodeStore(tmp_path / "data"), open_with_lerobot(tmp_path / "lerobot")
    assert read.num_episodes == len(store)
    row = 0
    for index, entry in enumerate(store.entries):
        episode = store.read(index)
        for t in range(entry.num_frames):
            item = read[row]
            assert (int(item["episode_index"]), int(item["frame_index"])) == (index, t)
            assert item["task"] == entry.meta.instruction
            action = episode.actions[min(t, len(episode.actions) - 1)]
            np.testing.assert_array_equal(item["action"].numpy(), action)
            assert bool(item["next.success"]) == bool(episode.success[min(t + 1, entry.num_frames - 1)])
            frame = item["observation.images.front"].numpy().transpose(1, 2, 0) * 255
            assert np.abs(frame - episode.frames[t]).mean() < 3
            row += 1
