"""What the controls of the page move: a description of each dimension of an action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wovr.data.store.statistics import ActionStatistics
from wovr.types import ActionAxis

TWO_VALUED = 0.8
"""Mean square of a dimension in [-1, 1] from which on it is nearly always at one of its ends, as a gripper is."""


@dataclass(frozen=True)
class Controls:
    """The dimensions of an action, as a person drives them.

    Attributes:
        axes: What each does.
        rest: (A,) float32, the action of one who touches nothing.
        source: Where the description comes from, for people.
    """

    axes: tuple[ActionAxis, ...]
    rest: np.ndarray
    source: str

    def described(self) -> dict[str, Any]:
        """JSON values for the page."""
        return {
            "axes": [asdict(axis) for axis in self.axes],
            "rest": [float(value) for value in self.rest],
            "source": self.source,
        }


def describe_controls(
    axes: Sequence[ActionAxis], statistics: ActionStatistics, neutral: np.ndarray, environment: str
) -> Controls:
    """The environment's own description where it fits, else what the statistics of the stored actions tell.

    Args:
        axes: What the environment says; empty where it says nothing.
        statistics: Of the stored actions.
        neutral: (A,) float32, the action that stands for none.
        environment: Its name, for people.
    """
    if len(axes) == len(neutral):
        return Controls(tuple(axes), neutral, environment)
    square = np.asarray(statistics.std) ** 2 + np.asarray(statistics.mean) ** 2
    found = [ActionAxis(f"action {index + 1}", holds=bool(mean >= TWO_VALUED)) for index, mean in enumerate(square)]
    return Controls(tuple(found), neutral, "the statistics of the stored actions")
