"""A loss whose minimum is a choice: between two outcomes the mean is neither of them, the median is the likelier."""

from __future__ import annotations

from torch import Tensor


def pseudo_huber(error: Tensor, scale: float) -> Tensor:
    """2 d (sqrt(e^2 + d^2) - d): e^2 for errors e well below the scale d, 2 d |e| well above it.

    Where an object was taken or was not, a network fitted to squares draws it half in both places; one fitted to sizes
    draws it where it is likelier to be. Also called Charbonnier loss.

    Args:
        error: (...) float.
        scale: d > 0, in the error's units.

    Returns:
        (...) float >= 0.
    """
    return 2 * scale * ((error**2 + scale**2).sqrt() - scale)
