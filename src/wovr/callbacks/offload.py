"""Collocated placement (paper, Appendix A): policy, trainer and imagined environment share one device.

The parameters of the world model and the classifier are on the device while rollouts are imagined, and on the host
while the policy is optimised: they move at the two ends of a rollout phase, never between. On a CPU nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

HOST = torch.device("cpu")


class CollocatedPlacement(Callback):
    """Moves the networks behind an environment.

    Lightning asks for the next batch, which is when rollouts are made, between the end of a batch and the start of the
    next; so these two hooks are the ends of the phase.

    Args:
        modules: The networks.
        offload: Move them off the device between rollout phases; otherwise they stay on it.
    """

    def __init__(self, modules: Sequence[nn.Module], offload: bool = True) -> None:
        self.modules = list(modules)
        self.offload = offload

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring them to the trainer's device: the first rollout phase begins."""
        self._move(pl_module.device, pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A rollout phase has ended: make room for the optimisation."""
        if self.offload:
            self._move(HOST, pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A rollout phase begins, unless this was the last batch."""
        if self.offload and not trainer.is_last_batch:
            self._move(pl_module.device, pl_module.device)

    def _move(self, target: torch.device, device: torch.device) -> None:
        """Move to `target`, where `device` is the trainer's."""
        if device == HOST:
            return
        for module in self.modules:
            module.to(target)
        if target == HOST and device.type == "cuda":
            torch.cuda.empty_cache()  # else the freed memory stays with us, out of reach of NCCL and others
