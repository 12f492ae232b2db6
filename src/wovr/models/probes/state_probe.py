"""A probe: where the gripper and the objects are, read off single frames. It measures world models.

Every point is read through attention maps of its own, and not off a vector of the whole picture: a network that has
memorised the training layouts would go on reporting an object that an imagined frame has lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.models.checkpoint import Network
from wovr.models.probes.keypoints import KeypointEncoder, network_images

_METRES = 0.1
"""Metres that one unit of the network's output stands for."""


class StateProbe(Network):
    """Positions of named points in space from one picture.

    Args:
        looks: The points by their appearance, e.g. `["gripper", "red_cube", "red_cube"]`. A name that comes twice
            stands for two things that a picture cannot tell apart: the order of their outputs means nothing.
        maps: Attention maps of a point.
        channels: Channels of the convolutions; multiples of 8.
        width: Hidden features of a point.
        size: Height and width that pictures are resized to; a multiple of 4.
    """

    kind: ClassVar[str] = "state_probe"

    def __init__(
        self,
        looks: Sequence[str],
        maps: int = 3,
        channels: Sequence[int] = (24, 48, 64, 64),
        width: int = 64,
        size: int = 64,
    ) -> None:
        super().__init__()
        if not looks:
            raise ValueError("looks is empty: at least one point is needed")
        self.looks = list(looks)
        self.maps = maps
        points, inputs = len(self.looks), maps * (2 + channels[-1])
        self.encoder = KeypointEncoder(points * maps, channels, size)
        self.hidden = nn.Parameter(torch.randn(points, inputs, width) / math.sqrt(inputs))
        self.hidden_bias = nn.Parameter(torch.zeros(points, width))
        self.head = nn.Parameter(torch.randn(points, width, 3) / math.sqrt(width))
        self.head_bias = nn.Parameter(torch.zeros(points, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Positions in N pictures.

        Args:
            images: (N, 3, H, W) float in [-1, 1].

        Returns:
            (N, P, 3) float32, metres.
        """
        seen = self.encoder(images)
        looks = seen.attention @ seen.maps[-1].flatten(2).transpose(1, 2)  # (N, P * maps, channels)
        x = torch.cat([2 * seen.places, looks], dim=-1).unflatten(1, (-1, self.maps)).flatten(2)  # (N, P, inputs)
        x = nn.functional.silu(torch.einsum("npi,pio->npo", x, self.hidden) + self.hidden_bias)
        return _METRES * (torch.einsum("npi,pio->npo", x, self.head) + self.head_bias)

    @torch.no_grad()
    def read(self, frames: Tensor) -> Tensor:
        """Positions in frames: (N, H, W, 3) uint8 -> (N, P, 3) float32, metres."""
        return self(network_images(frames))
