"""Checkpoints of a run, and stopping before a bad loss spoils them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from wovr.errors import UserError
from wovr.runs import explain_os_error


class SaveLast(Checkpoint):
    """Keeps `last.ckpt`: written every so many optimiser steps, when the run is told to end, and at the end.

    It is written whole or not at all. A run of several processes that is told to end goes back to the last regular one:
    the signal reaches them at different steps.

    Args:
        path: The checkpoint file.
        every_n_steps: Optimiser steps between two writes.

    Attributes:
        metrics: What was logged last when a checkpoint was written. It is in the checkpoint too: a run that goes on
            from its last step takes no step any more that would log it again.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.seen_step = -1
        self.metrics: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the run begins or goes on."""
        self.seen_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write after every `every_n_steps`-th step, and after one during which SIGTERM came."""
        step = trainer.global_step
        ends = trainer.received_sigterm and trainer.world_size == 1
        # With gradient accumulation several batches end at one step: only the one that stepped is a place to resume.
        stepped, self.seen_step = step != self.seen_step, step
        if stepped and step and (ends or step % self.every_n_steps == 0):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end; always, because averaged weights have just been put in place."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint now."""
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        try:
            trainer.save_checkpoint(self.path)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was logged before."""
        self.metrics = {name: float(value) for name, value in state_dict["metrics"].items()}


class StopAtBadLoss(Callback):
    """Stops a run whose loss is not finite, before the weights change; the last checkpoint stays good.

    Args:
        path: The checkpoint to point at.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Check the loss.

        Raises:
            UserError: It is NaN or infinite, on this or another rank.
        """
        finite = bool(loss.isfinite())
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if not finite:
            kept = f"{self.path} is from before; " if self.path.exists() else ""
            raise UserError(
                f"the loss is {loss.item()} at step {trainer.global_step}",
                f"{kept}lower the learning rate or look for bad values in the data",
            )
