from __future__ import annotations

import numpy as np
import torch

from wovr.functional.augment import random_shift


def test_every_image_is_padded_and_cropped_by_its_own_shift() -> None:
    images = torch.randint(0, 256, (20, 8, 10, 3), dtype=torch.uint8)
    shifted = random_shift(images, 2)
    padded = np.pad(images.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    crops = {(dy, dx): padded[:, dy : dy + 8, dx : dx + 10] for dy in range(5) for dx in range(5)}
    found = [{shift for shift, crop in crops.items() if np.array_equal(crop[i], shifted[i])} for i in range(20)]
    assert all(found)
    assert len(set.union(*found)) > 5


def test_no_pixels_no_change_and_the_generator_decides() -> None:
    images = torch.randint(0, 256, (20, 8, 10, 3), dtype=torch.uint8)
    assert random_shift(images, 0) is images
    torch.manual_seed(1)
    one = random_shift(images, 2)
    torch.manual_seed(1)
    assert torch.equal(random_shift(images, 2), one)
    assert not torch.equal(random_shift(images, 2), one)
