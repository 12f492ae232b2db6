"""Wan's causal video autoencoder (diffusers' `AutoencoderKLWan`) at any size; the paper's is that of Wan 2.2.

Its convolutions look back in time, so a clip's latents are made together. As in the authors' code the reference frame
and the memory are encoded as if they were neighbours, which they are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wovr.errors import UserError
from wovr.models.world_model.autoencoders.base import Autoencoder, LatentNorm
from wovr.models.world_model.autoencoders.pretrained import read_pretrained

NETWORK: Any = AutoencoderKLWan
"""diffusers' class, whose annotations mypy cannot follow."""

WAN22_HUB = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
"""The released Wan 2.2 on the hub, in diffusers' layout."""


class WanAutoencoder(Autoencoder):
    """`AutoencoderKLWan`, deterministic: latents are the means of the posterior, normalised.

    Fed 4n + 1 frames only: given 12 the network below would silently return 9. The default arguments are the shape of
    Wan 2.2 (705 M parameters, stride 16, 48 channels); its released weights come through `pretrained_wan`.

    Args:
        base_dim: Channels of the encoder's finest grid.
        decoder_base_dim: Channels of the decoder's finest grid; None for `base_dim`.
        z_dim: Latent channels, C.
        dim_mult: Width of each grid as a multiple of `base_dim`; each grid after the first halves the sides. With
            `is_residual` the last two must be equal.
        num_res_blocks: Residual blocks on each grid.
        temporal_downsample: After which grids time is halved too; one less than `dim_mult`, exactly two of them true.
        is_residual: Average pooling around the down- and upsampling, as in 2.2.
        patch_size: Space-to-depth in front of the network, as in 2.2; None for none, as in 2.1.

    Raises:
        UserError: A shape that the network cannot have.
    """

    def __init__(
        self,
        base_dim: int = 160,
        decoder_base_dim: int | None = 256,
        z_dim: int = 48,
        dim_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        temporal_downsample: Sequence[bool] = (False, True, True),
        is_residual: bool = True,
        patch_size: int | None = 2,
    ) -> None:
        if len(temporal_downsample) != len(dim_mult) - 1 or sum(map(bool, temporal_downsample)) != 2:
            raise UserError(
                f"temporal_downsample is {list(temporal_downsample)} for {len(dim_mult)} numbers in dim_mult",
                f"give {len(dim_mult) - 1} values of which two are true: four frames make a latent frame",
            )
        if is_residual and dim_mult[-1] != dim_mult[-2]:
            raise UserError(
                f"dim_mult is {list(dim_mult)} with is_residual", "make its last two numbers equal, e.g. [1, 2, 4, 4]"
            )
        stride = 2 ** (len(dim_mult) - 1) * (patch_size or 1)
        super().__init__(stride, z_dim)
        colours = 3 * (patch_size or 1) ** 2
        self.vae: Any = NETWORK(
            base_dim=base_dim,
            decoder_base_dim=decoder_base_dim,
            z_dim=z_dim,
            dim_mult=list(dim_mult),
            num_res_blocks=num_res_blocks,
            temperal_downsample=list(temporal_downsample),
            # Ours, below, are what counts; diffusers' default has 16 numbers whatever z_dim is.
            latents_mean=[0.0] * z_dim,
            latents_std=[1.0] * z_dim,
            is_residual=is_residual,
            in_channels=colours,
            out_channels=colours,
            patch_size=patch_size,
            scale_factor_spatial=stride,
        )
        self.latent_norm = LatentNorm(z_dim)

    def encode(self, frames: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        self.check_frames(frames)
        posterior = self.vae.encode(frames.to(self.vae.dtype), return_dict=False)[0]
        return self.latent_norm.normalise(posterior.mode())

    def decode(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """See `Autoencoder.decode`."""
        self.check_latents(latents)
        return self.vae.decode(self.latent_norm.denormalise(latents).to(self.vae.dtype), return_dict=False)[0]


def pretrained_wan(source: str = WAN22_HUB) -> WanAutoencoder:
    """Released weights, with the latent statistics that were published with them.

    In a YAML it stands where a class would: `class_path: wovr.models.world_model.autoencoders.wan.pretrained_wan`.

    Args:
        source: A local folder in diffusers' layout (the autoencoder's own, or a pipeline's with a folder `vae`), or the
            name of a pipeline on the hub, which needs a network or an earlier download.

    Returns:
        The autoencoder on the CPU, in evaluation mode, float32. Its arguments are numbers only,
        so checkpoints that hold it need the source no more.

    Raises:
        UserError: Nothing there, something else there, or no network.
    """
    return _wrap(read_pretrained(NETWORK, source, WAN22_HUB), source).eval()


def _wrap(vae: Any, source: str) -> WanAutoencoder:
    """A WanAutoencoder of the same arguments around loaded weights.

    Raises:
        UserError: The network's stride is not that of its configuration, or its statistics are incomplete.
    """
    config: Mapping[str, Any] = vae.config
    with torch.device("meta"):
        autoencoder = WanAutoencoder(
            base_dim=config["base_dim"],
            decoder_base_dim=config["decoder_base_dim"],
            z_dim=config["z_dim"],
            dim_mult=config["dim_mult"],
            num_res_blocks=config["num_res_blocks"],
            temporal_downsample=config["temperal_downsample"],
            is_residual=config["is_residual"],
            patch_size=config["patch_size"],
        )
    mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    if mean.shape != (autoencoder.latent_channels,) or std.shape != mean.shape or not (std > 0).all():
        raise UserError(
            f"{source}: config.json: latents_mean and latents_std are not {autoencoder.latent_channels} numbers each",
            "use the files of one release",
        )
    autoencoder.vae = vae
    autoencoder.latent_norm = LatentNorm(autoencoder.latent_channels)
    autoencoder.latent_norm.set(mean, std)
    return autoencoder
