"""Scores of returns against outcomes whose chances are known, and against sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from wovr.metrics.behaviour.advantage import return_scores, truth_scores


def drawn(groups: int, size: int, continuations: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Chances around a half, (N, G), and outcomes drawn from them, (N, G, C)."""
    rng = np.random.default_rng(seed)
    chance = 0.5 + spread * rng.choice([-1.0, 1.0], (groups, size))
    return chance, (rng.random((groups, size, continuations)) < chance[..., None]).astype(float)


@pytest.mark.parametrize(("spread", "continuations"), [(0.0, 4), (0.2, 2), (0.2, 8), (0.4, 4)])
def test_the_spread_is_that_of_the_chances(spread: float, continuations: int) -> None:
    _, outcomes = drawn(4000, 6, continuations, spread)
    found = truth_scores(outcomes, np.zeros((4000, 6), bool))
    assert found.spread.value == pytest.approx(spread, abs=0.03)
    assert found.success_rate.value == pytest.approx(0.5, abs=0.01)
    assert found.spread.low <= found.spread.value <= found.spread.high


@pytest.mark.parametrize("continuations", [2, 5, 8])
@pytest.mark.parametrize("values", ["two", "many"])
def test_the_ceiling_is_what_the_chances_themselves_reach(values: str, continuations: int) -> None:
    chance, outcomes = drawn(4000, 8, continuations, 0.25)
    if values == "many":
        rng = np.random.default_rng(1)
        chance = rng.random(chance.shape)
        outcomes = (rng.random(outcomes.shape) < chance[..., None]).astype(float)
    reached = return_scores(chance, outcomes).rank_correlation.value
    found = truth_scores(outcomes, np.zeros(chance.shape, bool))
    assert found.ceiling.value == pytest.approx(reached, abs=0.05)
    assert found.split_half.value < found.ceiling.value
    assert found.ceiling.low <= found.ceiling.value <= found.ceiling.high


def test_an_outcome_is_scored_against_the_others() -> None:
    # Pure luck: an outcome says nothing of the others, though it is a third of the mean of all three.
    _, outcomes = drawn(3000, 6, 3, 0.0)
    found = return_scores(outcomes, outcomes)
    assert found.rank_correlation.value == pytest.approx(0, abs=0.02)
    assert found.pairwise.value == pytest.approx(0.5, abs=0.01)
    leaked = return_scores(outcomes.mean(axis=2), outcomes)
    assert leaked.rank_correlation.value > 0.5


def test_scores_are_those_of_a_loop() -> None:
    _, outcomes = drawn(20, 4, 3, 0.3, seed=5)
    outcomes[0] = 1.0  # nothing to order
    returns = np.random.default_rng(6).integers(0, 3, (20, 4)) / 2
    returns[1] = 0.5  # no signal
    correlations, right, pairs = [], 0.0, 0
    for group in range(20):
        for left_out in range(3):
            kept = [c for c in range(3) if c != left_out]
            truth = outcomes[group][:, kept].mean(axis=1)
            if len(set(truth)) > 1 and len(set(returns[group])) > 1:
                correlations.append(spearmanr(returns[group], truth).statistic)
            for i in range(4):
                for j in range(i):
                    if truth[i] != truth[j]:
                        pairs += 1
                        sign = (returns[group, i] - returns[group, j]) * (truth[i] - truth[j])
                        right += 0.5 if sign == 0 else sign > 0
    found = return_scores(returns, outcomes)
    assert found.rank_correlation.value == pytest.approx(np.mean(correlations))
    assert found.pairwise.value == pytest.approx(right / pairs)
    assert found.groups_with_signal.value == np.mean([len(set(row)) > 1 for row in returns])


def test_one_group_has_no_interval() -> None:
    outcomes = np.zeros((3, 2, 2))
    outcomes[1, 1] = 1
    found = return_scores(outcomes[..., 0], outcomes)
    assert (found.rank_correlation.value, found.rank_correlation.groups) == (1.0, 1)
    assert found.rank_correlation.low is found.rank_correlation.high is None
    assert found.groups_with_signal.groups == 3
    assert found.groups_with_signal.low is not None


def test_nothing_to_order() -> None:
    found = return_scores(np.zeros((3, 2)), np.zeros((3, 2, 2)))
    assert found.rank_correlation.value is found.pairwise.value is found.pairwise.low is None
    assert found.groups_with_signal.value == 0
    truth = truth_scores(np.zeros((3, 2, 2)), np.ones((3, 2), bool))
    assert truth.ceiling.value is None
    assert (truth.spread.value, truth.settled.value) == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4), (3, 4, 1)])
def test_too_little(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 or more"):
        truth_scores(np.zeros(shape), np.zeros(shape[:2], bool))
    with pytest.raises(ValueError, match="returns"):
        return_scores(np.zeros((2, 2)), np.zeros((3, 2, 2)))
