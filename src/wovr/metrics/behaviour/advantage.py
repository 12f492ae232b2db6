"""How well returns order the rollouts of a group, against their true chances of success.

The truth about a rollout after some chunks is the mean outcome of C continuations from where it is, which are few. So
everything is scored against the mean of C - 1 of them, averaged over which one is left out: the outcome of the one left
out, which is what whole rollouts learn from, is then independent of the truth, and all returns are scored against the
same truths. What the finite number of continuations costs is told by `ceiling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wovr.functional.intervals import bootstrap_interval
from wovr.functional.ranks import ordered_pairs, rank_correlation

_HALVINGS = 20


@dataclass(frozen=True)
class Score:
    """A mean over groups, with its 95 % bootstrap interval over them.

    Attributes:
        value: The mean; None where there is nothing to take it of.
        low: Lower end; None where fewer than two groups say something. Of a handful it is too narrow.
        high: Upper end, likewise.
        groups: Groups that say something.
    """

    value: float | None
    low: float | None
    high: float | None
    groups: int

    @classmethod
    def of(
        cls, parts: np.ndarray, counts: np.ndarray, seed: int, then: Callable[[float], float] | None = None
    ) -> Score:
        """sum(parts) / sum(counts), each (N,) float a group; `then` is a rising function applied to it."""
        groups = int((counts > 0).sum())
        if groups == 0:
            return cls(None, None, None, 0)
        mean = float(parts.sum() / counts.sum())
        value = mean if then is None else then(mean)
        if groups == 1:
            return cls(value, None, None, 1)
        interval = bootstrap_interval(parts, counts, seed=seed)
        ends = interval.low, interval.high
        low, high = ends if then is None else map(then, ends)
        return cls(value, low, high, groups)


@dataclass(frozen=True)
class TruthScores:
    """What continuations say of the rollouts themselves.

    Attributes:
        success_rate: Mean outcome.
        settled: Share of the rollouts that had ended: success or horizon.
        spread: Standard deviation of the true chances within a group, the noise of few continuations subtracted: how
            much the chunks matter.
        split_half: Rank correlation, within groups, of the means of two halves of the continuations.
        ceiling: What the true chances would have for rank correlation with the mean of C - 1 continuations, from
            `split_half` by the Spearman-Brown formula. That holds for linear correlations; for these it is up to 0.05
            too high where there are ties in the means and none in the chances.
    """

    success_rate: Score
    settled: Score
    spread: Score
    split_half: Score
    ceiling: Score


@dataclass(frozen=True)
class ReturnScores:
    """How good returns are as advantages.

    Attributes:
        rank_correlation: Mean of Spearman's within a group, over the groups in which both returns and truth differ.
            Returns that seldom differ, as outcomes do, are spared the groups in which they say nothing.
        pairwise: Share of the pairs of a group with different truth that the returns order rightly; ties count a half.
            The pairs are the same for all returns: this is the score to compare them by.
        groups_with_signal: Share of the groups whose returns differ.
    """

    rank_correlation: Score
    pairwise: Score
    groups_with_signal: Score


def truth_scores(outcomes: np.ndarray, settled: np.ndarray, seed: int = 0) -> TruthScores:
    """Score the truth.

    Args:
        outcomes: (N, G, C) float, 0 or 1: the outcome of each continuation; of a rollout that had ended, all its own.
        settled: (N, G) bool, it had ended.
        seed: Of halvings and bootstrap.

    Raises:
        ValueError: Fewer than two rollouts in a group or continuations of a rollout.
    """
    count = _check(outcomes)
    each = np.ones(len(outcomes))
    truth = outcomes.mean(axis=2)
    # The variance of a mean of C draws of chance q is q (1 - q) / C; with the mean itself for q, C - 1 is unbiased.
    noise = truth * (1 - truth) / (count - 1)
    variance = truth.var(axis=1, ddof=1) - noise.mean(axis=1)  # (N,)
    generator = np.random.default_rng(seed)
    half = count // 2
    correlations = []
    for _ in range(_HALVINGS):
        order = generator.permutation(count)
        halves = [outcomes[..., order[first : first + half]].mean(axis=2) for first in (0, half)]
        correlations.append(rank_correlation(*halves))
    parts, counts = _sums(np.stack(correlations, axis=1))

    def ceiling(reliability: float) -> float:
        """The correlation of the truth with a mean of C - 1, from that of two means of `half`."""
        reliability = max(reliability, 0.0)
        times = (count - 1) / half
        return float(np.sqrt(times * reliability / (1 + (times - 1) * reliability)))

    return TruthScores(
        success_rate=Score.of(truth.mean(axis=1), each, seed),
        settled=Score.of(settled.mean(axis=1), each, seed),
        spread=Score.of(variance, each, seed, lambda value: float(np.sqrt(max(value, 0.0)))),
        split_half=Score.of(parts, counts, seed),
        ceiling=Score.of(parts, counts, seed, ceiling),
    )


def return_scores(returns: np.ndarray, outcomes: np.ndarray, seed: int = 0) -> ReturnScores:
    """Score returns against the truth.

    Args:
        returns: (N, G) float; or (N, G, C), of which [..., c] may know continuation c: it is scored against the others.
        outcomes: (N, G, C) float, see `truth_scores`.
        seed: Of the bootstrap.

    Raises:
        ValueError: Other shapes, or fewer than two rollouts in a group or continuations of a rollout.
    """
    count = _check(outcomes)
    if returns.ndim == 2:
        returns = np.repeat(returns[..., None], count, axis=2)
    if returns.shape != outcomes.shape:
        raise ValueError(f"returns {returns.shape} of outcomes {outcomes.shape}")
    correlations, right, pairs, differ = [], [], [], []
    for left_out in range(count):
        truth = np.delete(outcomes, left_out, axis=2).mean(axis=2)
        ours = returns[..., left_out]
        found = ordered_pairs(ours, truth)
        correlations.append(rank_correlation(ours, truth))
        right.append(found.right)
        pairs.append(found.pairs)
        differ.append((ours != ours[:, :1]).any(axis=1))
    return ReturnScores(
        rank_correlation=Score.of(*_sums(np.stack(correlations, axis=1)), seed),
        pairwise=Score.of(np.sum(right, axis=0), np.sum(pairs, axis=0), seed),
        groups_with_signal=Score.of(np.mean(differ, axis=0), np.ones(len(outcomes)), seed),
    )


def _sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, n) with NaN where there is no value -> sum of each row, and how many there are."""
    return np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)


def _check(outcomes: np.ndarray) -> int:
    """The number of continuations."""
    if outcomes.ndim != 3 or min(outcomes.shape[1:]) < 2:
        raise ValueError(f"outcomes {outcomes.shape}: (groups, 2 or more rollouts, 2 or more continuations) is needed")
    return outcomes.shape[2]
