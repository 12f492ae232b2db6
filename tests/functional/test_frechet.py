from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from wovr.functional.frechet import Gaussian, frechet_distance, gaussian_of_sums


def gaussian(samples: np.ndarray) -> Gaussian:
    x = torch.from_numpy(samples)
    return gaussian_of_sums(torch.tensor(float(len(x))), x.sum(0), x.T @ x)


def reference(one: np.ndarray, other: np.ndarray) -> float:
    """As the original code has it: scipy's matrix square root of the product of the covariances."""
    c1, c2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root))


@pytest.mark.parametrize(("samples", "dimensions"), [(200, 5), (300, 40), (64, 60)])
def test_it_is_what_scipy_says(samples: int, dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    mix = rng.normal(size=(dimensions, dimensions))
    one = rng.normal(size=(samples, dimensions)) @ mix + 3
    other = rng.normal(size=(samples, dimensions)) @ (mix + 0.3 * rng.normal(size=mix.shape))
    found = float(frechet_distance(gaussian(one), gaussian(other)))
    assert found == pytest.approx(reference(one, other), rel=1e-6)


def test_one_dimension_has_a_closed_form() -> None:
    one, other = (
        Gaussian(torch.tensor([mean]).double(), torch.tensor([[std**2]]).double()) for mean, std in ((1, 2), (4, 5))
    )
    assert float(frechet_distance(one, other)) == pytest.approx((1 - 4) ** 2 + (2 - 5) ** 2)


def test_fewer_samples_than_dimensions_still_give_a_distance() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 10, 50))
    assert float(frechet_distance(gaussian(one), gaussian(one))) == pytest.approx(0, abs=1e-5)
    there, back = frechet_distance(gaussian(one), gaussian(other)), frechet_distance(gaussian(other), gaussian(one))
    assert float(there) > 1
    assert float(there) == pytest.approx(float(back), rel=1e-6)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 samples"):
        gaussian(np.zeros((1, 3)))
