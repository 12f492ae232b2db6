from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wovr.metrics.behaviour.hallucination import Hallucination


def auroc(target: np.ndarray, score: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half: pair by pair."""
    pairs = [(a > b) + 0.5 * (a == b) for a in score[target] for b in score[~target]]
    return float(np.mean(pairs))


def test_scores_are_those_of_an_independent_count() -> None:
    rng = np.random.default_rng(0)
    imagined, real = rng.random(60) < 0.6, rng.random(60) < 0.5
    confidence, spread = rng.uniform(0.5, 1, 60).round(1), rng.uniform(0, 0.5, 60).round(1)  # with ties
    metric = Hallucination()
    for part in np.split(np.arange(60), [7, 8, 40]):
        metric.update(
            torch.from_numpy(imagined[part]),
            torch.from_numpy(real[part]),
            torch.from_numpy(confidence[part]),
            torch.from_numpy(spread[part]),
        )
    scores = metric.compute()
    outcomes = list(zip(imagined.tolist(), real.tolist(), strict=True))
    tp, fp, fn, tn = (outcomes.count(one) for one in ((True, True), (True, False), (False, True), (False, False)))
    assert (scores.true_success, scores.false_success, scores.false_failure, scores.true_failure) == (tp, fp, fn, tn)
    assert scores.false_success_rate == fp / (fp + tp)
    assert scores.false_success_of_failures == fp / (fp + tn)
    assert scores.precision == tp / (fp + tp)
    assert scores.recall == tp / (fn + tp)
    assert scores.agreement == (tp + tn) / 60
    false = ~real[imagined]
    assert scores.confidence_auroc == pytest.approx(auroc(false, -confidence[imagined]))
    assert scores.spread_auroc == pytest.approx(auroc(false, spread[imagined]))


def test_what_cannot_be_told_is_nan_and_null() -> None:
    metric = Hallucination()
    metric.update(torch.tensor([False, False]), torch.tensor([False, True]))
    scores = metric.compute()
    assert math.isnan(scores.false_success_rate)
    assert math.isnan(scores.confidence_auroc)
    assert scores.as_json()["precision"] is None
    assert (scores.recall, scores.agreement, scores.false_success_of_failures) == (0.0, 0.5, 0.0)
    metric.update(torch.tensor([True]), torch.tensor([True]), torch.tensor([0.9]))
    assert math.isnan(metric.compute().confidence_auroc), "no false success to tell"
    metric.update(torch.tensor([True]), torch.tensor([False]), torch.tensor([0.7]))
    assert metric.compute().confidence_auroc == 1.0
    assert math.isnan(metric.compute().spread_auroc)
    with pytest.raises(ValueError, match="booleans are needed"):
        metric.update(torch.tensor([1]), torch.tensor([True]))
    with pytest.raises(ValueError, match="real has shape"):
        metric.update(torch.tensor([True]), torch.tensor([True, False]))
