"""What a backbone's answer is read as, where it is more than the latents themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.world_model.autoencoders.base import Autoencoder
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder

COPY_BIAS = 3.0
"""Logit of "copy the last frame" where the backbone answers 0: 91 % of each pixel come from there at the start."""


class CopyHead(nn.Module):
    """Blends a generated colour, the last memory frame and the reference frame, pixel by pixel.

    Most of a picture stands still: what is copied need not be generated, and does not blur. An answer of 0 is (nearly)
    the last memory frame.

    Args:
        autoencoder: Says how channels are laid out: (4, p, p, 3) for frame, row, column, colour.
        reference: Blend the reference frame in too.
        hidden: Channels of the backbone's answer, from which a layer of the head's own makes colours and logits; null
            where the answer is those. Linear in a token, a backbone draws blurred what moves by fractions of a patch.

    Attributes:
        channels: Channels that the backbone has to answer with.
    """

    def __init__(self, autoencoder: PatchAutoencoder, reference: bool, hidden: int | None = None) -> None:
        super().__init__()
        self.channel_shape = autoencoder.channel_shape
        self.reference = reference
        frames, rows, columns, _ = self.channel_shape
        self.logits = (2 if reference else 1) * frames * rows * columns
        needed = autoencoder.latent_channels + self.logits
        self.channels = needed if hidden is None else hidden
        # Not zero, where the backbone's last layer is: one of the two has to let the gradient through.
        self.layer = None if hidden is None else nn.Linear(hidden, needed)
        if self.layer is not None:
            nn.init.normal_(self.layer.weight, std=0.02)
            nn.init.zeros_(self.layer.bias)

    def forward(self, answer: Tensor, reference: Tensor, last: Tensor) -> Tensor:
        """Blend.

        Args:
            answer: (B, channels, n, h, w) float: colours, logits of the last frame, logits of the reference; or what
                they are made from.
            reference: (B, C, h, w) float, latent of the reference frame; not looked at by a head without it.
            last: (B, C, h, w) float, latent frame whose last frame is copied.

        Returns:
            (B, C, n, h, w) float32.
        """
        if self.layer is not None:
            # Contiguous: a product with a strided matrix is broken up into many small ones on a CPU.
            answer = self.layer(nn.functional.silu(answer).movedim(1, -1).contiguous()).movedim(-1, 1)
        colours, logits = torch.split(answer.float(), [last.shape[1], self.logits], dim=1)
        generated = torch.unflatten(colours, 1, self.channel_shape)  # (B, 4, p, p, 3, n, h, w)
        logits = torch.unflatten(logits, 1, (-1, *self.channel_shape[:3], 1))  # (B, sources, 4, p, p, 1, n, h, w)
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1] + COPY_BIAS, logits[:, 1:]], dim=1)
        weight = logits.softmax(dim=1).unbind(1)
        blend = weight[0] * generated
        for share, source in zip(weight[1:], [last, reference] if self.reference else [last], strict=True):
            frame = torch.unflatten(source.float(), 1, self.channel_shape)[:, -1:, ..., None, :, :]
            blend = torch.addcmul(blend, share, frame)  # frame: (B, 1, p, p, 3, 1, h, w)
        return blend.flatten(1, 4)  # (B, C, n, h, w)


def make_copy_head(autoencoder: Autoencoder, prediction: str, reference: bool, hidden: int | None) -> CopyHead:
    """The head `copy` of a world model, see the arguments there.

    Raises:
        UserError: It cannot be had with the rest.
    """
    if prediction != "data" or not isinstance(autoencoder, PatchAutoencoder):
        raise UserError(
            f"head copy with prediction {prediction} and {type(autoencoder).__name__}",
            "it blends pixels: use prediction data and PatchAutoencoder, or head linear",
        )
    return CopyHead(autoencoder, reference, hidden)
