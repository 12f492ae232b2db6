"""No autoencoder at all: the pixels themselves, four frames of a patch to one place of a latent frame.

Large-patch transformers that predict clean data work on pixels directly; what would be an autoencoder's blur is then
the world model's own to avoid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, GroupwiseAutoencoder


class PatchAutoencoder(GroupwiseAutoencoder):
    """Space-to-depth of four frames: `decode_group(encode_group(x))` is x, bit for bit. It has no weights.

    The channels are (frame of the group, row in the patch, column in the patch, colour), the last running fastest, and
    hold pixels in [-1, 1] as they are. Latents of this are as large as the frames, so nothing is won by caching them.

    Args:
        patch: Side of a patch in pixels; the spatial stride.
    """

    worth_caching = False

    def __init__(self, patch: int = 8) -> None:
        if patch < 1:
            raise UserError(f"patch is {patch}", "give a number of pixels above 0")
        super().__init__(patch, FRAMES_PER_LATENT * patch * patch * 3)
        self.patch = patch

    @property
    def channel_shape(self) -> tuple[int, int, int, int]:
        """(4, patch, patch, 3): what the channels unflatten to."""
        return FRAMES_PER_LATENT, self.patch, self.patch, 3

    def encode_group(self, frames: Tensor) -> Tensor:
        """See `Autoencoder.encode_group`."""
        self.check_group(frames)
        rows = torch.unflatten(frames, 3, (-1, self.patch))
        x = torch.unflatten(rows, 5, (-1, self.patch))  # (B, 3, 4, h, p, w, p)
        return x.permute(0, 2, 4, 6, 1, 3, 5).flatten(1, 4)  # (B, 4 * p * p * 3, h, w)

    def decode_group(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        """See `Autoencoder.decode_group`; clipped to [-1, 1] in evaluation mode only."""
        self.check_latents(latents)
        x = torch.unflatten(latents, 1, self.channel_shape)  # (B, 4, p, p, 3, h, w)
        frames = x.permute(0, 4, 1, 5, 2, 6, 3).flatten(5, 6).flatten(3, 4)  # (B, 3, 4, H, W)
        return frames if self.training else frames.clamp(-1, 1)
