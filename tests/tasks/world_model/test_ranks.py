"""Two processes that share the work compute what one computes alone."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from tests.models.world_model.tiny_world import pictures, random_actions, tiny_world
from wovr.tasks.world_model.training import NoiseDraw, WorldModelTraining

RANKS = 2
BATCH = 4


class Loss(nn.Module):
    """The loss of a share of one fixed batch with fixed noise."""

    def __init__(self, task: WorldModelTraining) -> None:
        super().__init__()
        self.task = task

    def forward(self, rows: slice) -> Tensor:
        world, generator = self.task.world_model, torch.Generator().manual_seed(0)
        window = world.encode_window(
            pictures(BATCH, 13)[rows],
            random_actions(BATCH, 12)[rows],
            torch.ones(BATCH, 12, dtype=torch.bool)[rows],
            torch.arange(BATCH)[rows],
        )
        draw = NoiseDraw(
            sigma=torch.linspace(0.2, 1, BATCH)[rows],
            noise=torch.randn(BATCH, 768, 2, 2, 2, generator=generator)[rows],
            memory_sigma=torch.full((BATCH,), 0.1)[rows],
            memory_noise=torch.randn(BATCH, 768, 1, 2, 2, generator=generator)[rows],
        )
        return self.task.losses(window, draw).mean()


def gradients(loss: Loss) -> dict[str, Tensor]:
    found = {}
    for name, parameter in loss.task.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            assert gradient is not None, name
            found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS))
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    share = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    result = {}

    loss = Loss(WorldModelTraining(tiny_world()))
    parallel = nn.parallel.DistributedDataParallel(loss)  # held on to: its hooks go with it
    parallel(share).backward()
    result["ddp"] = gradients(loss)

    loss = Loss(WorldModelTraining(tiny_world()))
    loss.task.world_model.backbone.shard(init_device_mesh("cpu", (RANKS,)))
    whole = sum(p.numel() for p in loss.task.parameters())
    held = sum(p.to_local().numel() for p in loss.task.parameters() if isinstance(p, DTensor))
    assert held < 0.6 * whole
    loss(share).backward()
    result["fsdp"] = gradients(loss)
    torch.save(result, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run, (str(tmp_path),), nprocs=RANKS)
    alone = Loss(WorldModelTraining(tiny_world()))
    alone(slice(None)).backward()
    expected = gradients(alone)
    for rank in range(RANKS):
        for gradient in torch.load(tmp_path / f"{rank}.pt", weights_only=True).values():
            assert gradient.keys() == expected.keys()
            for name, value in gradient.items():
                torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4)
