"""Augmentation of images."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Move each image by its own whole number of pixels, repeating the border: pad and crop, as in DrQ.

    Args:
        images: (N, H, W, 3), any dtype.
        pixels: Largest shift up, down, left and right; 0 returns the images as they are.

    Returns:
        (N, H, W, 3), same dtype.
    """
    if pixels == 0:
        return images
    num, height, width, _ = images.shape
    # Drawn on the CPU, so that every device sees the same shifts.
    shift = torch.randint(-pixels, pixels + 1, (2, num, 1)).to(images.device)
    rows = (torch.arange(height, device=images.device) + shift[0]).clamp_(0, height - 1)  # (N, H)
    columns = (torch.arange(width, device=images.device) + shift[1]).clamp_(0, width - 1)  # (N, W)
    which = torch.arange(num, device=images.device)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]
