"""Episodes in which success is a lamp that goes on: where it is depends on the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.synthetic import make_episode
from wovr.data.store.shards import finish_dataset, shard_path, write_shard


def lamps(folder: Path, numbers: range = range(12), suite: str = "spatial", tasks: int = 2, length: int = 12) -> Path:
    """Episodes in which a lamp goes on at the top for success in task 0, at the bottom for success in task 1."""
    episodes = []
    for number in numbers:
        random = np.random.default_rng(number)
        task, frames = number % tasks, random.integers(60, 90, (length, 16, 16, 3)).astype(np.uint8)
        success = np.zeros(length, bool)
        success[-4:] = number % 4 < 2
        top = success if task == 0 else np.arange(length) >= length // 2  # in task 1 the top lamp means nothing
        bottom = success if task == 1 else np.arange(length) >= length // 2
        frames[top, :6] = 220
        frames[bottom, 10:] = 220
        episode = make_episode(number, length, (16, 16), frames=frames, success=success, key=f"{suite}-{number:06d}")
        episode.meta.suite, episode.meta.task = suite, task
        episodes.append(episode)
    write_shard(shard_path(folder, suite, 0), episodes)
    finish_dataset(folder)
    return folder
