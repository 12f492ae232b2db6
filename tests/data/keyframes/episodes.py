"""Episodes whose critical moments are known: the gripper's commands as letters, a square that goes where it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.types import Episode, EpisodeMeta

SUCCEEDED = "oooooooooocccccccccccccccooooo"
"""30 actions: closes at 10, opens at 25; it succeeds at frame 26."""

FAILED = "oooooooooocccooooooooccccccccccoooooooooooooooooo"
"""49 actions: closes at 10 and 21, opens at 13 and 31; never succeeds."""


def commands(letters: str) -> np.ndarray:
    """`ooc-` -> (4,) float32: -1, -1, 1, 0."""
    return np.array([{"o": -1, "c": 1, "-": 0}[letter] for letter in letters], np.float32)


def episode(
    number: int,
    letters: str,
    success_at: int | None,
    *,
    task: int | None = None,
    suite: str = "spatial",
    strays_at: int | None = None,
    size: int = 32,
    states: bool = True,
    proprio: bool = False,
) -> Episode:
    """Episode `SUITE-NUMBER`, task NUMBER % 2 unless given.

    A square moves to the right, a quarter of a pixel a frame, and from `strays_at` on down, a pixel a frame. Actions
    have four dimensions, the last is the gripper's. State t of episode n is (n, t), its
    proprioception (n, t, 0).
    """
    rng = np.random.default_rng(number)
    length = len(letters) + 1
    frames = np.full((length, size, size, 3), 128, np.uint8)
    for t in range(length):
        row = 4 + (0 if strays_at is None else max(0, t - strays_at))
        column = 2 + t // 4
        frames[t, row : row + 6, column : column + 6] = (250, 20, 20)
    frames += rng.integers(0, 3, frames.shape, dtype=np.uint8)
    actions = rng.uniform(-1, 1, (length - 1, 4)).astype(np.float32)
    actions[:, -1] = commands(letters)
    success = np.zeros(length, bool)
    if success_at is not None:
        success[success_at:] = True
    index = number % 2 if task is None else task
    meta = EpisodeMeta(f"task {index}", suite, index, 0, 10.0, "0123456789abcdef", "tabletop", init_state=100 + number)
    state = np.stack([np.full(length, number), np.arange(length)], axis=1).astype(np.float64) if states else None
    felt = np.array([[number, t, 0] for t in range(length)], np.float32) if proprio else None
    return Episode(f"{suite}-{number:06d}", frames, actions, success, meta, sim_state=state, proprio=felt)


def write(folder: Path, episodes: list[Episode], suite: str = "spatial") -> Path:
    """A finished data set with these episodes, stored without loss; the folder."""
    write_shard(shard_path(folder, suite, 0), episodes, lossless=True)
    finish_dataset(folder)
    return folder


def write_mixed(folder: Path) -> Path:
    """Twelve episodes of two tasks: 0-5 succeed, 6-11 fail, and stray from frame 28 on."""
    succeeded = [episode(number, SUCCEEDED, 26) for number in range(6)]
    failed = [episode(number, FAILED, None, strays_at=28) for number in range(6, 12)]
    return write(folder, succeeded + failed)
