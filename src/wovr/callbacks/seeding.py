"""Random numbers that a killed and resumed run draws again exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class SeedSteps(Callback):
    """Seeds torch's generators anew before every batch, from (seed, stage, batch, rank).

    No random state outlives a batch, so none has to be saved: augmentation, noise and dropout of batch n are the same
    whether or not the run was interrupted before it, and validation sees the same noise every time.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed for the number of this batch over the whole run."""
        self._seed(0, trainer.fit_loop.epoch_loop.total_batch_idx, trainer.global_rank)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seed for the number of this batch in its data set."""
        self._seed(1 + dataloader_idx, batch_idx, trainer.global_rank)

    def _seed(self, *numbers: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *numbers)).generate_state(1, np.uint64)[0] >> 1))
