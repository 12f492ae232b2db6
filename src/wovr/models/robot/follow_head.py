"""A head that follows the robot's hand: pixels copied from where the hand was to where it is going to be.

The hand and what it holds cover few pixels and carry all that matters. A robot model says where in the picture the hand
will be, so most of what moves can be copied from the last frame, shifted and scaled, and what is drawn anew is drawn
relative to the hand: the same weights draw it wherever it is. What the hand hid, and no picture shows, is mostly what
the picture shows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.heads import COPY_BIAS

COARSE = torch.linspace(-2.5, 2.5, 11)
"""Offsets of a patch from the hand, in patches, that a grid of bumps stands on."""

FINE = torch.linspace(-3.5, 3.5, 29)
"""Offsets that rows and columns are told apart by."""

COARSE_WIDTH, FINE_WIDTH = 0.45, 0.225
"""Standard deviations of the bumps, in patches."""

OFFSETS = len(COARSE) ** 2 + 2 * len(FINE)
"""Features of an offset."""

KEYS = 16
"""Features of a pixel's own colours, which vote for what it is copied from."""

ASIDE = 3
"""Pixels to the right and to the left of a finger, about its width: what is there is mostly what it hides."""

FOLLOW_BIAS = 1.0
"""Logit of "copy what followed the hand" where the head says nothing yet; copying in place has COPY_BIAS."""


@dataclass
class HandCues:
    """Where the hand was and is going to be, as the head needs it; K new frames, h x w patches of p x p pixels.

    Attributes:
        offsets: (B, 1 + K, h, w, OFFSETS) float32, of every patch from the hand, at the last memory frame and after.
        states: (B, 1 + K, P) float32, normalised proprioception.
        followed: (B, K, h, w, p, p, 3) float32, the last memory frame, moved along with the hand.
    """

    offsets: Tensor
    states: Tensor
    followed: Tensor


