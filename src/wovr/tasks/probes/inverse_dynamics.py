"""Inverse dynamics: a network fitted to say which actions lie between the frames of real episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from wovr.data.training.sequences import SequenceBatch
from wovr.errors import UserError
from wovr.functional.augment import random_shift
from wovr.functional.blur import gaussian_blur, random_sigma
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.keypoints import network_images
from wovr.tasks.base import TrainingModule, check_equal

_BETA = 0.2
"""Error of an action above which the loss grows linearly: actions that leave no trace in a picture pull less."""


class InverseDynamicsTraining(TrainingModule):
    """Smooth L1 between the actions a window is read as and those that were taken, over all windows of a run.

    Args:
        network: The network to train.
        shift: Largest random shift of the pictures of a run, the same for all, in pixels, each way.
        noise: Standard deviation of the noise on every pixel, in units of [-1, 1]: imagined frames are never as clean.
        blur: Largest standard deviation of a Gaussian blur, pixels, which half of the pictures get: imagined frames are
            never as sharp, and where things are in them is still to be told.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.
    """

    def __init__(
        self,
        network: InverseDynamics,
        shift: int = 2,
        noise: float = 0.02,
        blur: float = 1.5,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.network = network
        self.shift = shift
        self.noise = noise
        self.blur = blur

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """The dimensions of an action."""
        return {"network.action_dim": lambda: data.store.action_dim}

    def setup(self, stage: str) -> None:
        """Compare the network with the data.

        Raises:
            UserError: Another action dimension, or runs shorter than the network's window.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        action_dim = data.store.action_dim
        remedy = f"set model.network.init_args.action_dim to {action_dim}"
        check_equal("action_dim", self.network.action_dim, action_dim, remedy)
        if data.length < self.network.window:
            raise UserError(
                f"data.length is {data.length}, the network's window {self.network.window}", "set data.length higher"
            )

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images = network_images(shift_together(batch.frames, self.shift))  # (B, L, 3, H, W)
        sigma = random_sigma(len(images), self.blur, images.device)  # a run is as sharp from end to end
        images = gaussian_blur(images.flatten(1, 2), sigma, self.blur).unflatten(1, images.shape[1:3])
        return self._step(images + self.noise * torch.randn_like(images), batch.actions, "train")

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Log the loss and metrics of one batch."""
        self._step(network_images(batch.frames), batch.actions, "val")

    def _step(self, images: Tensor, actions: Tensor, stage: str) -> Tensor:
        read = self.network(images).actions  # (B, n, W - 1, A)
        taken = actions.unfold(1, self.network.window - 1, 1).transpose(2, 3)  # (B, n, W - 1, A)
        loss = smooth_l1_loss(read, taken, beta=_BETA)
        error = (read - taken).detach().abs().mean()
        self.log_metrics(stage, {"loss": loss.detach(), "action_error": error}, len(actions))
        return loss


def shift_together(frames: Tensor, pixels: int) -> Tensor:
    """Move the pictures of each run by the same random shift: (B, L, H, W, 3) -> (B, L, H, W, 3)."""
    length = frames.shape[1]
    side_by_side = frames.movedim(1, 3).flatten(3)  # (B, H, W, L * 3)
    return random_shift(side_by_side, pixels).unflatten(3, (length, 3)).movedim(3, 1)
