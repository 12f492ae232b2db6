"""MuJoCo's cameras as arrays, see `wovr.functional.cameras`."""

from __future__ import annotations

from typing import Any

import numpy as np

from wovr.functional.cameras import make_camera


def camera_of(model: Any, data: Any, camera: Any, scene: Any, size: tuple[int, int]) -> np.ndarray:
    """What a camera is now, from what MuJoCo's renderer draws with.

    Args:
        model: MuJoCo's model.
        data: Its data.
        camera: `MjvCamera`, fixed or free.
        scene: The renderer's scene; its camera is set, as drawing does.
        size: Height and width of the pictures.

    Returns:
        (3, 7) float32.
    """
    import mujoco

    mujoco.mjv_updateCamera(model, data, camera, scene)
    left, right = scene.camera
    seen = mujoco.mjv_averageCamera(left, right)
    forward, up = np.array(seen.forward, np.float64), np.array(seen.up, np.float64)
    rotation = np.stack([np.cross(forward, up), -up, forward])
    pose = np.concatenate([rotation, -rotation @ np.array(seen.pos, np.float64)[:, None]], axis=1)
    height, width = size
    focal = height * seen.frustum_near / (seen.frustum_top - seen.frustum_bottom)  # pixels are square
    middle = height * seen.frustum_top / (seen.frustum_top - seen.frustum_bottom)
    return make_camera([[focal, 0, width / 2], [0, focal, middle], [0, 0, 1]], pose)
