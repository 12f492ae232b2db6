"""Gaussian blur, each picture its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blur pictures; the border is repeated.

    Args:
        images: (N, C, H, W) float.
        sigma: (N,) float in [0, largest], standard deviation of each picture's blur, pixels; 0 leaves it as it is.
        largest: Decides the width of the kernel, pixels.

    Returns:
        (N, C, H, W) float.
    """
    count, channels = images.shape[:2]
    radius = max(1, round(2.5 * largest))
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (places / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)  # (N * C, 2 radius + 1)
    side_by_side = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]  # (1, N * C, H + .., W + ..)
    blurred = F.conv2d(side_by_side, kernels[:, None, :, None], groups=count * channels)
    blurred = F.conv2d(blurred, kernels[:, None, None, :], groups=count * channels)
    return blurred[0].unflatten(0, (count, channels))


def random_sigma(count: int, largest: float, device: torch.device) -> Tensor:
    """(count,) float32: half of them 0, the others uniform in [0, largest]."""
    drawn = torch.rand(2, count)  # on the CPU, so that every device sees the same
    return (torch.where(drawn[0] < 0.5, 0.0, drawn[1]) * largest).to(device)
