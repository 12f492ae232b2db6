"""Processes that wait for each other however long one of them takes."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist

_LONGEST = timedelta(days=30)

_groups: dict[int, dist.ProcessGroup] = {}


def wait_for_all() -> None:
    """Wait until every process of the run has come here.

    Rollouts and evaluations last as long as the slowest process takes, and the next exchange of gradients would give up
    after half an hour (ten minutes on GPUs). So processes meet here first, in a group of their own on the host.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    world = dist.group.WORLD
    if id(world) not in _groups:
        _groups.clear()
        made = dist.new_group(backend="gloo", timeout=_LONGEST)
        assert isinstance(made, dist.ProcessGroup)  # else this process would be none of the world's
        _groups[id(world)] = made
    dist.barrier(_groups[id(world)])
