"""Videos for people: any player opens them. What is stored for learning is in `wovr.data.store.video`."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from wovr.runs import atomic_write

LEAST_HEIGHT = 256
"""Smaller pictures are enlarged to at least this many rows, by a whole factor."""


def write_preview(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write an MP4 file that browsers and players show: H.264, 4:2:0, even sides, small pictures enlarged.

    Args:
        path: Where it goes; written atomically.
        frames: (T, H, W, 3) uint8 RGB, T >= 1.
        fps: Frames per second, > 0.

    Raises:
        UserError: It cannot be written.
    """
    factor = max(1, -(-LEAST_HEIGHT // frames.shape[1]))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options={"crf": "18", "x264-params": "threads=1:log=-1"},
        )
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def file_name(name: str) -> str:
    """Somebody's name of a thing as the name of a file: letters, digits, `_` and `-`, at most 120 of them.

    `lpips[idm]` -> `lpips-idm`; `../../x` -> `x`.
    """
    return "-".join("".join(letter if letter.isalnum() or letter == "_" else " " for letter in name).split())[:120]
