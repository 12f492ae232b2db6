"""What travels between a world model and those who train it or roll it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


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
    """

    latents: Tensor
    reference: Tensor
    memory: Tensor
    actions: Tensor
    age: Tensor
    sigma: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Context:
        """The context with `function` applied to every tensor."""
        return Context(**{name: function(value) for name, value in vars(self).items()})

    @classmethod
    def join(cls, contexts: Sequence[Context]) -> Context:
        """Several contexts as one batch, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(context, name) for context in contexts]) for name in names})


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
