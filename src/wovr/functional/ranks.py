"""Does one number order things as another does? Rank correlation and ordered pairs, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OrderedPairs:
    """Pairs of each row whose truth differs.

    Attributes:
        right: (N,) float64, those that the other number orders as the truth does; a tie of its own counts a half.
        pairs: (N,) int64, all of them.
    """

    right: np.ndarray
    pairs: np.ndarray


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, equal values sharing the mean of theirs: (..., G) -> (..., G) float64."""
    below = (values[..., None, :] < values[..., :, None]).sum(axis=-1)  # (..., G)
    equal = (values[..., None, :] == values[..., :, None]).sum(axis=-1)  # itself included
    return below + (equal + 1) / 2


def rank_correlation(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row: Pearson's of the ranks, ties sharing the mean rank.

    Args:
        values: (N, G) float.
        truth: (N, G) float.

    Returns:
        (N,) float64 in [-1, 1]; NaN where either of the two is the same in the whole row.
    """
    ours, theirs = (average_ranks(rows) - (rows.shape[1] + 1) / 2 for rows in (values, truth))  # of mean 0
    length = np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    product = (ours * theirs).sum(axis=1)
    return np.divide(product, length, out=np.full(len(values), np.nan), where=length > 0)


def ordered_pairs(values: np.ndarray, truth: np.ndarray) -> OrderedPairs:
    """Count the pairs of each row that a number orders as the truth does.

    Args:
        values: (N, G) float.
        truth: (N, G) float.
    """
    first, second = np.triu_indices(values.shape[1], 1)
    ours = np.sign(values[:, first] - values[:, second])  # (N, G (G - 1) / 2)
    theirs = np.sign(truth[:, first] - truth[:, second])
    right = np.where(theirs == 0, 0.0, (1 + ours * theirs) / 2)
    return OrderedPairs(right.sum(axis=1), (theirs != 0).sum(axis=1))
