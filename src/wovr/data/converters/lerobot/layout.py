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
SUBTASKS = "meta/subtasks.parquet"
SUBTASKS_2 = "meta/subtasks.jsonl"
EPISODES_2 = "meta/episodes.jsonl"
EPISODES_FOLDER = "meta/episodes"

FILES_PER_CHUNK = 1000
CHUNK_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES = EPISODES_FOLDER + "/" + CHUNK_FILE + ".parquet"
DATA = "data/" + CHUNK_FILE + ".parquet"
VIDEOS = "videos/{video_key}/" + CHUNK_FILE + ".mp4"

CAMERA_PREFIX = "observation.images."
STATE = "observation.state"
CALIBRATION = "observation.camera"
"""Where this package keeps the camera, 21 numbers a row (the format has no place of its own for it)."""
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

SUCCESS = (NEXT_SUCCESS, "success", "observation.success", "is_success")
"""Columns that mean success."""

DONE = "next.done"
"""Marks the end of an episode, whether it succeeded or not."""

REWARD = "next.reward"
"""Means success where it is 0 or 1 and nothing else; dense rewards do not."""

TASK_INDEX = "task_index"
SUBTASK_INDEX = "subtask_index"
LANGUAGE = ("language_persistent", "language_events")
"""Columns of texts in time: lists of role, content, style and, in the first, time stamp."""

SENTENCES = ("language_instruction", "instruction", "task", "natural_language_instruction")
"""Text columns in which writers of the format keep the sentence a row is told."""
