"""Frames that say what happened in them: actions and positions are painted into pixels, and readers read them off.

So the values that metrics must give are known exactly: the true frames show the actions, a copy of the first frame
shows none, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wovr.metrics.rollouts import ImaginedBatch

SIZE = 16
ACTION_DIM = 2


def bytes_of(values: Tensor) -> Tensor:
    """Numbers in [-1, 1] as grey levels."""
    return ((values + 1) * 127.5).round().to(torch.uint8)


def numbers_of(levels: Tensor) -> Tensor:
    """Grey levels as numbers in [-1, 1]."""
    return levels.float() / 127.5 - 1


def painted_video(actions: Tensor, positions: Tensor | None = None, seed: int = 0) -> Tensor:
    """(T, 16, 16, 3) uint8: wandering colours, action t in row 0 of frame t + 1, positions (T, P, 3) in row 1."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 255
    texture = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0].movedim(0, -1).to(torch.uint8)
    video = torch.stack([texture.roll(shift, 1) for shift in range(len(actions) + 1)])
    video[:, 0] = 0
    video[1:, 0, :ACTION_DIM, 0] = bytes_of(actions)
    if positions is not None:
        video[:, 1, : positions.shape[1]] = bytes_of(positions)
    return video


def random_actions(count: int, seed: int) -> Tensor:
    """(count, A) float32 in [-1, 1] that grey levels hold exactly."""
    levels = torch.randint(0, 256, (count, ACTION_DIM), generator=torch.Generator().manual_seed(seed))
    return levels / 127.5 - 1


def painted_batch(lengths: Sequence[int] = (9, 9, 6), points: int = 3) -> ImaginedBatch:
    """Episodes of given lengths beside themselves; point 0 is a gripper, the others are movable, 1 is held at t = 2."""
    longest = max(lengths)
    real, actions = [], []
    positions = torch.full((len(lengths), longest, points, 3), torch.nan)
    for row, length in enumerate(lengths):
        taken = random_actions(length - 1, row)
        where = numbers_of(torch.randint(64, 192, (length, points, 3), generator=torch.Generator().manual_seed(row)))
        video = painted_video(taken, where, row)
        real.append(torch.cat([video, video[-1:].expand(longest - length, -1, -1, -1)]))
        actions.append(torch.cat([taken, torch.zeros(longest - length, ACTION_DIM)]))
        positions[row, :length] = where
    held = torch.zeros(len(lengths), longest, points, dtype=torch.bool)
    held[:, 2, 1] = True
    movable = torch.ones(len(lengths), points, dtype=torch.bool)
    movable[:, 0] = False
    frames = torch.stack(real)
    return ImaginedBatch(
        imagined=frames,
        real=frames,
        actions=torch.stack(actions),
        lengths=torch.tensor(lengths),
        positions=positions,
        movable=movable,
        held=held,
    )


def noisy(frames: Tensor, amount: int, seed: int = 0) -> Tensor:
    """Frames with uniform noise of up to `amount` grey levels on all but the first of each video."""
    noise = torch.randint(-amount, amount + 1, frames.shape, generator=torch.Generator().manual_seed(seed))
    result = (frames + noise).clamp(0, 255).to(torch.uint8)
    result[:, 0] = frames[:, 0]
    return result


class PaintedReader(nn.Module):
    """Stands in for an inverse-dynamics network."""

    window = 3
    action_dim = ACTION_DIM

    def read(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 -> (B, T - 1, A)."""
        return numbers_of(frames[:, 1:, 0, :ACTION_DIM, 0])


class PaintedProbe(nn.Module):
    """Stands in for a state probe."""

    def __init__(self, looks: Sequence[str] = ("gripper", "cube", "ball")) -> None:
        super().__init__()
        self.looks = list(looks)

    def read(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, P, 3)."""
        return numbers_of(frames[:, 1, : len(self.looks)])
