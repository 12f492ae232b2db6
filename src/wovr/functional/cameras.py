"""A pinhole camera as one array, and what is seen through it.

A camera is (3, 7): the intrinsic matrix K (3, 3), then the pose [R | t] (3, 4) that takes a point of the world, in its
own units, to the camera's axes: x to the right, y down, z away from it (OpenCV's). K is in pixels of the stored
picture, whose upper left corner is (0, 0): the middle of the first pixel is (0.5, 0.5). Numpy arrays and tensors alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CAMERA_SHAPE = (3, 7)
"""Of a camera: [K | R | t]."""

_ROUNDING = 1e-3
"""How far from orthonormal a stored rotation may be."""


def make_camera(intrinsics: Any, pose: Any) -> np.ndarray:
    """[K | R | t], (3, 7) float32, of K (3, 3) and of [R | t], (3, 4) or with a further row (4, 4)."""
    return np.concatenate([np.asarray(intrinsics), np.asarray(pose)[:3]], axis=1).astype(np.float32)


def check_cameras(cameras: np.ndarray) -> None:
    """Check cameras, (F, 3, 7).

    Raises:
        ValueError: Another shape, values that are not finite, an intrinsic matrix that is none, or no rotation.
    """
    if cameras.ndim != 3 or cameras.shape[1:] != CAMERA_SHAPE:
        raise ValueError(f"shape {cameras.shape}, must be (1 or T, 3, 7)")
    if not np.isfinite(cameras).all():
        raise ValueError("not finite")
    intrinsics, rotation = cameras[:, :, :3].astype(np.float64), cameras[:, :, 3:6].astype(np.float64)
    lower = [intrinsics[:, 1, 0], intrinsics[:, 2, 0], intrinsics[:, 2, 1], intrinsics[:, 2, 2] - 1]
    if np.any(np.abs(lower) > 1e-6) or np.any(intrinsics[:, [0, 1], [0, 1]] == 0):
        raise ValueError("the first three columns are no intrinsic matrix [[f, s, c], [0, f, c], [0, 0, 1]]")
    off = np.abs(rotation @ rotation.mT - np.eye(3)).max(initial=0.0)
    if off > _ROUNDING or np.any(np.linalg.det(rotation) < 0):
        raise ValueError("columns four to six are no rotation")


def project(points: Any, camera: Any) -> tuple[Any, Any]:
    """Where a camera sees points.

    Args:
        points: (..., N, 3) float, in the world.
        camera: (..., 3, 7) float.

    Returns:
        (..., N, 2) float, column and row in pixels, and (..., N) float, how far away they are along the camera's axis;
        0 or less is behind it, where the pixel means nothing.
    """
    seen = points @ camera[..., 3:6].mT + camera[..., 6][..., None, :]  # (..., N, 3)
    depth = seen[..., 2]
    flat = seen @ camera[..., :3].mT  # (..., N, 3)
    safe = depth + (depth == 0)
    return flat[..., :2] / safe[..., None], depth


def resized(cameras: np.ndarray, corner: tuple[float, float], scale: tuple[float, float]) -> np.ndarray:
    """Cameras of pictures that were cut and then resized.

    Args:
        cameras: (F, 3, 7) float.
        corner: Column and row of the pixel corner that became (0, 0).
        scale: New pixels for one of old, across and down; negative where the picture was turned over, its corner then
            being the last one.

    Returns:
        (F, 3, 7) float32.
    """
    change = np.array([[scale[0], 0, -scale[0] * corner[0]], [0, scale[1], -scale[1] * corner[1]], [0, 0, 1]])
    return np.concatenate([change @ cameras[:, :, :3], cameras[:, :, 3:]], axis=2).astype(np.float32)
