"""Training of the world model (paper, section 4.1, Eq. 7): rectified flow on the new latents, noise on the memory.

Unlike the authors': noise levels are drawn evenly over a batch, weights are averaged, and a network that predicts the
clean latents is fitted to them with the weight that makes it the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchmetrics import MeanMetric

from wovr.data.training.latents import LatentCache
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.functional import flow
from wovr.functional.robust import pseudo_huber
from wovr.models.checkpoint import KEY, read_checkpoint
from wovr.models.world_model.backbones.cosmos import CosmosBackbone
from wovr.models.world_model.backbones.cosmos_weights import load_cosmos_weights
from wovr.models.world_model.backbones.opensora import OpenSoraBackbone
from wovr.models.world_model.backbones.opensora_weights import load_opensora_weights
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.backbones.wan_weights import load_released_weights
from wovr.models.world_model.context import EncodedWindow, noise_memory
from wovr.models.world_model.model import WorldModel
from wovr.tasks.averaging import AVERAGED, AverageWeights
from wovr.tasks.base import TrainingModule, check_equal
from wovr.tasks.muon import MuonAdamW
from wovr.tasks.world_model.augmentation import WindowAugmentation

LEVELS = 4
"""Ranges of noise levels that the loss is logged for, each as likely as the others."""

FLOOR = 0.3
"""Default of `sigma_floor`."""

_LATENTS = "cache_latents keeps those of every episode"


@dataclass
class NoiseDraw:
    """The random part of a training step.

    Attributes:
        sigma: (B,) float, noise level of the new latents.
        noise: (B, C, n, h, w) float, theirs.
        memory_sigma: (B,) float, noise level of the memory latents.
        memory_noise: (B, C, m, h, w) float, theirs.
    """

    sigma: Tensor
    noise: Tensor
    memory_sigma: Tensor
    memory_noise: Tensor


class WorldModelTraining(TrainingModule):
    """Fits a world model to windows of episodes.

    Args:
        world_model: The world model to train; its autoencoder is not.
        weighting: Of the noise levels in the loss: `uniform`, or the authors' `bell` around 0.5.
        levels: Of the noise in training, before the world model's shift: `uniform`, or `logit_normal`, most of them in
            the middle, as Open-Sora has it.
        sigma_floor: With prediction `data` the loss is |x_hat - x|^2 / max(sigma, sigma_floor)^2, the loss of the
            velocity down to this noise level; null for 0.3. Not with prediction `velocity`.
        huber_scale: [first, last] error, of the velocity, from which on it counts by its size and no longer by its
            square, so that the network draws the likeliest of what may be and not its mean (`pseudo_huber`). Falls from
            the first to the last by the same factor each training step; validation counts squares. Null for squares.
        ema_decay: Of the moving average of the weights, which is what is validated and what loading a checkpoint gives;
            null for the weights as they are.
        cache_latents: Encode all frames before training and keep the latents beside the shards; for an autoencoder
            whose latents are worth it (`GroupedAutoencoder`).
        compile: Let torch.compile make faster code of the network; takes a minute or so at the start.
        pretrained: Released weights of the backbone to start from: for Wan a folder in diffusers' layout, for OpenSora
            a folder of WMPO's safetensors, for Cosmos a folder in diffusers' layout or the authors' .pt file.
        pure_noise_share: Share of windows that are trained at noise level 1, where the sampler begins and everything is
            decided that the context decides; the rest get levels as usual.
        augmentations: What is done to training windows before noise is drawn, one after the other; see
            `WindowAugmentation`. Null for nothing.
        muon_lr: Highest learning rate of the blocks' matrices (and the conditioning's hidden ones) under Muon; null for
            AdamW throughout.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up.
        final_lr_fraction: Learning rate at the end as a fraction of `lr`.
    """

    def __init__(
        self,
        world_model: WorldModel,
        weighting: Literal["uniform", "bell"] = "uniform",
        levels: Literal["uniform", "logit_normal"] = "uniform",
        sigma_floor: float | None = None,
        huber_scale: list[float] | None = None,
        ema_decay: float | None = 0.999,
        cache_latents: bool = False,
        compile: bool = False,
        pretrained: str | None = None,
        pure_noise_share: float = 0.0,
        augmentations: list[WindowAugmentation] | None = None,
        muon_lr: float | None = None,
        lr: float = 6e-4,
        weight_decay: float = 0.01,
        warmup_steps: int = 200,
        final_lr_fraction: float = 0.02,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.world_model = world_model
        self.weighting = weighting
        self.levels = levels
        self.sigma_floor = FLOOR if sigma_floor is None else sigma_floor
        self.huber_scale = huber_scale
        self.ema_decay = ema_decay
        self.cache_latents = cache_latents
        self.compiled = compile
        self.pretrained = pretrained
        self.pure_noise_share = pure_noise_share
        self.augmentations = augmentations or []
        self.muon_lr = muon_lr
        self.val_losses = nn.ModuleList(MeanMetric() for _ in range(LEVELS))
        if levels != "uniform" and weighting != "uniform":
            raise UserError(f"levels is {levels} with weighting {weighting}", "set one of them to uniform")
        if sigma_floor is not None and (world_model.prediction == "velocity" or not 0 < sigma_floor <= 1):
            raise UserError(
                f"sigma_floor is {sigma_floor} with prediction {world_model.prediction}",
                "give a number in (0, 1] with prediction data, null with prediction velocity",
            )
        if not 0 <= pure_noise_share <= 1:
            raise UserError(f"pure_noise_share is {pure_noise_share}", "give a number in [0, 1]")
        reached = [augmentation.reach(world_model, cache_latents) for augmentation in self.augmentations]
        self.reach = world_model.memory_slots + max(reached, default=0)
        if huber_scale is not None and not (len(huber_scale) == 2 and huber_scale[0] >= huber_scale[1] > 0):
            raise UserError(f"huber_scale is {huber_scale}", "give [first, last] above 0, falling, or null for squares")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise UserError(f"ema_decay is {ema_decay}", "give a number in [0, 1), or null")
        if cache_latents and world_model.memory != world_model.memory_slots:
            raise UserError(
                f"cache_latents with a memory of {world_model.memory} frames",
                "set cache_latents to false: latents hold 4",
            )

    @classmethod
    def from_data(cls, data: Any) -> dict[str, Callable[[], Any]]:
        """The dimensions of an action."""
        return {"world_model.action_dim": lambda: data.store.action_dim}

    def fit_windows(self, data: Any) -> None:
        """Memory as far as model and augmentations reach."""
        data.memory = self.reach if data.memory is None else data.memory

    def prepare_data(self) -> None:
        """Make the latents that are missing, in one process of a machine."""
        if self.cache_latents:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            LatentCache(data.whole_store(_LATENTS), self.world_model.autoencoder)

    def setup(self, stage: str) -> None:
        """Compare the world model with the data, take over released weights, compile.

        Raises:
            UserError: They do not fit together, or something that an option needs is missing.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        model = self.world_model
        check_equal("action_dim", model.action_dim, data.store.action_dim, "set the backbone's action_dim so")
        check_equal("chunk", model.chunk, data.chunk, f"set data.chunk to {model.chunk}")
        model.conditioning.check_data(data.store.signal_dims)
        check_equal("memory", self.reach, data.memory, f"set data.memory to {self.reach}")
        model.backbone.tokens_of(model.autoencoder.latent_size(data.store.image_size))
        # Of windows to imagine first some processes would have one and others none, and wait for each other.
        imagining = [made for made in self.augmentations if made.imagines] or None
        for name, value in (("ema_decay", self.ema_decay), ("augmentations", imagining), ("muon_lr", self.muon_lr)):
            if self.device_mesh is not None and value is not None:
                what = type(imagining[0]).__name__ if imagining and name == "augmentations" else name
                raise UserError(f"{what} cannot be had with weights that are sharded", f"set {name} to null")
        if self.cache_latents:
            data.use_latents(LatentCache(data.whole_store(_LATENTS), model.autoencoder))
        if self.pretrained is not None and stage == "fit":
            self._take_over(Path(self.pretrained))
        if self.compiled:
            self.compiled = False  # once, though setup runs again for the validation after the end
            model.compile_parts(self.trainer.strategy.root_device)

    def configure_model(self) -> None:
        """Share the backbone's weights out over the processes, where the strategy is one that does so (FSDP2)."""
        if self.device_mesh is not None:
            self.world_model.backbone.shard(self.device_mesh["data_parallel"])

    def configure_callbacks(self) -> Sequence[Callback]:
        """The moving average."""
        return [] if self.ema_decay is None else [AverageWeights(self.ema_decay)]

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW, or with `muon_lr` Muon for the matrices of the blocks."""
        if self.muon_lr is None:
            return super().make_optimizer(parameters)
        model = self.world_model
        hidden = [p for block in model.backbone.blocks for p in block.parameters()]
        hidden += [p for layer in model.conditioning.hidden for p in layer.parameters()]
        inner = {id(p) for p in hidden}
        matrices = [p for p in parameters if p.ndim == 2 and id(p) in inner]
        chosen = {id(p) for p in matrices}
        others = self.decay_groups([p for p in parameters if id(p) not in chosen])
        return MuonAdamW(matrices, others, self.muon_lr, self.lr, self.weight_decay)

    def training_step(self, batch: WorldModelBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        window = self._encode(batch)
        for augment in self.augmentations:
            window = augment(self.world_model, batch, window)
        draw = self.draw(window, self.pure_noise_share)
        losses = self.losses(window, draw, self.huber_scale_at(self.global_step))
        self.log_metrics("train", {"loss": losses.detach().mean()}, len(losses))
        self._log_by_level(losses.detach(), self._level(draw.sigma))
        return losses.mean()

    def validation_step(self, batch: WorldModelBatch, batch_idx: int) -> None:
        """Collect the losses of one batch."""
        window = self._encode(batch)
        draw = self.draw(window)
        losses = self.losses(window, draw)
        self.log_metrics("val", {"loss": losses.mean()}, len(losses))
        for loss, level in zip(losses, self._level(draw.sigma).tolist(), strict=True):
            self.val_losses[level].update(loss)

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss by noise level."""
        for level, metric in enumerate(self.val_losses):
            assert isinstance(metric, MeanMetric)
            mean = metric.compute()
            metric.reset()
            if mean.isfinite():  # few windows may leave a level empty
                self.log(f"val/loss_noise_{level + 1}", mean, sync_dist=True)

    def draw(self, window: EncodedWindow, pure_noise_share: float = 0.0) -> NoiseDraw:
        """Draw noise and noise levels from torch's generator.

        One in each of B intervals that are equally likely, in random order; some, `pure_noise_share` on average, are
        then replaced by 1.
        """
        count, device = len(window.new), window.new.device
        spread = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
        if self.levels == "logit_normal":
            spread = torch.special.ndtri(spread).sigmoid()
        # Not 0, where data and velocity part.
        sigma = flow.shift_sigma(spread, self.world_model.shift).clamp(min=1e-3)
        if pure_noise_share:
            sigma = torch.where(torch.rand(count, device=device) < pure_noise_share, 1.0, sigma)
        low, high = self.world_model.noisy_context
        memory = window.context.latents[:, :, 1:]
        # By shape and not by `randn_like`, which draws in the order in which the other tensor lies in memory.
        return NoiseDraw(
            sigma=sigma,
            noise=torch.randn(window.new.shape, device=device),
            memory_sigma=low + (high - low) * torch.rand(count, device=device),
            memory_noise=torch.randn(memory.shape, device=device),
        )

    def huber_scale_at(self, step: int) -> float | None:
        """Scale of the loss at an optimiser step; None for squares."""
        if self.huber_scale is None:
            return None
        first, last = self.huber_scale
        return first * (last / first) ** self.progress_at(step)

    def losses(self, window: EncodedWindow, draw: NoiseDraw, huber_scale: float | None = None) -> Tensor:
        """Eq. 7 for each window: |u(x_sigma, c, sigma) - v|^2 over the new latents, (B,) float32.

        With a scale, |.|^2 is `pseudo_huber`.
        """
        model = self.world_model
        context = noise_memory(window.context, draw.memory_sigma, draw.memory_noise)
        path = flow.path_sample(window.new, draw.noise, draw.sigma)
        predicted = model.predict(path.noisy, draw.sigma, context, window.actions)
        if model.prediction == "velocity":
            error = predicted - path.velocity
        else:
            # v_hat - v = ((x_sigma - x_hat) - (x_sigma - x)) / sigma
            level = flow.expand_sigma(draw.sigma.clamp(min=self.sigma_floor), predicted)
            error = (predicted - window.new) / level
        cost = error**2 if huber_scale is None else pseudo_huber(error, huber_scale)
        loss = cost.flatten(1).mean(1)
        return loss if self.weighting == "uniform" else loss * flow.bell_weight(draw.sigma, model.shift)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as the trainer is told to, and log the norm before that."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients)
        if hasattr(norm, "full_tensor"):  # sharded weights: each process knows its part
            norm = norm.full_tensor()
        self.log("train/gradient_norm", norm)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def init_from(self, path: Any) -> None:
        """See `TrainingModule.init_from`. What is not trained here stays as given: it may have seen more since.

        Raises:
            UserError: As there; or `pretrained` is given too; or the weights were trained with another autoencoder.
        """
        if self.pretrained is not None:
            raise UserError("both --init_from and pretrained are given", "give one of them")
        checkpoint = read_checkpoint(path)
        described = checkpoint[KEY]["networks"].get(WorldModel.kind, {})
        for name, ours in self.world_model.autoencoder.state_dict().items():
            theirs = checkpoint["state_dict"].get(f"{described.get('prefix')}autoencoder.{name}")
            if theirs is not None and not (theirs.shape == ours.shape and torch.equal(theirs, ours)):
                raise UserError(
                    f"{path}: its autoencoder has other weights than the one given, e.g. '{name}'",
                    "give the autoencoder that it was trained with, or train without --init_from",
                )
        frozen = self.world_model.conditioning.frozen
        given = [{name: weight.clone() for name, weight in part.state_dict().items()} for part in frozen]
        super().init_from(path)
        for part, weights in zip(frozen, given, strict=True):
            part.load_state_dict(weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record, which says whether `state_dict` holds averaged weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY]["weights"] = "averaged" if AVERAGED in checkpoint else "last"

    def _encode(self, batch: WorldModelBatch) -> EncodedWindow:
        model = self.world_model
        seen = model.memory_slots + model.chunk  # of the frames after the reference
        return model.encode_window(
            torch.cat([batch.frames[:, :1], batch.frames[:, -seen:]], dim=1),
            batch.actions[:, -seen:],
            batch.known[:, -seen:],
            batch.start,
            batch.latents,
            batch.chunk_signals,
        )

    def _level(self, sigma: Tensor) -> Tensor:
        """Which of the LEVELS equally likely ranges each noise level is in: (B,) int64, 0 for the cleanest."""
        spread = flow.unshift_sigma(sigma, self.world_model.shift)
        if self.levels == "logit_normal":
            spread = torch.special.ndtr(spread.logit())
        return (LEVELS * spread).long().clamp(0, LEVELS - 1)

    def _log_by_level(self, losses: Tensor, level: Tensor) -> None:
        # Which levels a batch has is known without waiting for the GPU: all of them, unless it is smaller.
        everywhere = len(losses) >= LEVELS and not self.pure_noise_share
        present = range(LEVELS) if everywhere else level.unique().tolist()
        for number in present:
            here = (level == number).to(losses.dtype)
            self.log(f"train/loss_noise_{number + 1}", (losses * here).sum() / here.sum(), batch_size=len(losses))

    def _take_over(self, folder: Path) -> None:
        backbone = self.world_model.backbone
        if isinstance(backbone, WanBackbone):
            load_released_weights(backbone, folder)
        elif isinstance(backbone, OpenSoraBackbone):
            load_opensora_weights(backbone, folder)
        elif isinstance(backbone, CosmosBackbone):
            load_cosmos_weights(backbone, folder)
        else:
            raise UserError(
                f"pretrained is {folder}, no released layout of {type(backbone).__name__} is known",
                "set pretrained to null",
            )
