"""A policy whose weights are shared out over two processes acts and learns as one that is whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.models.policies.openvla.tiny import needs_openvla, tiny
from tests.models.policies.small import observe, small_policy
from tests.tasks.grpo.batches import made_up_batch
from tests.tasks.grpo.test_training import Batches, PlainSteps, fit
from wovr.envs.grpo_rollouts import RolloutBatch
from wovr.errors import UserError
from wovr.models.policies.base import Policy
from wovr.tasks.grpo.training import GRPOTraining

RANKS = 2
ARGUMENTS: dict[str, Any] = {"lr": 0.3, "warmup_steps": 0, "gradient_clip_val": 1e9, "minibatches": 1}


def make_policy(name: str) -> Policy:
    """The policy of that name, the same every time."""
    if name == "tiny_vla":
        return small_policy(1)
    policy = tiny(chunk=3, action_dim=2, gradient_checkpointing=True, dtype=name)
    assert isinstance(policy, Policy)
    return policy


def rollouts(policy: Policy) -> list[RolloutBatch]:
    """Rank 1 has fewer rollouts with a signal in the first update and none at all in the second."""
    groups = (["mixed", "mixed", "mixed", "fail"], ["mixed", "mixed", "fail", "fail"])
    return [made_up_batch(group, number, policy) for number, group in enumerate(groups)]


class ActingFirst(Batches):
    """Before it gives a batch, the policy acts: rank r does so r + 1 times, and nobody waits for it."""

    def __init__(self, task: GRPOTraining, batches: list[RolloutBatch]) -> None:
        super().__init__(batches)
        self.task = task
        self.said: list[Tensor] = []

    def __iter__(self) -> Iterator[RolloutBatch]:
        for batch in super().__iter__():
            with self.task.acting(), torch.inference_mode():
                for _ in range(self.task.global_rank + 1):
                    chosen = self.task.policy.act(observe(3, (16, 16)), temperature=0)
                self.said.append(chosen.log_probs.clone())
            yield batch


def train(name: str, **arguments: Any) -> tuple[GRPOTraining, dict[str, Any]]:
    batches = rollouts(make_policy(name))
    task = PlainSteps(make_policy(name), micro_batch=4, **ARGUMENTS)
    acting = ActingFirst(task, batches)
    fit(task, acting, **arguments)
    weights = {
        key: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for key, value in task.policy.state_dict().items()
    }
    return task, {"weights": weights, "said": acting.said, "norm": task.metrics["gradient_norm"]}


def run(rank: int, folder: str, port: int, name: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0")
    strategy = ModelParallelStrategy(
        data_parallel_size=RANKS, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    task, found = train(name, devices=RANKS, strategy=strategy, default_root_dir=folder)
    shares = [weight for weight in task.policy.parameters() if isinstance(weight, DTensor)]
    assert len(shares) == len(list(task.policy.parameters()))
    assert {weight.dtype for weight in shares} == {torch.float32}
    held = sum(weight.to_local().numel() for weight in shares)
    assert held < 0.7 * sum(weight.numel() for weight in shares)
    torch.save(found, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("name", ["tiny_vla", pytest.param("float32", marks=needs_openvla.marks)])
def test_two_processes_act_and_learn_as_one(name: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run, (str(tmp_path), free_port(), name), nprocs=RANKS)
    before = make_policy(name).state_dict()
    _, alone = train(name)
    moved = sum(float((value - before[key]).abs().sum()) for key, value in alone["weights"].items())
    assert moved > 1e-3
    for rank in range(RANKS):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["weights"].keys() == alone["weights"].keys()
        for key, value in found["weights"].items():
            torch.testing.assert_close(value, alone["weights"][key], rtol=1e-3, atol=1e-6, msg=key)
        for said, expected in zip(found["said"], alone["said"], strict=True):
            torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5)
        assert found["norm"] == pytest.approx(alone["norm"], rel=1e-4)


@needs_openvla
def test_half_precision_keeps_small_steps_when_it_is_shared_out(tmp_path: Path) -> None:
    """Computed in bfloat16, kept in float32: a step far below what bfloat16 resolves is there afterwards."""
    torch.multiprocessing.spawn(run, (str(tmp_path), free_port(), "bfloat16"), nprocs=RANKS)
    before = make_policy("bfloat16").state_dict()
    found = torch.load(tmp_path / "0.pt", weights_only=True)["weights"]
    changed = lost = 0
    for key, value in found.items():
        changed += int((value != before[key].float()).sum())
        lost += int(((value != before[key].float()) & (value.bfloat16() == before[key])).sum())
    assert changed > 1000
    assert lost > 0.3 * changed, "these steps would have left bfloat16 weights as they were"


def test_half_precision_is_not_trained_as_it_is() -> None:
    with pytest.raises(UserError, match="small steps are lost"):
        fit(GRPOTraining(small_policy().bfloat16()), Batches([made_up_batch(["mixed"])]))


def test_adapters_are_not_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy()
    for name, weight in policy.named_parameters():
        weight.requires_grad_(name.startswith("head"))
    task = GRPOTraining(policy)
    monkeypatch.setattr(GRPOTraining, "device_mesh", {"data_parallel": None})
    with pytest.raises(UserError, match=r"strategy ddp, or model\.merge_adapters"):
        task.configure_model()
