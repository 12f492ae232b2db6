"""Scores of a success classifier, against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wovr.functional.classification import (
    JudgedEpisode,
    area_under_roc,
    best_threshold,
    calibration_table,
    pooled,
    precision_at_recall,
    score,
)


def judged(probability: list[float], success: list[int], key: str = "a") -> JudgedEpisode:
    truth = np.array(success, bool)
    return JudgedEpisode("spatial", 0, key, np.array(probability, np.float32), truth, bool(truth.any()))


EPISODES = [
    judged([0.1, 0.2, 0.75, 0.9], [0, 0, 1, 1]),  # found
    judged([0.1, 0.9, 0.2, 0.9], [0, 0, 1, 1]),  # only flickers
    judged([0.6, 0.5, 0.2, 0.0], [0, 0, 0, 0]),  # called, falsely
    judged([0.3, 0.2, 0.1, 0.0], [0, 0, 0, 0]),
]


def test_scores_are_what_is_counted_by_hand() -> None:
    found = score(EPISODES, threshold=0.5, consecutive=2)
    assert (found.frames, found.positives) == (16, 4)
    assert found.precision == pytest.approx(3 / 6), "of .75 .9 | .9 .9 | .6 .5 three are successful"
    assert found.recall == pytest.approx(3 / 4)
    assert (found.episodes, found.succeeded, found.called) == (4, 2, 2)
    assert (found.episode_precision, found.episode_recall, found.episode_accuracy) == (0.5, 0.5, 0.5)
    flickers = score(EPISODES, threshold=0.5, consecutive=1)
    assert (flickers.called, flickers.episode_recall) == (3, 1.0)
    # Average precision as its definition: precision at every step in recall.
    probability, success = (tensor.numpy() for tensor in pooled(EPISODES))
    total, before = 0.0, 0.0
    for level in sorted(set(probability.tolist()), reverse=True):
        chosen = probability >= level
        recall = (success[chosen] == 1).sum() / 4
        total += (recall - before) * (success[chosen] == 1).mean()
        before = recall
    assert found.average_precision == pytest.approx(total)


def test_calibration_is_the_gap_to_the_frequencies() -> None:
    episode = judged([0.12] * 4 + [0.81] * 5, [1, 0, 0, 0, 1, 1, 1, 1, 0])
    error = score([episode], 0.5, 1).calibration_error
    assert error == pytest.approx((4 * abs(0.12 - 0.25) + 5 * abs(0.81 - 0.8)) / 9, abs=1e-6)
    table = calibration_table(*pooled([episode]))
    assert [row.frames for row in table] == [0, 4, 0, 0, 0, 0, 0, 0, 5, 0]
    assert (table[1].low, table[1].high, table[1].frequency) == (0.1, 0.2, 0.25)
    assert table[8].probability == pytest.approx(0.81)
    assert table[0].probability is None
    assert calibration_table(torch.tensor([1.0]), torch.tensor([1]))[9].frames == 1


def test_what_is_not_defined_is_none() -> None:
    nothing = score([], 0.5, 2)
    assert nothing.frames == nothing.episodes == 0
    assert nothing.precision is nothing.recall is nothing.calibration_error is nothing.episode_accuracy is None
    failures = score([EPISODES[3]], 0.5, 2)
    assert failures.precision is failures.recall is failures.average_precision is failures.episode_recall is None
    assert failures.episode_accuracy == 1.0
    assert precision_at_recall(*pooled([EPISODES[3]])) == []


def test_the_best_threshold_lies_between_the_classes() -> None:
    apart = [judged([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1])]
    assert best_threshold(*pooled(apart)) == pytest.approx(0.4)
    probability, success = pooled(EPISODES)
    chosen = best_threshold(probability, success)

    def f1(threshold: float) -> float:
        called = probability >= threshold
        right = int((called & (success == 1)).sum())
        return 2 * right / max(1, int(called.sum()) + int(success.sum()))

    assert f1(chosen) == max(f1(float(level)) for level in probability)
    assert 0 < best_threshold(torch.tensor([0.0, 0.0]), torch.tensor([0, 1])) < 1e-3
    with pytest.raises(ValueError, match="both classes"):
        best_threshold(torch.tensor([0.5]), torch.tensor([1]))


def test_the_curve_falls_from_the_best_precision_to_the_share_of_positives() -> None:
    curve = precision_at_recall(*pooled(EPISODES))
    assert len(curve) == 101
    assert curve == sorted(curve, reverse=True)
    assert curve[75] == pytest.approx(0.75), "3 of 4 from .75 on"
    assert curve[100] == pytest.approx(4 / 11), "4 of the 11 from .2 on"


def test_the_area_under_the_roc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    score, target = random.integers(0, 6, 80) / 5, random.random(80) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in score[target] for b in score[~target]]
    found = area_under_roc(torch.from_numpy(score).float(), torch.from_numpy(target))
    assert found == pytest.approx(np.mean(pairs), abs=1e-6)
    for bad in (torch.ones(80, dtype=torch.bool), torch.zeros(80, dtype=torch.bool)):
        assert math.isnan(area_under_roc(torch.rand(80), bad))
    assert math.isnan(area_under_roc(torch.full((80,), torch.nan), torch.from_numpy(target)))
