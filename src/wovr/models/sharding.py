"""Weights shared out over processes (FSDP2): kept in float32, computed with in the network's own type.

A share of every weight, of its gradient and of the optimiser's state is on each device; a repeated part (a layer) is
put together when it is computed and taken apart again. Acting, where processes compute different numbers of times, the
whole network stays together (`gathered`): nothing is exchanged then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

_Module = TypeVar("_Module", bound=nn.Module)


def shard(module: nn.Module, parts: Sequence[nn.Module], mesh: DeviceMesh, compute: torch.dtype | None = None) -> None:
    """Share the weights of a module out, in place; what is shared out already stays so.

    Weights become float32 part by part, so that no device ever holds all of them in it: small steps of an optimiser are
    lost in half precision (of a bfloat16 weight of 0.02 a step below 4e-5 leaves nothing).

    Args:
        module: The module.
        parts: Repeated parts of it, each put together by itself.
        mesh: The processes.
        compute: Type that the module computes in, in which its weights are exchanged; None for that of its weights.
    """
    policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    for part in (*parts, module):
        if isinstance(part, FSDPModule):
            continue
        if compute is not None:
            for parameter in part.parameters():
                if not isinstance(parameter, DTensor):
                    parameter.data = parameter.data.float()
        fully_shard(part, mesh=mesh, mp_policy=policy)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Keep the weights of a module whole on each device, put together once; nothing for one that is not shared out.

    All processes enter and leave together; in between none waits for another.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not module, recurse=False)
            part.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's weights are shared out."""
    return isinstance(module, FSDPModule)


def own_class(module: _Module) -> type[_Module]:
    """The class that a module was written as: to share weights out, FSDP2 puts a class of its own in its place."""
    own: Any = next(one for one in type(module).__mro__ if not issubclass(one, FSDPModule))
    return own
