from __future__ import annotations

import math

import pytest
import torch

from tests.metrics.painted import PaintedReader, noisy, painted_batch, painted_video, random_actions
from wovr.errors import UserError
from wovr.metrics.behaviour.action_following import ActionFollowing
from wovr.metrics.rollouts import ImaginedBatch, Score, Swapped


def measure(batch: ImaginedBatch, horizons: tuple[int, ...] = (5, 9)) -> dict[str, Score]:
    metric = ActionFollowing(horizons, PaintedReader())  # type: ignore[arg-type]
    metric.update(batch)
    return metric.compute()


def swapped(batch: ImaginedBatch, obey: bool = True) -> Swapped:
    """The futures of a batch under other actions; a model that does not obey shows its own again."""
    actions = torch.stack([random_actions(batch.actions.shape[1], 100 + row) for row in range(len(batch.actions))])
    futures = torch.stack([painted_video(taken, seed=row) for row, taken in enumerate(actions)])
    return Swapped(futures if obey else batch.imagined, futures, actions, batch.lengths)


def test_frames_that_show_the_actions_are_read_exactly() -> None:
    batch = painted_batch()
    batch.swapped = swapped(batch)
    scores = measure(batch)
    for horizon in (5, 9):
        assert scores["action_r2"].by_horizon[horizon] == pytest.approx(1, abs=1e-4)
        assert scores["action_mae"].by_horizon[horizon] == pytest.approx(0, abs=1e-3)
        assert scores["swap_r2"].by_horizon[horizon] == pytest.approx(1, abs=1e-4)
    assert not scores["action_r2[0]"].shown


def test_the_numbers_are_those_of_the_formulas() -> None:
    batch = painted_batch((9, 9, 6))
    batch.imagined = noisy(batch.real, 60)
    scores = measure(batch)
    read = PaintedReader().read(batch.imagined)
    for horizon, rows in ((5, [0, 1, 2]), (9, [0, 1])):
        y, p = (x[rows, : horizon - 1].flatten(0, 1) for x in (batch.actions, read))
        r2 = 1 - ((p - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
        assert scores["action_r2"].by_horizon[horizon] == pytest.approx(float(r2.mean()), rel=1e-4)
        assert scores["action_r2[1]"].by_horizon[horizon] == pytest.approx(float(r2[1]), rel=1e-4)
        assert scores["action_mae"].by_horizon[horizon] == pytest.approx(float((p - y).abs().mean()), rel=1e-4)
        assert scores["action_mae[0]"].by_horizon[horizon] == pytest.approx(float((p - y).abs().mean(0)[0]), rel=1e-4)
    curve = scores["action_mae"].by_frame
    assert curve is not None
    assert curve[7] == pytest.approx(float((read - batch.actions)[:2, 6].abs().mean()), rel=1e-4), "the third has ended"


def test_a_copied_frame_shows_no_action() -> None:
    batch = painted_batch()
    copied = batch.real[:, :1].expand_as(batch.real)
    scores = measure(batch.with_imagined(copied, Swapped(copied, None, batch.actions.flip(0), batch.lengths)))
    assert scores["action_r2"].by_horizon[9] < 0
    assert scores["swap_difference"].by_horizon[9] == 0


def test_a_model_deaf_to_actions_is_found_out_by_swapping_them() -> None:
    batch = painted_batch((9, 9, 9))
    deaf, obeying = (measure(batch.with_imagined(batch.real, swapped(batch, obey))) for obey in (False, True))
    assert deaf["action_r2"].by_horizon == obeying["action_r2"].by_horizon, "its own actions it follows"
    assert deaf["swap_r2"].by_horizon[9] < 0.2 < 0.9 < obeying["swap_r2"].by_horizon[9]
    assert deaf["swap_difference"].by_horizon[9] == 0
    truth = swapped(batch)
    expected = (batch.real.float() - truth.imagined.float()).abs()[:, 1:].mean()
    assert obeying["swap_difference"].by_horizon[9] == pytest.approx(float(expected), rel=1e-4)


def test_without_swapped_futures_only_their_scores_are_missing() -> None:
    scores = measure(painted_batch())
    assert math.isnan(scores["swap_r2"].by_horizon[9])
    assert math.isnan(scores["swap_difference"].by_horizon[9])
    assert scores["action_r2"].by_horizon[9] > 0.9


def test_a_dimension_that_never_varies_does_not_count() -> None:
    batch = painted_batch()
    batch.actions[..., 1] = -1.0
    batch.imagined = batch.real.clone()
    batch.imagined[:, 1:, 0, 1, 0] = 0
    scores = measure(batch)
    assert math.isnan(scores["action_r2[1]"].by_horizon[5])
    assert scores["action_r2"].by_horizon[5] == scores["action_r2[0]"].by_horizon[5]


def test_a_horizon_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(UserError, match="horizon 2: action_following reads windows of 3 frames"):
        ActionFollowing([2, 9], PaintedReader())  # type: ignore[arg-type]
