"""The small trainable autoencoder: 2D convolutions over groups of four frames, fast on a CPU.

Four frames of a patch become channels (space-to-depth), so time costs nothing, and every group has a latent of its own.
Two things make it good within minutes. A linear path from pixels to latents and back starts as the principal
components of the data (`fit_linear_path`), and the convolutions only learn what it misses. And the decoder sees the
episode's first frame, and decides for every pixel how much of it to copy: what has not moved costs no latent numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from wovr.errors import UserError
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, GroupwiseAutoencoder, LatentNorm

COLOURS = 3 * FRAMES_PER_LATENT
"""Numbers of a pixel in a group of frames."""

NORM_GROUPS = 8


class ResidualBlock(nn.Module):
    """x + f(x): group norm, SiLU, 3 x 3 convolution, SiLU, 3 x 3 convolution.

    Args:
        width: Channels in and out; a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            _small(nn.Conv2d(width, width, 3, padding=1), 0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        return x + self.layers(x)


class GroupedAutoencoder(GroupwiseAutoencoder):
    """Space-to-depth, then residual 2D convolutions on ever coarser grids; the decoder mirrors the encoder.

    Args:
        latent_channels: Numbers in one place of a latent frame, C.
        patch: Side, in pixels, of the patches that space-to-depth makes.
        widths: Channels on each grid, the finest first, multiples of 8. Each grid after the first halves the sides, so
            the spatial stride is patch * 2 ** (len(widths) - 1).
        blocks: Residual blocks on each grid.
        decoder_reference: The decoder sees the episode's first frame and may copy its pixels.

    Raises:
        UserError: A number that makes no network.
    """

    def __init__(
        self,
        latent_channels: int = 48,
        patch: int = 4,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        decoder_reference: bool = True,
    ) -> None:
        if min(latent_channels, patch, blocks) < 1:
            raise UserError(
                f"latent_channels is {latent_channels}, patch {patch}, blocks {blocks}", "give numbers above 0"
            )
        if not widths or any(width < NORM_GROUPS or width % NORM_GROUPS for width in widths):
            raise UserError(f"widths is {list(widths)}", f"give at least one number, all multiples of {NORM_GROUPS}")
        super().__init__(patch * 2 ** (len(widths) - 1), latent_channels)
        self.patch = patch
        self.uses_reference = decoder_reference
        out_channels = COLOURS + FRAMES_PER_LATENT * decoder_reference  # colours, and how much to copy in each frame
        stride, fine, coarse = self.spatial_stride, widths[0], widths[-1]

        encoder: list[nn.Module] = [nn.Conv2d(COLOURS * patch**2, fine, 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                encoder += [nn.PixelUnshuffle(2), nn.Conv2d(4 * widths[level - 1], width, 1)]
            encoder += [ResidualBlock(width) for _ in range(blocks)]
        encoder += [nn.GroupNorm(NORM_GROUPS, coarse), nn.SiLU(), _small(nn.Conv2d(coarse, latent_channels, 1), 0.1)]
        self.encoder = nn.Sequential(*encoder)
        self.linear_in = nn.Conv2d(COLOURS * stride**2, latent_channels, 1)
        self.latent_norm = LatentNorm(latent_channels)

        decoder: list[nn.Module] = [nn.Conv2d(latent_channels, coarse, 3, padding=1)]
        for level in reversed(range(len(widths))):
            decoder += [ResidualBlock(widths[level]) for _ in range(blocks)]
            if level:
                decoder += [nn.Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*decoder)
        if decoder_reference:
            self.reference_in = nn.Conv2d(3 * patch**2, fine, 3, padding=1)
            self.reference_block = ResidualBlock(fine)
        self.head = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, fine),
            nn.SiLU(),
            _small(nn.Conv2d(fine, out_channels * patch**2, 3, padding=1), 0.1),
        )
        self.linear_out = nn.Conv2d(latent_channels, COLOURS * stride**2, 1)
        self.to(memory_format=torch.channels_last)

    def encode_group(self, frames: Tensor) -> Tensor:
        """See `Autoencoder.encode_group`."""
        self.check_group(frames)
        x = frames.flatten(1, 2).to(self.linear_in.weight.dtype)  # (B, 12, H, W)
        latents = self.encoder(_to_depth(x, self.patch)) + self.linear_in(_to_depth(x, self.spatial_stride))
        return self.latent_norm.normalise(latents)

    def decode_group(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """See `Autoencoder.decode_group`; clipped to [-1, 1] in evaluation mode only."""
        self.check_latents(latents)
        latents = self.latent_norm.denormalise(latents).to(self.linear_out.weight.dtype)
        latents = latents.contiguous(memory_format=torch.channels_last)
        x = self.decoder(latents)
        seen = reference if self.uses_reference else None
        if seen is not None:
            seen = seen.to(latents.dtype)
            x = self.reference_block(x + self.reference_in(_to_depth(seen, self.patch)))
        pixels = pixel_shuffle(self.head(x), self.patch)  # (B, 12 or 16, H, W)
        colours = pixels[:, :COLOURS] + pixel_shuffle(self.linear_out(latents), self.spatial_stride)
        frames = torch.unflatten(colours, 1, (3, FRAMES_PER_LATENT))  # (B, 3, 4, H, W)
        if seen is not None:
            copy = pixels[:, None, COLOURS:].sigmoid()  # (B, 1, 4, H, W)
            frames = torch.lerp(frames, seen[:, :, None].to(frames.dtype), copy)
        return frames if self.training else frames.clamp(-1, 1)

    @torch.no_grad()
    def fit_linear_path(self, frames: Tensor) -> None:
        """Start the linear path as the principal components of the data: of patches of the spatial stride.

        The latents are whitened, and reconstruct as well as C linear numbers of a patch can.

        Args:
            frames: (N, 3, 4, H, W) float in [-1, 1], some groups of the data.

        Raises:
            UserError: Sides that are no multiples of the spatial stride.
        """
        self.check_group(frames)
        patches = pixel_unshuffle(frames.flatten(1, 2), self.spatial_stride)  # (N, D, h, w), D = 12 * stride ** 2
        patches = patches.movedim(1, 3).flatten(0, 2).double()  # (N * h * w, D)
        mean = patches.mean(0)
        patches = patches - mean
        variance, directions = torch.linalg.eigh(patches.T @ patches / len(patches))  # ascending
        count = min(self.latent_channels, len(mean))
        directions = directions[:, -count:].flip(1)  # (D, count)
        # A direction without variance (a scene that never moves) is not blown up beyond what a grey level is.
        scale = variance[-count:].flip(0).clamp(min=0).sqrt().clamp(min=1 / 127.5)  # (count,)
        for parameter in (*self.linear_in.parameters(), *self.linear_out.parameters()):
            parameter.zero_()
        into = (directions / scale).T  # (count, D)
        self.linear_in.weight[:count] = into[:, :, None, None].to(self.linear_in.weight)
        self.linear_in.get_parameter("bias")[:count] = -(into @ mean).to(self.linear_in.weight)
        self.linear_out.weight[:, :count] = (directions * scale)[:, :, None, None].to(self.linear_out.weight)
        self.linear_out.get_parameter("bias").copy_(mean)


def _to_depth(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, C * patch ** 2, H / patch, W / patch), channels last in memory."""
    return pixel_unshuffle(x, patch).contiguous(memory_format=torch.channels_last)


def _small(layer: nn.Conv2d, factor: float) -> nn.Conv2d:
    """The layer with smaller weights and no bias to begin with: what it adds to starts almost alone."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.get_parameter("bias").zero_()
    return layer
