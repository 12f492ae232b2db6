"""A critic of chunks: how far imagination has gone astray, read off a chunk's actions and the frames around it.

It learns on replay: real episodes are imagined again, so what the same actions really led to is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.models.checkpoint import Network, known
from wovr.models.film import ConditionedBlock, Film

_GRID = 4
"""Places, each way, that the last map is pooled to. Cameras stand still: where something is matters."""

_PICTURES = 4
"""What it sees of a chunk: the reference, the frame before, that in the middle and the last."""

_USUAL = 2.5
"""Logarithm of a usual error, 12 grey levels (27 dB), which training begins from."""

_BATCH = 256
"""Chunks looked at a time: as fast as more, in a fraction of the memory."""


class ChunkCritic(Network):
    """A ResNet on the pictures of a chunk, every block scaled and shifted by its actions (FiLM).

    Args:
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        chunk: Actions of a chunk, K.
        channels: Channels of the stem and of each stage, multiples of 8; each of them halves the picture.
        embedding: Numbers that a chunk's actions are embedded in.
        width: Hidden features of the head.
    """

    kind: ClassVar[str] = "chunk_critic"

    def __init__(
        self,
        action_dim: int | None = None,
        chunk: int = 8,
        channels: Sequence[int] = (24, 48, 96, 96),
        embedding: int = 64,
        width: int = 128,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or any(number < 8 or number % 8 for number in channels):
            raise ValueError(f"channels is {list(channels)}: two or more multiples of 8 are needed")
        self.action_dim = known("action_dim", action_dim)
        self.chunk = chunk
        self.actions = nn.Sequential(nn.Linear(chunk * self.action_dim, embedding), nn.SiLU())
        self.stem = nn.Conv2d(3 * _PICTURES, channels[0], 3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            ConditionedBlock(before, after, 2, embedding) for before, after in pairwise(channels)
        )
        self.norm = nn.GroupNorm(8, channels[-1])
        self.pool = nn.AdaptiveAvgPool2d(_GRID)
        self.hidden = nn.Linear(channels[-1] * _GRID**2, width)
        self.film = Film(embedding, width)
        self.head = nn.Linear(width, 1)
        nn.init.constant_(self.head.bias, _USUAL)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, actions: Tensor) -> Tensor:
        """Judge chunks.

        Args:
            images: (B, 12, H, W) float in [-1, 1], from `chunk_images`.
            actions: (B, K, A) float in [-1, 1].

        Returns:
            (B,) float, the natural logarithm of the error that it expects in the last frame, see `frame_error`.
        """
        embedded = self.actions(actions.flatten(1))  # (B, E)
        x = self.stem(images.to(memory_format=torch.channels_last))
        for block in self.stages:
            x = block(x, embedded)
        x = self.pool(nn.functional.silu(self.norm(x))).flatten(1)  # (B, channels * 16)
        return self.head(nn.functional.silu(self.film(self.hidden(x), embedded))).squeeze(1)

    @torch.no_grad()
    def read(self, reference: Tensor, before: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """Judge chunks of any number of rollouts.

        Args:
            reference: (R, H, W, 3) uint8, each rollout's first frame.
            before: (R, H, W, 3) uint8, the frame that the chunk begins at.
            frames: (R, K, H, W, 3) uint8, the chunk.
            actions: (R, K, A) float in [-1, 1].

        Returns:
            (R,) float32, see `forward`.
        """
        pictures = chunk_pictures(reference, before, frames)  # (R, H, W, 12)
        parts = zip(pictures.split(_BATCH), actions.split(_BATCH), strict=True)
        return torch.cat([self(chunk_images(part), told) for part, told in parts]).float()


def chunk_pictures(reference: Tensor, before: Tensor, frames: Tensor) -> Tensor:
    """What the critic sees of R chunks, side by side in the channels: (R, H, W, 12) uint8."""
    return torch.cat([reference, before, frames[:, frames.shape[1] // 2 - 1], frames[:, -1]], dim=-1)


def chunk_images(pictures: Tensor) -> Tensor:
    """(B, H, W, 12) uint8 -> (B, 12, H, W) float32 in [-1, 1], channels last in memory."""
    return pictures.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def error_of_psnr(psnr: float) -> float:
    """The `frame_error` at a peak signal-to-noise ratio, dB."""
    return 255.0 * 10 ** (-psnr / 20)


def psnr_of_error(error: float) -> float:
    """The peak signal-to-noise ratio, dB, at a `frame_error`."""
    return 20 * math.log10(255.0 / max(error, 1e-6))


def frame_error(imagined: Tensor, real: Tensor) -> Tensor:
    """How far imagined frames are from the real ones: (..., H, W, 3) uint8 twice -> (...) float32, grey levels, RMS."""
    return (imagined.float() - real.float()).square().mean((-3, -2, -1)).sqrt()
