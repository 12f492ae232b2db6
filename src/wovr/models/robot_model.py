"""How the robot itself moves, and where the camera sees it: what a world model need not learn from pixels.

Actions alone say badly where a gripper goes: controllers lag, clip and stop at the table. Where a robot reports its own
state (proprioception), a small recurrent network learns all that in a minute, and a linear camera says where in the
picture the hand is. Robots' poses as conditions, projected into the picture, are those of EnerVerse-AC and Ctrl-World.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.checkpoint import Network

NEAR = 0.3
"""Least relative depth: points behind the camera are shown as close to it."""

STEP = 0.3
"""Of the normalised state, how far an output of 1 moves it in a step: states move by fractions of their spread."""


class RobotModel(Network):
    """Predicts proprioception under a chunk of actions, and projects the hand's position into the picture.

    The network sees a chunk's actions only, one after the other, so what it predicts of a step does not depend on later
    ones. Its memory begins anew with each chunk: all that goes on from chunk to chunk is the proprioception itself.

    Args:
        action_dim: Dimensions of an action, A.
        proprio_dim: Numbers of the proprioception, P, at least 3: the first are the hand's position (x, y, z).
        width: Units of the recurrent network.

    Attributes:
        mean: (P,) float32, subtracted from proprioception.
        spread: (P,) float32, what it is then divided by; all 0 before the model was fitted.
        camera: (2, 4) float32, numerators of the projection of normalised positions, with offset.
        depth: (3,) float32, how depth grows with the normalised position.
    """

    kind: ClassVar[str] = "robot_model"
    mean: Tensor
    spread: Tensor

    def __init__(self, action_dim: int = 4, proprio_dim: int = 8, width: int = 64) -> None:
        super().__init__()
        if proprio_dim < 3:
            raise UserError(f"proprio_dim is {proprio_dim}", "give 3 or more: x, y, z of the hand come first")
        self.action_dim, self.proprio_dim, self.width = action_dim, proprio_dim, width
        seen = action_dim + proprio_dim
        self.look = nn.Sequential(nn.Linear(seen, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.cell = nn.GRUCell(width, width)
        self.move = nn.Sequential(nn.Linear(2 * width + seen, width), nn.SiLU(), nn.Linear(width, proprio_dim))
        self.camera = nn.Parameter(torch.zeros(2, 4))
        self.depth = nn.Parameter(torch.zeros(3))
        self.register_buffer("mean", torch.zeros(proprio_dim))
        self.register_buffer("spread", torch.zeros(proprio_dim))

    def normalise(self, proprio: Tensor) -> Tensor:
        """(..., P) in the robot's units -> (..., P) of about unit spread."""
        return (proprio - self.mean) / self.spread

    def unroll(self, state: Tensor, actions: Tensor) -> Tensor:
        """`predict` in normalised units: (B, P) and (B, K, A) float -> (B, K, P) float."""
        memory = state.new_zeros(len(state), self.width)
        states = []
        for action in actions.unbind(1):
            seen = torch.cat([action, state], dim=-1)
            look = self.look(seen)
            memory = self.cell(look, memory)
            state = state + STEP * self.move(torch.cat([memory, look, seen], dim=-1))
            states.append(state)
        return torch.stack(states, dim=1)

    def predict(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Proprioception after each action.

        Args:
            proprio: (B, P) float32 before the first one, in the robot's units.
            actions: (B, K, A) float in [-1, 1].

        Returns:
            (B, K, P) float32, in the robot's units.
        """
        with torch.autocast(proprio.device.type, enabled=False):  # tiny, and millimetres count
            return self.unroll(self.normalise(proprio), actions.float()) * self.spread + self.mean

    @torch.no_grad()
    def states(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """(B, 1 + K, P) float32, normalised proprioception at the start and, predicted, after each action.

        Arguments as of `predict`.
        """
        return self.normalise(torch.cat([proprio[:, None], self.predict(proprio, actions)], dim=1))

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Where the camera sees the hand.

        Args:
            state: (..., P) float, normalised proprioception.

        Returns:
            (..., 2) float, column and row in [-1, 1] over the picture (beyond it where the hand is out of sight), and
            (...,) float, its distance from the camera relative to that of the mean state.
        """
        position = state[..., :3].float()
        depth = (1 + position @ self.depth).clamp(min=NEAR)
        place = position @ self.camera[:, :3].T + self.camera[:, 3]
        return place / depth[..., None], depth
