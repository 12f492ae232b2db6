"""Groups, arrays and attributes of an HDF5 file that lie in the file itself and are as large as they say.

An HDF5 file can name other files (external links, external storage, virtual data sets), filters whose libraries are
loaded, shapes of which nothing is stored, and pieces that unpack to a thousand times their size. None of that is
followed: what is not plainly stored is refused before it is opened or allocated.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.source import MAX_COLUMN, need, numbered
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError

MAX_CHUNK = 2**30
"""Bytes of the largest piece a file may be stored in: one is unpacked as a whole."""

RESTORE = "restore the file from a copy, or leave it out"

_INSIDE = "copy what it names into the file itself"
_BLOCK = 2**25  # bytes of pictures read at once
_LINKS = 8  # soft links that may follow one another
_GZIP, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_LZF_MOST = 2**22  # LZF packs 90 to 1 at best, and how much comes out is not known before


class NotRead(Exception):
    """What is not read, and what to do about it; `reading` adds the place."""

    def __init__(self, problem: str, remedy: str = RESTORE) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever is raised inside at a damaged or unusual file becomes one line that names the place."""
    try:
        yield
    except NotRead as error:
        raise UserError(f"{where}: {error.problem}", error.remedy) from error
    # At damage h5py raises nearly every kind there is, whichever of its layers notices first.
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, SystemError) as e:
        text = str(e).strip("'\"").partition("\n")[0][:200]
        raise UserError(f"{where}: damaged ({text or type(e).__name__})", RESTORE) from e


def open_file(path: Path) -> Any:
    """Open an HDF5 file.

    Raises:
        UserError: It is none, or h5py is missing.
    """
    h5py = need("h5py", "reading HDF5 files")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable HDF5 file", RESTORE) from error


def names(group: Any) -> list[str]:
    """Names of a group's members, demo_10 after demo_9; none is opened. None for what is no group.

    Raises:
        NotRead: A name is no UTF-8.
    """
    found = list(group.keys()) if is_group(group) else []
    for name in found:
        if not isinstance(name, str):  # what h5py makes of bytes that are no UTF-8
            raise NotRead(f"a name that is no UTF-8, {name!r:.60}")
        name.encode()
    return sorted(found, key=numbered)


def is_group(member: Any) -> bool:
    """Whether it is a group."""
    return hasattr(member, "keys")


def is_array(member: Any) -> bool:
    """Whether it is an array."""
    return hasattr(member, "dtype") and hasattr(member, "shape")


def member(group: Any, name: str, links: int = _LINKS) -> Any:
    """A group or array by its name; None where there is none.

    Raises:
        NotRead: The name leads to another file, or nowhere.
    """
    h5l = need("h5py.h5l", "reading HDF5 files")
    key = name.encode("utf-8", "surrogateescape")
    if not is_group(group) or not group.id.links.exists(key):
        return None
    kind = group.id.links.get_info(key).type
    if kind == h5l.TYPE_HARD:
        found = group[name]
        if is_array(found):
            _check_place(found, name)
        return found
    if kind != h5l.TYPE_SOFT:
        raise NotRead(f"{name} is a link into another file, which is not followed", _INSIDE)
    path = group.id.links.get_val(key).decode("utf-8", "surrogateescape")
    found = group.file if path.startswith("/") else group
    for part in filter(None, path.split("/")):
        found = found if part == "." or found is None or not links else member(found, part, links - 1)
    if found is None or not links:
        raise NotRead(f"{name} is a link to {path}, which is not there")
    return found


def _check_place(array: Any, name: str) -> None:
    """Refuse an array whose values lie in another file; its shape is not looked at before."""
    h5d = need("h5py.h5d", "reading HDF5 files")
    how = array.id.get_create_plist()
    if how.get_layout() == h5d.VIRTUAL:
        raise NotRead(f"{name} is put together out of other data sets (a virtual one), which is not followed", _INSIDE)
    if how.get_external_count():
        raise NotRead(f"{name} has its values in another file, which is not read", _INSIDE)


def check_array(array: Any, most: int) -> None:
    """Refuse an array that is larger than may be, or not stored as a whole.

    Args:
        array: The array.
        most: Bytes it may have.

    Raises:
        NotRead: It is not as it says.
    """
    h5d = need("h5py.h5d", "reading HDF5 files")
    how, size = array.id.get_create_plist(), math.prod(array.shape) * array.dtype.itemsize
    if size > most:
        raise NotRead(f"shape {array.shape}, {size:,} bytes, at most {most:,} are read")
    if how.get_layout() == h5d.CHUNKED:
        _check_pieces(array, {how.get_filter(number)[0] for number in range(how.get_nfilters())})
    elif how.get_layout() == h5d.CONTIGUOUS and array.id.get_storage_size() < size:
        raise NotRead(f"shape {array.shape}, but only {array.id.get_storage_size():,} of {size:,} bytes are stored")


