"""Statistics of actions: what a policy's bins and a world model's action input are scaled by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DIGITS = 8  # of what is stored: the last bits of a sum depend on the machine's vector width, these do not
_FIELDS = ("min", "max", "mean", "std", "q01", "q99")


def least_spread(centre: np.ndarray) -> np.ndarray:
    """What counts as standing still: a thousandth of a unit (metre, radian), or of the values where they are larger.

    Whatever is divided by a measured spread or range is divided by this at least: numbers that tremble in their last
    digits, or stood still while they were measured, are not blown up.

    Args:
        centre: (...) float, around which the values lie.

    Returns:
        (...) float64.
    """
    return 1e-3 * np.maximum(1.0, np.abs(np.asarray(centre, np.float64)))


@dataclass(frozen=True)
class ActionStatistics:
    """Statistics of every action of a data set, a number a dimension.

    Attributes:
        count: Actions counted.
        min: (A,) float64, smallest value.
        max: (A,) float64, largest value.
        mean: (A,) float64.
        std: (A,) float64, of the population (divided by the count).
        q01: (A,) float64, the 1 % quantile.
        q99: (A,) float64, the 99 % quantile.
    """

    count: int
    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray

    @classmethod
    def of(cls, actions: Iterable[np.ndarray]) -> ActionStatistics:
        """Count actions.

        Args:
            actions: Arrays (T - 1, A) float32, at least one.
        """
        values = np.concatenate(list(actions)).astype(np.float64)  # (count, A)
        low, high = np.quantile(values, [0.01, 0.99], axis=0)
        return cls(len(values), values.min(0), values.max(0), values.mean(0), values.std(0), low, high)

    @classmethod
    def pooled(cls, parts: Sequence[ActionStatistics]) -> ActionStatistics:
        """Several data sets' together, from their statistics alone.

        Exact, but for the quantiles: those are the widest of the parts', between which lie at least 98 % of all.
        """
        share = np.array([part.count for part in parts], np.float64)[:, None] / sum(part.count for part in parts)
        mean = (share * [part.mean for part in parts]).sum(0)
        # Var = E[Var of the part] + Var[mean of the part]
        spread = [part.std**2 + (part.mean - mean) ** 2 for part in parts]
        return cls(
            count=sum(part.count for part in parts),
            min=np.min([part.min for part in parts], axis=0),
            max=np.max([part.max for part in parts], axis=0),
            mean=mean,
            std=np.sqrt((share * spread).sum(0)),
            q01=np.min([part.q01 for part in parts], axis=0),
            q99=np.max([part.q99 for part in parts], axis=0),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values, rounded so that the same actions give the same text on every machine."""
        rounded = {name: [float(f"{value:.{_DIGITS}g}") for value in getattr(self, name)] for name in _FIELDS}
        return {"count": self.count, **rounded}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ActionStatistics:
        """From what `to_json` gave.

        Raises:
            ValueError: Something is missing, not a number, or of another length than the rest.
        """
        try:
            arrays = {name: np.asarray(value[name], np.float64) for name in _FIELDS}
            count = int(value["count"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"action_statistics: missing or wrong ({error})") from error
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("action_statistics: a number is not finite")
        if len({array.shape for array in arrays.values()}) != 1 or arrays["min"].ndim != 1:
            raise ValueError("action_statistics: the lists have different lengths")
        return cls(count, **arrays)
