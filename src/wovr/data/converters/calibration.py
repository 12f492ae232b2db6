"""The camera of a source's pictures, out of its columns, as it is after the pictures were turned, cut and resized."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wovr.data.converters.source import EpisodeSource
from wovr.errors import UserError
from wovr.functional.cameras import CAMERA_SHAPE, check_cameras, resized

_WHOLE = (math.prod(CAMERA_SHAPE),)
_PARTS = ((9, 12), (9, 16))


def read_cameras(
    source: EpisodeSource, index: int, columns: Sequence[str], length: int, camera: str, size: int, flip: bool
) -> np.ndarray | None:
    """The camera of an episode.

    Args:
        source: The source.
        index: Number of the episode.
        columns: One column of 21 numbers, the rows of [K | R | t]; or two, the 9 of K and the 12 or 16 of [R | t].
        length: Frames of the episode, T.
        camera: Whose pictures are taken.
        size: Sides they are resized to after a centred square is cut out; 0 for as they are.
        flip: They are turned upside down.

    Returns:
        (T, 3, 7) float32, or (1, 3, 7) where it stands still; None without columns.

    Raises:
        UserError: Other numbers, not one row a frame, or no camera.
    """
    if not columns:
        return None
    where, remedy = f"{source.where(index)}: {', '.join(columns)}", "give --calibration none"
    rows = [np.asarray(source.column(index, key)) for key in columns]
    widths = tuple(values.size // max(1, len(values)) for values in rows)
    if widths != _WHOLE and widths not in _PARTS:
        raise UserError(
            f"{where}: {' and '.join(map(str, widths))} numbers a row, a camera is 21, or 9 and 12, or 9 and 16", remedy
        )
    if any(len(values) != length for values in rows):
        raise UserError(f"{where}: {len(rows[0])} rows of {length} frames", remedy)
    if widths == _WHOLE:
        cameras = rows[0].reshape(length, *CAMERA_SHAPE)
    else:
        pose = rows[1].reshape(length, -1, 4)[:, :3]
        cameras = np.concatenate([rows[0].reshape(length, 3, 3), pose], axis=2)
    cameras = cameras.astype(np.float32)
    try:
        check_cameras(cameras)
    except ValueError as error:
        raise UserError(f"{where}: {error}", remedy) from error
    height, width = next(iter(source.frames(index, camera))).shape[:2]
    if flip:
        cameras = resized(cameras, (0, height), (1, -1))
    if size:
        side = min(height, width)
        cameras = resized(cameras, ((width - side) // 2, (height - side) // 2), (size / side, size / side))
    return cameras[:1] if (cameras == cameras[:1]).all() else cameras
