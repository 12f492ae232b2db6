"""The gradient of GRPO's objective group by group, and how much of it is noise.

The objective is that of Eq. 11 to first order, where the policy is still the one that acted: the sum over steps of the
advantage times the log-probability, averaged over the tokens of a step (with `ratio` chunk: a chunk's sums). Unlike
Eq. 11 a rollout is not divided by its length, so that rollouts of any length compare. All weights count as they are,
whatever rate they would be trained at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wovr.envs.continuations import Beginning
from wovr.errors import UserError
from wovr.functional.gradient_noise import NoiseScale, noise_scale, noise_scale_interval
from wovr.functional.grpo import group_advantages
from wovr.functional.intervals import Interval
from wovr.models.policies.base import Policy
from wovr.types import Observation

MAX_SPLITS = 16
"""Sums of gradients that are held at once, each as large as the policy."""

_MICRO_BATCH = 16
"""Chunks computed at a time, a matter of memory."""


class GradientSums:
    """Running sums over gradients of groups, from which signal and noise follow.

    Args:
        groups: How many there will be, at least 2.

    Attributes:
        sizes: (M,) int64, groups of each split: M = 16, or as many as there are groups; sizes differ by one at most.
    """

    def __init__(self, groups: int) -> None:
        self.sizes = np.array([len(part) for part in np.array_split(np.arange(groups), min(MAX_SPLITS, groups))])
        self._split = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self._sums: list[Tensor | None] = [None] * len(self.sizes)
        self._squares = np.zeros(len(self.sizes))

    def add(self, group: int, gradient: Tensor) -> None:
        """Count the gradient of a group in, (P,) float32; a group that is never counted in has a gradient of 0."""
        split = self._split[group]
        held = self._sums[split]
        self._sums[split] = gradient.clone() if held is None else held.add_(gradient)
        self._squares[split] += float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) ** 2

    def scale(self) -> NoiseScale:
        """Signal and noise of one group's gradient."""
        return noise_scale(self._products(), self._squares, self.sizes)

    def interval(self, seed: int = 0) -> Interval:
        """95 % bootstrap interval of the noise scale over the splits, in groups."""
        return noise_scale_interval(self._products(), self._squares, self.sizes, seed=seed)

    def _products(self) -> np.ndarray:
        """(M, M) float64, inner products of the sums."""
        products = np.zeros((len(self.sizes), len(self.sizes)))
        known = [(split, held) for split, held in enumerate(self._sums) if held is not None]
        for i, one in known:
            for j, other in known:
                if i <= j:
                    products[i, j] = products[j, i] = float(torch.dot(one, other))
        return products


def group_gradients(
    policy: Policy,
    beginnings: Sequence[Beginning],
    returns: np.ndarray,
    lengths: np.ndarray,
    temperature: float,
    on_group: Callable[[], None] = lambda: None,
    *,
    coherence: float = 0.0,
    ratio: str = "token",
) -> Iterator[tuple[int, Tensor]]:
    """The gradient of each group's mean objective, of those whose returns differ; the others' is 0.

    Args:
        policy: The one that acted, in evaluation mode; its gradients are left cleared.
        beginnings: N * G rollouts with tokens, group after group.
        returns: (N, G) float.
        lengths: (N, G) int, steps of each rollout that are learned from, from its first on.
        temperature: Of sampling.
        on_group: Called after each group.
        coherence: Of sampling.
        ratio: `token` or `chunk`, see GRPOTraining.

    Yields:
        (group, (P,) float32 on the CPU), of all weights that have a gradient.

    Raises:
        UserError: A gradient that is not finite.
    """
    size = returns.shape[1]
    advantages = group_advantages(torch.from_numpy(returns).double())
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    for group, without_signal in enumerate(advantages.without_signal.tolist()):
        if not without_signal:
            policy.zero_grad(set_to_none=True)
            rows = beginnings[group * size : (group + 1) * size]
            chunks = list(_chunks(rows, advantages.advantage[group] / size, lengths[group], policy.chunk))
            for first in range(0, len(chunks), _MICRO_BATCH):
                _objective(policy, chunks[first : first + _MICRO_BATCH], temperature, coherence, ratio).backward()
            parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
            gradient = torch.cat([part.detach().float().cpu().flatten() for part in parts])
            if not gradient.isfinite().all():
                raise UserError("the policy's gradient is not finite", "check its weights and train it again")
            yield group, gradient
        on_group()
    policy.zero_grad(set_to_none=True)


_Chunk = tuple[Beginning, int, float, int]
"""A rollout, the chunk's number, the advantage, and how many of its steps are learned from."""


def _chunks(rows: Sequence[Beginning], advantage: Tensor, lengths: np.ndarray, chunk: int) -> Iterator[_Chunk]:
    """The chunks of a group that have a gradient."""
    for beginning, gain, length in zip(rows, advantage.tolist(), lengths.tolist(), strict=True):
        for number in range(-(-length // chunk)):
            yield beginning, number, gain, min(chunk, length - number * chunk)


def _objective(policy: Policy, chunks: Sequence[_Chunk], temperature: float, coherence: float, ratio: str) -> Tensor:
    """() float: sum over steps of advantage times mean log-probability of the tokens."""
    executed = torch.zeros(len(chunks), policy.chunk, dtype=torch.bool)
    tokens = np.zeros((len(chunks), policy.chunk, policy.action_dim), np.int64)
    weight = np.zeros((len(chunks), policy.chunk), np.float32)
    for row, (beginning, number, gain, steps) in enumerate(chunks):
        first = number * policy.chunk
        assert beginning.tokens is not None
        tokens[row, :steps] = beginning.tokens[first : first + steps]
        weight[row, :steps] = gain
        executed[row, :steps] = True
    seen = Observation.join([beginning.observation(number) for beginning, number, _, _ in chunks])
    summed = executed if ratio == "chunk" else None
    found = policy.log_prob(seen, tokens, temperature=temperature, coherence=coherence, summed=summed)
    log_probs = found.log_probs  # (B, K, A)
    return (torch.from_numpy(weight).to(log_probs.device) * log_probs.mean(-1)).sum()
