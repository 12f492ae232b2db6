"""The Fréchet distance between two Gaussians, in float64: what FID and FVD are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A multivariate normal distribution.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64, symmetric.
    """

    mean: Tensor
    covariance: Tensor


def gaussian_of_sums(count: Tensor, total: Tensor, outer: Tensor) -> Gaussian:
    """The Gaussian with the mean and the unbiased covariance of some samples.

    Args:
        count: () number of samples, at least 2.
        total: (D,) float64, sum of the samples.
        outer: (D, D) float64, sum of their outer products.

    Raises:
        ValueError: Fewer than two samples.
    """
    if count < 2:
        raise ValueError(f"{int(count)} samples have no covariance")
    mean = total / count
    covariance = (outer - count * torch.outer(mean, mean)) / (count - 1)
    return Gaussian(mean, (covariance + covariance.T) / 2)


def frechet_distance(one: Gaussian, other: Gaussian) -> Tensor:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau 1982), as FID and FVD report it.

        |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

    The last trace is taken from the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no complex numbers, and no
    offset on the diagonal where a covariance is singular (fewer samples than dimensions).

    Args:
        one: The first.
        other: The second, of the same dimension.

    Returns:
        () float64, at least 0.
    """
    values, vectors = torch.linalg.eigh(one.covariance.double())
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ other.covariance.double() @ root
    trace_of_root = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    shift = (one.mean - other.mean).double().square().sum()
    distance = shift + one.covariance.trace() + other.covariance.trace() - 2 * trace_of_root
    return distance.clamp(min=0)
