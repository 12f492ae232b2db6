"""Frames to and from H.264 bytes: constant quality, full RGB, short closed GOPs, the same bytes for the same frames.

RGB is coded as it is (`libx264rgb`, planes G, B, R at full range): no 4:2:0, which loses small coloured objects at
64 x 64, and no YUV matrix whose range or colour space a reader could get wrong. Entropy coding by VLC and no deblocking
(`tune=fastdecode`) cost no bytes on plain pictures and halve the decoding time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, Self, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from wovr.errors import UserError

GOP = 8
"""Frames of a closed group of pictures: what has to be decoded at most before the frame asked for, plus one."""

CRF = 21.5
"""x264's constant rate factor: about 42 dB PSNR on the tabletop at 64 x 64."""


@dataclass(frozen=True)
class Coding:
    """How H.264 is written.

    Attributes:
        encoder: Of PyAV.
        pixels: Its pixel format.
        options: Its own.
    """

    encoder: str
    pixels: str
    options: Mapping[str, str]


_OPTIONS = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": str(CRF),
    # psy and aq trade PSNR for the taste of human eyes; a world model has none. x264 spends bits by the second, so it
    # is told the same rate whatever the episode's: quality does not depend on fps. The same bytes every time need one
    # thread and no mbtree, which gave others for the same small frames once in a few hundred times and saves 4 %.
    "x264-params": (
        f"threads=1:keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:bframes=0:force-cfr=1:fps=10:rc-lookahead={GOP}"
        ":no-psy=1:aq-mode=0:mbtree=0:log=-1"
    ),
}
STORED = Coding("libx264rgb", "rgb24", _OPTIONS)
"""How episodes are stored."""

_GBR_CHANNELS = (1, 2, 0)  # plane of gbrp -> channel of RGB

MAX_SIDE = 4096
"""Highest and widest picture that is decoded, pixels, where nothing else says how large pictures are."""

_BLOCK = 64  # decoders round sides up to their blocks and to the vector width
_TRACKS = 8  # of which a file's first video track is looked for


def encode_video(frames: np.ndarray, fps: float) -> bytes:
    """Encode frames as an MP4 file with one H.264 track.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T >= 1, any H and W.
        fps: Frames per second, > 0.

    Returns:
        The file's bytes; the same frames give the same bytes.

    Raises:
        ValueError: Frames of another shape or type, or a frame rate that is not positive.
        UserError: PyAV was built without libx264.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, not uint8 (T, H, W, 3)")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"frame rate {fps} is not positive")
    buffer = io.BytesIO()
    with VideoFile(buffer, fps, frames.shape[1:3]) as video:
        video.add(frames)
    return buffer.getvalue()


class VideoFile:
    """An MP4 file with one H.264 track, filled piece by piece; no library version and no time is in it.

    Args:
        file: Where it goes.
        fps: Frames per second, > 0.
        size: Height and width of a frame.
        coding: How it is written.

    Raises:
        UserError: PyAV was built without the encoder.
    """

    def __init__(self, file: IO[bytes], fps: float, size: Sequence[int], coding: Coding = STORED) -> None:
        if coding.encoder not in av.codecs_available:
            problem = f"this build of PyAV has no encoder {coding.encoder}"
            raise UserError(problem, "install PyAV's own wheel: pip install av")
        self._container = av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})
        rate = Fraction(fps).limit_denominator(1001)
        stream = self._container.add_stream(coding.encoder, rate=rate, options=dict(coding.options))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = coding.pixels
        stream.codec_context.thread_count = 1
        self._stream = stream

    def add(self, frames: np.ndarray) -> None:
        """Append frames: (T, H, W, 3) uint8 RGB."""
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Finish the file, unless something went wrong."""
        if error[0] is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def decode_video(
    data: bytes, start: int = 0, stop: int | None = None, image_size: Sequence[int] | None = None
) -> np.ndarray:
    """Decode frames start .. stop - 1, beginning at the key frame before `start`.

    Args:
        data: A whole video file.
        start: First frame.
        stop: One past the last frame; None for the end.
        image_size: Height and width the frames must have, see `decode_pieces`.

    Returns:
        (stop - start, H, W, 3) uint8 RGB.

    Raises:
        ValueError: Not a video, damaged, or fewer frames than asked for.
    """
    return decode_pieces(data, [(start, stop)], image_size)[0]


