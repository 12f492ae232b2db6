"""Frames as they travel (uint8, channels last) to frames as networks take them (float, channels first), and back."""

from __future__ import annotations

import torch
from torch import Tensor


def frames_to_float(frames: Tensor) -> Tensor:
    """(B, L, H, W, 3) uint8 -> (B, 3, L, H, W) float32 in [-1, 1]."""
    return frames.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def frames_to_uint8(frames: Tensor) -> Tensor:
    """(B, 3, L, H, W) float, clipped to [-1, 1] -> (B, L, H, W, 3) uint8. Inverts `frames_to_float` exactly."""
    return ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
