"""Videos for people."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from wovr.data.pictures import file_name, write_preview


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (256, 256)), ((33, 35), (264, 280)), ((301, 255), (302, 256))]
)
def test_size_colours_and_length(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    frames = np.zeros((5, *size, 3), np.uint8)
    frames[:, :, : size[1] // 2] = (200, 40, 40)
    frames[:, :, size[1] // 2 :] = (30, 60, 220)
    frames[4] = 255
    write_preview(tmp_path / "deep" / "a.mp4", frames, 7.0)
    with av.open(str(tmp_path / "deep" / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 7
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == (5, *expected, 3)
    middle = expected[0] // 2
    for frame in decoded[:4]:
        assert frame[middle, 5] == pytest.approx([200, 40, 40], abs=8)
        assert frame[middle, -5] == pytest.approx([30, 60, 220], abs=8)
    assert decoded[4].min() > 245


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lpips[idm]", "lpips-idm"),
        ("../../home/x", "home-x"),
        ("/etc/passwd", "etc-passwd"),
        ("a\0b\nc", "a-b-c"),
        ("libero_spatial", "libero_spatial"),
        ("y" * 1000, "y" * 120),
        ("..", ""),
    ],
)
def test_no_name_leads_out_of_a_folder(name: str, expected: str) -> None:
    assert file_name(name) == expected
