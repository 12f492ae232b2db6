"""Plain arrays as the bytes of an `.npy` file: nothing is unpickled, nothing allocated beyond the bytes given."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np

_MAX_HEADER = 4096  # bytes; that of a plain array has some 128


def encode_array(array: np.ndarray) -> bytes:
    """An array as an `.npy` file, C-ordered."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def decode_array(field: str, data: bytes) -> np.ndarray:
    """Read an `.npy` member; an array of Python objects (a pickle) is refused.

    Raises:
        ValueError: Not a plain array; the message begins with `field`.
    """
    shape, dtype, offset = array_header(field, data)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - offset != expected:
        raise ValueError(f"{field}: {len(data) - offset} bytes of values, its header promises {expected}")
    try:
        return np.frombuffer(data, dtype, offset=offset).reshape(shape).copy()
    except (ValueError, OverflowError) as error:  # no values, and sides that numpy cannot multiply
        raise ValueError(f"{field}: shape {shape} ({error})") from error


def array_header(field: str, data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and offset of the values of an `.npy` member, from its first bytes.

    Raises:
        ValueError: Not the beginning of a plain C-ordered array; the message begins with `field`.
    """
    # 6 bytes magic, 2 version, then the length of the header in 2 bytes (version 1) or 4, then the header.
    wide = data[6:7] != b"\x01"
    length = int.from_bytes(data[8 : 12 if wide else 10], "little") + (12 if wide else 10)
    try:
        if length > _MAX_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return _parse_header(data[:length])
    # The header is Python's notation: what parses it raises a dozen kinds at nonsense.
    except Exception as error:
        raise ValueError(f"{field}: not a plain .npy array ({str(error)[:80]})") from error


@lru_cache(maxsize=4096)  # arrays of one length share a header, and parsing it costs more than reading the array
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.kind not in "biuf":
        raise ValueError("its values are not plain numbers, C-ordered")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("its shape is not one")
    return shape, dtype, file.tell()


def actions_shape(data: bytes) -> tuple[int, int]:
    """(T - 1, A) of `actions.npy`, from its first bytes.

    Raises:
        ValueError: Not the beginning of a two-dimensional array.
    """
    shape, _, _ = array_header("actions.npy", data)
    if len(shape) != 2:
        raise ValueError(f"actions.npy: shape {shape}, must be (T - 1, A)")
    return shape[0], shape[1]
