"""Statistics as LeRobotDataset stores them: of every feature, an episode at a time and over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Stats = dict[str, np.ndarray]
"""min, max, mean, std, count and QUANTILES of a feature, float64 (D,) or (3, 1, 1); count (1,) int64."""


def column_stats(values: np.ndarray) -> Stats:
    """Of one column; `values` is (T,) or (T, D) of numbers or bools."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    stats = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {**stats, "count": np.array([len(rows)]), **dict(zip(QUANTILES, quantiles, strict=True))}


def frames_stats(frames: np.ndarray) -> Stats:
    """Of the colours of frames, (T, H, W, 3) uint8, as numbers in [0, 1] of shape (3, 1, 1); exact, from histograms."""
    counts = np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])  # (3, 256)
    levels = np.arange(256) / 255.0
    total = counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0.0))
    below = np.cumsum(counts, axis=1)
    there = [levels[row > 0] for row in counts]
    stats = {"min": np.array([t[0] for t in there]), "max": np.array([t[-1] for t in there]), "mean": mean, "std": std}
    for name, share in QUANTILES.items():
        stats[name] = levels[(below < share * total[:, None]).sum(1)]
    shaped = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
    return {**shaped, "count": np.array([len(frames)])}


def merge_stats(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Of several episodes together; quantiles are means weighted by length, as LeRobot's own are."""
    counts = np.array([int(part["count"][0]) for part in parts], np.float64)
    weights = counts / counts.sum()

    def stacked(name: str) -> np.ndarray:
        return np.stack([part[name] for part in parts])

    def weighted(values: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, values, axes=1)

    mean = weighted(stacked("mean"))
    variance = weighted(stacked("std") ** 2 + (stacked("mean") - mean) ** 2)
    merged = {"min": stacked("min").min(0), "max": stacked("max").max(0), "mean": mean, "std": np.sqrt(variance)}
    quantiles = {name: weighted(stacked(name)) for name in QUANTILES}
    return {**merged, "count": np.array([int(counts.sum())]), **quantiles}
