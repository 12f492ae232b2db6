"""The trust of a chunk of imagination: signals of distrust added up to the probability that it is right."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from wovr.functional.logistic import fit_logistic
from wovr.models.checkpoint import Network
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import ChunkCritic
from wovr.models.trust.signals import ActionsReadBack, ExpectedError, Judgement, Signal


class Trust(Network):
    """A chunk's signals to the probability that it is right, as logistic regression on replay has it.

    A chunk is right where its last frame is at least `right_psnr` dB like the frame that the same actions really led
    to. The signals are standardised, and weighed so that none speaks against what it says.

    Args:
        critic: Critic of chunks; what training trains.
        inverse_dynamics: Reads actions off frames; null for none.
        judgement: Whether the success classifier's doubt counts.
        right_psnr: From how many dB on a chunk is right.

    Attributes:
        names: What the S numbers that it adds up are called.
        action_dim: Dimensions of an action, A.
        chunk: Actions of a chunk, K.
    """

    kind: ClassVar[str] = "trust"
    centre: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        critic: ChunkCritic,
        inverse_dynamics: InverseDynamics | None = None,
        judgement: bool = True,
        right_psnr: float = 20.0,
    ) -> None:
        super().__init__()
        if not right_psnr > 0:
            raise ValueError(f"right_psnr is {right_psnr}: a number above 0 is needed")
        if inverse_dynamics is not None and inverse_dynamics.action_dim != critic.action_dim:
            raise ValueError(
                f"the inverse dynamics read actions of {inverse_dynamics.action_dim} dimensions, the critic sees those "
                f"of {critic.action_dim}"
            )
        if inverse_dynamics is not None and inverse_dynamics.window > critic.chunk + 1:
            raise ValueError(
                f"the inverse dynamics look at {inverse_dynamics.window} frames, a chunk has {critic.chunk}"
            )
        self.right_psnr = right_psnr
        self.action_dim, self.chunk = critic.action_dim, critic.chunk
        self.expected = ExpectedError(critic)
        self.reading = None if inverse_dynamics is None else ActionsReadBack(inverse_dynamics)
        self.judgement = Judgement() if judgement else None
        self.names = [name for signal in self._signals() for name in signal.names]
        for name, number in (("centre", 0.0), ("scale", 1.0), ("weight", 0.0)):
            self.register_buffer(name, torch.full((len(self.names),), number))
        self.register_buffer("bias", torch.zeros(()))

    @property
    def critic(self) -> ChunkCritic:
        """The critic of chunks."""
        return self.expected.critic

    def read(self, chunk: SeenChunk) -> Tensor:
        """The signals of a chunk: (R, S) float32, in the order of `names`; larger for less to be believed."""
        return torch.cat([signal.read(chunk) for signal in self._signals()], dim=1).float()

    def trust(self, signals: Tensor) -> Tensor:
        """Add signals up: (M, S) float -> (M,) float32 in [0, 1], the probability that each chunk is right."""
        return (self.bias - ((signals - self.centre) / self.scale) @ self.weight).sigmoid()

    def forward(self, chunk: SeenChunk) -> Tensor:
        """The trust of a chunk of each of R rollouts: (R,) float32 in [0, 1]."""
        return self.trust(self.read(chunk))

    def calibrate(self, signals: Tensor, right: Tensor) -> None:
        """Fit how signals add up.

        Args:
            signals: (M, S) float, of chunks of replay.
            right: (M,) bool, whether each was right; both must be there.

        Raises:
            ValueError: All are right, or none is.
        """
        centre, scale = signals.mean(dim=0), signals.std(dim=0).clamp(min=1e-6)
        fitted = fit_logistic((signals - centre) / scale, ~right)
        for buffer, value in (
            (self.centre, centre),
            (self.scale, scale),
            (self.weight, fitted.weights),
            (self.bias, -fitted.bias),
        ):
            buffer.copy_(value)

    def _signals(self) -> list[Signal]:
        return [signal for signal in (self.expected, self.reading, self.judgement) if signal is not None]
