"""Checkpoints to give away: the networks and what is said of them, in half precision, and nothing of the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wovr.models.checkpoint import KEY, read_checkpoint
from wovr.runs import atomic_write

WHOLE_BELOW = 4096
"""Numbers of a tensor up to which it keeps its precision: norms, biases, means and spreads weigh next to nothing."""


def write_half_copy(checkpoint: Path, copy: Path) -> int:
    """Copy the networks of a checkpoint, their arguments and the record of their data; read by the ordinary loaders.

    Large tensors are rounded to half precision (11 significant bits), those that would not stay finite and small ones
    are left as they are. Optimiser, loops, callbacks and the weights that an average was made of are left out.

    Args:
        checkpoint: Any checkpoint of the package.
        copy: Where it goes.

    Returns:
        The number of parameters.

    Raises:
        UserError: It cannot be read, or the copy not be written.
    """
    read = read_checkpoint(checkpoint)
    networks: Mapping[str, Any] = read[KEY]["networks"]
    prefixes = tuple(str(network["prefix"]) for network in networks.values())
    weights = {name: _halved(value) for name, value in read["state_dict"].items() if name.startswith(prefixes)}
    with atomic_write(copy) as file:
        torch.save({"state_dict": weights, KEY: read[KEY]}, file)
    return sum(value.numel() for value in weights.values())


def _halved(weights: Tensor) -> Tensor:
    """The same in half precision, where that is worth it; with a storage of its own size."""
    if weights.dtype is torch.float32 and weights.numel() >= WHOLE_BELOW:
        half = weights.half()
        if bool(half.isfinite().all()):
            return half
    return weights.clone()
