"""What an update of GRPO learns from, and the log-probabilities that its ratio begins at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wovr.envs.grpo_rollouts import Trajectory
from wovr.errors import UserError
from wovr.models.policies.base import TokenLogProbs
from wovr.types import Observation


@dataclass
class Update:
    """The rollouts of an update, ready to be learned from; this process's share.

    Attributes:
        trajectories: N of them, group after group.
        advantage: (N, C) float32, of each chunk.
        mask: (N, T) bool, steps that the loss looks at; False for groups that the filter dropped.
        used: Positions of the rollouts that have a gradient.
        totals: Counts that are summed over processes, by name.
    """

    trajectories: list[Trajectory]
    advantage: Tensor
    mask: Tensor
    used: np.ndarray
    totals: dict[str, float]


@dataclass
class ChunkSamples:
    """Some chunks, each with its advantage and its steps' weights.

    Attributes:
        observation: What the policy saw at the start of each of B chunks.
        tokens: (B, K, A) int64.
        log_probs: (B, K, A) float32, of the policy that acted.
        advantage: (B,) float32.
        weight: (B, K) float32.
        places: Rollout and chunk of each.
    """

    observation: Observation
    tokens: Tensor
    log_probs: Tensor
    advantage: Tensor
    weight: Tensor
    places: list[tuple[int, int]]


@torch.no_grad()
def recompute_log_probs(
    log_probs_of: Callable[[ChunkSamples], TokenLogProbs],
    batches: Iterable[ChunkSamples],
    trajectories: Sequence[Trajectory],
) -> list[Trajectory]:
    """Put what the policy says of its own tokens now, before the first step, in the place of what it said acting.

    In half precision, or on a device that chooses its kernels by the size of a batch, the same weights give other
    log-probabilities for the few rows that act than for the many that are learned from, and the ratio would begin
    somewhere beside 1. So they are computed in the very batches of the first pass.

    Args:
        log_probs_of: The policy's log-probabilities, as it acted.
        batches: Those of the first pass.
        trajectories: The update's.

    Returns:
        The same trajectories with the log-probabilities of the chunks that are learned from.
    """
    found = [replace(trajectory, log_probs=trajectory.log_probs.copy()) for trajectory in trajectories]
    for samples in batches:
        said = log_probs_of(samples)
        counts = samples.weight.any(dim=1).tolist()  # a stand-in for an empty batch does not
        values = said.log_probs.float().cpu().numpy()  # (B, K, A)
        for (row, chunk), log_probs, does in zip(samples.places, values, counts, strict=True):
            if does:
                found[row].log_probs[chunk] = log_probs
    return found


def worth_after_chunks(
    trajectories: Sequence[Trajectory], success: Tensor, gained: Tensor, chunk: int, reward: float, discount: float
) -> Tensor:
    """What rollouts are worth after each of their chunks: a value function's foresight, their return from the end on.

    Args:
        trajectories: N rollouts with `foreseen`.
        success: (N, C * K) bool.
        gained: (N,) float32, returns.
        chunk: Actions of a chunk, K.
        reward: Reward of success.
        discount: Factor a step.

    Returns:
        (N, C) float32.

    Raises:
        UserError: No value function has looked at them.
    """
    worth = gained[:, None].repeat(1, success.shape[1] // chunk)
    steps = chunk * torch.arange(1, worth.shape[1] + 1)
    for row, trajectory in enumerate(trajectories):
        if trajectory.foreseen is None:
            raise UserError("model.gae_lambda without --value", "give a value function, or leave gae_lambda out")
        open_ends = len(trajectory.foreseen)
        worth[row, :open_ends] = reward * discount ** steps[:open_ends] * torch.from_numpy(trajectory.foreseen)
    over = success.unflatten(1, (-1, chunk)).any(dim=2).cumsum(dim=1) > 0  # (N, C), where episodes go on after success
    return torch.where(over, gained[:, None], worth)
