"""Autoencoders out of checkpoints."""

from __future__ import annotations

from pathlib import Path

from wovr.errors import UserError
from wovr.models.checkpoint import fingerprint_of, load_network, network_fingerprint
from wovr.models.world_model.autoencoders.base import Autoencoder


def load_autoencoder(checkpoint: Path) -> Autoencoder:
    """Rebuild an autoencoder from a checkpoint of `wovr fit`, on the CPU, in evaluation mode.

    In a YAML it stands where a class would, as `wovr.models.world_model.autoencoders.loading.load_autoencoder`, with
    the checkpoint in `init_args`. What is made this way remembers the arguments of its class, so a checkpoint that
    holds it needs the first one no more.

    Args:
        checkpoint: The file, e.g. runs/ae/checkpoints/last.ckpt.

    Raises:
        UserError: No such file, no checkpoint, one of another kind, pickled objects in it, weights that do not fit.
    """
    # mypy: the abstract class names the kind of network that is wanted, it is not instantiated.
    return load_network(Path(checkpoint), Autoencoder)  # type: ignore[type-abstract]


def autoencoder_fingerprint(checkpoint: Path) -> str:
    """16 hexadecimal digits that name an autoencoder: its class, arguments and weights.

    Raises:
        UserError: As `load_autoencoder`.
    """
    return network_fingerprint(Path(checkpoint), Autoencoder)


def check_autoencoder(autoencoder: Autoencoder, expected: str, where: str) -> None:
    """Compare an autoencoder with the one that something was made with.

    Args:
        autoencoder: The one at hand.
        expected: Fingerprint of the other.
        where: What was made with the other, a path or a name.

    Raises:
        UserError: They differ.
    """
    found = fingerprint_of(autoencoder)
    if found != expected:
        raise UserError(
            f"{where}: made with autoencoder {expected}, this {type(autoencoder).__name__} is {found}",
            "use the autoencoder it was made with, or make it anew",
        )
