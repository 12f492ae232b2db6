"""Training of the success classifier (paper, section 4.2, Eq. 8): binary cross-entropy on balanced windows.

Unlike the authors', who publish no training: pictures are blurred, shifted and made noisy as a world model's are, the
weights are averaged, and the held-out episodes can choose the threshold (the default is Eq. 8's 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from wovr.data.training.reward_windows import RewardBatch, RewardEpisode
from wovr.errors import UserError, check_least
from wovr.functional.blur import gaussian_blur, random_sigma
from wovr.functional.classification import JudgedEpisode, best_threshold, pooled, score
from wovr.models.checkpoint import KEY
from wovr.models.reward import SuccessClassifier, load_classifier, stacked_images
from wovr.tasks.averaging import AverageWeights
from wovr.tasks.base import TrainingModule, check_equal
from wovr.tasks.probes.inverse_dynamics import shift_together


class RewardTraining(TrainingModule):
    """Fits a success classifier to windows of episodes, and measures it on all frames of held-out ones.

    Because half of what it sees is successful, its probabilities are those of a world where half of the frames are.

    Args:
        network: The classifier to train.
        shift: Largest random shift of the pictures of a window, the same for all, in pixels, each way.
        blur: Largest standard deviation of a Gaussian blur, pixels, which half of the windows get: imagined frames are
            never as sharp.
        noise: Largest standard deviation of the noise on every pixel, in units of [-1, 1]; every window has its own.
        brightness: Largest change of a window's brightness, each way, in units of [-1, 1].
        choose_threshold: Let the validation frames choose the threshold with the best F1 at the end, instead of keeping
            the network's.
        ema_decay: Of the moving average of the weights, which is what is validated and what loading a checkpoint gives;
            null for the weights as they are.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.

    Raises:
        UserError: A number out of its range.
    """

    def __init__(
        self,
        network: SuccessClassifier,
        shift: int = 1,
        blur: float = 0.8,
        noise: float = 0.05,
        brightness: float = 0.1,
        choose_threshold: bool = False,
        ema_decay: float | None = 0.99,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 50,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.network = network
        self.shift = shift
        self.blur = blur
        self.noise = noise
        self.brightness = brightness
        self.choose_threshold = choose_threshold
        self.ema_decay = ema_decay
        self.judged: list[JudgedEpisode] = []
        for name in ("shift", "blur", "noise", "brightness"):
            check_least(f"{name}", getattr(self, name), 0)
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise UserError(f"ema_decay is {ema_decay}", "give a number in [0, 1), or null")

    def init_from(self, path: Any) -> None:
        """Take weights, and the tasks they are for, from another run's checkpoint.

        Raises:
            UserError: See `TrainingModule.init_from`.
        """
        self.network.add_tasks(load_classifier(path, self.network.judges).tasks)
        super().init_from(path)

    def setup(self, stage: str) -> None:
        """Add the tasks of the data to the network's, and compare the two.

        Raises:
            UserError: Another window or question, too many tasks, or no held-out episodes to choose a threshold with.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        window, judges = self.network.window, self.network.judges
        if judges != data.judges:
            raise UserError(f"the network judges {judges}, the data {data.judges}", "set both alike")
        check_equal("window", window, data.window, f"set data.window to {window}, or the network's to {data.window}")
        self.network.add_tasks(data.tasks)
        if stage != "fit":
            return
        without = data.tasks_without_success
        if without:
            named = ", ".join(f"{suite} {index}" for suite, index in without)
            rank_zero_warn(f"no training episode of these tasks succeeds, none will be called a success: {named}")
        if self.choose_threshold:
            success = [episode.success for episode in data.held_out()]
            judged = torch.cat([torch.zeros(0, dtype=torch.bool), *(one[window - 1 :] for one in success)])
            if not 0 < int(judged.sum()) < len(judged):
                raise UserError(
                    f"choose_threshold needs successful and other frames in held-out episodes: of {len(judged)} frames "
                    f"in {len(success)} episodes {int(judged.sum())} are successful",
                    "set data.val_fraction higher, or choose_threshold false",
                )

    def configure_callbacks(self) -> Sequence[Callback]:
        """The moving average, and the choice of a threshold with it."""
        averaging = [] if self.ema_decay is None else [AverageWeights(self.ema_decay)]
        return [*averaging, *([_ChooseThreshold()] if self.choose_threshold else [])]

    def training_step(self, batch: RewardBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        frames = shift_together(batch.frames, self.shift)  # (B, window, H, W, 3)
        images = stacked_images(frames.movedim(1, 3).flatten(3))  # (B, 3 * window, H, W)
        logits = self.network(self.disturb(images), self.network.rows(batch.tasks))
        loss = binary_cross_entropy_with_logits(logits, batch.success.to(logits.dtype))
        right = ((logits > 0) == batch.success).float().mean()
        self.log_metrics("train", {"loss": loss.detach(), "accuracy": right}, len(logits))
        return loss

    def validation_step(self, batch: RewardEpisode, batch_idx: int) -> None:
        """Judge one held-out episode."""
        logits = self.network.logits(batch.frames[None], [batch.task])[0]  # (n,)
        success = batch.success[self.network.window - 1 :]
        loss = binary_cross_entropy_with_logits(logits, success.to(logits.dtype))
        self.log_metrics("val", {"loss": loss}, len(logits))
        self.judged.append(_judged(batch, logits.sigmoid(), self.network.window))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of frames and of episodes, over all suites and of each."""
        judged, self.judged = self.judged, []
        suites = sorted({episode.suite for episode in judged})
        groups = {"": judged}
        if len(suites) > 1:
            groups |= {f"_{suite}": [one for one in judged if one.suite == suite] for suite in suites}
        for name, episodes in groups.items():
            scores = score(episodes, self.network.threshold, self.network.consecutive)
            for key in (
                *("precision", "recall", "average_precision", "calibration_error"),
                *("episode_precision", "episode_recall", "episode_accuracy"),
            ):
                value = getattr(scores, key)
                if value is not None:  # every rank judges the same episodes
                    self.log(f"val/{key}{name}", value, sync_dist=True)

    def disturb(self, images: Tensor) -> Tensor:
        """Blur, noise and brightness that resemble a world model's faults, drawn for each window.

        Args:
            images: (B, 3 * window, H, W) float in [-1, 1].

        Returns:
            (B, 3 * window, H, W) float.
        """
        count = len(images)
        if self.blur:
            images = gaussian_blur(images, random_sigma(count, self.blur, images.device), self.blur)
        # Drawn on the CPU, so that every device sees the same faults.
        spread, change = torch.rand(2, count, 1, 1, 1).to(images.device)
        if self.noise:
            images = images + self.noise * spread * torch.randn_like(images)
        return images + self.brightness * (2 * change - 1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the order of the tasks and the threshold from the run that goes on."""
        described = checkpoint[KEY]["networks"][SuccessClassifier.kind]["init_args"]
        data_tasks = self.network.tasks
        self.network.take_state(described["tasks"], described["threshold"])
        self.network.add_tasks(data_tasks)

    def fit_threshold(self) -> None:
        """Choose the threshold with the best F1 on all held-out frames."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        window = self.network.window
        judged = [
            _judged(episode, self.network.probability(episode.frames[None], [episode.task])[0], window)
            for episode in data.held_out()
        ]
        self.network.set_threshold(best_threshold(*pooled(judged)))


class _ChooseThreshold(Callback):
    """Chooses the threshold at the end: after the averaged weights are in place, before the last checkpoint."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose it."""
        assert isinstance(pl_module, RewardTraining)
        pl_module.fit_threshold()


def _judged(episode: RewardEpisode, probability: Tensor, window: int) -> JudgedEpisode:
    success = episode.success.cpu().numpy()
    return JudgedEpisode(
        suite=episode.task[0],
        task=episode.task[1],
        key=episode.key,
        probability=probability.cpu().numpy().astype(np.float32),
        success=success[window - 1 :],
        succeeded=bool(success.any()),
    )
