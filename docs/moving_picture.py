"""The moving picture of README: held-out episodes, real above, imagined below under the same actions.

    python docs/moving_picture.py runs/wm/checkpoints/last.ckpt data/held_out docs/imagined.webp

The world model sees the first frame of an episode, and then only the actions. Shown are the first successful episodes,
one a task: the first that the data hold, not the best.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wovr.data.store.reader import EpisodeStore
from wovr.models.checkpoint import load_network
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination

COLUMNS = 6
GAP = 2
"""White pixels between pictures, before they are enlarged."""
ENLARGED = 2
HELD = 10
"""Times the last frame is shown."""


def first_successes(store: EpisodeStore, count: int) -> list[int]:
    """The first successful episode of each task, of `count` tasks at most."""
    found: dict[tuple[str, int], int] = {}
    for index, entry in enumerate(store.entries):
        if entry.succeeded:
            found.setdefault((entry.meta.suite, entry.meta.task), index)
    return [found[task] for task in sorted(found)][:count]


@torch.no_grad()
def imagine(model: WorldModel, store: EpisodeStore, index: int) -> np.ndarray:
    """(T, H, W, 3) uint8: the first frame of an episode, and what the world model makes of its actions."""
    first, actions = store.frames(index, 0, 1), store.actions(index)
    whole = np.zeros((-(-len(actions) // model.chunk) * model.chunk, actions.shape[1]), np.float32)
    whole[: len(actions)] = actions
    imagination = Imagination(model)
    imagination.start(first, signals=store.first_signals([index]))
    chunks = [imagination.step(chunk[None]).cpu().numpy()[0] for chunk in np.split(whole, len(whole) // model.chunk)]
    return np.concatenate([first, *chunks])[: len(actions) + 1]


def montage(real: list[np.ndarray], imagined: list[np.ndarray]) -> list[Image.Image]:
    """Real above imagined, an episode a column; one that has ended shows its last frame.

    Args:
        real: (T, H, W, 3) uint8 of each episode, T its own.
        imagined: The same of what was imagined.

    Returns:
        A picture a frame of the longest.
    """
    height, width = real[0].shape[1:3]
    pictures = []
    for t in range(max(map(len, real))):
        paper = np.full((2 * height + GAP, len(real) * (width + GAP) - GAP, 3), 255, np.uint8)
        for row, episodes in enumerate((real, imagined)):
            for column, frames in enumerate(episodes):
                top, left = row * (height + GAP), column * (width + GAP)
                paper[top : top + height, left : left + width] = frames[min(t, len(frames) - 1)]
        pictures.append(Image.fromarray(paper.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)))
    return pictures


def main(checkpoint: str, folder: str, out: str) -> None:
    """Write the picture, an animated WebP."""
    store, model = EpisodeStore(folder), load_network(Path(checkpoint), WorldModel)
    chosen = first_successes(store, COLUMNS)
    if not chosen:
        sys.exit(f"{folder}: no episode succeeds; give episodes of a policy that does now and then")
    pictures = montage(
        [store.read(index).frames for index in chosen], [imagine(model, store, index) for index in chosen]
    )
    fps = store.entries[0].meta.fps
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [round(1000 / fps) * HELD]
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=80, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
