"""Episodes like the tabletop's: a plain shaded table, saturated cubes, a moving gripper; small data sets of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.types import Episode, EpisodeMeta

CUBES = np.array([[220, 30, 30], [30, 60, 220], [30, 190, 60], [240, 200, 20], [200, 40, 200]])


def tabletop_frames(num_frames: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    table = np.stack([170 + 30 * y, 160 + 30 * y + 10 * x, 150 + 25 * y], axis=-1)
    table += rng.normal(0, 1.5, (height, width, 1))  # the grain of its surface, the same in every frame
    colours = CUBES[rng.permutation(len(CUBES))[:3]]
    places = np.stack([rng.uniform(0.35, 0.85, 3), rng.uniform(0.2, 0.75, 3)], axis=1)
    speeds, gripper_speed = rng.normal(0, 0.004, (3, 2)), rng.normal(0, 0.01, 2)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        picture = table.copy()
        for colour, place in zip(colours, places + speeds * max(0, t - num_frames // 3), strict=True):
            dy, dx = y - place[0], x - place[1]
            picture[(np.abs(dy - 0.05) < 0.06) & (np.abs(dx - 0.02) < 0.09)] *= 0.85  # shadow
            front = (np.abs(dx) < 0.09) & (dy > 0) & (dy < 0.126)
            picture[front] = colour * (0.75 + 1.7 * dx[front])[:, None]  # shaded from left to right
            picture[(np.abs(dx - 0.2 * dy) < 0.09) & (dy <= 0) & (dy > -0.063)] = colour
        grip = np.array([0.3, 0.5]) + gripper_speed * t + 0.05 * np.sin(t / 6 + np.array([0, 1]))
        finger = (np.abs(np.abs(x - grip[1]) - 0.07) < 0.03) & (y < grip[0]) & (y > grip[0] - 0.25)
        picture[finger] = (60 + 40 * (y[finger] - grip[0] + 0.25))[:, None]
        picture[(np.abs(x - grip[1]) < 0.1) & (y < grip[0] - 0.2)] = [45, 45, 50]
        frames[t] = np.clip(picture, 0, 255)
    return frames


def make_episode(
    number: int, num_frames: int = 24, size: tuple[int, int] = (32, 32), action_dim: int = 4, **changes: Any
) -> Episode:
    """Episode `spatial-NUMBER`; every third succeeds at its last three frames. `changes` replace fields."""
    rng = np.random.default_rng(number)
    success = np.zeros(num_frames, bool)
    success[-3:] = number % 3 == 0
    fields: dict[str, Any] = {
        "key": f"spatial-{number:06d}",
        "frames": tabletop_frames(num_frames, size, number),
        "actions": rng.uniform(-1, 1, (num_frames - 1, action_dim)).astype(np.float32),
        "success": success,
        "meta": EpisodeMeta(f"put cube {number % 2} on the pad", "spatial", number % 2, 7, 10.0, "expert", "tabletop"),
        "sim_state": rng.normal(size=(num_frames, 9)),
    }
    return Episode(**fields | changes)


def write_dataset(folder: Path, shards: int = 2, episodes: int = 3, **arguments: Any) -> Path:
    """A finished data set of `shards` shards with `episodes` episodes each; the folder."""
    for index in range(shards):
        numbers = range(index * episodes, (index + 1) * episodes)
        write_shard(shard_path(folder, "spatial", index), [make_episode(number, **arguments) for number in numbers])
    finish_dataset(folder)
    return folder


def write_one(path: Path) -> str:
    """Write a shard with the episode of its index, as a process of its own would; the SHA-256."""
    return write_shard(path, [make_episode(int(path.stem[-6:]))]).sha256


def assert_same(one: Episode, other: Episode, frames_too: bool = True) -> None:
    """All arrays and the meta data are equal; the frames only where they were stored without loss."""
    for name in ("actions", "success", "sim_state", "proprio", "camera", *(["frames"] if frames_too else [])):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.key, one.meta) == (other.key, other.meta)
