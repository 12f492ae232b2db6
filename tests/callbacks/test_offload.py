"""Where the world model's parameters are, by the order of what happens in a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from tests.models.policies.small import small_policy
from tests.tasks.grpo.batches import made_up_batch
from tests.tasks.grpo.test_training import fit
from wovr.callbacks.offload import HOST, CollocatedPlacement
from wovr.tasks.grpo.training import GRPOTraining

GPU = torch.device("cuda", 0)
META = torch.device("meta")


class Moves(torch.nn.Module):
    """Notes where it is sent."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def to(self, device: Any) -> Any:  # type: ignore[override]
        self.events.append(f"to {torch.device(device).type}")
        return self


class OnDevice(CollocatedPlacement):
    """Believes that the trainer is on a GPU."""

    def _move(self, target: torch.device, device: torch.device) -> None:
        # on_train_batch_start alone names the host itself; the trainer's own device is a CPU here.
        super()._move(HOST if target is HOST else META, META)


class Phases(Callback):
    """Notes what else happens."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        self.events.append("step")


class Rollouts:
    """Two batches; notes when each is made."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        for update in range(2):
            self.events.append("rollouts")
            yield made_up_batch(["mixed"], update)


def run(offload: bool) -> list[str]:
    events: list[str] = []
    task = GRPOTraining(small_policy(), minibatches=2)
    fit(task, Rollouts(events), callbacks=[OnDevice([Moves(events)], offload), Phases(events)])
    return events


def test_parameters_move_at_the_ends_of_a_rollout_phase_only() -> None:
    there, back, steps = ["to meta", "rollouts"], ["to cpu"], ["step", "step"]
    assert run(offload=True) == there + back + steps + there + back + steps
    assert run(offload=False) == there + steps + ["rollouts"] + steps


def test_nothing_moves_on_a_cpu() -> None:
    events: list[str] = []
    placement = CollocatedPlacement([Moves(events)])
    trainer: Any = SimpleNamespace(is_last_batch=False)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    placement.on_train_start(trainer, module)
    placement.on_train_batch_start(trainer, module, None, 0)
    placement.on_train_batch_end(trainer, module, None, None, 0)
    assert events == []
    module.device = GPU
    placement.on_train_start(trainer, module)
    assert events == ["to cuda"]
