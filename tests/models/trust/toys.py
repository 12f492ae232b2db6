"""Trusts whose word is known, and small ones that are not trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import ChunkCritic
from wovr.models.trust.model import Trust


def small_critic(action_dim: int = 3, **arguments: Any) -> ChunkCritic:
    torch.manual_seed(0)
    return ChunkCritic(action_dim, **{"channels": [8, 8], "embedding": 4, "width": 8} | arguments)


def small_reader(action_dim: int = 3, window: int = 3) -> InverseDynamics:
    torch.manual_seed(1)
    return InverseDynamics(action_dim, window=window, keypoints=4, channels=[8, 8], width=8, size=16)


def small_trust(action_dim: int = 3, reader: bool = True, judgement: bool = True) -> Trust:
    """A trust whose signals weigh alike: 0.5 for the usual."""
    made = Trust(small_critic(action_dim), small_reader(action_dim) if reader else None, judgement)
    made.weight.fill_(1.0)
    made.centre[0] = 2.5
    return made.eval()


class Remembering(Trust):
    """Believes chunk after chunk what it was told to, whatever it sees; keeps what it has seen.

    Args:
        words: Trust of the first chunk, the second, ...; the last one stays. A list of them gives one to each rollout.
    """

    def __init__(self, words: list[float] | list[list[float]]) -> None:
        super().__init__(small_critic(), None, judgement=False)
        self.words = words
        self.seen: list[SeenChunk] = []

    def read(self, chunk: SeenChunk) -> Tensor:
        """Its word, which is its one signal too."""
        said = torch.tensor(self.words[min(len(self.seen), len(self.words) - 1)])
        self.seen.append(chunk)
        return 1 - said.expand(len(chunk))[:, None]

    def trust(self, signals: Tensor) -> Tensor:
        """What it was told to say."""
        return 1 - signals[:, 0]
