"""Masked GRPO (paper section 4.2, Eq. 9 to 11): returns, valid steps, group advantages, the clipped loss.

The loss is a sum over steps whose weights already hold every division of Eq. 11, so it may be cut anywhere: gradients
of micro-batches, or of the shares of several processes, add up to that of the whole.

Two things differ from the equations, as in the authors' code. The ratio is that of one action token, and a step's
objective the mean over its A tokens: the ratio of a whole chunk of tokens would leave the clip range at once. And the
clip range may be wider above than below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STD_FLOOR = 1e-3
"""Least standard deviation of a group's returns that they are divided by, of a reward of 1: what a value function says
differently of equal rollouts is not blown up to an advantage."""


@dataclass
class GroupAdvantages:
    """How much better each rollout did than its group.

    Attributes:
        advantage: (groups, G) float.
        without_signal: (groups,) bool, all returns of the group are equal: all failed, or all succeeded as fast.
    """

    advantage: Tensor
    without_signal: Tensor


@dataclass
class ClippedLoss:
    """The clipped objective of some steps, and what is watched beside it. All are sums under the steps' weights.

    Attributes:
        loss: () float with gradient, -J of Eq. 11.
        approx_kl: () float, KL(old || new) by the k3 estimator (http://joschu.net/blog/kl-approx.html).
        clip_fraction: () float, share of tokens whose ratio is outside the clip range.
        weight: () float, sum of the weights: divide `approx_kl` and `clip_fraction` by it for means.
        finite: () bool, every ratio of a step with weight is finite.
    """

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor
    weight: Tensor
    finite: Tensor


def valid_steps(success: Tensor, length: Tensor) -> Tensor:
    """Steps up to and including the first success, at the resolution of frames (the first T_valid of Eq. 11).

    Args:
        success: (N, T) bool, whether the frame that step t produced shows success; what stands from `length` on is not
            looked at.
        length: (N,) int in [0, T], steps executed.

    Returns:
        (N, T) bool.
    """
    executed = executed_steps(length, success.shape[1])
    before = (success & executed).long().cumsum(dim=1) - success.long()  # successes before step t
    return executed & (before <= 0)


def executed_steps(length: Tensor, steps: int) -> Tensor:
    """(N, steps) bool: the first `length` of each row; the mask of the ablation without post-success masking."""
    return torch.arange(steps, device=length.device) < length[:, None]


def returns(reward: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Discounted returns R(tau) over the valid steps: sum_t discount^t r_t.

    Args:
        reward: (N, T) float, reward of step t.
        mask: (N, T) bool, valid steps.
        discount: Factor a step, in (0, 1].

    Returns:
        (N,) float32.
    """
    steps = torch.arange(reward.shape[1], device=reward.device, dtype=torch.float32)
    return (reward.float() * mask * discount**steps).sum(dim=1)


def group_advantages(group_returns: Tensor, scale: str = "none", weight: Tensor | None = None) -> GroupAdvantages:
    """Returns minus the mean of their group (Eq. 10).

    With weights w the mean is sum(w R) / sum(w) and an advantage w times what it would be, so that a group's advantages
    still add up to nothing.

    Args:
        group_returns: (groups, G) float, G at least 2.
        scale: `none` as in Eq. 10; `std` divides by the group's standard deviation, as the authors' code does; by
            STD_FLOOR at least.
        weight: (groups, G) float >= 0, how much each rollout counts; 0 for one that says nothing. None for 1.

    Raises:
        ValueError: Another scale, or groups of one.
    """
    if group_returns.shape[1] < 2:
        raise ValueError("a group needs at least 2 rollouts")
    if scale not in ("none", "std"):
        raise ValueError(f"advantage scale is '{scale}', none or std is needed")
    if weight is None:
        without_signal = (group_returns == group_returns[:, :1]).all(dim=1)
        advantage = group_returns - group_returns.mean(dim=1, keepdim=True)
        spread = group_returns.std(dim=1, keepdim=True) if scale == "std" else None
    else:
        counts = weight > 0
        total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        lowest = group_returns.masked_fill(~counts, torch.inf).amin(dim=1)
        without_signal = lowest >= group_returns.masked_fill(~counts, -torch.inf).amax(dim=1)  # none that counts, too
        advantage = group_returns - (weight * group_returns).sum(dim=1, keepdim=True) / total
        number = counts.sum(dim=1, keepdim=True)
        variance = (weight * advantage**2).sum(dim=1, keepdim=True) / total * number / (number - 1).clamp(min=1)
        spread = variance.sqrt() if scale == "std" else None
        advantage = weight * advantage
    if spread is not None:
        advantage = advantage / spread.clamp(min=STD_FLOOR)
    # Rounding of the mean must not turn equal returns into a signal.
    return GroupAdvantages(advantage.masked_fill(without_signal[:, None], 0.0), without_signal)


def chunk_advantages(worth: Tensor, group_size: int, gae_lambda: float, weight: Tensor | None = None) -> Tensor:
    """Generalised advantage estimation from chunk to chunk (Schulman et al. 2016, without discount of its own).

    With w_c what a rollout is worth after chunk c (a value function's foresight, the return from its end on), and the
    mean of its group in the place of a value of the start that they share,

        A_c = d_c + lambda A_{c+1},    d_c = w_c - w_{c-1},  d_0 = w_0,    A_0 minus its group's mean.

    With lambda 1 and one chunk this is Eq. 10.

    Args:
        worth: (N, C) float, group after group.
        group_size: Rollouts of a group, G.
        gae_lambda: In [0, 1]; 1 trusts returns, 0 the value function.
        weight: (N,) float >= 0, how much each rollout counts, see `group_advantages`; None for 1.

    Returns:
        (N, C) float.
    """
    change = torch.diff(worth, dim=1, prepend=torch.zeros_like(worth[:, :1]))
    ahead, found = torch.zeros_like(worth[:, 0]), []
    for chunk in reversed(range(worth.shape[1])):
        ahead = change[:, chunk] + gae_lambda * ahead
        found.append(ahead)
    advantage = torch.stack(found[::-1], dim=1)
    of_groups = None if weight is None else weight.unflatten(0, (-1, group_size))
    first = group_advantages(advantage[:, 0].unflatten(0, (-1, group_size)), weight=of_groups).advantage.flatten()
    later = advantage[:, 1:] if weight is None else weight[:, None] * advantage[:, 1:]
    return torch.cat([first[:, None], later], dim=1)


def step_weights(mask: Tensor, count: float | Tensor, length_normalised: bool = True) -> Tensor:
    """What each step's objective is multiplied by.

    Args:
        mask: (N, T) bool, valid steps.
        count: Divisor that all processes share: the number of rollouts of the whole update when length-normalised,
            else the number of its valid steps.
        length_normalised: Divide each rollout by its own valid length (Eq. 11): weights sum to N / count. Otherwise
            every valid step counts the same, whatever rollout it belongs to (the ablation).

    Returns:
        (N, T) float32; 0 outside the mask.
    """
    weight = mask.float()
    if length_normalised:
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    return weight / count


def clipped_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    weight: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
) -> ClippedLoss:
    """The clipped objective with its sign turned (Eq. 11).

    Args:
        log_prob: (..., A) float, log-probability of each executed token under the policy in training.
        old_log_prob: (..., A) float, under the policy that acted.
        advantage: (...) float, the rollout's advantage at each of its steps.
        weight: (...) float, see `step_weights`; what stands at steps of weight 0 is not looked at.
        clip_low: Ratios below 1 - clip_low gain nothing more.
        clip_high: Ratios above 1 + clip_high gain nothing more.
        dual_clip: Where the advantage is negative, ratios above this lose nothing more (Ye et al. 2020, dual-clip PPO):
            the minimum above bounds such a ratio from neither side, and one token that has become e^5 times as
            probable would be the whole gradient. Above 1 + clip_high; null for no bound, Eq. 11.
    """
    used = weight > 0
    # Chosen before exp, not multiplied by 0 after it: 0 times infinity is NaN, in the gradient too.
    log_ratio = torch.where(used[..., None], log_prob - old_log_prob, 0.0)  # (..., A)
    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * advantage[..., None], ratio.clamp(1 - clip_low, 1 + clip_high) * advantage[..., None])
    if dual_clip is not None:
        gain = torch.maximum(gain, dual_clip * advantage[..., None].clamp(max=0))
    gain = gain.mean(dim=-1)
    with torch.no_grad():
        kl = k3(log_ratio).mean(dim=-1)  # the tokens are samples of the policy that acted
        outside = ((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).float().mean(dim=-1)
    return ClippedLoss(
        loss=-(weight * gain).sum(),
        approx_kl=(weight * kl).sum(),
        clip_fraction=(weight * outside).sum(),
        weight=weight.sum(),
        finite=ratio.isfinite().all(),
    )


def k3(log_ratio: Tensor) -> Tensor:
    """Schulman's estimator of KL(p || q) from samples of p: r - 1 - log r with r = q / p; never negative.

    Args:
        log_ratio: (...) float, log q - log p of the sample.
    """
    return log_ratio.exp() - 1 - log_ratio
