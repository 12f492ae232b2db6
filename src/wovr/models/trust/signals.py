"""Signals of distrust: each reads a few numbers off a chunk; the larger one is, the less the chunk is to be believed.

Each is one small class behind one protocol; `wovr.models.trust.model.Trust` adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import ChunkCritic


class Signal(Protocol):
    """Reads numbers off chunks."""

    @property
    def names(self) -> Sequence[str]:
        """What the S numbers are called."""

    def read(self, chunk: SeenChunk) -> Tensor:
        """(R, S) float32, finite; larger for less to be believed."""


class ExpectedError(nn.Module):
    """What a critic of chunks expects: the logarithm of the last frame's error.

    Args:
        critic: Learned on replay.
    """

    names = ("critic",)

    def __init__(self, critic: ChunkCritic) -> None:
        super().__init__()
        self.critic = critic

    def read(self, chunk: SeenChunk) -> Tensor:
        """See Signal."""
        return self.critic.read(chunk.reference, chunk.before, chunk.frames, chunk.actions)[:, None]


class ActionsReadBack(nn.Module):
    """How far the actions that an inverse-dynamics network reads off a chunk's frames are from those commanded.

    The root mean square over steps and dimensions, each dimension in units of its error on real frames.

    Args:
        network: Reads actions.
    """

    names = ("action_error",)
    unit: Tensor

    def __init__(self, network: InverseDynamics) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.register_buffer("unit", torch.ones(network.action_dim))

    def measure(self, frames: Tensor, actions: Tensor) -> Tensor:
        """Errors of what is read: (R, K + 1, H, W, 3) uint8 and (R, K, A) -> (R, K, A) float32."""
        return self.network.read(frames) - actions

    def set_unit(self, error: Tensor) -> None:
        """Take the unit from errors on real frames: (M, K, A) float, M at least 1."""
        self.unit.copy_(error.square().mean((0, 1)).sqrt().clamp(min=1e-3))

    def read(self, chunk: SeenChunk) -> Tensor:
        """See Signal."""
        error = self.measure(torch.cat([chunk.before[:, None], chunk.frames], dim=1), chunk.actions)
        return (error / self.unit).square().mean((1, 2)).sqrt()[:, None]


class Judgement(nn.Module):
    """How unsure a success classifier is about a chunk: how near its highest probability p is to 1/2, 1 - |2 p - 1|."""

    names = ("doubt",)

    def read(self, chunk: SeenChunk) -> Tensor:
        """See Signal.

        Raises:
            ValueError: No classifier was asked.
        """
        if chunk.probability is None:
            raise ValueError("no success classifier was asked about this chunk")
        return 1 - (2 * chunk.probability.float().amax(dim=1, keepdim=True) - 1).abs()
