"""Actions of any range into [-1, 1] and back; the range is the data set's own and is stored with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wovr.data.store.statistics import least_spread

HAIR = 1e-3
"""How far beyond [-1, 1] an action may lie and still count as within: rounding, not another range. It is clipped."""

_SAME = 1e-6  # of a range's width: two ranges that differ by less are one

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
    def untouched(cls, dimensions: int) -> ActionRange:
        """That of actions which stay as they are."""
        return cls("none", np.full(dimensions, -1.0), np.ones(dimensions))

    @classmethod
    def of(cls, kind: str, actions: Sequence[np.ndarray]) -> ActionRange:
        """Measure a data set.

        No dimension is stretched beyond reason: one that spans less than `least_spread` of its unit counts as standing
        still and gets a range of that width around it, so that what trembles there stays near 0. One whose quantiles
        are that near although it does move, as a gripper that closes once does, is scaled by its whole range.

        Args:
            kind: One of KINDS, or `auto`: none where every action lies in [-1, 1] already, but for a HAIR, else range.
            actions: (T, A) arrays of raw actions, at least one, all finite.
        """
        values = np.concatenate(actions).astype(np.float64)  # (rows, A)
        if kind == "auto":
            kind = "none" if np.abs(values).max() <= 1.0 + HAIR else "range"
        if kind == "none":
            return cls.untouched(values.shape[1])
        low, high = values.min(axis=0), values.max(axis=0)
        least = least_spread((low + high) / 2)  # (A,)
        if kind == "quantile":
            inner_low, inner_high = np.quantile(values, [0.01, 0.99], axis=0)
            moves = inner_high - inner_low >= least
            low, high = np.where(moves, inner_low, low), np.where(moves, inner_high, high)
        still, centre = high - low < least, (low + high) / 2
        return cls(kind, np.where(still, centre - least / 2, low), np.where(still, centre + least / 2, high))

    def apply(self, actions: np.ndarray) -> np.ndarray:
        """(T, A) raw -> (T, A) float32 in [-1, 1]; outside values are clipped."""
        if self.kind == "none":
            return np.clip(actions, -1.0, 1.0).astype(np.float32)
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

    def standing_still(self, actions: Sequence[np.ndarray]) -> list[int]:
        """Dimensions that span less than `least_spread` in (T, A) raw actions; none where they stay as they are."""
        if self.kind == "none":
            return []
        low = np.min([rows.min(axis=0) for rows in actions], axis=0)
        high = np.max([rows.max(axis=0) for rows in actions], axis=0)
        return [int(dimension) for dimension in np.flatnonzero(high - low < least_spread((low + high) / 2))]

    def agrees(self, other: ActionRange) -> bool:
        """True when -1 and 1 are the same raw values in both, whatever they were measured by."""
        if self.low.shape != other.low.shape:
            return False
        near = _SAME * (self.high - self.low)
        return bool((np.abs(self.low - other.low) <= near).all() and (np.abs(self.high - other.high) <= near).all())

    def describe(self) -> str:
        """For a message: `[-0.2, 0.2] x [0, 1]`, the first few dimensions; `as they are` for kind none."""
        if self.kind == "none":
            return "as they are"
        shown = [f"[{low:.4g}, {high:.4g}]" for low, high in zip(self.low[:4], self.high[:4], strict=True)]
        return " x ".join(shown) + (" x ..." if len(self.low) > len(shown) else "")

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
        finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
        if kind not in KINDS or low.ndim != 1 or low.shape != high.shape or not finite or not (low < high).all():
            raise ValueError("action_range: not a range of actions")
        return cls(kind, low, high)
