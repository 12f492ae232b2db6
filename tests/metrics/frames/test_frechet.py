from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from tests.metrics.painted import noisy, painted_batch
from wovr.errors import UserError
from wovr.metrics.frames.frechet import FrechetRolloutDistance
from wovr.metrics.networks.features import FeatureNetwork, IDMFrames, IDMWindows
from wovr.metrics.rollouts import ImaginedBatch
from wovr.models.probes.inverse_dynamics import InverseDynamics

LENGTHS = (24,) * 6 + (18,) * 2


@pytest.fixture(scope="module")
def network() -> InverseDynamics:
    torch.manual_seed(0)
    return InverseDynamics(action_dim=2, window=3, keypoints=2, channels=[8, 8], width=6, size=16).eval()


@pytest.fixture(scope="module")
def batch() -> ImaginedBatch:
    return painted_batch(LENGTHS)


def distance(features: FeatureNetwork, batch: ImaginedBatch, amount: int, horizon: int = 20) -> float:
    metric = FrechetRolloutDistance("fvd[idm]", [horizon], features)
    metric.update(batch.with_imagined(noisy(batch.real, amount), None))
    return metric.compute()["fvd[idm]"].by_horizon[horizon]


def test_every_horizon_compares_the_clips_within_it(network: InverseDynamics, batch: ImaginedBatch) -> None:
    videos = noisy(batch.real, 40)
    metric = FrechetRolloutDistance("fvd[idm]", [10, 20], IDMWindows(network))
    metric.update(batch.with_imagined(videos, None))
    found = metric.compute()["fvd[idm]"].by_horizon
    for horizon, rows in ((10, 8), (20, 6)):
        samples = []
        for frames in (videos, batch.real):
            # Frame by frame, as nothing else does it: windows of 3 that end by the horizon.
            windows = torch.cat([frames[:rows, i : i + 3] for i in range(horizon - 2)])
            with torch.no_grad():
                samples.append(network(windows.movedim(-1, -3) / 127.5 - 1).features[:, 0].double().numpy())
        c1, c2 = (np.cov(x, rowvar=False) for x in samples)
        root = scipy.linalg.sqrtm(c1 @ c2).real
        expected = ((samples[0].mean(0) - samples[1].mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
        assert found[horizon] == pytest.approx(float(expected), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", [IDMFrames, IDMWindows])
def test_a_perfect_model_has_distance_zero_and_noise_adds_to_it(
    kind: type[IDMFrames] | type[IDMWindows], network: InverseDynamics, batch: ImaginedBatch
) -> None:
    distances = [distance(kind(network), batch, amount) for amount in (0, 20, 60, 150)]
    assert distances[0] == pytest.approx(0, abs=1e-5)
    assert distances == sorted(distances)
    assert distances[1] > 1e-4


def test_the_real_side_is_looked_at_once(network: InverseDynamics) -> None:
    calls = []

    class Counting(IDMWindows):
        def forward(self, videos: torch.Tensor):  # type: ignore[no-untyped-def]
            calls.append(len(videos))
            return super().forward(videos)

    batch, features = painted_batch(LENGTHS), Counting(network)
    for amount in (0, 10):
        metric = FrechetRolloutDistance("fvd[idm]", [20], features)
        metric.update(batch.with_imagined(noisy(batch.real, amount), None))
    assert len(calls) == 3


def test_too_few_clips_are_said(network: InverseDynamics) -> None:
    metric = FrechetRolloutDistance("fvd[idm]", [4, 9], IDMWindows(network))
    metric.update(painted_batch((9,)))
    metric.compute()
    assert "2 at 4 clips for 6 dimensions" in metric.notes[0]


def test_a_horizon_shorter_than_a_clip_is_refused(network: InverseDynamics) -> None:
    with pytest.raises(UserError, match=r"horizon 2: fvd\[idm\] compares clips of 3 frames"):
        FrechetRolloutDistance("fvd[idm]", [2, 9], IDMWindows(network))
