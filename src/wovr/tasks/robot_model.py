"""Fitting the robot model: proprioception from actions, and the camera from what moves in the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from wovr.data.world_model_data import WorldModelBatch
from wovr.errors import UserError
from wovr.models.robot_model import RobotModel
from wovr.tasks.base import TrainingModule, check_equal

MOVED = 0.08
"""Mean change of a pixel's colours, of a range of 1, from which on something moved there."""

WIDE, NARROW = 0.75, 0.15
"""Standard deviation of the blob that stands for the hand at the start and at the end, in half pictures."""

_BETA = 0.05


class RobotFitting(TrainingModule):
    """Smooth L1 on normalised proprioception after each action, and a camera under which moving pixels are the hand's.

    The camera needs no calibration: between two frames pixels change where the hand was and where it is, so two
    Gaussian blobs at the projected positions are fitted to the map of changed pixels, wide ones first.

    Args:
        network: The robot model to fit.
        noise: Standard deviation of the noise on the first state of a chunk, normalised: in imagination that one is
            predicted.
        camera_lr: Highest learning rate of the camera's numbers.
        lr: Highest learning rate of the rest.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of its height.
    """

    def __init__(
        self,
        network: RobotModel,
        noise: float = 0.02,
        camera_lr: float = 2e-2,
        lr: float = 4e-3,
        weight_decay: float = 1e-3,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.01,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.network = network
        self.noise = noise
        self.camera_lr = camera_lr
        self.brightness = nn.Parameter(torch.tensor([1.0, 0.0]))  # of a blob, and of everything else

    def setup(self, stage: str) -> None:
        """Compare the model with the data; take its mean and spread from them.

        Raises:
            UserError: They do not fit together.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        store, network = data.store, self.network
        if not store.proprio_dim:
            raise UserError(
                f"{', '.join(map(str, store.folders))}: not all episodes hold proprioception of one size",
                "collect them again, or train the world model without a robot model",
            )
        check_equal("action_dim", network.action_dim, store.action_dim, "set the network's action_dim so")
        check_equal("proprio_dim", network.proprio_dim, store.proprio_dim, "set the network's proprio_dim so")
        if not network.spread.any():  # a model that goes on (--init_from) keeps its own
            states = np.concatenate([store.proprio(index) for index in range(len(store))])
            network.mean.copy_(torch.from_numpy(states.mean(0, dtype=np.float64)))
            network.spread.copy_(torch.from_numpy(states.std(0, dtype=np.float64)).clamp(min=1e-6))

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW, the camera with its own learning rate and without decay."""
        camera = [self.network.camera, self.network.depth, self.brightness]
        known = {id(parameter) for parameter in camera}
        groups = self.decay_groups([parameter for parameter in parameters if id(parameter) not in known])
        return torch.optim.AdamW([*groups, {"params": camera, "lr": self.camera_lr, "weight_decay": 0.0}], lr=self.lr)

    def training_step(self, batch: WorldModelBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        state = self.network.normalise(batch.proprio)  # (B, 1 + K, P)
        begin = state[:, 0] + self.noise * torch.randn_like(state[:, 0])
        motion = self._motion_loss(begin, state[:, 1:], batch)
        done = self.progress_at(self.global_step)
        later = int(torch.randint(1, state.shape[1], ()))
        camera = self._camera_loss(state, batch, later, WIDE + (NARROW - WIDE) * min(1.0, 1.2 * done))
        self.log_metrics("train", {"motion": motion.detach(), "camera": camera.detach()}, len(state))
        return motion + camera

    def validation_step(self, batch: WorldModelBatch, batch_idx: int) -> None:
        """Log the losses, and how far the hand's position is off at the end of a chunk."""
        state = self.network.normalise(batch.proprio)
        found = self.network.predict(batch.proprio[:, 0], batch.actions[:, -batch.chunk :])[:, -1]
        error = 100 * torch.linalg.vector_norm((found - batch.proprio[:, -1])[:, :3], dim=-1)
        motion = self._motion_loss(state[:, 0], state[:, 1:], batch)
        camera = self._camera_loss(state, batch, batch.chunk // 2, NARROW)
        self.log_metrics(
            "val", {"motion": motion, "camera": camera, "hand_cm": error.mean(), "hand_cm_median": error.median()},
            len(state),
        )  # fmt: skip

    def _motion_loss(self, begin: Tensor, after: Tensor, batch: WorldModelBatch) -> Tensor:
        found = self.network.unroll(begin, batch.actions[:, -after.shape[1] :])
        return smooth_l1_loss(found, after, beta=_BETA)

    def _camera_loss(self, state: Tensor, batch: WorldModelBatch, later: int, spread: float) -> Tensor:
        """Squared error of the blobs against what moved from the start to the frame `later` steps after it."""
        first = batch.frames.shape[1] - state.shape[1]
        before, after = batch.frames[:, first].float(), batch.frames[:, first + later].float()  # (B, H, W, 3)
        moved = ((before - after).abs().mean(-1) > MOVED * 255).float()
        # Centres of pixels, the picture's edges being at -1 and 1.
        rows, columns = ((torch.arange(side, device=state.device) + 0.5) * 2 / side - 1 for side in moved.shape[1:])
        place, _ = self.network.project(state[:, [0, later]])  # (B, 2, 2)
        across = torch.exp(-((columns - place[..., :1]) ** 2) / (2 * spread**2))  # (B, 2, W)
        down = torch.exp(-((rows - place[..., 1:]) ** 2) / (2 * spread**2))
        blobs = (down[..., None] * across[..., None, :]).amax(1)
        return ((self.brightness[0] * blobs + self.brightness[1] - moved) ** 2).mean()
