"""World models out of checkpoints."""

from __future__ import annotations

from pathlib import Path

from wovr.models.checkpoint import load_network
from wovr.models.world_model.model import WorldModel


def load_world_model(checkpoint: Path | str) -> WorldModel:
    """Rebuild a world model from a checkpoint of `wovr fit`, on the CPU, in evaluation mode.

    `wovr.models.world_model.rollout.Imagination` samples from it.

    Raises:
        UserError: No such file, no checkpoint, one of another kind, pickled objects in it, weights that do not fit.
    """
    return load_network(Path(checkpoint), WorldModel)
