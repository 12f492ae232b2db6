"""A moving average of the weights: what is validated, what loading a checkpoint gives, what a run ends with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

AVERAGED = "averaging_state"
"""Key that a Lightning checkpoint has when its `state_dict` holds averaged weights."""


class AverageWeights(WeightAveraging):
    """Lightning's weight averaging with a decay that warms up: the average of the first steps is not the random start.

    In checkpoints `state_dict` holds the average and `current_model_state` what training goes on from.

    Args:
        decay: Of the moving average, in [0, 1); (1 + step) / (20 + step) while that is less.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__(use_buffers=False, multi_avg_fn=self._average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the module. Lightning's own calls `configure_model` once more, and warns that it did."""
        if stage == "fit":
            self._average_model = AveragedModel(pl_module, pl_module.device, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        step = int(count)
        decay = min(self.decay, (1 + step) / (20 + step))
        torch._foreach_lerp_(list(averages), list(current), 1 - decay)