class FollowHead(nn.Module):
    """Blends generated colours, the last memory frame, the same moved with the hand and moved aside, and the reference.

    One perceptron makes colours and weights of every patch of every frame from the backbone's features, the hand's
    offset and the patches it blends. A second one, for every pixel, adds to the weights what the pixel's colours in the
    sources say, in features that the first scales and shifts: "the red thing has left" is one number for a patch, and
    its outline in every patch comes from the picture.

    Args:
        autoencoder: Says how channels are laid out: (4, p, p, 3) for frame, row, column, colour.
        reference: Blend the reference frame in too.
        proprio_dim: Numbers of the proprioception, P.
        hidden: Units of the perceptron.
        features: Features of each frame that the backbone answers with.

    Attributes:
        channels: Channels that the backbone has to answer with.
        channels_beside: Channels of `cue_channels`.
    """

    bias: Tensor
    coarse: Tensor
    fine: Tensor

    def __init__(
        self, autoencoder: PatchAutoencoder, reference: bool, proprio_dim: int, hidden: int, features: int = 96
    ) -> None:
        super().__init__()
        self.channel_shape = autoencoder.channel_shape
        self.patch, self.reference, self.features = autoencoder.patch, reference, features
        self.pixels = self.patch**2
        self.sources = 5 + reference
        self.channels = FRAMES_PER_LATENT * features
        self.channels_beside = (FRAMES_PER_LATENT + 1) * len(COARSE) ** 2 + autoencoder.latent_channels
        seen = features + 2 * (OFFSETS + proprio_dim) + (2 + reference) * 3 * self.pixels
        self.look = nn.Linear(seen, hidden)
        self.draw = nn.Linear(hidden, (3 + self.sources) * self.pixels + 2 * KEYS)
        self.key = nn.Linear(3 * (self.sources - 1), KEYS)
        self.vote = nn.Linear(KEYS, self.sources, bias=False)
        nn.init.normal_(self.draw.weight, std=0.01)
        nn.init.zeros_(self.draw.bias)
        nn.init.normal_(self.vote.weight, std=0.01)
        bias = [0.0, COPY_BIAS, FOLLOW_BIAS] + [0.0] * (2 + reference)
        self.register_buffer("bias", torch.tensor(bias).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("coarse", COARSE.clone(), persistent=False)
        self.register_buffer("fine", FINE.clone(), persistent=False)

    def cues(self, robot: RobotModel, states: Tensor, last: Tensor) -> HandCues:
        """What the robot model says, in pixels.

        Args:
            robot: Projects states.
            states: (B, 1 + K, P) float32, normalised, at the last memory frame and after each action.
            last: (B, C, h, w) float, latent frame whose last frame is moved.
        """
        rows, columns = last.shape[-2:]
        with torch.autocast(states.device.type, enabled=False):
            place, depth = robot.project(states)
            half = torch.tensor([columns, rows], dtype=torch.float32, device=place.device) / 2
            place = place * half + half  # in patches from the upper left corner
            return HandCues(self._offsets(place, rows, columns), states, self._move(place, depth, last.float()))

    def cue_channels(self, cues: HandCues) -> list[Tensor]:
        """The cues as further channels of the new latent frames.

        Returns:
            Float32: (B, 4 G, n, h, w), the grid of offsets at each frame; (B, G, 1, h, w), that at the last memory
            frame; (B, C, n, h, w), the last memory frame moved along with the hand.
        """
        grid = cues.offsets[..., : len(COARSE) ** 2]
        before = grid[:, :1].permute(0, 4, 1, 2, 3)
        after = torch.unflatten(grid[:, 1:], 1, (-1, FRAMES_PER_LATENT)).permute(0, 2, 5, 1, 3, 4).flatten(1, 2)
        return [after, before, self._latents(cues.followed)]

    def forward(self, answer: Tensor, cues: HandCues, reference: Tensor, last: Tensor) -> Tensor:
        """Blend.

        Args:
            answer: (B, channels, n, h, w) float.
            cues: Of the chunk.
            reference: (B, C, h, w) float, latent of the reference frame; not looked at by a head without it.
            last: (B, C, h, w) float, latent frame whose last frame is copied.

        Returns:
            (B, C, n, h, w) float32.
        """
        features = torch.unflatten(answer, 1, (FRAMES_PER_LATENT, -1)).permute(0, 3, 1, 4, 5, 2).flatten(1, 2)
        frames = [self._patches(latent)[:, None] for latent in ((last, reference) if self.reference else (last,))]
        # (B, K or 1, h, w, p, p, 3) each
        sources = [frames[0], cues.followed, *frames[1:], *self._aside(last)]
        states = cues.states[:, :, None, None].expand(-1, -1, *cues.followed.shape[2:4], -1)
        still = [frame.flatten(4) for frame in frames]
        seen = [
            features,
            cues.offsets[:, 1:],
            cues.offsets[:, :1],
            states[:, 1:],
            states[:, :1],
            still[0],
            cues.followed.flatten(4),
            *still[1:],
        ]
        columns = self.look.weight.split([part.shape[-1] for part in seen], dim=1)

        def look(parts: Sequence[int], bias: Tensor | None = None) -> Tensor:
            together = torch.cat([seen[part].to(features.dtype) for part in parts], dim=-1)
            return nn.functional.linear(together, torch.cat([columns[part] for part in parts], dim=1), bias)

        # Layer `look`; what all frames share is multiplied once.
        shared = [part for part, values in enumerate(seen) if values.shape[1] == 1]
        each = [part for part in range(len(seen)) if part not in shared]
        hidden = nn.functional.silu(look(each) + look(shared, self.look.bias))
        drawn = self.draw(hidden).float()  # (B, K, h, w, ...)
        sizes = [3 * self.pixels, self.sources * self.pixels, KEYS, KEYS]
        colour, logits, scale, shift = torch.split(drawn, sizes, dim=-1)
        logits = torch.unflatten(logits, -1, (self.sources, self.patch, self.patch, 1))
        weight = (logits + self._votes(sources, scale, shift) + self.bias).softmax(dim=4)
        blend = weight[..., 0, :, :, :] * torch.unflatten(colour, -1, (self.patch, self.patch, 3))
        for index, source in enumerate(sources, start=1):
            blend = torch.addcmul(blend, weight[..., index, :, :, :], source)
        return self._latents(blend)

    def _votes(self, sources: Sequence[Tensor], scale: Tensor, shift: Tensor) -> Tensor:
        """(B, K or 1, h, w, p, p, 3) each and (B, K, h, w, KEYS) twice -> (B, K, h, w, sources, p, p, 1)."""
        # One product a source: those that all frames share are multiplied once.
        keys = zip(sources, self.key.weight.split(3, dim=1), strict=True)
        seen = sum((source @ weight.T for source, weight in keys), start=self.key.bias)  # (B, K, h, w, p, p, KEYS)
        gated = nn.functional.silu(seen * (1 + scale[..., None, None, :]) + shift[..., None, None, :])
        return self.vote(gated).float().movedim(-1, 4)[..., None]

    def _offsets(self, place: Tensor, rows: int, columns: int) -> Tensor:
        """Places (B, T, 2) in patches -> (B, T, rows, columns, OFFSETS)."""

        def bumps(offset: Tensor, centres: Tensor, width: float) -> Tensor:
            return torch.exp(-((offset[..., None] - centres) ** 2) / (2 * width**2))

        across = torch.arange(columns, device=place.device) + 0.5 - place[..., :1]  # (B, T, columns)
        down = torch.arange(rows, device=place.device) + 0.5 - place[..., 1:]
        grid = torch.einsum(
            "btri,btcj->btrcij", bumps(down, self.coarse, COARSE_WIDTH), bumps(across, self.coarse, COARSE_WIDTH)
        ).flatten(4)
        fine_across = bumps(across, self.fine, FINE_WIDTH)[:, :, None].expand(-1, -1, rows, -1, -1)
        fine_down = bumps(down, self.fine, FINE_WIDTH)[:, :, :, None].expand(-1, -1, -1, columns, -1)
        return torch.cat([grid, fine_across, fine_down], dim=-1)

    def _move(self, place: Tensor, depth: Tensor, last: Tensor) -> Tensor:
        """Places (B, 1 + K, 2) in patches, depths (B, 1 + K), latent (B, C, h, w) -> (B, K, h, w, p, p, 3)."""
        count, new = len(place), place.shape[1] - 1
        picture = self._picture(last)
        height, width = picture.shape[-2:]
        ys, xs = ((torch.arange(side, device=place.device) + 0.5) / self.patch for side in (height, width))
        pixels = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)  # (H, W, 2): x, y in patches
        scale = (depth[:, 1:] / depth[:, :1])[..., None, None, None]  # a hand farther off is drawn smaller
        source = place[:, :1, None, None] + (pixels - place[:, 1:, None, None]) * scale  # (B, K, H, W, 2)
        side = torch.tensor([width, height], dtype=torch.float32, device=place.device) / self.patch
        moved = nn.functional.grid_sample(
            picture[:, None].expand(-1, new, -1, -1, -1).flatten(0, 1),
            (2 * source / side - 1).flatten(0, 1),
            padding_mode="border",
            align_corners=False,
        )  # (B * K, 3, H, W)
        return torch.unflatten(self._cut(moved), 0, (count, new))

    def _aside(self, last: Tensor) -> list[Tensor]:
        """The last frame moved to the right and to the left: (B, C, h, w) -> (B, 1, h, w, p, p, 3) each."""
        wide = nn.functional.pad(self._picture(last), (ASIDE, ASIDE, 0, 0), mode="replicate")
        return [self._cut(wide[..., : -2 * ASIDE])[:, None], self._cut(wide[..., 2 * ASIDE :])[:, None]]

    def _picture(self, latent: Tensor) -> Tensor:
        """The last frame of a latent frame: (B, C, h, w) -> (B, 3, H, W) float32."""
        return self._patches(latent).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def _cut(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, h, w, p, p, 3)."""
        rows = torch.unflatten(torch.unflatten(pictures, 2, (-1, self.patch)), 4, (-1, self.patch))
        return rows.permute(0, 2, 4, 3, 5, 1)

    def _patches(self, latent: Tensor) -> Tensor:
        """The last frame of a latent frame: (B, C, h, w) -> (B, h, w, p, p, 3) float32."""
        return torch.unflatten(latent.float(), 1, self.channel_shape)[:, -1].permute(0, 4, 5, 1, 2, 3)

    def _latents(self, patches: Tensor) -> Tensor:
        """(B, K, h, w, p, p, 3) -> (B, C, n, h, w)."""
        grouped = torch.unflatten(patches, 1, (-1, FRAMES_PER_LATENT))
        return grouped.permute(0, 2, 5, 6, 7, 1, 3, 4).flatten(1, 4)
