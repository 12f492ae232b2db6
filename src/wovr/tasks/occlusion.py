"""Strokes in the way: painted over what a training window shows, so that the network draws what was behind them.

What the robot's hand half hides in the first frame has to be completed once, when the hand leaves, and kept while the
reference frame goes on showing the hand in front of it. Too few episodes hold such a case to learn that from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wovr.models.context import EncodedWindow
from wovr.models.world_model import WorldModel

STROKES = 6
"""Of a window that has any."""

THICKNESS, LENGTH = (0.03, 0.07), (0.08, 0.25)
"""Least and greatest, of the height of the picture: about a finger's."""


@dataclass
class Strokes:
    """The random part.

    Attributes:
        inside: (B, S, H, W) bool, pixels of each stroke, upright or level; none in windows without strokes.
        reference: (B, S, 3) uint8, its colour in the reference frame.
        memory: (B, S, 3) uint8, its colour in the memory.
        remembered: (B, S) bool, it is in the memory too: in a third of them in the reference's colour, as the hand
            that has not left yet, in a third in a colour of its own, as what was drawn there wrongly.
    """

    inside: Tensor
    reference: Tensor
    memory: Tensor
    remembered: Tensor


def draw_strokes(pictures: Tensor, share: float) -> Strokes:
    """Draw strokes from torch's generator.

    Args:
        pictures: (B, H, W, 3) uint8, half of the colours are those of their pixels, the others greys.
        share: Share of windows that get strokes, on average.
    """
    (count, height, width, _), device = pictures.shape, pictures.device

    def drawn(*more: int) -> Tensor:
        return torch.rand(count, STROKES, *more, device=device)

    def between(ends: tuple[float, float]) -> Tensor:
        return height * (ends[0] + (ends[1] - ends[0]) * drawn())

    def colours() -> Tensor:
        pixel = (drawn() * height * width).long()[..., None].expand(-1, -1, 3)
        of_picture = pictures.flatten(1, 2).gather(1, pixel)
        grey = (256 * drawn(1) ** 2).to(torch.uint8).expand(-1, -1, 3)
        return torch.where(drawn(1) < 0.5, of_picture, grey)

    thick, long, upright = between(THICKNESS), between(LENGTH), drawn() < 0.5
    down = torch.arange(height, device=device) + 0.5 - height * drawn(1)  # (B, S, H)
    across = torch.arange(width, device=device) + 0.5 - width * drawn(1)
    tall, wide = torch.where(upright, long, thick), torch.where(upright, thick, long)
    inside = (2 * down.abs() < tall[..., None])[..., None] & (2 * across.abs() < wide[..., None])[:, :, None]
    chosen = torch.rand(count, 1, 1, 1, device=device) < share
    kind, reference = drawn(), colours()
    memory = torch.where((kind < 1 / 3)[..., None], reference, colours())
    return Strokes(inside & chosen, reference, memory, kind < 2 / 3)


def paint(model: WorldModel, window: EncodedWindow, strokes: Strokes) -> EncodedWindow:
    """The window with strokes over its reference frame and its memory; what is to be drawn has none."""
    context = window.context
    reference, memory = context.reference, context.memory
    for inside, of_reference, of_memory, remembered in zip(
        strokes.inside.unbind(1),
        strokes.reference.unbind(1),
        strokes.memory.unbind(1),
        strokes.remembered.unbind(1),
        strict=True,
    ):
        reference = torch.where(inside[..., None], of_reference[:, None, None], reference)
        there = (inside & remembered[:, None, None])[:, None, ..., None]
        memory = torch.where(there, of_memory[:, None, None, None], memory)
    painted = model.encode_context(reference, memory, context.actions, context.age, context.proprio)
    return EncodedWindow(painted, window.new, window.actions, window.states)
