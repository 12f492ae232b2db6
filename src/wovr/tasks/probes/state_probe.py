"""The state probe: a network fitted to say where things are in real frames, from the simulator's stored states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from wovr.data.training.sequences import SequenceBatch
from wovr.envs.scenes import scene_positions
from wovr.errors import UserError
from wovr.functional.blur import gaussian_blur, random_sigma
from wovr.functional.matching import match_look_alikes, place_in_slots
from wovr.models.probes.keypoints import network_images
from wovr.models.probes.state_probe import StateProbe
from wovr.tasks.base import TrainingModule

_BETA = 0.005
"""Metres of error above which the loss grows linearly: an occluded object pulls less."""


class StateProbeTraining(TrainingModule):
    """Smooth L1 on the coordinates of every point of the scene, things that look alike in the order that fits best.

    Args:
        network: The probe to train.
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
        network: StateProbe,
        noise: float = 0.02,
        blur: float = 1.5,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.network = network
        self.noise = noise
        self.blur = blur
        self.targets: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Compute where everything is in every frame.

        Raises:
            UserError: An episode without states, states that nobody can read, or points that the probe has no output
                for.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.targets:
            return
        for index, episode in data.episodes():
            entry = data.store.entries[index]
            where = f"{entry.shard}: episode {entry.key}"
            scene = scene_positions(episode.meta, episode.sim_state, where)
            slots = slots_of(self.network.looks, scene.looks, where)
            self.targets.append(place_in_slots(torch.from_numpy(scene.positions), slots, len(self.network.looks)))

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images = network_images(batch.frames).flatten(0, 1)  # (B * L, 3, H, W)
        images = gaussian_blur(images, random_sigma(len(images), self.blur, images.device), self.blur)
        return self._step(images + self.noise * torch.randn_like(images), batch, "train")

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Log the loss and metrics of one batch."""
        self._step(network_images(batch.frames).flatten(0, 1), batch, "val")

    def _step(self, images: Tensor, batch: SequenceBatch, stage: str) -> Tensor:
        read = self.network(images)  # (B * L, P, 3)
        length = batch.frames.shape[1]
        true = torch.cat(
            [
                self.targets[episode][start : start + length]
                for episode, start in zip(batch.episode.tolist(), batch.start.tolist(), strict=True)
            ]
        ).to(read.device)  # (B * L, P, 3), NaN where a scene lacks the point
        read = match_look_alikes(read, true, self.network.looks)
        there = true.isfinite()
        loss = smooth_l1_loss(read[there], true[there], beta=_BETA)
        error = 100 * torch.linalg.vector_norm(read - true, dim=-1)[there.all(-1)].detach().mean()
        self.log_metrics(stage, {"loss": loss.detach(), "error_cm": error}, len(batch.episode))
        return loss


def slots_of(network_looks: Sequence[str], scene_looks: Sequence[str], where: str) -> list[int]:
    """The output of a probe for each point of a scene: the k-th of a look goes to the k-th output of that look.

    Raises:
        UserError: There are more points of a look than outputs.
    """
    free: dict[str, list[int]] = {}
    for slot, look in enumerate(network_looks):
        free.setdefault(look, []).append(slot)
    slots = []
    for look in scene_looks:
        if not free.get(look):
            raise UserError(
                f"{where}: the probe has no output for {'another ' if look in free else ''}'{look}'",
                f"add '{look}' to model.network.init_args.looks",
            )
        slots.append(free[look].pop(0))
    return slots
