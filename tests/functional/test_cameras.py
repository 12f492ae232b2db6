"""A pinhole camera: where points land, what cutting and resizing does to it, and what is no camera."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wovr.functional.cameras import check_cameras, make_camera, project, resized

INTRINSICS = np.array([[50.0, 0, 32], [0, 60, 24], [0, 0, 1]])


def test_a_point_lands_where_plain_arithmetic_puts_it() -> None:
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # the camera rolled by a quarter
    camera = make_camera(INTRINSICS, np.column_stack([turned, [0.1, 0.2, 2.0]]))
    points = np.array([[0.3, -0.4, 1.0], [0.0, 0.0, -3.0]])
    pixels, depth = project(points, camera)
    # x = 0.4 + 0.1, y = 0.3 + 0.2, z = 3
    assert pixels[0] == pytest.approx([50 * 0.5 / 3 + 32, 60 * 0.5 / 3 + 24], abs=1e-5)
    assert depth == pytest.approx([3.0, -1.0])
    same, _ = project(torch.tensor(points), torch.from_numpy(camera).double())
    assert same.numpy() == pytest.approx(pixels)


def test_cutting_turning_and_resizing_moves_the_pixels_of_points_along() -> None:
    camera = make_camera(INTRINSICS, np.eye(3, 4))[None]
    points = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 4], (5, 3))
    before, _ = project(points, camera[0])
    halved, _ = project(points, resized(camera, (8, 4), (0.5, 0.5))[0])
    assert halved == pytest.approx((before - [8, 4]) / 2, abs=1e-4)
    turned, _ = project(points, resized(camera, (0, 48), (1, -1))[0])
    assert turned == pytest.approx(np.column_stack([before[:, 0], 48 - before[:, 1]]), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:, :, :6], "shape"),
        (lambda c: c * np.nan, "not finite"),
        (lambda c: c * np.float32(2), "no intrinsic matrix"),
        (lambda c: np.concatenate([c[:, :, :3], -c[:, :, 3:]], 2), "no rotation"),
        (lambda c: np.concatenate([c[:, :, :3], 2 * c[:, :, 3:]], 2), "no rotation"),
    ],
)
def test_what_is_no_camera_is_refused(change, words: str) -> None:
    camera = make_camera(INTRINSICS, np.eye(3, 4))[None]
    check_cameras(camera)
    with pytest.raises(ValueError, match=words):
        check_cameras(change(camera))
