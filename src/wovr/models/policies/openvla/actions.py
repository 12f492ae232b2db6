"""OpenVLA's actions: 256 tokens a dimension between the quantiles of the data set that a checkpoint was trained on.

Token b stands for the b-th of 256 edges evenly spaced over [-1, 1] and what lies up to the next one. It is read back as
the middle between the two; the last edge, 1 itself, has no next one and is read as the token before it. In the
vocabulary the tokens stand in reverse at the tail: token b is word `vocabulary - 1 - b`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.models.policies.base import ActionTokenizer

Gripper = Literal["as_stored", "libero"]

_LEAST = 1e-8  # added to a range's width, as where the checkpoints come from: nothing is divided by zero


def action_statistics(statistics: Mapping[str, Any], dataset: str, where: str) -> dict[str, list[Any]]:
    """The quantiles of one data set's actions.

    Args:
        statistics: By data set `{"action": {"q01": [A], "q99": [A], "mask": [A]}}`: config.json's `norm_stats`, or
            dataset_statistics.json. `mask` is False for dimensions stored as they are; absent for none.
        dataset: Name of the data set.
        where: The file that they come from, for messages.

    Returns:
        `q01` and `q99`, A floats each, and `mask`, A bools.

    Raises:
        UserError: No statistics for that data set, or incomplete ones.
    """
    if dataset not in statistics:
        known = ", ".join(sorted(statistics)) or "no data set"
        raise UserError(f"{where}: no statistics for the data set '{dataset}'; it has {known}", "set dataset to one")
    found = statistics[dataset].get("action", {}) if isinstance(statistics[dataset], Mapping) else {}
    try:
        low, high = [float(x) for x in found["q01"]], [float(x) for x in found["q99"]]
        mask = [bool(x) for x in found.get("mask", [True] * len(low))]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: key '{dataset}.action' has no usable q01, q99 and mask", "use the checkpoint's own file"
        ) from error
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in zip(low, high, strict=False)):
        raise UserError(
            f"{where}: key '{dataset}.action': a q01 is above its q99, or one is not finite",
            "use the checkpoint's own file",
        )
    if not len(low) == len(high) == len(mask):
        raise UserError(
            f"{where}: key '{dataset}.action': q01, q99 and mask have {len(low)}, {len(high)} and {len(mask)} numbers",
            "use the checkpoint's own file",
        )
    return {"q01": low, "q99": high, "mask": mask}


class OpenVLATokenizer(ActionTokenizer):
    """Actions of an environment to and from OpenVLA's tokens.

    Args:
        bins: Tokens a dimension.
        action_dim: Dimensions of an action, A.
        statistics: What `action_statistics` returned; None for actions that are normalised already.
        gripper: `as_stored`: the last dimension is as any other. `libero`: the data set has 0 for closed and 1 for
            open, the environment -1 for open and 1 for closed, and decoding gives one or the other.

    Raises:
        UserError: The statistics are of actions of another dimension.
    """

    def __init__(self, bins: int, action_dim: int, statistics: Mapping[str, Any] | None, gripper: Gripper) -> None:
        super().__init__(bins)
        self.gripper = gripper
        self.low, self.width = [-1.0] * action_dim, [2.0] * action_dim
        if statistics is None:
            return
        if len(statistics["q01"]) != action_dim:
            raise UserError(
                f"action_dim is {action_dim}, the statistics are of {len(statistics['q01'])} dimensions",
                f"set action_dim to {len(statistics['q01'])} or choose another dataset",
            )
        for i, scaled in enumerate(statistics["mask"]):
            # As where they come from, and in double precision: in single, 0.7 + 1e-8 is 0.7.
            if scaled:
                self.low[i] = statistics["q01"][i]
                self.width[i] = statistics["q99"][i] - statistics["q01"][i] + _LEAST

    def normalise(self, actions: Tensor) -> Tensor:
        """The environment's actions to the scale of the tokens: (..., A) float -> (..., A) float32 in [-1, 1]."""
        actions = actions.to(torch.float32)
        if self.gripper == "libero":
            actions = torch.cat([actions[..., :-1], (1 - actions[..., -1:]) / 2], dim=-1)
        low, width = self._bounds(actions)
        scaled = (2 * (actions.double() - low) / width - 1).clamp(-1, 1)
        # A dimension that never moves has one action, which stands in the middle, as where they come from.
        return torch.where(width > _LEAST, scaled, 0.0).to(torch.float32)

    def denormalise(self, actions: Tensor) -> Tensor:
        """The scale of the tokens to the environment's actions: (..., A) float -> (..., A) float32 in [-1, 1]."""
        low, width = self._bounds(actions)
        actions = (0.5 * (actions.double() + 1) * width + low).to(torch.float32)
        if self.gripper == "libero":
            closed = torch.where(actions[..., -1:] > 0.5, -1.0, 1.0)
            actions = torch.cat([actions[..., :-1], closed], dim=-1)
        return actions.clamp(-1, 1)

    def encode(self, actions: Tensor) -> Tensor:
        """The token of each action: (..., A) float, the environment's -> (..., A) int64 in [0, bins)."""
        # In double precision: 0.5 * 255 and its like must not fall below an edge.
        scaled = (self.normalise(actions).double() + 1) * (0.5 * (self.bins - 1))
        return (scaled + 1e-6).floor().long().clamp(0, self.bins - 1)

    def decode(self, tokens: Tensor) -> Tensor:
        """What each token stands for: (..., A) int64 -> (..., A) float32 in [-1, 1], the environment's actions."""
        return self.denormalise(self._middle(tokens))

    def targets(self, actions: Tensor, smoothing: float) -> Tensor:
        """See `ActionTokenizer.targets`; here `smoothing` is on the scale of the tokens: (..., A) -> (..., A, bins)."""
        if smoothing == 0:
            return torch.nn.functional.one_hot(self.encode(actions), self.bins).to(torch.float32)
        middle = self._middle(torch.arange(self.bins, device=actions.device))
        return torch.softmax(-0.5 * ((middle - self.normalise(actions)[..., None]) / smoothing) ** 2, dim=-1)

    def _middle(self, tokens: Tensor) -> Tensor:
        return (2 * tokens.clamp(max=self.bins - 2).to(torch.float32) + 1) / (self.bins - 1) - 1

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower end and width of each dimension: (A,) float64 each."""
        return (
            torch.tensor(self.low, dtype=torch.float64, device=like.device),
            torch.tensor(self.width, dtype=torch.float64, device=like.device),
        )
