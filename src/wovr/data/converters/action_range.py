"""Actions of any range into [-1, 1] and back; the range is the data set's own and is stored with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("none", "range", "quantile")
"""As they are, by smallest and largest value, by the 1 % and 99 % quantiles (what lies outside is clipped)."""


@dataclass(frozen=True)
class ActionRange:
    """Which raw values become -1 and 1, a number a dimension.

    Attributes:
        kind: One of KINDS.
        low: (A,) float64, what becomes -1.
        high: (A,) float64, what becomes 1.
    """

    kind: str
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, kind: str, actions: Sequence[np.ndarray]) -> ActionRange:
        """Measure a data set.

        Args:
            kind: One of KINDS, or `auto`: none where every action lies in [-1, 1] already, else range.
            actions: (T, A) arrays of raw actions, at least one, all finite.
        """
        values = np.concatenate(actions).astype(np.float64)  # (rows, A)
        if kind == "auto":
            kind = "none" if np.abs(values).max() <= 1.0 else "range"
        if kind == "none":
            return cls(kind, np.full(values.shape[1], -1.0), np.ones(values.shape[1]))
        low, high = np.quantile(values, [0.01, 0.99] if kind == "quantile" else [0.0, 1.0], axis=0)
        still = low == high  # a dimension that never moves becomes 0
        return cls(kind, np.where(still, low - 1.0, low), np.where(still, high + 1.0, high))

    def apply(self, actions: np.ndarray) -> np.ndarray:
        """(T, A) raw -> (T, A) float32 in [-1, 1]; outside values are clipped, unless kind is none."""
        if self.kind == "none":
            return actions.astype(np.float32)
        scaled = 2.0 * (actions.astype(np.float64) - self.low) / (self.high - self.low) - 1.0
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)

    def invert(self, actions: np.ndarray) -> np.ndarray:
        """(T, A) in [-1, 1] -> (T, A) float32, raw."""
        if self.kind == "none":
            return actions.astype(np.float32)
        return (self.low + (actions.astype(np.float64) + 1.0) / 2.0 * (self.high - self.low)).astype(np.float32)

    def clipped(self, actions: np.ndarray) -> int:
        """Rows of which a value lies outside the range."""
        return int(((actions < self.low) | (actions > self.high)).any(axis=1).sum())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": self.kind, "low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ActionRange:
        """From what `to_json` gave.

        Raises:
            ValueError: Something is missing or not a number.
        """
        try:
            low, high = (np.asarray(value[name], np.float64) for name in ("low", "high"))
            kind = str(value["kind"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"action_range: missing or wrong ({error})") from error
        if kind not in KINDS or low.ndim != 1 or low.shape != high.shape or not (low < high).all():
            raise ValueError("action_range: not a range of actions")
        return cls(kind, low, high)
