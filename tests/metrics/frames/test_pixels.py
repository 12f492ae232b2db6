from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.metrics.painted import noisy, painted_batch
from wovr.metrics.frames.pixels import PSNR, SSIM
from wovr.metrics.rollouts import FrameMetric, ImaginedBatch


def test_psnr_is_the_mean_over_frames_of_the_formula() -> None:
    batch = painted_batch((9, 7))
    batch.imagined = noisy(batch.real, 20)
    metric = PSNR([4, 8])
    metric.update(batch)
    score = metric.compute()["psnr"]
    error = (batch.imagined.numpy().astype(float) - batch.real.numpy()) ** 2
    by_frame = 10 * np.log10(255**2 / error.mean((2, 3, 4)).clip(1e-9))
    assert score.by_horizon[4] == pytest.approx(by_frame[:, 1:4].mean(), rel=1e-5)
    assert score.by_horizon[8] == pytest.approx(by_frame[:1, 1:8].mean(), rel=1e-5), "the second has 7 frames only"
    assert score.by_frame is not None
    assert math.isnan(score.by_frame[0])
    assert score.by_frame[7] == pytest.approx(by_frame[0, 7], rel=1e-5)
    assert score.by_frame[6] == pytest.approx(by_frame[:, 6].mean(), rel=1e-5)


@pytest.mark.parametrize(("metric", "best"), [(PSNR([6]), math.inf), (SSIM([6]), 1.0)])
def test_a_perfect_model_is_perfect_and_noise_only_makes_it_worse(metric: FrameMetric, best: float) -> None:
    batch = painted_batch()
    scores = []
    for amount in (0, 5, 20, 80):
        metric.reset()
        metric.update(batch.with_imagined(noisy(batch.real, amount), None))
        scores.append(metric.compute()[metric.name].by_horizon[6])
    assert scores[0] == pytest.approx(best)
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_one_equal_frame_does_not_make_a_rollout_infinite() -> None:
    batch = painted_batch((6,))
    batch.imagined = noisy(batch.real, 9)
    batch.imagined[:, 1] = batch.real[:, 1]
    metric = PSNR([6])
    metric.update(batch)
    score = metric.compute()["psnr"]
    assert score.by_frame is not None
    assert score.by_frame[1] == math.inf
    largest = 10 * math.log10(255**2 * 16 * 16 * 3)
    assert score.by_horizon[6] == pytest.approx((largest + sum(score.by_frame[2:6])) / 5)


def test_batches_may_be_cut_anyhow() -> None:
    whole = painted_batch((9, 8, 6, 5))
    whole.imagined = noisy(whole.real, 30)
    together, apart = SSIM([5, 8]), SSIM([5, 8])
    together.update(whole)
    for rows in ([0], [1, 2], [3]):
        stop = int(whole.lengths[rows].max())
        part = ImaginedBatch(
            whole.imagined[rows, :stop], whole.real[rows, :stop], whole.actions[rows, : stop - 1], whole.lengths[rows]
        )
        apart.update(part)
    one, other = together.compute()["ssim"], apart.compute()["ssim"]
    assert one.by_horizon == pytest.approx(other.by_horizon)
    assert one.by_frame == pytest.approx(other.by_frame, nan_ok=True)


def test_a_horizon_that_nothing_reaches_has_no_value() -> None:
    metric = PSNR([4, 20])
    batch = painted_batch((6,))
    batch.imagined = noisy(batch.real, 9)
    metric.update(batch)
    assert math.isnan(metric.compute()["psnr"].by_horizon[20])
    assert torch.isfinite(torch.tensor(metric.compute()["psnr"].by_horizon[4]))
