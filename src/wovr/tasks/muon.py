"""Muon for the matrices of a transformer's blocks, AdamW for everything else, as one optimiser.

Muon (Jordan et al., 2024) takes the momentum of a matrix and makes all its singular values equal before it steps. In a
few thousand steps on a CPU it took the tiny world model as far as AdamW did in two to three times as many. Both
optimisers are torch's; this file only makes them look like one to a trainer, a schedule and a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn

Groups = list[dict[str, Any]]


class MuonAdamW(torch.optim.Optimizer):
    """Two optimisers in one: its groups are those of AdamW, then that of Muon.

    Args:
        matrices: Weights of two dimensions that Muon steps.
        others: AdamW's parameter groups.
        muon_lr: Learning rate of the matrices, scaled so that steps are as large as AdamW's at the same rate.
        lr: AdamW's learning rate.
        weight_decay: Decoupled weight decay of the matrices.
        betas: AdamW's.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Groups,
        muon_lr: float,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.parts = (
            torch.optim.AdamW(others, lr=lr, betas=betas),
            torch.optim.Muon(list(matrices), lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        )
        super().__init__(list(chain.from_iterable(part.param_groups for part in self.parts)), {})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        # The very dictionaries of the parts: a schedule that writes learning rates here writes them there.
        self.param_groups = list(chain.from_iterable(part.param_groups for part in self.parts))