def _check_pieces(array: Any, filters: set[int]) -> None:
    """Every piece of a chunked array is there and unpacks to its own size."""
    if unknown := filters - {_GZIP, _SHUFFLE, _FLETCHER32, _LZF}:
        raise NotRead(f"packed with filter {min(unknown)}, which is not read", "write it anew: h5repack -f GZIP=4")
    piece = math.prod(array.chunks) * array.dtype.itemsize
    if piece > MAX_CHUNK:
        raise NotRead(f"stored in pieces of {piece:,} bytes, at most {MAX_CHUNK:,} are read")
    expected = math.prod(-(-side // part) for side, part in zip(array.shape, array.chunks, strict=True))
    stored = array.id.get_num_chunks()
    if stored != expected:
        raise NotRead(f"shape {array.shape}, but only {stored:,} of its {expected:,} pieces are stored")
    if not filters & {_GZIP, _LZF}:
        return
    places: list[tuple[int, ...]] = []

    def note(info: Any) -> None:
        if info.size > piece + piece // 100 + 1024 or (_LZF in filters and info.size > _LZF_MOST):
            raise NotRead(f"a piece of {info.size:,} bytes for {piece:,}")
        places.append(info.chunk_offset)

    array.id.chunk_iter(note)
    checksum = 4 if _FLETCHER32 in filters else 0  # it may have been packed too
    for place in places if _GZIP in filters else []:
        mask, data = array.id.read_direct_chunk(place)
        if not mask and len(zlib.decompressobj().decompress(data, piece + checksum + 1)) not in (
            piece,
            piece + checksum,
        ):
            raise NotRead(f"a piece does not unpack to its {piece:,} bytes")


def read_column(array: Any) -> np.ndarray:
    """The values of an array of numbers.

    Returns:
        (T,) where a row is one number, whatever the shape says ((T, 1), (T, 1, 1)); else (T, D), also of (T, D, 1).

    Raises:
        NotRead: Not numbers, too large, or not stored as a whole.
    """
    if array.dtype.kind not in "biuf":
        raise NotRead(f"{_type_name(array)}, not numbers", "name another column")
    if not is_column(array):
        raise NotRead(f"shape {array.shape}, must be numbers side by side, a row a frame", "name another column")
    check_array(array, MAX_COLUMN)
    values = array[()].reshape(_without_ones(array.shape))
    return values.reshape(len(values)) if values.ndim > 1 and values.shape[1] == 1 else values


def is_column(array: Any) -> bool:
    """Whether an array's rows are numbers, one or several side by side."""
    return array.dtype.kind in "biuf" and 1 <= len(_without_ones(array.shape)) <= 2


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the sides of one at its end: rows that are column vectors become vectors."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def read_pictures(array: Any) -> Iterator[np.ndarray]:
    """The pictures of an array, T times (H, W, 3) uint8; some 32 MiB are held at a time.

    Raises:
        NotRead: Not 8-bit colour, too large, or not stored as a whole.
    """
    if not is_colour(array):
        raise NotRead(f"{describe(array)}, not 8-bit colour pictures", "give another --camera")
    if max(array.shape[1:3]) > MAX_SIDE or not min(array.shape[1:3]):
        raise NotRead(f"pictures of {array.shape[1]} x {array.shape[2]} pixels, at most {MAX_SIDE} a side are read")
    picture = math.prod(array.shape[1:])
    check_array(array, picture * max(1, array.shape[0]))
    rows = max(1, _BLOCK // picture)
    piece = array.chunks[0] if array.chunks else 1
    rows = max(rows // piece, 1) * piece  # a piece is unpacked once
    for start in itertools.takewhile(lambda place: place < array.shape[0], itertools.count(0, rows)):
        yield from array[start : start + rows]


def is_colour(array: Any) -> bool:
    """Whether an array holds 8-bit colour pictures, (T, H, W, 3)."""
    return bool(array.dtype == np.uint8 and len(array.shape) == 4 and array.shape[3] == 3)


def looks_like_pictures(array: Any) -> bool:
    """Whether an array that is no 8-bit colour pictures may be pictures of another kind."""
    if is_colour(array):
        return False
    if array.dtype.kind in "biuf":
        return len(array.shape) == 4 or (len(array.shape) == 3 and min(array.shape[1:]) >= 8)
    return _holds_files(array)


def describe(array: Any) -> str:
    """What an array holds, for messages."""
    shape, kind = array.shape, array.dtype
    if _holds_files(array):
        return f"picture files (JPEG or PNG bytes), shape {shape}"
    if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] not in (1, 3, 4):
        return f"{kind} {shape}, channels first"
    channels = shape[3] if len(shape) == 4 else 1
    what = {1: "one channel (grey, depth or a mask)", 2: "two channels", 4: "four channels"}.get(channels, "")
    return f"{_type_name(array)} {shape}" + (f", {what}" if what else "")


def _holds_files(array: Any) -> bool:
    """Whether a row is the bytes of a file: a byte string of some length, or a list of bytes."""
    h5py = need("h5py", "reading HDF5 files")
    return h5py.check_vlen_dtype(array.dtype) == np.uint8 or (array.dtype.kind == "S" and array.dtype.itemsize > 256)


def is_text(array: Any) -> bool:
    """Whether an array's values are texts."""
    return need("h5py", "reading HDF5 files").check_string_dtype(array.dtype) is not None


def _type_name(array: Any) -> str:
    """Name of an array's type as people call it."""
    names = {"S": "text", "O": "text or lists", "V": "records", "c": "complex numbers", "U": "text"}
    return names.get(array.dtype.kind, str(array.dtype))


def attribute(item: Any, name: str) -> Any:
    """An attribute; None where there is none.

    Raises:
        ValueError: It is damaged.
    """
    if item is None or name not in item.attrs:
        return None
    try:
        return item.attrs[name]
    except (OSError, RuntimeError, LookupError, TypeError) as error:
        raise ValueError(f"attribute {name}: damaged") from error
