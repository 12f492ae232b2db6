"""Trust: a critic of chunks fitted to replay; how its word and other signals add up, calibrated on held-out replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from wovr.data.training.replay import ReplayBatch, ReplayChunks
from wovr.errors import UserError, check_least
from wovr.functional.classification import area_under_roc
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.reward import load_classifier
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import (
    ChunkCritic,
    chunk_images,
    chunk_pictures,
    error_of_psnr,
    frame_error,
    psnr_of_error,
)
from wovr.models.trust.model import Trust
from wovr.tasks.base import TrainingModule, check_equal
from wovr.tasks.probes.inverse_dynamics import shift_together

_BETA = 0.2
"""Error of the logarithm above which the loss grows linearly."""

_LEAST = 1.0
"""Least error that is told from others, grey levels: below it is only the noise of videos."""

_AT_ONCE = 128
"""Chunks that signals are read off at a time."""


class TrustTraining(TrainingModule):
    """Fits a critic to the logarithm of imagination's error, then calibrates the trust on held-out episodes.

    Args:
        critic: The critic of chunks to train.
        inverse_dynamics: Reads actions off frames, e.g. by `wovr.models.trust.loading.load_inverse_dynamics`; null for
            none. Frozen; it travels in the trust's checkpoint.
        reward: Checkpoint of the success classifier of the imagined environment, whose doubt counts; null for none.
        right_psnr: From how many dB on a chunk is right; below, trust is to be low.
        shift: Largest random shift of the pictures of a chunk, the same for all, in pixels, each way.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.

    Raises:
        UserError: A number out of its range, or a checkpoint that holds something else.
    """

    def __init__(
        self,
        critic: ChunkCritic,
        inverse_dynamics: InverseDynamics | None = None,
        reward: str | None = None,
        right_psnr: float = 20.0,
        shift: int = 2,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        check_least("model.shift", shift, 0)
        self.network = Trust(critic, inverse_dynamics, reward is not None, right_psnr)
        self.shift = shift
        # In a tuple, so that it is no submodule: it is neither trained nor stored, the environment has its own.
        self._classifier = () if reward is None else (load_classifier(Path(reward)),)
        self._reward = reward
        self.judged: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """The dimensions of an action."""
        return {"critic.action_dim": lambda: data.store.action_dim}

    def setup(self, stage: str) -> None:
        """Compare with the data.

        Raises:
            UserError: Other actions or chunks, tasks that the classifier does not know, or no held-out chunk that is
                right, or none that is wrong.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        network = self.network
        check_equal("action_dim", network.action_dim, data.store.action_dim, "set the critic's action_dim to null")
        check_equal("chunk", network.chunk, data.chunk, "set data.chunk and the critic's chunk alike")
        chunks: ReplayChunks = data.held_out()
        for classifier in self._classifier:
            try:
                classifier.check_tasks([task for batch in _batches(chunks) for task in batch.tasks])
            except UserError as error:
                raise UserError(f"{self._reward}: {error}") from error
        if stage != "fit":
            return
        found = torch.cat([torch.zeros(0), *(_error(batch) for batch in _batches(chunks))])
        right = int((found <= error_of_psnr(network.right_psnr)).sum())
        if not 0 < right < len(found):
            median = f", half of them have {psnr_of_error(float(found.median())):.1f} dB or more" if len(found) else ""
            raise UserError(
                f"of {len(found)} chunks of held-out episodes {right} are right at right_psnr {network.right_psnr:g}"
                f"{median}",
                "set model.init_args.right_psnr so that some are and some are not, and data.val_fraction above 0",
            )

    def configure_callbacks(self) -> Sequence[Callback]:
        """The calibration at the end."""
        return [_Calibrate()]

    def training_step(self, batch: ReplayBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        pictures = chunk_pictures(batch.reference, batch.before, batch.frames)  # (B, H, W, 12)
        shifted = shift_together(pictures.unflatten(-1, (-1, 3)).movedim(3, 1), self.shift).movedim(1, 3).flatten(3)
        expected = self.network.critic(chunk_images(shifted), batch.actions)
        loss = smooth_l1_loss(expected, _target(batch), beta=_BETA)
        self.log_metrics("train", {"loss": loss.detach()}, len(expected))
        return loss

    def validation_step(self, batch: ReplayBatch, batch_idx: int) -> None:
        """Log the loss of one batch."""
        expected = self.network.critic.read(batch.reference, batch.before, batch.frames, batch.actions)
        self.log_metrics("val", {"loss": smooth_l1_loss(expected, _target(batch), beta=_BETA)}, len(expected))
        self.judged.append((expected.cpu(), self._is_right(batch).cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log how well the critic tells wrong chunks from right ones."""
        judged, self.judged = self.judged, []
        if judged:
            expected, right = (torch.cat(parts) for parts in zip(*judged, strict=True))
            self.log("val/auroc", area_under_roc(expected, ~right), sync_dist=True)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Fit how the signals of held-out chunks add up."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        chunks, network = data.held_out(), self.network.eval()
        for classifier in self._classifier:
            classifier.to(self.device)
        if network.reading is not None:
            real = ((batch.real.to(self.device), batch.actions.to(self.device)) for batch in _batches(chunks))
            network.reading.set_unit(torch.cat([network.reading.measure(*pair) for pair in real]))
        signals, right = [], []
        for batch in _batches(chunks):
            signals.append(network.read(self._seen(batch)).cpu())
            right.append(self._is_right(batch))
        network.calibrate(torch.cat(signals), torch.cat(right))

    def _seen(self, batch: ReplayBatch) -> SeenChunk:
        """A batch as the imagined environment would show it."""
        probability = None
        for classifier in self._classifier:
            lead = batch.before[:, None].expand(-1, classifier.window - 1, -1, -1, -1)
            judged = torch.cat([lead, batch.frames], dim=1)
            probability = classifier.probability(judged, batch.tasks).to(self.device)
        return SeenChunk(
            batch.reference.to(self.device),
            batch.before.to(self.device),
            batch.frames.to(self.device),
            batch.actions.to(self.device),
            probability,
        )

    def _is_right(self, batch: ReplayBatch) -> Tensor:
        """(B,) bool."""
        return _error(batch) <= error_of_psnr(self.network.right_psnr)


class _Calibrate(Callback):
    """Calibrates the trust at the end, before the last checkpoint."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate it."""
        assert isinstance(pl_module, TrustTraining)
        pl_module.calibrate()


def _error(batch: ReplayBatch) -> Tensor:
    """(B,) float32, grey levels, of the last frames."""
    return frame_error(batch.frames[:, -1], batch.real[:, -1])


def _target(batch: ReplayBatch) -> Tensor:
    """(B,) float32, what the critic is to expect."""
    return _error(batch).clamp(min=_LEAST).log()


def _batches(chunks: ReplayChunks) -> Iterator[ReplayBatch]:
    for first in range(0, len(chunks), _AT_ONCE):
        yield chunks.__getitems__(range(first, min(first + _AT_ONCE, len(chunks))))
