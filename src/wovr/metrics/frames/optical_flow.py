"""Optical flow between frames: RAFT where its weights are at hand, Farnebäck's method otherwise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_large

from wovr.functional.farneback import farneback_flow
from wovr.metrics.networks.weights import read_state_dict
from wovr.models.probes.keypoints import network_images

_SMALLEST = 128
"""Shortest side that RAFT can take, pixels."""


class RAFTFlow(nn.Module):
    """RAFT (Teed and Deng 2020), large, as torchvision has it. Small pictures are enlarged for it.

    Args:
        weights: torchvision's weights.
        updates: Iterations that refine the flow.

    Raises:
        UserError: The file holds no RAFT.
    """

    def __init__(self, weights: Path, updates: int = 12) -> None:
        super().__init__()
        self.updates = updates
        self.network = raft_large(weights=None)
        self.network.load_state_dict(
            read_state_dict(weights, {name: tensor.shape for name, tensor in self.network.state_dict().items()})
        )
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (N, H, W, 3) uint8 pictures to (N, 2, H, W) float, pixels (x, y)."""
        height, width = first.shape[1:3]
        factor = max(1.0, _SMALLEST / min(height, width))
        sides = [max(_SMALLEST, round(side * factor / 8) * 8) for side in (height, width)]
        images = [
            nn.functional.interpolate(network_images(picture), sides, mode="bilinear") for picture in (first, second)
        ]
        flow = self.network(*images, num_flow_updates=self.updates)[-1]
        scale = torch.tensor([width / sides[1], height / sides[0]], device=flow.device)
        return nn.functional.interpolate(flow, (height, width), mode="bilinear") * scale[:, None, None]


class FarnebackFlow(nn.Module):
    """Farnebäck's method on the mean of the colours; no weights."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (N, H, W, 3) uint8 pictures to (N, 2, H, W) float, pixels (x, y)."""
        return farneback_flow(first.float().mean(-1), second.float().mean(-1))
