"""Policies out of checkpoints."""

from __future__ import annotations

from pathlib import Path

from wovr.models.checkpoint import load_network, network_fingerprint
from wovr.models.policies.base import Policy


def load_policy(checkpoint: Path | str) -> Policy:
    """Rebuild a policy from a checkpoint of `wovr fit` or `wovr rl`, on the CPU, in evaluation mode.

    Raises:
        UserError: No such file, no checkpoint, one of another kind, pickled objects in it, weights that do not fit.
    """
    # mypy: the abstract class names the kind of network that is wanted, it is not instantiated.
    return load_network(Path(checkpoint), Policy)  # type: ignore[type-abstract]


def policy_fingerprint(checkpoint: Path) -> str:
    """16 hexadecimal digits that name a policy: its class, arguments and weights.

    Raises:
        UserError: As `load_policy`.
    """
    return network_fingerprint(Path(checkpoint), Policy)
