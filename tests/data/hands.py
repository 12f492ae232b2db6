"""Episodes of a robot of which only the hand is to be seen: a bright square, where a known camera shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.synthetic import make_episode
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.types import Episode

METRES = 0.02
"""How far the hand goes in a step under an action of 1."""

CAMERA = np.array([[60.0, 20.0, 0.0], [0.0, 20.0, -60.0]])
"""Of a picture of 32 x 32 pixels: columns and rows a metre along x, y, z."""

HOME = np.array([0.4, -0.1, 0.3])
"""Position that is seen in the middle of the picture."""


def hand_place(position: np.ndarray, size: int) -> np.ndarray:
    """(..., 3) metres -> (..., 2) column and row of the hand's middle, in pixels from the upper left corner."""
    return size / 2 + (position - HOME) @ CAMERA.T * size / 32


def hand_episode(number: int, num_frames: int = 20, size: int = 32, far: float = 0.0, held: bool = False) -> Episode:
    """Actions move the hand in x, y, z; proprioception is its position and the action's last number, the grip.

    With `held` the grip goes to 1 in episodes of even numbers, to -1 in the others, whose hand is dark red.
    """
    rng = np.random.default_rng([7, number])
    actions = np.repeat(rng.uniform(-1, 1, (num_frames // 4 + 1, 4)), 4, axis=0)[: num_frames - 1].astype(np.float32)
    begin = HOME + rng.uniform(-0.1, 0.1, 3)
    position = np.concatenate([begin[None], begin + METRES * actions[:, :3].cumsum(0)])
    grip = np.concatenate([[-1.0], actions[:, 3]])
    odd = held and number % 2 == 1
    if held:
        grip = (-1 if odd else 1) * np.minimum(np.arange(num_frames) / 8, 1)
    y, x = np.mgrid[0:size, 0:size] + 0.5
    frames = np.full((num_frames, size, size, 3), 40, np.uint8)
    for frame, (column, row) in zip(frames, hand_place(position, size), strict=True):
        frame[(abs(x - column) < size / 12) & (abs(y - row) < size / 12)] = (150, 0, 0) if odd else 230
    proprio = np.concatenate([position + far, grip[:, None]], axis=1).astype(np.float32)
    return make_episode(number, num_frames, (size, size), frames=frames, actions=actions, proprio=proprio)


def write_hands(
    folder: Path, episodes: int = 8, size: int = 32, num_frames: int = 20, far: float = 0.0, held: bool = False
) -> Path:
    """A finished data set of them; `far`, in metres, is added to every position; the folder."""
    write_shard(
        shard_path(folder, "spatial", 0), [hand_episode(n, num_frames, size, far, held) for n in range(episodes)]
    )
    finish_dataset(folder)
    return folder
