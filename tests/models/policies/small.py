"""A policy small enough for tests, and observations for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wovr.models.policies.tiny_vla import TinyVLA
from wovr.types import Observation

SENTENCES = ("put the red cube on the pad", "open the drawer", "push the blue block to the left edge")


def small_policy(seed: int = 0) -> TinyVLA:
    torch.manual_seed(seed)
    return TinyVLA(
        chunk=3, action_dim=2, bins=9, channels=(16, 16), width=16, layers=1, heads=2, text_width=16, buckets=64
    ).eval()


def observe(num: int, size: tuple[int, int] = (16, 24), seed: int = 0, text: Sequence[str] = SENTENCES) -> Observation:
    image = np.random.default_rng(seed).integers(0, 256, (num, *size, 3), dtype=np.uint8)
    return Observation(image, [text[i % len(text)] for i in range(num)])
