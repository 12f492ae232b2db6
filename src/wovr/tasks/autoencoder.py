"""Training of an autoencoder on the windows that a world model will be trained on.

Not in the paper, whose autoencoder is Wan's released one, frozen. That one is too slow for a CPU, and was not made for
small pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.functional.images import frames_to_float
from wovr.metrics.frames.perceptual import LPIPSDistance
from wovr.metrics.networks.weights import checked_weights, weights_folder
from wovr.models.world_model.autoencoders.base import Autoencoder, LatentNorm
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder
from wovr.tasks.base import TrainingModule

MOVED = 0.15
"""A pixel whose colour is this far from the reference frame's, in [-1, 1] units, counts as moved in metrics."""

START_GROUPS = 256
"""Groups of frames that the linear path of a GroupedAutoencoder is started from."""


@dataclass
class Reconstruction:
    """Frames and what the autoencoder made of them.

    Attributes:
        frames: (N, 3, L, H, W) float in [-1, 1].
        output: (N, 3, L, H, W) float.
        reference: (N, 3, H, W) float, the first frame of each one's episode.
        latents: (N, C, ...) float, normalised, before noise.
    """

    frames: Tensor
    output: Tensor
    reference: Tensor
    latents: Tensor


class AutoencoderTraining(TrainingModule):
    """Reconstruction error, weighted towards what moves, with running statistics of the latents.

    L = mean_pixels (1 + moving_weight * |x - reference|) * d(x, y) + perceptual_weight * LPIPS(x, y), d = |x - y| or
    (x - y)^2.

    Args:
        autoencoder: The autoencoder to train.
        loss: `mse` or `l1`, the distance d of a pixel's colours.
        moving_weight: Additional weight of a pixel for each unit by which its colour differs from the reference
            frame's. Small moving objects are few pixels, and all that matters.
        first_fraction: Share of the windows of which the first frame is trained on, without a reference, beside the
            groups (an autoencoder that is groupwise; others always take whole clips).
        latent_noise: Standard deviation of noise added to the normalised latents, so that the decoder bears with what a
            world model gets slightly wrong.
        perceptual_weight: Weight of LPIPS (on AlexNet) on one frame of each group or clip; 0 for none.
        weights: Folder of LPIPS's weights; empty for `$WOVR_WEIGHTS` or the user's cache (`wovr weights list`).
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.

    Raises:
        UserError: An autoencoder without weights, a number out of its range, missing LPIPS weights.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        loss: Literal["mse", "l1"] = "mse",
        moving_weight: float = 1.0,
        first_fraction: float = 0.125,
        latent_noise: float = 0.0,
        perceptual_weight: float = 0.0,
        weights: str = "",
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        for name, value in (
            ("moving_weight", moving_weight),
            ("latent_noise", latent_noise),
            ("perceptual_weight", perceptual_weight),
        ):
            if not value >= 0:
                raise UserError(f"model.{name} is {value}", "give a number of 0 or more")
        if not 0 < first_fraction <= 1:
            raise UserError(f"model.first_fraction is {first_fraction}", "give a share above 0, at most 1")
        if not isinstance(getattr(autoencoder, "latent_norm", None), LatentNorm):
            raise UserError(
                f"model.autoencoder: {type(autoencoder).__name__} has no weights to train",
                "use it in a world model as it is",
            )
        self.autoencoder = autoencoder.train()  # one out of a checkpoint comes in evaluation mode
        self.loss = loss
        self.moving_weight = moving_weight
        self.first_fraction = first_fraction
        self.latent_noise = latent_noise
        self.perceptual_weight = perceptual_weight
        # In a list, so that its weights are neither trained nor in checkpoints.
        self.perceptual: list[LPIPSDistance] = []
        if perceptual_weight:
            path = checked_weights("alexnet", weights_folder(weights), "or set model.perceptual_weight 0")
            self.perceptual.append(LPIPSDistance(path))

    @property
    def latent_norm(self) -> LatentNorm:
        """The statistics of the latents."""
        return cast(LatentNorm, self.autoencoder.latent_norm)

    def setup(self, stage: str) -> None:
        """Compare the autoencoder with the data, and start a linear path from them if it was never trained.

        Raises:
            UserError: Images whose sides are no multiples of the spatial stride.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.autoencoder.latent_size(data.store.image_size)
        if stage == "fit" and isinstance(self.autoencoder, GroupedAutoencoder) and self.latent_norm.batches == 0:
            self.autoencoder.fit_linear_path(self._some_groups(data.train_dataloader()))

    def training_step(self, batch: WorldModelBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss, latents = self._step(batch, "train")
        self.latent_norm.update(self.latent_norm.denormalise(latents))
        return loss

    def validation_step(self, batch: WorldModelBatch, batch_idx: int) -> None:
        """Log the loss and metrics of one batch."""
        self._step(batch, "val")

    def _step(self, batch: WorldModelBatch, stage: str) -> tuple[Tensor, Tensor]:
        """The loss, and the latents (N, C, numbers) that it came from."""
        frames = frames_to_float(batch.frames)  # (B, 3, L, H, W), the reference first
        parts = self._groupwise(frames) if self.autoencoder.groupwise else [self._whole(frames)]
        # The mean over all pixels of all parts.
        loss = torch.cat([self._distance(part).flatten() for part in parts]).mean()
        metrics = {"loss": loss.detach(), **_quality(parts[0])}
        for network in self.perceptual:
            distance = torch.cat([self._perceptual_distance(network.to(frames.device), part) for part in parts]).mean()
            metrics["lpips"] = distance.detach()
            loss = loss + self.perceptual_weight * distance
        self.log_metrics(stage, metrics, len(frames))
        return loss, torch.cat([part.latents.detach().flatten(2) for part in parts])

    def _groupwise(self, frames: Tensor) -> list[Reconstruction]:
        """All groups, decoded beside the reference; then some first frames, as groups of their own, without it."""
        reference, size = frames[:, :, 0], self.autoencoder.frames_per_latent
        groups = torch.unflatten(frames[:, :, 1:], 2, (-1, size)).transpose(1, 2)  # (B, n, 3, 4, H, W)
        references = reference.repeat_interleave(groups.shape[1], dim=0)  # (B * n, 3, H, W)
        first = reference[: math.ceil(self.first_fraction * len(reference))]  # (F, 3, H, W)
        still = first[:, :, None].expand(-1, -1, size, -1, -1)  # (F, 3, 4, H, W)
        return [
            self._reconstruct(groups.flatten(0, 1), references, references),
            self._reconstruct(still, first, None),
        ]

    def _reconstruct(self, frames: Tensor, reference: Tensor, shown: Tensor | None) -> Reconstruction:
        """Encode and decode groups (N, 3, 4, H, W), the decoder being shown a reference or none."""
        latents = self.autoencoder.encode_group(frames)
        output = self.autoencoder.decode_group(self._disturb(latents), shown)
        return Reconstruction(frames, output, reference, latents)

    def _whole(self, frames: Tensor) -> Reconstruction:
        """Encode and decode whole clips."""
        latents = self.autoencoder.encode(frames)
        return Reconstruction(frames, self.autoencoder.decode(self._disturb(latents)), frames[:, :, 0], latents)

    def _disturb(self, latents: Tensor) -> Tensor:
        if not (self.training and self.latent_noise):
            return latents
        return latents + self.latent_noise * torch.randn_like(latents)

    def _distance(self, part: Reconstruction) -> Tensor:
        """Weighted distance of every colour of every pixel: (N, 3, L, H, W)."""
        error = part.output.float() - part.frames
        weight = 1 + self.moving_weight * _difference(part)
        return weight * (error.abs() if self.loss == "l1" else error.square())

    def _perceptual_distance(self, network: LPIPSDistance, part: Reconstruction) -> Tensor:
        """LPIPS of one frame of each: (N,)."""
        count, _, length = part.frames.shape[:3]
        rows = torch.arange(count, device=part.frames.device)
        # The last of each in validation, so that the number is the same each time.
        chosen = torch.randint(length, (count,)).to(rows) if self.training else torch.full_like(rows, length - 1)
        layers = network(part.output[rows, :, chosen].float(), part.frames[rows, :, chosen])
        return torch.stack([layer.mean((1, 2)) for layer in layers]).sum(0)

    def _some_groups(self, batches: Any) -> Tensor:
        """(N, 3, 4, H, W), groups from the first batches."""
        found: list[Tensor] = []
        for batch in batches:
            frames = frames_to_float(batch.frames)[:, :, 1:]
            groups = torch.unflatten(frames, 2, (-1, self.autoencoder.frames_per_latent)).transpose(1, 2).flatten(0, 1)
            found.append(groups)
            if sum(map(len, found)) >= START_GROUPS:
                break
        return torch.cat(found)[:START_GROUPS]


def _difference(part: Reconstruction) -> Tensor:
    """Distance of each pixel's colour from the reference frame's, the largest of its three: (N, 1, L, H, W)."""
    return (part.frames - part.reference[:, :, None]).abs().amax(1, keepdim=True)


@torch.no_grad()
def _quality(part: Reconstruction) -> dict[str, Tensor]:
    """Peak signal-to-noise ratio in dB, of all pixels (the mean over groups or clips) and of those that moved."""
    square = (part.output.float().clamp(-1, 1) - part.frames).square()  # of a range of 2: the peak's square is 4
    moved = (_difference(part) > MOVED).expand_as(square)
    of_moved = square[moved].mean() if moved.any() else square.mean()
    return {
        "psnr": (10 * torch.log10(4 / square.flatten(1).mean(1).clamp(min=1e-10))).mean(),
        "moved_psnr": 10 * torch.log10(4 / of_moved.clamp(min=1e-10)),
    }
