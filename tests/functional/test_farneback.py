from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from wovr.functional.farneback import farneback_flow


def texture(seed: int = 0) -> Tensor:
    """(1, 96, 96) smooth random picture in [0, 255]."""
    noise = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(seed))
    return interpolate(noise, (96, 96), mode="bicubic")[:, 0] * 255


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (3, -2), (-5, 4)])
def test_a_translation_is_found(x: int, y: int) -> None:
    picture = texture()
    moved = picture.roll((y, x), (1, 2))
    flow = farneback_flow(picture[:, 16:80, 16:80], moved[:, 16:80, 16:80])
    inside = flow[0, :, 12:-12, 12:-12]
    assert flow.shape == (1, 2, 64, 64)
    assert (inside - torch.tensor([x, y])[:, None, None]).abs().max() < 0.25


def test_a_part_that_moves_is_told_from_one_that_does_not() -> None:
    picture = texture()[:, :64, :64]
    moved = picture.clone()
    moved[:, :, 32:] = texture()[:, :64, 30:62]  # what was two columns further left
    flow = farneback_flow(picture, moved)[0, 0]
    assert flow[20:44, 44:56].mean() == pytest.approx(2, abs=0.3)
    assert flow[20:44, 8:20].abs().mean() < 0.2


def test_pictures_without_texture_stand_still_and_pairs_do_not_depend_on_each_other() -> None:
    flat = torch.full((1, 40, 56), 100.0)
    one, other = texture()[:, :40, :56], texture()[:, 2:42, :56]
    together = farneback_flow(torch.cat([flat, one]), torch.cat([flat, other]))
    assert together[0].abs().max() < 1e-3
    torch.testing.assert_close(together[1:], farneback_flow(one, other), atol=1e-3, rtol=1e-3)
