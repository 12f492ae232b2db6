"""What a backbone's answer is read as, where it is more than the latents themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from wovr.models.autoencoders.patch import PatchAutoencoder

COPY_BIAS = 3.0
"""Logit of "copy the last frame" where the backbone answers 0: 91 % of each pixel come from there at the start."""


def copy_head_channels(autoencoder: PatchAutoencoder, reference: bool) -> int:
    """Channels of a backbone's answer beyond the colours: one logit for each pixel of the group and source."""
    frames, rows, columns, _ = autoencoder.channel_shape
    return (2 if reference else 1) * frames * rows * columns


def copy_head(answer: Tensor, last: Tensor, reference: Tensor | None, autoencoder: PatchAutoencoder) -> Tensor:
    """Blend a generated colour, the last memory frame and the reference frame, pixel by pixel.

    Most of a picture stands still: what is copied need not be generated, and does not blur. An answer of 0 is (nearly)
    the last memory frame.

    Args:
        answer: (B, C + sources * 4 * p * p, n, h, w) float: colours, then logits of the last frame, then of the
            reference.
        last: (B, C, h, w) float, latent frame whose last frame is copied.
        reference: (B, C, h, w) float, latent of the reference frame; None to blend without it.
        autoencoder: Says how channels are laid out.

    Returns:
        (B, C, n, h, w) float32.
    """
    shape = autoencoder.channel_shape  # (4, p, p, 3)
    colours, logits = torch.split(answer.float(), [last.shape[1], answer.shape[1] - last.shape[1]], dim=1)
    generated = torch.unflatten(colours, 1, shape)  # (B, 4, p, p, 3, n, h, w)
    logits = torch.unflatten(logits, 1, (-1, *shape[:3], 1))  # (B, sources, 4, p, p, 1, n, h, w)
    logits = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1] + COPY_BIAS, logits[:, 1:]], dim=1)
    weight = logits.softmax(dim=1).unbind(1)
    sources = [last] if reference is None else [last, reference]
    blend = weight[0] * generated
    for share, source in zip(weight[1:], sources, strict=True):
        frame = torch.unflatten(source.float(), 1, shape)[:, -1:, ..., None, :, :]  # (B, 1, p, p, 3, 1, h, w)
        blend = blend + share * frame
    return blend.flatten(1, 4)  # (B, C, n, h, w)
