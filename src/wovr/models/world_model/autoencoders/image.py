"""An autoencoder of pictures (diffusers' `AutoencoderKL`): every frame on its own, as WMPO and EVAC have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from wovr.errors import UserError, check_least
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, GroupwiseAutoencoder, LatentNorm
from wovr.models.world_model.autoencoders.pretrained import read_pretrained

NETWORK: Any = AutoencoderKL
"""diffusers' class, whose annotations mypy cannot follow."""


SDXL_HUB = "stabilityai/stable-diffusion-xl-base-1.0"
"""A pipeline on the hub whose autoencoder WMPO uses."""


class ImageAutoencoder(GroupwiseAutoencoder):
    """`AutoencoderKL`, deterministic: latents are the means of the posterior, normalised.

    The latents of a group's four frames stand side by side in the channels, those of the first frame first. The default
    arguments are the shape of Stable Diffusion XL (84 M parameters, stride 8, 4 channels a frame), whose weights come
    through `pretrained_image`.

    Args:
        channels: Latent channels of a frame; C is four times as many.
        widths: Channels on each grid, the finest first; each grid after the first halves the sides.
        blocks: Residual blocks on each grid.
        norm_groups: Of the group norms; divides all widths.

    Raises:
        UserError: A shape that the network cannot have.
    """

    def __init__(
        self,
        channels: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        blocks: int = 2,
        norm_groups: int = 32,
    ) -> None:
        for name, count in {"channels": channels, "blocks": blocks, "norm_groups": norm_groups}.items():
            check_least(name, count)
        if not widths or any(width < 1 or width % norm_groups for width in widths):
            raise UserError(f"widths is {list(widths)}", f"give at least one number, all multiples of {norm_groups}")
        super().__init__(2 ** (len(widths) - 1), FRAMES_PER_LATENT * channels)
        self.vae: Any = NETWORK(
            down_block_types=["DownEncoderBlock2D"] * len(widths),
            up_block_types=["UpDecoderBlock2D"] * len(widths),
            block_out_channels=list(widths),
            layers_per_block=blocks,
            latent_channels=channels,
            norm_num_groups=norm_groups,
        )
        self.latent_norm = LatentNorm(FRAMES_PER_LATENT * channels)

    def encode_group(self, frames: Tensor) -> Tensor:
        """See `Autoencoder.encode_group`."""
        self.check_group(frames)
        latents = self._encode_pictures(frames.transpose(1, 2).flatten(0, 1))  # (B * 4, channels, h, w)
        return self.latent_norm.normalise(latents.unflatten(0, (-1, FRAMES_PER_LATENT)).flatten(1, 2))

    def encode_first(self, frame: Tensor) -> Tensor:
        """See `Autoencoder.encode_first`: the one frame's latent four times."""
        self.latent_size((frame.shape[2], frame.shape[3]))
        return self.latent_norm.normalise(self._encode_pictures(frame).repeat(1, FRAMES_PER_LATENT, 1, 1))

    def decode_group(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """See `Autoencoder.decode_group`; clipped to [-1, 1] in evaluation mode only."""
        self.check_latents(latents)
        latents = self.latent_norm.denormalise(latents).to(self.vae.dtype)
        of_frames = latents.unflatten(1, (FRAMES_PER_LATENT, -1)).flatten(0, 1)  # (B * 4, channels, h, w)
        pictures = self.vae.decode(of_frames, return_dict=False)[0]
        frames = pictures.unflatten(0, (-1, FRAMES_PER_LATENT)).transpose(1, 2)  # (B, 3, 4, H, W)
        return frames if self.training else frames.clamp(-1, 1)

    def _encode_pictures(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(pictures.to(self.vae.dtype), return_dict=False)[0].mode()


def pretrained_image(source: str = SDXL_HUB) -> ImageAutoencoder:
    """Released weights of an `AutoencoderKL`, with the scale that was published with them.

    In a YAML it stands where a class would: `class_path: wovr.models.world_model.autoencoders.image.pretrained_image`.

    Args:
        source: A local folder in diffusers' layout (the autoencoder's own, or a pipeline's with a folder `vae`), or the
            name of a pipeline on the hub, which needs a network or an earlier download.

    Returns:
        The autoencoder on the CPU, in evaluation mode, float32.

    Raises:
        UserError: Nothing there, something else there, or no network.
    """
    vae = read_pretrained(NETWORK, source, SDXL_HUB)
    config = vae.config
    with torch.device("meta"):
        autoencoder = ImageAutoencoder(
            channels=config["latent_channels"],
            widths=list(config["block_out_channels"]),
            blocks=config["layers_per_block"],
            norm_groups=config["norm_num_groups"],
        )
    made = {name: weight.shape for name, weight in autoencoder.vae.state_dict().items()}
    if made != {name: weight.shape for name, weight in vae.state_dict().items()}:
        raise UserError(f"{source}: an AutoencoderKL of another kind than Stable Diffusion's", "use that of SD or SDXL")
    autoencoder.vae = vae
    autoencoder.latent_norm = LatentNorm(autoencoder.latent_channels)
    spread = torch.full((autoencoder.latent_channels,), 1 / config["scaling_factor"])
    autoencoder.latent_norm.set(torch.zeros_like(spread), spread)
    return autoencoder.eval()
