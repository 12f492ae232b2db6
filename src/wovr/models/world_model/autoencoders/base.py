"""The contract of an autoencoder: a first frame and groups of four frames to latent frames and back.

Shapes used here, beside the legend of `wovr.types`:
    B  clips side by side               C     latent channels
    n  groups of four frames            h, w  H and W divided by the spatial stride
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.checkpoint import Network

FRAMES_PER_LATENT = 4
"""Frames that one latent frame stands for (the temporal stride of Wan's autoencoders)."""


class Autoencoder(Network, ABC):
    """Frames to latents and back. The first frame of a clip has a latent of its own, then each group of four has one.

    A subclass that encodes group by group derives from `GroupwiseAutoencoder` instead.

    Args:
        spatial_stride: Pixels, each way, behind one place of a latent frame.
        latent_channels: Numbers in one place of a latent frame, C.

    Attributes:
        groupwise: Every latent frame depends on its own group of frames alone, so that latents can be cached, and
            groups encoded and decoded on their own. False where a convolution looks across groups.
        uses_reference: Decoding looks at the episode's first frame when it is given.
        worth_caching: It is groupwise, and reading a latent from disk costs less than encoding it again.
    """

    kind: ClassVar[str] = "autoencoder"
    frames_per_latent: ClassVar[int] = FRAMES_PER_LATENT
    groupwise: bool = False
    uses_reference: bool = False
    worth_caching: bool = False

    def __init__(self, spatial_stride: int, latent_channels: int) -> None:
        super().__init__()
        self.spatial_stride = spatial_stride
        self.latent_channels = latent_channels

    @abstractmethod
    def encode(self, frames: Tensor) -> Tensor:
        """Encode clips.

        Args:
            frames: (B, 3, 1 + 4n, H, W) float in [-1, 1].

        Returns:
            (B, C, 1 + n, h, w) float, each channel about zero mean and unit variance over the data.

        Raises:
            UserError: Another number of frames, or sides that are no multiples of the spatial stride.
        """

    @abstractmethod
    def decode(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """Decode clips.

        Args:
            latents: (B, C, 1 + n, h, w) float.
            reference: (B, 3, H, W) float in [-1, 1], each episode's first frame. Only looked at where `uses_reference`
                is true; there, without it, the clip's own first frame, decoded, takes its place.

        Returns:
            (B, 3, 1 + 4n, H, W) float in [-1, 1].

        Raises:
            UserError: Latents of another autoencoder.
        """

    def encode_first(self, frame: Tensor) -> Tensor:
        """Encode a clip's first frame: (B, 3, H, W) float in [-1, 1] -> (B, C, h, w). Groupwise only.

        Raises:
            UserError: The autoencoder is not groupwise.
        """
        raise self._not_groupwise("encode_first")

    def encode_group(self, frames: Tensor) -> Tensor:
        """Encode one group of four: (B, 3, 4, H, W) float in [-1, 1] -> (B, C, h, w). Groupwise only.

        Raises:
            UserError: The autoencoder is not groupwise, or as `encode`.
        """
        raise self._not_groupwise("encode_group")

    def decode_group(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """Decode one group of four. Groupwise only.

        Args:
            latents: (B, C, h, w) float.
            reference: (B, 3, H, W) float in [-1, 1] or None; see `decode`.

        Returns:
            (B, 3, 4, H, W) float in [-1, 1].

        Raises:
            UserError: The autoencoder is not groupwise, or as `decode`.
        """
        raise self._not_groupwise("decode_group")

    def forward(self, frames: Tensor, reference: Tensor | None = None) -> Tensor:
        """Encode and decode: (B, 3, 1 + 4n, H, W) -> the same shape."""
        return self.decode(self.encode(frames), reference)

    def latent_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) for images of (H, W).

        Raises:
            UserError: The sides are no multiples of the spatial stride.
        """
        height, width = image_size
        if height % self.spatial_stride or width % self.spatial_stride or height < 1 or width < 1:
            raise UserError(
                f"images are {height} x {width}, {type(self).__name__} takes sides that are multiples of"
                f" {self.spatial_stride}",
                "choose another image size or an autoencoder with another stride",
            )
        return height // self.spatial_stride, width // self.spatial_stride

    def check_frames(self, frames: Tensor) -> None:
        """Check clips that are to be encoded: (B, 3, 1 + 4n, H, W).

        Raises:
            UserError: Another number of frames, or sides that are no multiples of the spatial stride.
        """
        if frames.ndim != 5 or frames.shape[1] != 3:
            raise ValueError(f"frames have shape {tuple(frames.shape)}, (B, 3, L, H, W) was expected")
        if frames.shape[2] % self.frames_per_latent != 1:
            below = max(0, frames.shape[2] - 1) // self.frames_per_latent * self.frames_per_latent + 1
            raise UserError(
                f"a clip of {frames.shape[2]} frames: {type(self).__name__} takes a first frame and groups of"
                f" {self.frames_per_latent} after it",
                f"use {below} or {below + self.frames_per_latent} frames",
            )
        self.latent_size((frames.shape[3], frames.shape[4]))

    def check_latents(self, latents: Tensor) -> None:
        """Check latents that are to be decoded: (B, C, ...).

        Raises:
            UserError: They have another number of channels.
        """
        if latents.shape[1] != self.latent_channels:
            raise UserError(
                f"latents have {latents.shape[1]} channels, this {type(self).__name__} makes {self.latent_channels}",
                "use the autoencoder that made them",
            )

    def _not_groupwise(self, method: str) -> UserError:
        return UserError(
            f"{type(self).__name__} has no {method}: its latent frames depend on earlier frames",
            "encode and decode whole clips, or use a groupwise autoencoder (PatchAutoencoder, GroupedAutoencoder)",
        )


class GroupwiseAutoencoder(Autoencoder):
    """An autoencoder that sees one group of four frames at a time; a first frame is a group of four equal frames.

    A subclass implements `encode_group` and `decode_group`.
    """

    groupwise = True
    worth_caching = True

    def encode(self, frames: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        self.check_frames(frames)
        copies = frames[:, :, :1].expand(-1, -1, self.frames_per_latent - 1, -1, -1)
        padded = torch.cat([copies, frames], dim=2)  # (B, 3, 4 * (1 + n), H, W)
        groups = torch.unflatten(padded, 2, (-1, self.frames_per_latent))  # (B, 3, 1 + n, 4, H, W)
        latents = self.encode_group(groups.transpose(1, 2).flatten(0, 1))  # (B * (1 + n), C, h, w)
        return torch.unflatten(latents, 0, (len(frames), -1)).transpose(1, 2)  # (B, C, 1 + n, h, w)

    def decode(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """See `Autoencoder.decode`."""
        first = self.decode_group(latents[:, :, 0], reference)[:, :, -1]  # (B, 3, H, W)
        num_groups = latents.shape[2] - 1
        if num_groups == 0:
            return first[:, :, None]
        seen = first if reference is None else reference
        groups = self.decode_group(
            latents[:, :, 1:].transpose(1, 2).flatten(0, 1), seen.repeat_interleave(num_groups, dim=0)
        )  # (B * n, 3, 4, H, W)
        frames = torch.unflatten(groups, 0, (len(latents), -1)).transpose(1, 2).flatten(2, 3)  # (B, 3, 4n, H, W)
        return torch.cat([first[:, :, None], frames], dim=2)

    def encode_first(self, frame: Tensor) -> Tensor:
        """See `Autoencoder.encode_first`."""
        return self.encode_group(frame[:, :, None].expand(-1, -1, self.frames_per_latent, -1, -1))

    def check_group(self, frames: Tensor) -> None:
        """Check groups that are to be encoded: (B, 3, 4, H, W).

        Raises:
            UserError: Sides that are no multiples of the spatial stride.
        """
        if frames.ndim != 5 or frames.shape[1:3] != (3, self.frames_per_latent):
            raise ValueError(f"a group has shape {tuple(frames.shape)}, (B, 3, 4, H, W) was expected")
        self.latent_size((frames.shape[3], frames.shape[4]))


_LEAST_STD = 1e-2  # of a latent channel: one that is constant in training must not be blown up when it is not, later


class LatentNorm(nn.Module):
    """Makes each latent channel about zero mean and unit variance, with statistics that travel with the weights.

    Args:
        channels: Latent channels, C.
        horizon: Batches that the running statistics of training look back over, about.
    """

    mean: Tensor
    std: Tensor
    batches: Tensor

    def __init__(self, channels: int, horizon: int = 100) -> None:
        super().__init__()
        self.horizon = horizon
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def normalise(self, latents: Tensor) -> Tensor:
        """(B, C, ...) as the network makes them -> (B, C, ...) normalised; float32 unless the statistics are not."""
        return (latents - self._fit(self.mean, latents)) / self._fit(self.std, latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`, of the same dtype."""
        return latents * self._fit(self.std, latents) + self._fit(self.mean, latents)

    @torch.no_grad()
    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take known statistics, (C,) each; later batches move them slowly."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.batches.fill_(self.horizon)

    @torch.no_grad()
    def update(self, latents: Tensor) -> None:
        """Let a batch into the running statistics: the mean over the batches so far, then a moving average.

        Args:
            latents: (B, C, ...) as the network makes them, before `normalise`.
        """
        values = latents.detach().float().transpose(0, 1).flatten(1)  # (C, numbers)
        self.batches += 1
        weight = 1 / self.batches.clamp(max=self.horizon)
        change = values.mean(1) - self.mean
        # Variance about the moving mean, of which the first batch knows nothing yet.
        variance = torch.where(self.batches == 1, 0.0, self.std**2 + weight * change**2) * (1 - weight)
        self.mean += weight * change
        self.std.copy_((variance + weight * values.var(1, correction=0)).sqrt().clamp(min=_LEAST_STD))

    @staticmethod
    def _fit(numbers: Tensor, latents: Tensor) -> Tensor:
        # A copy: autograd keeps it until the backward pass, which may come after the next `update`.
        return numbers.clone().view(-1, *(1,) * (latents.ndim - 2))
