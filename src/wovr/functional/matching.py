"""Points that look alike: their order means nothing, so they are compared in the order that fits best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor


def place_in_slots(points: Tensor, slots: Sequence[int], num_slots: int) -> Tensor:
    """Spread the points of a scene over the slots of a network.

    Args:
        points: (T, n, 3) float.
        slots: n different slots, below `num_slots`.
        num_slots: P.

    Returns:
        (T, P, 3) float, NaN in slots without a point.
    """
    placed = points.new_full((len(points), num_slots, 3), torch.nan)
    placed[:, list(slots)] = points
    return placed


def match_look_alikes(read: Tensor, true: Tensor, looks: Sequence[str]) -> Tensor:
    """Bring the points that were read into the order of the true ones, among those that look alike.

    The order chosen has the smallest sum of distances, frame by frame. All orders are tried, so a look should come up
    a few times at most.

    Args:
        read: (N, P, 3) float, what a network reads.
        true: (N, P, 3) float, NaN where there is no such point.
        looks: P names of appearance.

    Returns:
        (N, P, 3), `read` with slots of equal look permuted.
    """
    slots_of: dict[str, list[int]] = {}
    for slot, look in enumerate(looks):
        slots_of.setdefault(look, []).append(slot)
    matched = read
    for slots in slots_of.values():
        if len(slots) == 1:
            continue
        orders = torch.tensor(list(permutations(range(len(slots)))), device=read.device)  # (orders, k)
        mine, theirs = read[:, slots], true[:, slots]  # (N, k, 3)
        distance = torch.linalg.vector_norm(mine[:, :, None] - theirs[:, None], dim=-1)  # (N, read, true)
        distance = distance.detach().nan_to_num(0.0)
        costs = distance[:, orders, torch.arange(len(slots), device=read.device)].sum(-1)  # (N, orders)
        best = orders[costs.argmin(1)]  # (N, k)
        matched = matched.clone()
        matched[:, slots] = mine.gather(1, best[..., None].expand(-1, -1, 3))
    return matched
