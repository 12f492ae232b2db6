from __future__ import annotations

import copy

import torch
from torch import nn

from wovr.tasks.muon import MuonAdamW


def run(optimizer: torch.optim.Optimizer, network: nn.Module, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(8, 6, generator=generator)).square().mean().backward()
        optimizer.step()


def make(network: nn.Sequential) -> MuonAdamW:
    others = [{"params": [network[1].weight], "weight_decay": 0.1}, {"params": [network[0].bias, network[1].bias]}]
    return MuonAdamW([network[0].weight], others, muon_lr=1e-2, lr=1e-3, weight_decay=0.1)


def test_each_part_steps_its_own_as_torch_s_would() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    other = copy.deepcopy(network)
    run(make(network), network, 5)
    muon = torch.optim.Muon([other[0].weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(
        [
            {"params": [other[1].weight], "weight_decay": 0.1},
            {"params": [other[0].bias, other[1].bias], "weight_decay": 0.01},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        other.zero_grad()
        other(torch.randn(8, 6, generator=generator)).square().mean().backward()
        muon.step()
        adam.step()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_schedule_reaches_both_parts_also_after_loading() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    optimizer = make(network)
    run(optimizer, network, 2)
    again = make(network)
    again.load_state_dict(optimizer.state_dict())
    schedule = torch.optim.lr_scheduler.LambdaLR(again, lambda step: 0.5)
    schedule.step()
    assert [group["lr"] for part in again.parts for group in part.param_groups] == [5e-4, 5e-4, 5e-3]


def test_a_saved_state_goes_on_as_if_never_stopped() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    optimizer = make(whole)
    run(optimizer, whole, 3)
    resumed = copy.deepcopy(whole)
    again = make(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, whole, 3, seed=1)
    run(again, resumed, 3, seed=1)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
