"""Where LeRobotDataset keeps what: the file names of versions 2.x and 3.0, and the columns every data set has.

Source: the public `lerobot` package, https://github.com/huggingface/lerobot, and the data sets it writes.
"""

from __future__ import annotations

from typing import Any

VERSION = "v3.0"
"""The version that is written."""

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
TASKS_2 = "meta/tasks.jsonl"
EPISODES_2 = "meta/episodes.jsonl"
EPISODES_FOLDER = "meta/episodes"

FILES_PER_CHUNK = 1000
CHUNK_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES = EPISODES_FOLDER + "/" + CHUNK_FILE + ".parquet"
DATA = "data/" + CHUNK_FILE + ".parquet"
VIDEOS = "videos/{video_key}/" + CHUNK_FILE + ".mp4"

CAMERA_PREFIX = "observation.images."
STATE = "observation.state"
ACTION = "action"
NEXT_SUCCESS = "next.success"

COUNTERS: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
"""Columns that say where a row belongs."""

SUCCESS = (NEXT_SUCCESS, "success", "observation.success", "is_success", "next.reward")
"""Columns that are taken for success labels, the first that is there."""
