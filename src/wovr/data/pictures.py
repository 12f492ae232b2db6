"""Pictures of episodes for people: sheets of frames as PNG, videos that any player shows.

What is stored for learning is in `wovr.data.store.video`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wovr.data.store.video import Coding, VideoFile
from wovr.runs import atomic_write

GREEN, RED, BLUE = (30, 160, 60), (210, 50, 40), (40, 80, 220)
"""Of success, of failure, and of a start."""

MARK_WIDTH = 18
"""Pixels of the tick or cross before a caption, margins included."""

_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_MARGIN = 4  # pixels
_LINE = 14  # height of a line of text
_SMALLEST = 96  # a frame is enlarged by a whole factor to at least this height

_SHOWN = Coding("libx264", "yuv420p", {"crf": "18", "x264-params": "threads=1:log=-1"})
_LEAST_HEIGHT = 256  # frames of a video are enlarged by a whole factor to at least this height


@dataclass(frozen=True)
class Cell:
    """A frame on a sheet.

    Attributes:
        frame: (H, W, 3) uint8.
        colour: Of the line around it; None for no line.
        label: Above it.
    """

    frame: np.ndarray
    colour: tuple[int, int, int] | None = None
    label: str = ""


@dataclass(frozen=True)
class SheetRow:
    """A row of frames under a caption.

    Attributes:
        cells: From left to right.
        caption: Lines of text.
        succeeded: Puts a green tick (or, where False, a red cross) before the caption; None for neither.
    """

    cells: Sequence[Cell]
    caption: Sequence[str] = field(default=())
    succeeded: bool | None = None


def enlargement(height: int) -> int:
    """By how much frames of a height are enlarged on a sheet."""
    return max(1, -(-_SMALLEST // height))


def cell_size(frame_size: Sequence[int]) -> tuple[int, int]:
    """Width and height that a frame of (H, W) takes on a sheet, with its margins."""
    factor = enlargement(frame_size[0])
    return frame_size[1] * factor + 2 * _MARGIN, frame_size[0] * factor + 2 * _MARGIN


def draw_sheet(rows: Sequence[SheetRow], frame_size: Sequence[int]) -> Image.Image:
    """Draw rows of frames, small ones enlarged, each under its caption; rows are all of one height.

    Args:
        rows: At least one.
        frame_size: Height and width of every frame.
    """
    width, height = cell_size(frame_size)
    factor = enlargement(frame_size[0])
    caption_height = max(max(len(row.caption), any(cell.label for cell in row.cells)) for row in rows) * _LINE + _MARGIN
    columns = max(len(row.cells) for row in rows)
    sheet = Image.new("RGB", (columns * width, len(rows) * (caption_height + height)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for number, row in enumerate(rows):
        top = number * (caption_height + height)
        if row.succeeded is not None:
            _draw_mark(draw, row.succeeded, top)
        left = _MARGIN if row.succeeded is None else MARK_WIDTH
        draw.multiline_text((left, top + 2), _printed("\n".join(row.caption)), _INK, font, spacing=1)
        for column, cell in enumerate(row.cells):
            left, upper = column * width, top + caption_height
            draw.text((left + _MARGIN, top + 2), _printed(cell.label), _INK, font)
            if cell.colour is not None:
                draw.rectangle((left, upper, left + width - 1, upper + height - 1), cell.colour)
            picture = Image.fromarray(cell.frame)
            picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + _MARGIN, upper + _MARGIN))
    return sheet


def _printed(text: str) -> str:
    """Pillow's built-in font has Latin-1 only."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _draw_mark(draw: ImageDraw.ImageDraw, succeeded: bool, top: int) -> None:
    """A green tick or a red cross in the first line of the caption."""
    x, y, size = _MARGIN, top + _MARGIN, MARK_WIDTH - 2 * _MARGIN
    if succeeded:
        draw.line((x, y + size // 2, x + size // 3, y + size, x + size, y), GREEN, 2)
    else:
        draw.line((x, y, x + size, y + size), RED, 2)
        draw.line((x, y + size, x + size, y), RED, 2)


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically.

    Raises:
        UserError: The disk is full or the place not writable.
    """
    buffer = BytesIO()
    image.save(buffer, "png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def write_preview(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write an MP4 file that browsers and players show: H.264, 4:2:0, even sides, small pictures enlarged.

    Args:
        path: Where it goes; written atomically.
        frames: (T, H, W, 3) uint8 RGB, T >= 1.
        fps: Frames per second, > 0.

    Raises:
        UserError: It cannot be written.
    """
    factor = max(1, -(-_LEAST_HEIGHT // frames.shape[1]))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")
    buffer = BytesIO()
    with VideoFile(buffer, fps, frames.shape[1:3], _SHOWN) as video:
        video.add(frames)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def file_name(name: str) -> str:
    """Somebody's name of a thing as the name of a file: letters, digits, `_` and `-`, at most 120 of them.

    `lpips[idm]` -> `lpips-idm`; `../../x` -> `x`.
    """
    return "-".join("".join(letter if letter.isalnum() or letter == "_" else " " for letter in name).split())[:120]
