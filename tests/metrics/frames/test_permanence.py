from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wovr.metrics.frames.permanence import Permanence
from wovr.metrics.rollouts import ImaginedBatch, Score

T, SIDE, LEAVES = 24, 12, 6
TABLE, CUBE = 230, 20


def scene(count: int = 2) -> torch.Tensor:
    """(N, T, H, W, 3) uint8: a dark cube that is gone from frame LEAVES on, another one stays; a robot never rests."""
    frames = torch.full((count, T, SIDE, SIDE, 3), TABLE, dtype=torch.uint8)
    frames[:, :LEAVES, 1:5, 1:5] = CUBE
    frames[:, :, 7:11, 7:11] = CUBE
    frames[:, ::2, 0, :] = 90
    return frames


def measure(imagined: torch.Tensor, real: torch.Tensor, lengths: tuple[int, ...] = (T, T)) -> dict[str, Score]:
    metric = Permanence([8, 16, 24])
    actions = torch.zeros(len(real), T - 1, 2)
    metric.update(ImaginedBatch(imagined, real, actions, torch.tensor(lengths)))
    return metric.compute()


def test_true_frames_have_neither() -> None:
    scores = measure(scene(), scene())
    for name in ("ghosts", "ghosted", "lost"):
        assert scores[name].by_horizon[24] == 0
        assert math.isnan(scores[name].by_horizon[8]), "no pixel has rested for 8 frames"
    assert math.isnan(scores["ghosts"].by_frame[10]), "what has just left does not count yet"  # type: ignore[index]


def test_a_copy_of_the_first_frame_is_all_ghost() -> None:
    real = scene()
    scores = measure(real[:, :1].expand_as(real), real)
    assert scores["ghosts"].by_horizon[24] == pytest.approx(1)
    assert scores["ghosted"].by_horizon[24] == 1
    assert scores["lost"].by_horizon[24] == 0


def test_how_much_is_still_shown_and_in_how_many_rollouts() -> None:
    real = scene(3)
    imagined = real.clone()
    for rollout, share in enumerate((0.1, 0.3, 0.5)):
        imagined[rollout, LEAVES:, 1:5, 1:5] = round(TABLE + share * (CUBE - TABLE))
    scores = measure(imagined, real, (24, 24, 16))
    assert scores["ghosts"].by_horizon[16] == pytest.approx(0.3, abs=0.005)
    assert scores["ghosts"].by_horizon[24] == pytest.approx(0.2, abs=0.005), "the third has ended"
    assert scores["ghosted"].by_horizon == pytest.approx({8: math.nan, 16: 2 / 3, 24: 1 / 2}, nan_ok=True)


def test_what_vanishes_is_lost() -> None:
    real = scene()
    imagined = real.clone()
    imagined[0, :, 7:11, 7:11] = TABLE
    lost = measure(imagined, real)["lost"].by_horizon[24]
    resting = SIDE * SIDE - SIDE - 16  # neither the robot's row nor where the first cube was
    assert lost == pytest.approx(0.5 * 16 / resting)


def test_noise_in_both_is_neither() -> None:
    """Against the same thing in numpy, of pixels that flicker a little."""
    random = np.random.default_rng(0)
    real, imagined = (
        torch.from_numpy((scene().numpy().astype(int) + random.integers(-5, 6, (2, T, SIDE, SIDE, 3))).astype(np.uint8))
        for _ in range(2)
    )
    scores = measure(imagined, real)
    r, i = real.numpy() / 255.0, imagined.numpy() / 255.0
    t, ghosts = 23, []
    for n in range(2):
        still = np.all([np.abs(r[n, t] - r[n, t - gap]).max(-1) < 0.06 for gap in (1, 2, 4, 8)], axis=0)
        left = still & (np.abs(r[n, 0] - r[n, t]).max(-1) > 0.25)
        was = (r[n, 0] - r[n, t])[left]
        ghosts.append((was * (i[n, t] - r[n, t])[left]).sum() / (was**2).sum())
    assert scores["ghosts"].by_horizon[24] == pytest.approx(np.mean(ghosts), rel=1e-4)
    assert abs(np.mean(ghosts)) < 0.05
    assert scores["lost"].by_horizon[24] == 0
