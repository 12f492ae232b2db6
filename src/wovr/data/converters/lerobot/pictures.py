"""Frames of a LeRobotDataset's cameras, decoded one by one: a stretch of a video, or a picture in a cell of a table.

Only 8-bit colour is a frame. Whatever else a file holds (depth, 16 bits, grey, masks, transparency) is refused by its
name: a converter that reinterprets values would store others without a word.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast
from warnings import catch_warnings

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import ExifTags, Image

from wovr.data.converters.lerobot.info import RESTORE, check_file, inside
from wovr.data.converters.lerobot.tables import PICTURE_SLACK
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
_MEND_FPS = "mend fps in meta/info.json, or resample the data set to one rate"
_BLOCK = 128  # decoders round sides up to their blocks and to the vector width
_SPARE = 2**27
_TRACKS = 8  # of which a file's first video track is looked for


def video_frames(path: Path, start: int, length: int, fps: float, *, is_whole: bool) -> Iterator[np.ndarray]:
    """Frames start .. start + length - 1 of a video, by their time stamps; no frame after them is decoded.

    Args:
        path: An MP4 file.
        start: First frame.
        length: How many.
        fps: Rate by which time stamps are frames.
        is_whole: The stretch is all that the video may hold: a frame after it is an error.

    Yields:
        (H, W, 3) uint8, all of the size that the header says.

    Raises:
        UserError: Missing, damaged, of another rate, of too large or another kind of pictures, or with fewer or more
            frames.
    """
    check_file(path)
    try:
        # The format is given: FFmpeg would take a playlist, which names other files, for a video too.
        with path.open("rb") as file, _open(file) as container:
            yield from _decoded(path, container, start, length, fps, is_whole)
    except MemoryError:  # FFmpeg's too: the file is not at fault
        raise
    except av.FFmpegError as error:
        bytearray(_SPARE)  # where memory is short FFmpeg may blame the data: then this raises MemoryError
        raise UserError(f"{path}: not a readable video ({error.strerror})", RESTORE) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", RESTORE) from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}", RESTORE) from error


def _open(file: IO[bytes]) -> InputContainer:
    # Opening may decode a picture already; every track is bound, its coded sides rounded up to whole blocks.
    options = [{"max_pixels": _max_pixels((MAX_SIDE, MAX_SIDE))} for _ in range(_TRACKS)]
    # mypy: PyAV's annotations know neither a file object here nor options of streams.
    return cast(InputContainer, av.open(file, "r", format="mp4", stream_options=options))  # type: ignore[call-overload]


def _max_pixels(size: tuple[int, int]) -> str:
    return str((size[0] + _BLOCK) * (size[1] + _BLOCK))


def _decoded(
    path: Path,
    container: InputContainer,
    start: int,
    length: int,
    fps: float,
    is_whole: bool,
) -> Iterator[np.ndarray]:
    if not container.streams.video:
        raise ValueError("not a readable video (no video track)")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("not a readable video (of no known codec)")
    stream.codec_context.thread_count = 1
    # Damage is an error, not something to paint over.
    size = (stream.height, stream.width)
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": _max_pixels(size)}
    _check_header(path, stream, start, length, fps, is_whole)
    assert stream.time_base is not None
    ticks = 1.0 / (fps * float(stream.time_base))  # of the stream's clock, a frame
    origin = stream.start_time or 0  # it starts late where frames are stored out of order
    container.seek(origin + int((start + 0.5) * ticks), stream=stream, backward=True)
    expected = start
    kind = ""
    for frame in container.decode(stream):
        if frame.pts is None:
            raise ValueError("a frame has no time stamp")
        number = round((frame.pts - origin) / ticks)
        if number < start:
            continue
        if expected == start + length:
            raise _surplus(path, "more", length)
        if number != expected:
            raise ValueError(f"no frame at {expected / fps:.4g} s, the next is at {number / fps:.4g} s ({fps:g} fps)")
        if (frame.height, frame.width) != size or frame.is_corrupt:
            raise ValueError(f"frame {expected} is damaged or of another size")
        if frame.format.name != kind:
            kind = _checked_kind(path, frame.format)
        yield frame.to_ndarray(format="rgb24")
        expected += 1
        if expected == start + length and not is_whole:
            return
    if expected != start + length:
        raise ValueError(f"the video ends before frame {expected}")


def _check_header(path: Path, stream: VideoStream, start: int, length: int, fps: float, is_whole: bool) -> None:
    """Hold what the header says against the table, before a frame is decoded."""
    rate, count = float(stream.average_rate or 0), stream.frames
    if not stream.time_base or not rate:
        raise ValueError("not a readable video (no frame rate)")
    if not (0 < stream.height <= MAX_SIDE and 0 < stream.width <= MAX_SIDE):
        raise ValueError(f"pictures of {stream.height} x {stream.width}, at most {MAX_SIDE} x {MAX_SIDE} are decoded")
    if abs(rate - fps) > 0.01 * fps:
        raise UserError(f"{path}: {rate:g} fps, meta/info.json says {fps:g}", _MEND_FPS)
    if stream.codec_context.pix_fmt:
        _checked_kind(path, av.VideoFormat(stream.codec_context.pix_fmt))
    if count and start + length > count:
        raise ValueError(f"frames {start} to {start + length} asked for, the video has {count}")
    if count > start + length and is_whole:
        raise _surplus(path, f"{count:,}", length)


def _surplus(path: Path, count: str, length: int) -> UserError:
    return UserError(
        f"{path}: {count} frames, the episode has {length} rows: which frames have no row cannot be told",
        "cut the video to the rows, or leave the episode out with --skip",
    )


def _checked_kind(path: Path, pixels: av.VideoFormat) -> str:
    bits = [component.bits for component in pixels.components]
    if bits != [8, 8, 8]:
        raise UserError(f"{path}: {pixels.name} pictures, not 8-bit colour", "choose another --camera")
    return pixels.name


def decode_picture(root: Path, cell: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """A picture in a table.

    Args:
        root: Folder of the data set.
        cell: What the table holds: `bytes`, or the `path` of a file in the folder.
        size: Declared (H, W).
        where: Episode and camera, for messages.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: No picture, damaged, outside the folder, of another size, or not 8-bit colour.
    """
    data = _picture_bytes(root, cell, size, where)
    try:
        with catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if (picture.height, picture.width) != size:
                found = f"{picture.height} x {picture.width}"
                raise UserError(
                    f"{where}: {found}, meta/info.json declares {size[0]} x {size[1]}", "mend the shape or the picture"
                )
            bits = " of 16 bits" if _is_deep(picture, data) else ""
            if picture.mode != "RGB" or bits:
                raise UserError(f"{where}: a {picture.mode} picture{bits}, not 8-bit colour", "choose another --camera")
            if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                raise UserError(f"{where}: its EXIF data ask for a turn", "store the pictures as they are to be seen")
            return np.asarray(picture)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever damage makes them stumble over
        raise UserError(f"{where}: a picture cannot be read ({str(error)[:100]})", RESTORE) from error


def _picture_bytes(root: Path, cell: Any, size: tuple[int, int], where: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else None
    most = most_bytes(size)
    if data is None:
        name = cell.get("path") if isinstance(cell, dict) else None
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: a picture is missing", RESTORE)
        path = inside(root, name, where)
        check_file(path)
        with path.open("rb") as file:
            data = file.read(most + 1)
    if not isinstance(data, bytes) or len(data) > most:
        raise UserError(f"{where}: larger than a picture of {size[0]} x {size[1]} can be", RESTORE)
    return data


def most_bytes(size: tuple[int, int]) -> int:
    """Bytes that a picture of a size may be as a file."""
    return 2 * 3 * size[0] * size[1] + PICTURE_SLACK


def _is_deep(picture: Image.Image, data: bytes) -> bool:
    """True for 16 bits a channel, which Pillow makes 8 bits without a word."""
    if data.startswith(b"\x89PNG"):
        return data[24] > 8
    return any("16" in str(tile[3]) for tile in getattr(picture, "tile", []))
