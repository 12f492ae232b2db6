"""Tiny autoencoders, and moving pictures for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.data.synthetic import tabletop_frames
from wovr.functional.images import frames_to_float
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder
from wovr.models.world_model.autoencoders.wan import WanAutoencoder


def small_grouped(seed: int = 0, **changes: Any) -> GroupedAutoencoder:
    """Stride 8, 6 channels, 16 and 24 wide; in evaluation mode."""
    torch.manual_seed(seed)
    arguments = {"latent_channels": 6, "patch": 4, "widths": [16, 24]} | changes
    return GroupedAutoencoder(**arguments).eval()


def small_wan(seed: int = 0, **changes: Any) -> WanAutoencoder:
    """Stride 8, 4 channels; in evaluation mode."""
    torch.manual_seed(seed)
    arguments = {
        "base_dim": 4,
        "decoder_base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temporal_downsample": [True, True],
    } | changes
    return WanAutoencoder(**arguments).eval()


def clips(count: int = 2, length: int = 9, size: int = 32, seed: int = 0) -> Tensor:
    """(B, 3, L, H, W) float32 in [-1, 1]."""
    frames = [torch.from_numpy(tabletop_frames(length, (size, size), seed + i)) for i in range(count)]
    return frames_to_float(torch.stack(frames))
