from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from wovr.callbacks.seeding import SeedSteps


def drawn(seed: int, batch: int, rank: int = 0, stage: str = "train") -> float:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=batch))
    trainer: Any = SimpleNamespace(global_rank=rank, fit_loop=loop)
    callback: Any = SeedSteps(seed)
    if stage == "train":
        callback.on_train_batch_start(trainer, None, None, 0)
    else:
        callback.on_validation_batch_start(trainer, None, None, batch)
    return torch.rand(1).item()


def test_numbers_depend_on_seed_stage_batch_and_rank_alone() -> None:
    settings: list[tuple[int, int, int, str]] = [
        (0, 5, 0, "train"), (1, 5, 0, "train"), (0, 6, 0, "train"), (0, 5, 1, "train"), (0, 5, 0, "val"),
    ]  # fmt: skip
    first = [drawn(*setting) for setting in settings]
    torch.rand(7)
    assert [drawn(*setting) for setting in settings] == first
    assert len(set(first)) == len(first)
