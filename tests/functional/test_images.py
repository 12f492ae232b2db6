from __future__ import annotations

import torch

from wovr.functional.images import frames_to_float, frames_to_uint8


def test_there_and_back_is_exact() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 2, 8, 16, 3)
    floats = frames_to_float(frames)
    assert floats.shape == (1, 3, 2, 8, 16)
    assert (floats.min(), floats.max()) == (-1, 1)
    assert floats[0, 2, 1, 3, 4] == frames[0, 1, 3, 4, 2] / 127.5 - 1
    assert torch.equal(frames_to_uint8(floats), frames)


def test_what_is_out_of_range_is_clipped() -> None:
    assert frames_to_uint8(torch.tensor([-3.0, 3.0, 0.0]).view(1, 3, 1, 1, 1)).tolist() == [[[[[0, 255, 128]]]]]
