from __future__ import annotations

import math

import pytest
import torch

from tests.metrics.painted import PaintedProbe, bytes_of, painted_batch
from wovr.metrics.behaviour.state_error import StateError
from wovr.metrics.rollouts import ImaginedBatch, Score


def measure(batch: ImaginedBatch, *looks: str) -> dict[str, Score]:
    metric = StateError([3, 6, 9], PaintedProbe(looks) if looks else PaintedProbe())  # type: ignore[arg-type]
    metric.update(batch)
    return metric.compute()


def displaced(batch: ImaginedBatch, point: int, levels: int, rows: list[int]) -> ImaginedBatch:
    """Imagined frames in which a point of some rollouts is `levels` grey levels too far along x."""
    imagined = batch.real.clone()
    imagined[rows, 1:, 1, point, 0] += levels
    return batch.with_imagined(imagined, None)


def test_true_frames_have_no_error() -> None:
    scores = measure(painted_batch())
    assert scores["gripper_cm"].by_horizon == pytest.approx({3: 0, 6: 0, 9: 0}, abs=1e-4)
    assert scores["objects_cm"].by_horizon == pytest.approx({3: 0, 6: 0, 9: 0}, abs=1e-4)
    assert scores["astray"].by_horizon == {3: 0, 6: 0, 9: 0}
    assert scores["gripper_cm"].by_frame == pytest.approx([0.0] * 9, abs=1e-4)


def test_the_median_rollout_counts_in_centimetres() -> None:
    level = 100 / 127.5  # a grey level is so many centimetres
    batch = painted_batch((9, 9, 9))
    one_of_three, two_of_three = (displaced(batch, 0, 4, rows) for rows in ([1], [0, 1]))
    assert measure(one_of_three)["gripper_cm"].by_horizon[9] == pytest.approx(0, abs=1e-4)
    assert measure(two_of_three)["gripper_cm"].by_horizon[9] == pytest.approx(4 * level, rel=1e-3)
    assert measure(two_of_three)["objects_cm"].by_horizon[9] == pytest.approx(0, abs=1e-4)


def test_what_was_grasped_counts_from_the_grasp_on() -> None:
    level = 100 / 127.5
    batch = painted_batch((9, 9, 6))
    scores = measure(displaced(batch, 1, 3, [0, 1, 2]))
    curve = scores["grasped_cm"].by_frame
    assert curve is not None
    assert math.isnan(curve[1]), "nothing was held yet"
    assert curve[2:] == pytest.approx([3 * level] * 7, rel=1e-3)
    assert scores["objects_cm"].by_horizon[6] == pytest.approx(1.5 * level, rel=1e-3), "the other one is in place"


def test_an_object_far_off_makes_its_rollout_count_as_astray() -> None:
    batch = painted_batch((9, 9, 6))
    scores = measure(displaced(batch, 2, 8, [0]))  # 6.3 cm
    assert scores["astray"].by_horizon == pytest.approx({3: 1 / 3, 6: 1 / 3, 9: 1 / 2})
    assert measure(displaced(batch, 0, 8, [0]))["astray"].by_horizon[9] == 0, "the gripper is no object"


def test_look_alikes_may_come_in_any_order() -> None:
    batch = painted_batch()
    imagined = batch.real.clone()
    imagined[:, 1:, 1, [1, 2]] = batch.real[:, 1:, 1, [2, 1]]
    batch = batch.with_imagined(imagined, None)
    assert measure(batch, "gripper", "cube", "cube")["objects_cm"].by_horizon[6] == pytest.approx(0, abs=1e-4)
    assert measure(batch)["objects_cm"].by_horizon[6] > 10


def test_points_that_a_scene_lacks_are_left_out() -> None:
    batch = painted_batch()
    assert batch.positions is not None
    assert batch.movable is not None
    batch.positions[:, :, 2] = torch.nan
    batch.movable[:, 2] = False
    batch.imagined = batch.real.clone()
    batch.imagined[..., 1, 2, :] = bytes_of(torch.ones(3))
    assert measure(batch)["objects_cm"].by_horizon[6] == pytest.approx(0, abs=1e-4)


def test_a_batch_without_positions_cannot_be_measured() -> None:
    batch = painted_batch()
    batch.positions = None
    with pytest.raises(ValueError, match="true positions"):
        measure(batch)
