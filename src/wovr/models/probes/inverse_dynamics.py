"""Inverse dynamics: which actions were taken, read off frames. It measures world models; nothing acts through it.

Its features also stand in, under their own name `[idm]`, for feature networks whose weights are not on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.models.checkpoint import Network, known
from wovr.models.probes.keypoints import KeypointEncoder, Keypoints, network_images

_SHIFT_SCALE = 16.0
"""Keypoints move by some hundredths of the picture from frame to frame; this brings that to about one."""


@dataclass
class WindowReading:
    """What is read off every window of W successive frames; n = T - W + 1 windows of T frames.

    Attributes:
        actions: (B, n, W - 1, A) float32, the actions between the frames of a window.
        features: (B, n, D) float32, the last hidden layer.
    """

    actions: Tensor
    features: Tensor


class InverseDynamics(Network):
    """Keypoints of each frame, and a perceptron over how they move within a window.

    Args:
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        window: Frames of a window, W; an action's effect goes on for a frame or two.
        keypoints: Keypoints of a frame, K.
        channels: Channels of the convolutions; multiples of 8.
        width: Hidden features, D.
        size: Height and width that pictures are resized to; a multiple of 4.
    """

    kind: ClassVar[str] = "inverse_dynamics"

    def __init__(
        self,
        action_dim: int | None = 4,
        window: int = 4,
        keypoints: int = 32,
        channels: Sequence[int] = (16, 32, 48),
        width: int = 128,
        size: int = 64,
    ) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"window is {window}: at least two frames are needed")
        self.action_dim = known("action_dim", action_dim)
        self.window = window
        self.width = width
        self.encoder = KeypointEncoder(keypoints, channels, size)
        self.look = nn.Linear(2 * keypoints + channels[-1], width // 2)
        inputs = 2 * keypoints * window + window * (width // 2)  # mean places, their shifts, what each frame looks like
        self.hidden = nn.Sequential(nn.Linear(inputs, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU())
        self.head = nn.Linear(width, (window - 1) * self.action_dim)

    def forward(self, images: Tensor) -> WindowReading:
        """Read every window: (B, T, 3, H, W) float in [-1, 1], T >= W."""
        seen = self.encoder(images.flatten(0, 1))
        places = seen.places.flatten(1).unflatten(0, images.shape[:2])  # (B, T, 2K)
        looks = nn.functional.silu(self.look(frame_features(seen))).unflatten(0, images.shape[:2])
        places = places.unfold(1, self.window, 1)  # (B, n, 2K, W)
        looks = looks.unfold(1, self.window, 1)  # (B, n, D / 2, W)
        shifts = _SHIFT_SCALE * places.diff(dim=-1)  # (B, n, 2K, W - 1)
        features = self.hidden(torch.cat([2 * places.mean(-1), shifts.flatten(2), looks.flatten(2)], dim=-1))
        actions = self.head(features).unflatten(-1, (self.window - 1, self.action_dim))
        return WindowReading(actions, features)

    @torch.no_grad()
    def read(self, frames: Tensor) -> Tensor:
        """Read the actions of whole videos; each is the mean of what the windows that hold it say.

        Args:
            frames: (B, T, H, W, 3) uint8, T >= W.

        Returns:
            (B, T - 1, A) float32.
        """
        actions = self(network_images(frames)).actions
        total = actions.new_zeros(len(frames), frames.shape[1] - 1, self.action_dim)
        count = actions.new_zeros(frames.shape[1] - 1, 1)
        for place in range(self.window - 1):
            total[:, place : place + actions.shape[1]] += actions[:, :, place]
            count[place : place + actions.shape[1]] += 1
        return total / count


def frame_features(seen: Keypoints) -> Tensor:
    """What single frames look like: (N, 2K + channels) float32, places of keypoints and the mean of the last map."""
    return torch.cat([seen.places.flatten(1), seen.pooled], dim=1)
