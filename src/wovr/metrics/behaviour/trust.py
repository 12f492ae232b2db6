"""How good a trust is: does it tell false successes and wrong chunks, is it calibrated, what is left when it acts?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import binary_calibration_error

from wovr.functional.classification import area_under_roc, calibration_table
from wovr.functional.intervals import bootstrap_statistic

BINS = 10
"""Equal ranges of trust in the table of reliability, and in its error."""


@dataclass(frozen=True)
class JudgedRollout:
    """An imagined rollout of C chunks, what was thought of it and what really happened.

    Attributes:
        imagined: It was imagined to succeed.
        real: The same actions from the same state really succeed.
        trust: (C,) float in [0, 1].
        signals: Name -> (C,) float, larger for less to be believed.
        wrong: (C,) bool, the chunk's last frame is far from the real one.
    """

    imagined: bool
    real: bool
    trust: np.ndarray
    signals: Mapping[str, np.ndarray]
    wrong: np.ndarray


def score_trust(rollouts: Sequence[JudgedRollout], keep: float = 0.7, seed: int = 0) -> dict[str, Any]:
    """Score a trust and the signals it is made of. A rollout is believed as far as its least trusted chunk.

    Args:
        rollouts: One or more, of one chunk or more each, with the same signals.
        keep: Share of the true imagined successes that the threshold is to leave, in (0, 1].
        seed: Of the bootstrap, which draws whole rollouts.

    Returns:
        JSON values, None where one is not defined: `rollouts`, `chunks`, `wrong_chunks`, `imagined_successes`,
        `false_successes`; `signals`, of each and of `distrust` (1 - trust) the area under the ROC for a `false_success`
        among the imagined ones and for a `wrong_chunk`, with 95 % bootstrap intervals; `calibration`, trust beside how
        often chunks are right, and `calibration_error` (L1); `acting`: the `threshold` that keeps so many true
        successes, `kept` shares of true successes, of false ones and of all rollouts, and the share of imagined
        successes that is false, `false_share`, beside that `without` and their `difference`.
    """
    pooled = np.concatenate([rollout.trust for rollout in rollouts])
    wrong = np.concatenate([rollout.wrong for rollout in rollouts])
    imagined, real = (np.array([getattr(one, name) for one in rollouts], bool) for name in ("imagined", "real"))
    signals = {"distrust": [1 - one.trust for one in rollouts]}
    signals |= {name: [one.signals[name] for one in rollouts] for name in rollouts[0].signals}
    trust, right = torch.from_numpy(pooled.astype(np.float32)), torch.from_numpy((~wrong).astype(np.int64))
    return {
        "rollouts": len(rollouts),
        "chunks": len(wrong),
        "wrong_chunks": float(wrong.mean()),
        "imagined_successes": int(imagined.sum()),
        "false_successes": int((imagined & ~real).sum()),
        "signals": {
            name: {
                "false_success": _roc_of_successes(values, imagined, real, seed),
                "wrong_chunk": _roc_of_chunks(values, [one.wrong for one in rollouts], seed),
            }
            for name, values in signals.items()
        },
        "calibration": [asdict(row) for row in calibration_table(trust, right, BINS)],
        "calibration_error": float(binary_calibration_error(trust, right, n_bins=BINS)),
        "acting": _acting(np.array([one.trust.min() for one in rollouts]), imagined, real, keep, seed),
    }


def threshold_that_keeps(trust: np.ndarray, share: float) -> float:
    """The largest threshold that at least a share of some rollouts reach: (n,) float, n >= 1."""
    return float(np.sort(trust)[len(trust) - max(1, math.ceil(share * len(trust) - 1e-9))])


def _roc_of_successes(values: Sequence[np.ndarray], imagined: np.ndarray, real: np.ndarray, seed: int) -> Any:
    worst = torch.tensor([float(chunks.max()) for chunks in values])[torch.from_numpy(imagined)]
    false = torch.from_numpy(~real[imagined])
    return _with_interval(len(worst), lambda rows: area_under_roc(worst[rows], false[rows]), seed)


def _roc_of_chunks(values: Sequence[np.ndarray], wrong: Sequence[np.ndarray], seed: int) -> Any:
    def area(rows: np.ndarray) -> float:
        score, target = (np.concatenate([of[row] for row in rows]) for of in (values, wrong))
        return area_under_roc(torch.from_numpy(score.astype(np.float32)), torch.from_numpy(target))

    return _with_interval(len(values), area, seed)


def _acting(least: np.ndarray, imagined: np.ndarray, real: np.ndarray, keep: float, seed: int) -> dict[str, Any]:
    """What is left of imagined success when rollouts with less trust than a threshold do not count."""
    true = imagined & real
    if not true.any():
        return {"keep": keep, "threshold": None}
    threshold = threshold_that_keeps(least[true], keep)

    def without(rows: np.ndarray) -> float:
        return _mean(~real[rows][imagined[rows]])

    def acting(rows: np.ndarray) -> float:  # the threshold is found anew: it is part of what is measured
        if not true[rows].any():
            return math.nan
        left = imagined[rows] & (least[rows] >= threshold_that_keeps(least[rows][true[rows]], keep))
        return _mean(~real[rows][left])

    count, left = len(least), least >= threshold
    return {
        "keep": keep,
        "threshold": threshold,
        "kept": {
            "true_successes": _mean(left[true]),
            "false_successes": _number(_mean(left[imagined & ~real])),
            "rollouts": _mean(left),
        },
        "without": _with_interval(count, without, seed),
        "false_share": _with_interval(count, acting, seed),
        "difference": _with_interval(count, lambda rows: acting(rows) - without(rows), seed),
    }


def _with_interval(count: int, statistic: Callable[[np.ndarray], float], seed: int) -> dict[str, float | None]:
    """A statistic of `count` units with its 95 % bootstrap interval."""
    value = statistic(np.arange(count)) if count else math.nan
    interval = None if math.isnan(value) else bootstrap_statistic(count, statistic, seed=seed)
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {"value": _number(value), "low": low, "high": high}


def _mean(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
