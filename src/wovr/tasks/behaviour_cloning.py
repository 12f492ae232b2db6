"""Behaviour cloning: the paper's supervised start, a policy fitted to a few demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.statistics import least_spread
from wovr.data.training.demonstrations import DemonstrationBatch
from wovr.functional.augment import random_shift
from wovr.models.policies.base import Policy
from wovr.tasks.base import TrainingModule, check_equal


class BehaviourCloningTraining(TrainingModule):
    """Cross-entropy of the demonstrated actions' tokens, averaged over the actions before the end of the episode.

    Args:
        policy: The policy to train.
        smoothing: Standard deviation of the target distribution around the demonstrated action, in units of the action;
            0 puts all mass on the nearest bin. Neighbouring bins are nearly as right, which a few demonstrations do not
            tell.
        shift: Largest random shift of the picture, in pixels, each way.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.
    """

    def __init__(
        self,
        policy: Policy,
        smoothing: float = 0.05,
        shift: int = 2,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        final_lr_fraction: float = 0.05,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.policy = policy
        for name, weight in policy.named_parameters():
            if name in policy.for_rl:
                weight.requires_grad_(False)
        self.smoothing = smoothing
        self.shift = shift

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """The dimensions of an action and of the proprioception."""
        return {
            "policy.action_dim": lambda: data.store.action_dim,
            "policy.proprio_dim": lambda: data.store.proprio_dim,
        }

    def fit_windows(self, data: Any) -> None:
        """Samples hold proprioception where the policy looks at it."""
        data.with_proprio = self.policy.proprio_dim > 0

    def setup(self, stage: str) -> None:
        """Compare the policy with the data; take mean and spread of the proprioception from them.

        Raises:
            UserError: Another action dimension, chunk length or proprioception.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        remedy = "set model.policy.init_args.{0} to {1}"
        for name, of_data in (("action_dim", data.store.action_dim), ("chunk", data.chunk)):
            check_equal(name, getattr(self.policy, name), of_data, remedy.format(name, of_data))
        if self.policy.proprio_dim:
            of_data = data.store.proprio_dim
            check_equal("proprio_dim", self.policy.proprio_dim, of_data, remedy.format("proprio_dim", of_data))
            known = data.proprio()
            mean = known.mean(0, dtype=np.float64)
            # What stood still here may be elsewhere later: a millimetre off must not become a thousand spreads.
            spread = np.maximum(known.std(0, dtype=np.float64), least_spread(mean))
            self.policy.fit_proprio(torch.from_numpy(mean), torch.from_numpy(spread))

    def training_step(self, batch: DemonstrationBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        batch.image = random_shift(batch.image, self.shift)
        return self._step(batch, "train")

    def validation_step(self, batch: DemonstrationBatch, batch_idx: int) -> None:
        """Log the loss and metrics of one batch."""
        self._step(batch, "val")

    def _step(self, batch: DemonstrationBatch, stage: str) -> Tensor:
        # L = - 1/|M| sum_{m in M} sum_b q_b(a_m) log p_b(m | o)     M: actions before the end, times dimensions
        log_p = self.policy(batch.image, batch.instruction, proprio=batch.proprio)  # (B, K, A, bins)
        q = self.policy.tokenizer.targets(batch.actions, self.smoothing)  # (B, K, A, bins)
        loss = masked_mean(-(q * log_p).sum(-1), batch.mask)
        with torch.no_grad():
            greedy = log_p.argmax(-1)  # (B, K, A)
            right = greedy == self.policy.tokenizer.encode(batch.actions)
            error = (self.policy.tokenizer.decode(greedy) - batch.actions).abs()
            metrics = {
                "loss": loss.detach(),
                "token_accuracy": masked_mean(right.float(), batch.mask),
                "action_error": masked_mean(error, batch.mask),
            }
        self.log_metrics(stage, metrics, len(batch.actions))
        return loss


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the actions that are before the end: (B, K, A) float and (B, K) bool -> () float."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum() / (weight.sum() * values.shape[-1])
