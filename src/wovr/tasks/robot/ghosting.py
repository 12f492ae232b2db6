"""Ghosts in the context: what imagination gets wrong, put into the memory on purpose while a world model is trained.

Where a network is not sure whether a thing is still there it draws it half, and what it has drawn is the memory of its
next chunk. Real memories have no such ghosts, so a network that has only seen those keeps them. It learns to take them
away from memories in which another picture shines through: the reference frame, which shows what has moved since where
it was, or the reference of another window, which shows what never was there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.models.world_model.context import Context, EncodedWindow
from wovr.models.world_model.model import WorldModel
from wovr.tasks.world_model.augmentation import WindowAugmentation

FOREIGN = 0.5
"""Share of ghosts that come from another window."""

PATCHY = 0.5
"""Share of ghosts that show in some places only."""

PLACES = 0.5
"""Share of places in which those show."""


class Ghosting(WindowAugmentation):
    """Lets another picture shine through the memory of some windows.

    Args:
        share: Share of windows that get a ghost, on average.
    """

    def __init__(self, share: float = 0.7) -> None:
        if not 0 <= share <= 1:
            raise UserError(f"the share of Ghosting is {share}", "give a number in [0, 1]")
        self.share = share

    def __call__(self, model: WorldModel, batch: WorldModelBatch, window: EncodedWindow) -> EncodedWindow:
        """See `WindowAugmentation`."""
        memory = window.context.latents[:, :, 1:]
        return replace(window, context=add_ghosts(window.context, draw_ghosts(memory.shape, self.share, memory.device)))


@dataclass
class Ghosts:
    """The random part.

    Attributes:
        weight: (B, h, w) float in [0, 1), of the other picture.
        foreign: (B,) bool, it is the reference of the window before in the batch.
    """

    weight: Tensor
    foreign: Tensor


def draw_ghosts(shape: torch.Size, share: float, device: torch.device) -> Ghosts:
    """Draw ghosts from torch's generator.

    Args:
        shape: Of the memory latents, (B, C, m, h, w).
        share: Share of windows that get one, on average.
        device: Where they are needed.
    """
    count, _, _, rows, columns = shape
    strength = torch.rand(count, 1, 1, device=device)
    chosen = torch.rand(count, 1, 1, device=device) < share
    everywhere = torch.rand(count, 1, 1, device=device) >= PATCHY
    here = everywhere | (torch.rand(count, rows, columns, device=device) < PLACES)
    return Ghosts(strength * (chosen & here), torch.rand(count, device=device) < FOREIGN)


def add_ghosts(context: Context, ghosts: Ghosts) -> Context:
    """The context with ghosts in its memory latents; the reference stays as it is."""
    reference, memory = context.latents[:, :, :1], context.latents[:, :, 1:]
    other = torch.where(ghosts.foreign[:, None, None, None, None], reference.roll(1, dims=0), reference)
    memory = torch.lerp(memory, other.expand_as(memory), ghosts.weight[:, None, None])
    return replace(context, latents=torch.cat([reference, memory], dim=2))
