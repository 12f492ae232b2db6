"""Frames of other people's LeRobotDatasets: 8-bit colour from inside the folder, or a line that names them."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.converters.foreign import needs
from tests.data.converters.lerobot.files import (
    FRAMES,
    PICTURES,
    SIZE,
    coded,
    convert,
    episode,
    line,
    pairs,
    write_dataset_2,
    write_video,
)
from wovr.data.converters.lerobot import pictures as lerobot_pictures


def png(frame: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def with_pictures(folder: Path, cells: list[Any], shape: Any = (SIZE, SIZE, 3)) -> Path:
    columns = {PICTURES: needs("pyarrow").array(cells)}
    features = {PICTURES: {"dtype": "image", "shape": list(shape), "names": None}}
    return write_dataset_2(folder, [{**episode(len(cells), **columns), "frames": None}], features)


def test_pictures_of_a_table_are_frames(tmp_path: Path) -> None:
    cells = [{"bytes": png(frame), "path": None} for frame in coded(20)]
    convert(with_pictures(tmp_path / "src", cells))
    assert pairs(tmp_path / "out") == [(t, t) for t in range(19)]


FRAME = coded(3)[2]


def deep_png() -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads as 8."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(6 * SIZE) for _ in range(SIZE)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb_png(side: int) -> bytes:
    """A PNG that says that it is larger than it is."""
    data = bytearray(png(FRAME))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (png(FRAME[:16]), "16 x 32, meta/info.json declares 32 x 32"),
        (png(FRAME[:, :, 0]), "a L picture, not 8-bit colour"),
        (png(FRAME[:, :, 0] > 100), "a 1 picture, not 8-bit colour"),
        (png(FRAME[:, :, 0].astype(np.uint16) * 200), "a I;16 picture"),
        (png(np.dstack([FRAME, FRAME[:, :, :1]])), "a RGBA picture, not 8-bit colour"),
        (deep_png(), "of 16 bits, not 8-bit colour"),
        (bomb_png(60_000), "cannot be read"),
        (bomb_png(11_000), "11000 x 11000, meta/info.json declares 32 x 32"),
        (b"x", "a picture cannot be read"),
        (png(FRAME)[:60], "a picture cannot be read"),
        (b"", "a picture cannot be read"),
        (None, "a picture is missing"),
        (png(FRAME) + bytes(200_000), "larger than a picture of 32 x 32 can be"),
    ],
)
def test_a_picture_that_is_not_8_bit_colour_of_its_size_is_named(
    cell: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [{"bytes": png(frame), "path": None} for frame in coded(6)]
    cells[4] = {"bytes": cell, "path": None}
    found = line(capsys, with_pictures(tmp_path / "src", cells))
    assert said in found
    assert "observation.image: frame 4" in found


def test_a_picture_that_asks_to_be_turned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = Image.Exif()
    turned[274] = 6
    cells = [{"bytes": png(frame, format="JPEG", exif=turned), "path": None} for frame in coded(6)]
    assert "its EXIF data ask for a turn" in line(capsys, with_pictures(tmp_path / "src", cells))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside.png", "leads out of"),
        ("{root}/outside.png", "leads out of"),
        ("link.png", "leads out of"),
        ("a\0b", "is not a path"),
        ("pipe", "not a file"),
        ("gone.png", "missing"),
    ],
)
def test_paths_of_pictures_stay_inside(
    path: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outside.png").write_bytes(png(FRAME))
    cells = [{"bytes": None, "path": "images/0.png"}] * 3 + [{"bytes": None, "path": path.format(root=tmp_path)}]
    source = with_pictures(tmp_path / "src", cells)
    (source / "images").mkdir()
    (source / "images/0.png").write_bytes(png(FRAME))
    if path == "link.png":
        (source / path).symlink_to(tmp_path / "outside.png")
    os.mkfifo(source / "pipe")
    assert said in line(capsys, source)


@pytest.mark.parametrize(
    ("pixels", "encoder"), [("yuv420p10le", "libx264"), ("gray12le", "libx265"), ("gray", "libx265")]
)
def test_videos_of_other_than_8_bit_colour_are_named(
    pixels: str, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    if encoder not in av.codecs_available:
        pytest.skip(f"PyAV was built without {encoder}")
    write_video(source / FRAMES, coded(6), pixels=pixels, encoder=encoder)
    assert f"{pixels} pictures, not 8-bit colour" in line(capsys, source)


def test_a_playlist_is_not_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    shutil.move(source / FRAMES, tmp_path / "elsewhere.mp4")
    (source / FRAMES).write_text(f"ffconcat version 1.0\nfile {tmp_path / 'elsewhere.mp4'}\n")
    assert "not a readable video" in line(capsys, source)


def test_a_video_of_no_known_codec_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    data = (source / FRAMES).read_bytes()
    assert b"avc1" in data
    (source / FRAMES).write_bytes(data.replace(b"avc1", b"zzzz"))
    assert "of no known codec" in line(capsys, source)


@pytest.mark.parametrize("what", ["video", "pictures", "table"])
def test_memory_that_ends_is_told_as_that(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*args: object, **options: object) -> None:
        raise MemoryError

    cells = [{"bytes": png(frame), "path": None} for frame in coded(6)]
    source = with_pictures(tmp_path / "a", cells) if what == "pictures" else write_dataset_2(tmp_path, [episode(6)])
    place = {"video": lerobot_pictures.av, "pictures": Image, "table": needs("pyarrow.parquet")}[what]
    monkeypatch.setattr(place, "ParquetFile" if what == "table" else "open", ends)
    found = line(capsys, source)
    assert "out of memory" in found
    assert "--size" in found
    assert "restore it" not in found
