"""What travels between a world model and those who train it or roll it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wovr.functional import flow
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT


@dataclass
class Context:
    """What a chunk is imagined from.

    Attributes:
        latents: (B, C, 1 + m, h, w) float32, of the reference (in a model without one: of the frame that stands in its
            place before the memory, which the network is not shown) and of the memory.
        reference: (B, H, W, 3) uint8, the reference frame.
        memory: (B, 4 m, H, W, 3) uint8, the memory frames.
        actions: (B, 4 m, A) float32, the action that produced each memory frame; neutral where none did.
        age: (B,) float32, frames from the reference to the last memory frame.
        sigma: (B,) float32, noise level of the memory latents.
        state: What the conditioning knows at the last memory frame: (B, ...) each, by name.
    """

    latents: Tensor
    reference: Tensor
    memory: Tensor
    actions: Tensor
    age: Tensor
    sigma: Tensor
    state: dict[str, Tensor]

    def map(self, function: Callable[..., Tensor], *others: Context) -> Context:
        """The context with `function` applied to every tensor, and to the same ones of other contexts beside it."""
        made: dict[str, Any] = {}
        for name, value in vars(self).items():
            beside = [getattr(other, name) for other in others]
            if isinstance(value, dict):
                made[name] = {key: function(item, *(of[key] for of in beside)) for key, item in value.items()}
            else:
                made[name] = function(value, *beside)
        return Context(**made)

    @classmethod
    def join(cls, contexts: Sequence[Context]) -> Context:
        """Several contexts as one batch, one after the other."""
        first, *others = contexts
        return first.map(lambda *parts: torch.cat(parts), *others)


@dataclass
class EncodedWindow:
    """A training window as latents.

    Attributes:
        context: Reference and memory.
        new: (B, C, n, h, w) float32, the new latent frames.
        actions: (B, K, A) float32, the actions that produced the new frames.
    """

    context: Context
    new: Tensor
    actions: Tensor


def noise_memory(context: Context, sigma: Tensor, noise: Tensor) -> Context:
    """Noisy context: put noise on the memory latents, not on the reference.

    Args:
        context: With clean memory.
        sigma: (B,) float in [0, 1].
        noise: (B, C, m, h, w) float, standard normal.
    """
    noisy = flow.path_sample(context.latents[:, :, 1:], noise, sigma).noisy
    return replace(context, latents=torch.cat([context.latents[:, :, :1], noisy], dim=2), sigma=sigma)


def beside(shown: Tensor, actions: Tensor) -> list[Tensor]:
    """A context as further channels that all new latent frames share.

    Args:
        shown: (B, C, s, h, w) float, reference and memory latents.
        actions: (B, 4 m, A) float, the memory's actions.

    Returns:
        (B, s * C, 1, h, w) float, what is shown; (B, 4 m * A + 2, 1, h, w) float, the memory's actions everywhere, row
        and column.
    """
    count, _, _, rows, columns = shown.shape
    places = torch.stack(
        torch.meshgrid(*(torch.linspace(-1, 1, side, device=shown.device) for side in (rows, columns)), indexing="ij")
    )  # (2, h, w)
    everywhere = actions.flatten(1)[:, :, None, None].expand(-1, -1, rows, columns).to(shown)
    still = torch.cat([everywhere, places.expand(count, -1, -1, -1).to(shown)], dim=1)
    return [shown.transpose(1, 2).flatten(1, 2)[:, :, None], still[:, :, None]]


def channels_beside(channels: int, shown: int, memory_slots: int, action_dim: int) -> int:
    """Channels of what `beside` returns, for s latent frames of context."""
    return channels * shown + memory_slots * action_dim + 2


def with_told(actions: Tensor, told: Tensor | None) -> Tensor:
    """Put what a conditioning tells beside the actions.

    Args:
        actions: (B, T, A) float; the last K of them are the chunk's.
        told: (B, K, E) float, of the chunk's actions; None for nothing.

    Returns:
        (B, T, A + E) float; 0 before the chunk.
    """
    if told is None:
        return actions
    return torch.cat([actions, nn.functional.pad(told, (0, 0, actions.shape[1] - told.shape[1], 0))], dim=-1)


def fill_memory(memory: Tensor, actions: Tensor, slots: int, neutral: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and the actions that produced them, in as many places as there are: the first frame and neutral before.

    Args:
        memory: (B, F, H, W, 3) uint8, at most `slots` frames.
        actions: (B, F, A) float.
        slots: Places, 4 m.
        neutral: (A,) float32, stands for no action.

    Returns:
        (B, 4 m, H, W, 3) uint8 and (B, 4 m, A) float32.
    """
    count, kept = memory.shape[:2]
    before = slots - kept
    return (
        torch.cat([memory[:, :1].expand(-1, before, -1, -1, -1), memory], dim=1),
        torch.cat([neutral.expand(count, before, -1), actions.to(neutral)], dim=1),
    )


def token_positions(age: Tensor, memory: int, new: int, reference_gap: int | None) -> Tensor | None:
    """Where the latent frames of [reference, memory, new] stand in time.

    Args:
        age: (B,) float, frames from the reference to the last memory frame.
        memory: Latent frames of the memory, m.
        new: Latent frames of the chunk, n.
        reference_gap: The reference is at most so many latent frames before the last memory frame; None for right
            before the memory, whatever the real distance.

    Returns:
        (B, 1 + m + n) float, the reference at 0; None for 0, 1, 2, ...
    """
    if reference_gap is None:
        return None
    gap = (age / FRAMES_PER_LATENT).clamp(memory, reference_gap)  # of the last memory frame
    steps = torch.arange(1 - memory, new + 1, device=gap.device)
    return torch.cat([torch.zeros_like(gap)[:, None], gap[:, None] + steps], dim=1)
