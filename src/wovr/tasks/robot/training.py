"""Fitting the robot model: proprioception from actions, and the camera from what moves in the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from wovr.data.store.reader import EpisodeStore
from wovr.data.store.statistics import least_spread
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.models.robot.model import RobotModel
from wovr.tasks.base import TrainingModule, check_equal
from wovr.tasks.robot.fingers import find_fingers

MOVED = 0.08
"""Mean change of a pixel's colours, of a range of 1, from which on something moved there."""

WIDE, NARROW = 0.75, 0.15
"""Standard deviation of the blob that stands for the hand at the start and at the end, in half pictures."""

_BETA = 0.05

_WHY_WHOLE = "a robot model's mean, spread and fingers are found in all episodes"


class RobotModelTraining(TrainingModule):
    """Smooth L1 on normalised proprioception after each action, and a camera under which moving pixels are the hand's.

    The camera needs no calibration: between two frames pixels change where the hand was and where it is, so two
    Gaussian blobs at the projected positions are fitted to the map of changed pixels, wide ones first.

    The `touch` numbers are fitted as one of two courses, by the likelihood of their mixture (`Courses`), so that where
    both are possible each becomes sharp and none the mean of the two.

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

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """Dimensions of action and proprioception, and which numbers of it are the fingers'."""
        return {
            "network.action_dim": lambda: data.store.action_dim,
            "network.proprio_dim": lambda: _proprio_dim(data.store),
            "network.touch": lambda: find_fingers(data.whole_store(_WHY_WHOLE)) if _proprio_dim(data.store) else [],
        }

    def setup(self, stage: str) -> None:
        """Compare the model with the data; take its mean and spread from them.

        Raises:
            UserError: They do not fit together.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        store, network = data.whole_store(_WHY_WHOLE), self.network
        check_equal("action_dim", network.action_dim, store.action_dim, "set the network's action_dim so")
        check_equal("proprio_dim", network.proprio_dim, _proprio_dim(store), "set the network's proprio_dim so")
        if network.touch:
            check_equal("chunk", network.chunk, data.chunk, "set the network's chunk so")
        if not network.spread.any():  # a model that goes on (--init_from) keeps its own
            states = np.concatenate([store.proprio(index) for index in range(len(store))])
            mean, spread = states.mean(0, dtype=np.float64), states.std(0, dtype=np.float64)
            network.mean.copy_(torch.from_numpy(mean))
            # What stood still here may be elsewhere later: a millimetre off must not become a thousand spreads.
            network.spread.copy_(torch.from_numpy(np.maximum(spread, least_spread(mean))))

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW, the camera with its own learning rate and without decay."""
        camera = [self.network.camera, self.network.depth, self.brightness]
        known = {id(parameter) for parameter in camera}
        groups = self.decay_groups([parameter for parameter in parameters if id(parameter) not in known])
        return torch.optim.AdamW([*groups, {"params": camera, "lr": self.camera_lr, "weight_decay": 0.0}], lr=self.lr)

    def training_step(self, batch: WorldModelBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        state = self.network.normalise(batch.chunk_signals["proprio"])  # (B, 1 + K, P)
        begin = state[:, 0] + self.noise * torch.randn_like(state[:, 0])
        losses = self._losses(begin, state, batch)
        done = self.progress_at(self.global_step)
        later = int(torch.randint(1, state.shape[1], ()))
        losses["camera"] = self._camera_loss(state, batch, later, WIDE + (NARROW - WIDE) * min(1.0, 1.2 * done))
        self.log_metrics("train", {name: loss.detach() for name, loss in losses.items()}, len(state))
        return torch.stack(list(losses.values())).sum()

    def validation_step(self, batch: WorldModelBatch, batch_idx: int) -> None:
        """Log the losses, and how far hand and `touch` numbers are off at the end of a chunk."""
        network, proprio = self.network, batch.chunk_signals["proprio"]
        state = network.normalise(proprio)
        metrics = self._losses(state[:, 0], state, batch)
        metrics["camera"] = self._camera_loss(state, batch, batch.chunk // 2, NARROW)
        found = network.states(proprio[:, 0], batch.actions[:, -batch.chunk :], _before(batch))[:, -1]
        off = (network.restore(found) - proprio[:, -1]).abs()
        error = 100 * torch.linalg.vector_norm(off[:, :3], dim=-1)
        metrics |= {"hand_cm": error.mean(), "hand_cm_median": error.median()}
        if network.touch:
            metrics["touch_off"] = off[:, network.touch].mean()
        self.log_metrics("val", metrics, len(state))

    def _losses(self, begin: Tensor, state: Tensor, batch: WorldModelBatch) -> dict[str, Tensor]:
        """Those of what follows from begin (B, P) and actions, against states (B, 1 + K, P); all normalised."""
        network, actions = self.network, batch.actions[:, -batch.chunk :]
        found = network.unroll(begin, actions)
        losses = {"motion": smooth_l1_loss(found, state[:, 1:], beta=_BETA)}
        if network.touch:
            courses = network.courses(torch.cat([begin[:, None], found], dim=1), actions, _before(batch))
            losses["touch"] = courses.negative_log_likelihood(state[:, 1:, network.touch]).mean()
        return losses

    def _camera_loss(self, state: Tensor, batch: WorldModelBatch, later: int, spread: float) -> Tensor:
        """Squared error of the blobs against what moved from the start to the frame `later` steps after it."""
        before, after = _before(batch).float(), batch.frames[:, later - 1 - batch.chunk].float()  # (B, H, W, 3)
        moved = ((before - after).abs().mean(-1) > MOVED * 255).float()
        # Centres of pixels, the picture's edges being at -1 and 1.
        rows, columns = ((torch.arange(side, device=state.device) + 0.5) * 2 / side - 1 for side in moved.shape[1:])
        place, _ = self.network.project(state[:, [0, later]])  # (B, 2, 2)
        across = torch.exp(-((columns - place[..., :1]) ** 2) / (2 * spread**2))  # (B, 2, W)
        down = torch.exp(-((rows - place[..., 1:]) ** 2) / (2 * spread**2))
        blobs = (down[..., None] * across[..., None, :]).amax(1)
        return ((self.brightness[0] * blobs + self.brightness[1] - moved) ** 2).mean()


def _proprio_dim(store: EpisodeStore) -> int:
    """P.

    Raises:
        UserError: There is no proprioception that all episodes have.
    """
    if not store.proprio_dim:
        raise UserError(
            f"{', '.join(map(str, store.folders))}: not all episodes hold proprioception of one size",
            "collect them again, or train the world model without a robot model",
        )
    return store.proprio_dim


def _before(batch: WorldModelBatch) -> Tensor:
    """(B, H, W, 3) uint8, the frame that the chunk starts from."""
    return batch.frames[:, -1 - batch.chunk]
