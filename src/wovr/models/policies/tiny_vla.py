"""A vision-language-action policy small enough to train and roll out on two CPU cores.

Convolutions conditioned on the instruction look at the picture; K learned queries, one an action of the chunk, attend
to the spatial features, the words and, where it is asked for, one token of proprioception, and a linear layer reads
A x bins logits off each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.attention import CrossAttentionBlock
from wovr.models.policies.base import Policy
from wovr.models.policies.text import TextEncoder
from wovr.types import CHUNK

UNSHUFFLE = 2
"""Pixels of the picture, each way, that are stacked into channels before the first convolution."""

STRIDE = 8
"""Pixels of the picture, each way, behind one spatial feature."""

FREQUENCIES = 4
"""Octaves of the sine and cosine features that tell attention where a spatial feature is."""


class ConditionedConv(nn.Module):
    """3 x 3 convolution, group norm, FiLM by the instruction, SiLU.

    Args:
        channels_in: Channels in.
        channels_out: Channels out; a multiple of 8.
        condition: Features of the instruction.
        stride: 1 or 2.
    """

    def __init__(self, channels_in: int, channels_out: int, condition: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
        self.norm = nn.GroupNorm(8, channels_out)
        self.film = nn.Linear(condition, 2 * channels_out)
        # Small, not zero: a zero start would let no gradient through to the instruction at the first step.
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) and (N, condition) to (N, channels_out, H / stride, W / stride)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        return nn.functional.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


class ImageEncoder(nn.Module):
    """Two stride-2 convolutions and a residual block, all conditioned on the instruction; positions are kept.

    Squares of 2 x 2 pixels are stacked into channels first: a third stride-2 convolution in that place costs a quarter
    more time and sees no more.

    Args:
        channels: Channels after each of the two strides; multiples of 8.
        width: Features out.
        condition: Features of the instruction.
    """

    def __init__(self, channels: Sequence[int], width: int, condition: int) -> None:
        super().__init__()
        if len(channels) != 2 or any(number % 8 for number in channels):
            raise ValueError(f"channels is {list(channels)}: two multiples of 8 are needed")
        sizes = [5 * UNSHUFFLE**2, *channels]  # 3 colours and 2 coordinates of each pixel
        self.strided = nn.ModuleList(
            ConditionedConv(before, after, condition, stride=2) for before, after in pairwise(sizes)
        )
        self.residual = nn.ModuleList(ConditionedConv(sizes[-1], sizes[-1], condition, stride=1) for _ in range(2))
        self.project = nn.Linear(sizes[-1], width)
        self.position = nn.Linear(4 * FREQUENCIES, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Look at pictures.

        Args:
            image: (N, 3, H, W) float in [-1, 1].
            condition: (N, condition) float.

        Returns:
            (N, H / 8 * W / 8, width) float.
        """
        places = coordinates(image.shape[2], image.shape[3], image.device)  # (2, H, W)
        x = torch.cat([image, places.expand(len(image), -1, -1, -1)], dim=1)
        x = nn.functional.pixel_unshuffle(x, UNSHUFFLE)  # (N, 20, H / 2, W / 2)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.strided:
            x = layer(x, condition)
        y = x
        for layer in self.residual:
            y = layer(y, condition)
        x = x + y
        places = coordinates(x.shape[2], x.shape[3], image.device).flatten(1).T  # (P, 2)
        octaves = math.pi * 2.0 ** torch.arange(FREQUENCIES, device=image.device) / 2
        angles = (places[..., None] * octaves).flatten(1)  # (P, 2 * FREQUENCIES)
        position = self.position(torch.cat([angles.sin(), angles.cos()], dim=1))  # (P, width)
        return self.norm(self.project(x.flatten(2).transpose(1, 2)) + position)  # (N, P, width)


def coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """Rows and columns of pixel centres: (2, height, width) float32 in (-1, 1)."""
    rows = (torch.arange(height, device=device) + 0.5) * (2 / height) - 1
    columns = (torch.arange(width, device=device) + 0.5) * (2 / width) - 1
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


class TinyVLA(Policy):
    """The tiny policy. Takes pictures of any size whose sides are multiples of 8; made for 64 x 64.

    Args:
        chunk: Actions of a chunk, K.
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        bins: Tokens an action dimension is cut into; an odd number has an exact zero.
        channels: Channels after each of the two stride-2 convolutions; multiples of 8.
        width: Features of the decoder.
        layers: Decoder blocks (self-attention, cross-attention, feed-forward).
        heads: Attention heads of the decoder.
        text_width: Features of a word.
        text_layers: Self-attention blocks over the words.
        buckets: Hash buckets of the word and trigram vectors.
        max_words: Longest instruction in words.
        proprio_dim: Numbers of proprioception that it looks at, P; 0 for none. In a training null is what the episodes
            have.

    Attributes:
        log_sharpness: (A,) float32, logarithm of what each dimension's logits are multiplied by. How sharply a cloned
            policy acts, its smoothed targets decide; reinforcement learning finds out, in few steps, what succeeds.
    """

    added: ClassVar[frozenset[str]] = frozenset({"log_sharpness"})
    for_rl: ClassVar[frozenset[str]] = added

    def __init__(
        self,
        chunk: int = CHUNK,
        action_dim: int | None = 4,
        bins: int = 33,
        channels: Sequence[int] = (48, 96),
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        text_width: int = 64,
        text_layers: int = 1,
        buckets: int = 4096,
        max_words: int = 48,
        proprio_dim: int | None = 0,
    ) -> None:
        super().__init__(chunk, action_dim, bins, proprio_dim)
        self.text = TextEncoder(text_width, text_layers, buckets=buckets, max_words=max_words)
        self.image = ImageEncoder(channels, width, text_width)
        self.words = nn.Linear(text_width, width)
        self.queries = nn.Parameter(torch.randn(chunk, width) * 0.1)
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.action_dim * bins)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.log_sharpness = nn.Parameter(torch.zeros(self.action_dim))
        if self.proprio_dim:
            self.proprio = nn.Sequential(nn.Linear(self.proprio_dim, width), nn.GELU(), nn.Linear(width, width))

    @property
    def layers(self) -> Sequence[nn.Module]:
        """See `Policy.layers`: the decoder's blocks."""
        return list(self.blocks)

    def logits(self, image: Tensor, instruction: Sequence[str], proprio: Tensor | None = None) -> Tensor:
        """See `Policy.logits`.

        Raises:
            UserError: The picture's sides are not multiples of 8.
        """
        if image.shape[2] % STRIDE or image.shape[3] % STRIDE:
            raise UserError(
                f"images are {image.shape[2]} x {image.shape[3]}, TinyVLA takes sides that are multiples of {STRIDE}",
                "choose another image size",
            )
        text = self.text(instruction)
        seen = self.image(image, text.pooled)  # (N, P, width)
        context = torch.cat([seen, self.words(text.words)], dim=1)  # (N, P + words, width)
        mask = torch.cat([text.mask.new_ones(seen.shape[:2]), text.mask], dim=1)
        if proprio is not None:
            context = torch.cat([context, self.proprio(proprio)[:, None]], dim=1)  # (N, P + words + 1, width)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        x = self.queries.expand(len(seen), -1, -1)  # (N, K, width)
        for block in self.blocks:
            x = block(x, context, mask)
        logits = self.head(self.norm(x)).unflatten(-1, (self.action_dim, self.bins))  # (N, K, A, bins)
        return logits * self.log_sharpness.exp()[:, None]
