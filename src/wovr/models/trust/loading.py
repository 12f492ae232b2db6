"""Trust from checkpoints, and the inverse dynamics that a configuration gives to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wovr.models.checkpoint import check_image_size, load_network
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.trust.model import Trust


def load_trust(checkpoint: Path, image_size: Sequence[int]) -> Trust:
    """Rebuild a trust from a checkpoint of `wovr fit`, on the CPU, in evaluation mode.

    Args:
        checkpoint: The checkpoint.
        image_size: Height and width of the pictures that it is to see.

    Raises:
        UserError: No such file, no checkpoint of one, weights that do not fit, or pictures of another size than it was
            trained on.
    """
    found = load_network(Path(checkpoint), Trust)
    check_image_size(Path(checkpoint), image_size, "those of the start states are")
    return found


def load_inverse_dynamics(checkpoint: str) -> InverseDynamics:
    """An inverse-dynamics network from a checkpoint, for a YAML to name.

    Args:
        checkpoint: Of conf/idm.yaml.

    Raises:
        UserError: As `load_network`.
    """
    return load_network(Path(checkpoint), InverseDynamics)