def decode_pieces(
    data: bytes,
    pieces: Sequence[tuple[int, int | None]],
    image_size: Sequence[int] | None = None,
    num_frames: int | None = None,
) -> list[np.ndarray]:
    """Decode several ranges of one file, which is opened once.

    Nothing is allocated for larger pictures than expected: neither the file's header nor the coded pictures decide it.

    Args:
        data: A whole video file.
        pieces: Ranges (start, stop); stop None for the end.
        image_size: Height and width the frames must have, from what is known beside the video; None for any of at most
            MAX_SIDE.
        num_frames: Frames the whole file must have; None for any number.

    Returns:
        One (stop - start, H, W, 3) uint8 array a range.

    Raises:
        ValueError: Not a video, damaged, fewer frames than asked for, or pictures of another size.
    """
    try:
        with _open(data, image_size) as container:
            stream = _video_stream(container, image_size)
            if num_frames is not None and stream.frames != num_frames:
                raise ValueError(f"{stream.frames} frames, must be {num_frames}")
            return [_decode_piece(container, stream, start, stop) for start, stop in pieces]
    except MemoryError as error:  # a damaged header can promise any size
        raise ValueError("not a readable video (its frames do not fit in memory)") from error
    except av.FFmpegError as error:
        raise ValueError(f"not a readable video ({error.strerror})") from error


def video_shape(data: bytes) -> tuple[int, int, int]:
    """(T, H, W) of a video file, from its header.

    Raises:
        ValueError: Not a video.
    """
    try:
        with _open(data, None) as container:
            stream = _video_stream(container, None)
            return stream.frames, stream.height, stream.width
    except MemoryError as error:
        raise ValueError("not a readable video (its header does not fit in memory)") from error
    except av.FFmpegError as error:
        raise ValueError(f"not a readable video ({error.strerror})") from error


def _open(data: bytes, image_size: Sequence[int] | None) -> InputContainer:
    # Opening decodes a picture where the header leaves something open, so it needs the bound too, for every track.
    options = [{"max_pixels": _max_pixels(image_size)} for _ in range(_TRACKS)]
    # The format is given: FFmpeg would take a playlist, which names other files, for a video too.
    # mypy: PyAV's annotations know neither a file object here nor options of streams.
    return cast(InputContainer, av.open(io.BytesIO(data), "r", format="mp4", stream_options=options))  # type: ignore[call-overload]


def _max_pixels(image_size: Sequence[int] | None) -> str:
    height, width = (MAX_SIDE, MAX_SIDE) if image_size is None else image_size
    return str(math.prod(-(-side // _BLOCK) * _BLOCK + _BLOCK for side in (height, width)))


def _video_stream(container: InputContainer, image_size: Sequence[int] | None) -> VideoStream:
    if not container.streams.video:
        raise ValueError("not a readable video (no video track)")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("not a readable video (of no known codec)")
    size = (stream.height, stream.width)
    if image_size is not None and size != tuple(image_size):
        raise ValueError(f"pictures of {size[0]} x {size[1]}, must be {image_size[0]} x {image_size[1]}")
    if not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE):
        raise ValueError(f"pictures of {size[0]} x {size[1]}, at most {MAX_SIDE} x {MAX_SIDE} are decoded")
    stream.codec_context.thread_count = 1
    # Damage is an error, not something to paint over.
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": _max_pixels(image_size)}
    return stream


def _decode_piece(container: InputContainer, stream: VideoStream, start: int, stop: int | None) -> np.ndarray:
    count = stream.frames
    if count > container.size > 0:
        raise ValueError(f"not a readable video (it promises {count} frames in {container.size} bytes)")
    stop = count if stop is None else stop
    if not 0 <= start < stop <= count:
        raise ValueError(f"frames {start} to {stop} asked for, the video has {count}")
    if stream.average_rate is None or stream.time_base is None:
        raise ValueError("not a readable video (no frame rate)")
    ticks = float(1 / (stream.average_rate * stream.time_base))  # of the stream's clock, a frame
    # The stream's clock starts late where frames are stored out of order (other people's files).
    origin = stream.start_time or 0
    container.seek(origin + int((start + 0.5) * ticks), stream=stream, backward=True)
    out = np.empty((stop - start, stream.height, stream.width, 3), np.uint8)
    filled = 0
    for index, frame in _indexed_frames(container, stream, origin, ticks):
        if index < start:
            continue
        if index != start + filled or (frame.height, frame.width) != out.shape[1:3] or frame.is_corrupt:
            raise ValueError(f"frame {start + filled} is damaged or missing")
        _copy_rgb(frame, out[filled])
        filled += 1
        if filled == len(out):
            return out
    raise ValueError(f"the video ends after frame {start + filled} of {count}")


def _indexed_frames(
    container: InputContainer, stream: VideoStream, origin: int, ticks: float
) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in container.decode(stream):
        if frame.pts is None:
            raise ValueError("a frame has no time stamp")
        yield round((frame.pts - origin) / ticks), frame


def _copy_rgb(frame: av.VideoFrame, out: np.ndarray) -> None:
    """Copy a frame into `out`, (H, W, 3) uint8."""
    if frame.format.name != "gbrp":
        out[:] = frame.to_ndarray(format="rgb24")
        return
    height, width = out.shape[:2]
    for plane, channel in zip(frame.planes, _GBR_CHANNELS, strict=True):
        rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)  # lines are padded
        out[:, :, channel] = rows[:height, :width]
