from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch

from wovr.functional.blur import gaussian_blur, random_sigma


def test_each_picture_gets_its_own_blur() -> None:
    images = torch.rand(3, 2, 20, 24)
    sigma = torch.tensor([0.0, 0.7, 1.5])
    blurred = gaussian_blur(images, sigma, 1.5)
    for picture, result, width in zip(images.numpy(), blurred.numpy(), sigma.tolist(), strict=True):
        for channel, found in zip(picture, result, strict=True):
            expected = scipy.ndimage.gaussian_filter(channel, width, mode="nearest", radius=4) if width else channel
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_of_the_pictures_stay_sharp() -> None:
    torch.manual_seed(0)
    sigma = random_sigma(1000, 2.0, torch.device("cpu"))
    assert 450 < (sigma == 0).sum() < 550
    assert 1.9 < sigma.max() <= 2.0
