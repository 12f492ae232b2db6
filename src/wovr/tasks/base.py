"""What every LightningModule here shares: optimiser, schedule, and what a checkpoint records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from wovr.errors import UserError
from wovr.models.checkpoint import KEY, Network, load_weights, read_checkpoint, record


class TrainingModule(LightningModule):
    """A LightningModule whose networks can be rebuilt from its checkpoints.

    Hooks come in the same order in every subclass: `__init__`, `setup`, `training_step`, `validation_step`.
    The optimiser is AdamW (no decay on vectors: biases, norms, embeddings of single things), the learning rate rises
    linearly over `warmup_steps` and falls along a cosine to `final_lr_fraction` of its height at the last step.

    Args:
        lr: Highest learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`; 1 for a constant one.
    """

    def __init__(self, lr: float, weight_decay: float, warmup_steps: int, final_lr_fraction: float) -> None:
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.final_lr_fraction = final_lr_fraction

    carried: Mapping[str, Any] = MappingProxyType({})
    """What checkpoints say of the data where there is no data module: JSON values."""

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """What takes the place of nulls among the arguments of this module's networks.

        Args:
            data: The data module, before its `setup`.

        Returns:
            `NETWORK.ARGUMENT`, as they are called here and in the network -> what computes the value.
        """
        return {}

    def fit_windows(self, data: Any) -> None:
        """Give a data module the sizes of its windows that were left null; before its `setup`."""

    def networks(self) -> dict[str, Network]:
        """Attribute name -> network, for every network that a checkpoint should be able to rebuild."""
        return {name: module for name, module in self.named_children() if isinstance(module, Network)}

    def init_from(self, path: Any) -> None:
        """Take the weights of every network of this module from another run's checkpoint.

        Raises:
            UserError: The checkpoint lacks one of the networks, or its weights do not fit.
        """
        checkpoint = read_checkpoint(path)
        for network in self.networks().values():
            load_weights(network, checkpoint, path)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser with warm-up and cosine."""
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        steps = self.trainer.estimated_stepping_batches
        schedule = partial(
            warmup_cosine, warmup_steps=self.warmup_steps, steps=steps, final_fraction=self.final_lr_fraction
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW; a subclass may choose another one."""
        return torch.optim.AdamW(self.decay_groups(parameters), lr=self.lr)

    def decay_groups(self, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameter groups: weight decay on matrices and more, none on vectors."""
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    def progress_at(self, step: int) -> float:
        """Share of the whole run that is done after so many optimiser steps, in [0, 1]; 0 for a run without end."""
        return min(1.0, step / max(1.0, float(self.trainer.estimated_stepping_batches)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record that the networks are rebuilt from."""
        data: Any = getattr(self.trainer, "datamodule", None)
        checkpoint[KEY] = record(self.networks(), data.record() if hasattr(data, "record") else self.carried)

    def log_metrics(self, stage: str, metrics: Mapping[str, torch.Tensor], batch_size: int) -> None:
        """Log metrics as `stage/name`: every step in training, the mean over the batches in validation."""
        training = stage == "train"
        self.log_dict(
            {f"{stage}/{name}": value for name, value in metrics.items()},
            prog_bar=True,
            on_step=training,
            on_epoch=not training,
            batch_size=batch_size,
            sync_dist=not training,
        )


def warmup_cosine(step: int, warmup_steps: int, steps: float, final_fraction: float) -> float:
    """Factor of the learning rate at a step: (step + 1) / warmup_steps, then half a cosine from 1 to the last factor.

    Args:
        step: Optimiser steps taken.
        warmup_steps: Steps of the rise.
        steps: Steps of the whole run; infinite for no fall.
        final_fraction: Factor at the end.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if not math.isfinite(steps):
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def check_equal(what: str, of_model: int, of_data: int, remedy: str) -> None:
    """Compare a number of the model with that of the data.

    Raises:
        UserError: They differ.
    """
    if of_model != of_data:
        raise UserError(f"{what} is {of_model} in the model and {of_data} in the data", remedy)
