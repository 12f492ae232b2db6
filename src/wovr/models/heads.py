"""What a backbone's answer is read as, where it is more than the latents themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wovr.models.autoencoders.patch import PatchAutoencoder

COPY_BIAS = 3.0
"""Logit of "copy the last frame" where the backbone answers 0: 91 % of each pixel come from there at the start."""


class CopyHead(nn.Module):
    """Blends a generated colour, the last memory frame and the reference frame, pixel by pixel. It has no weights.

    Most of a picture stands still: what is copied need not be generated, and does not blur. An answer of 0 is (nearly)
    the last memory frame.

    Args:
        autoencoder: Says how channels are laid out: (4, p, p, 3) for frame, row, column, colour.
        reference: Blend the reference frame in too.

    Attributes:
        extra_channels: Channels of a backbone's answer beyond the colours: one logit for each pixel and source.
    """

    def __init__(self, autoencoder: PatchAutoencoder, reference: bool) -> None:
        super().__init__()
        self.channel_shape = autoencoder.channel_shape
        self.reference = reference
        frames, rows, columns, _ = self.channel_shape
        self.extra_channels = (2 if reference else 1) * frames * rows * columns

    def forward(self, answer: Tensor, reference: Tensor, last: Tensor) -> Tensor:
        """Blend.

        Args:
            answer: (B, C + extra_channels, n, h, w) float: colours, logits of the last frame, logits of the reference.
            reference: (B, C, h, w) float, latent of the reference frame; not looked at by a head without it.
            last: (B, C, h, w) float, latent frame whose last frame is copied.

        Returns:
            (B, C, n, h, w) float32.
        """
        colours, logits = torch.split(answer.float(), [last.shape[1], self.extra_channels], dim=1)
        generated = torch.unflatten(colours, 1, self.channel_shape)  # (B, 4, p, p, 3, n, h, w)
        logits = torch.unflatten(logits, 1, (-1, *self.channel_shape[:3], 1))  # (B, sources, 4, p, p, 1, n, h, w)
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1] + COPY_BIAS, logits[:, 1:]], dim=1)
        weight = logits.softmax(dim=1).unbind(1)
        blend = weight[0] * generated
        for share, source in zip(weight[1:], [last, reference] if self.reference else [last], strict=True):
            frame = torch.unflatten(source.float(), 1, self.channel_shape)[:, -1:, ..., None, :, :]
            blend = torch.addcmul(blend, share, frame)  # frame: (B, 1, p, p, 3, 1, h, w)
        return blend.flatten(1, 4)  # (B, C, n, h, w)
