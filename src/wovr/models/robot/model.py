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
from wovr.models.checkpoint import Network, known
from wovr.models.robot.touch import Courses, TouchHead
from wovr.types import CHUNK

NEAR = 0.3
"""Least relative depth: points behind the camera are shown as close to it."""

STEP = 0.3
"""Of the normalised state, how far an output of 1 moves it in a step: states move by fractions of their spread."""


class RobotModel(Network):
    """Predicts proprioception under a chunk of actions, and projects the hand's position into the picture.

    The recurrent network sees a chunk's actions only, one after the other, so what it predicts of a step does not
    depend on later ones. Its memory begins anew with each chunk: all that goes on from chunk to chunk is the
    proprioception itself.

    Args:
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        proprio_dim: Numbers of the proprioception, P, at least 3: the first are the hand's position (x, y, z). Null as
            above.
        width: Units of the recurrent network.
        touch: Which numbers of the proprioception, from 0, say whether something is held: how far each finger is open.
            They are guessed from the picture too, once for a chunk; none where the list is empty. In a training null is
            those that the episodes show to be so (`wovr.tasks.robot.fingers`); else it is none.
        chunk: Actions of a chunk, K; only `touch` looks at it.

    Attributes:
        mean: (P,) float32, subtracted from proprioception.
        spread: (P,) float32, what it is then divided by, at least a thousandth of a unit; all 0 before the model was
            fitted.
        camera: (2, 4) float32, numerators of the projection of normalised positions, with offset.
        depth: (3,) float32, how depth grows with the normalised position.
    """

    kind: ClassVar[str] = "robot_model"
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        action_dim: int | None = 4,
        proprio_dim: int | None = 8,
        width: int = 64,
        touch: list[int] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        action_dim, proprio_dim = known("action_dim", action_dim), known("proprio_dim", proprio_dim)
        if proprio_dim < 3:
            raise UserError(f"proprio_dim is {proprio_dim}", "give 3 or more: x, y, z of the hand come first")
        self.touch = [] if touch is None else list(touch)
        if len(set(self.touch)) < len(self.touch) or not set(self.touch) <= set(range(3, proprio_dim)):
            raise UserError(
                f"touch is {touch} with proprio_dim {proprio_dim}", f"give numbers from 3 to {proprio_dim - 1}, or null"
            )
        self.action_dim, self.proprio_dim, self.width, self.chunk = action_dim, proprio_dim, width, chunk
        seen = action_dim + proprio_dim
        self.look = nn.Sequential(nn.Linear(seen, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.cell = nn.GRUCell(width, width)
        self.move = nn.Sequential(nn.Linear(2 * width + seen, width), nn.SiLU(), nn.Linear(width, proprio_dim))
        self.touch_head = TouchHead(len(self.touch), action_dim, proprio_dim, chunk) if self.touch else None
        self.camera = nn.Parameter(torch.zeros(2, 4))
        self.depth = nn.Parameter(torch.zeros(3))
        self.register_buffer("mean", torch.zeros(proprio_dim))
        self.register_buffer("spread", torch.zeros(proprio_dim))

    def normalise(self, proprio: Tensor) -> Tensor:
        """(..., P) in the robot's units -> (..., P) of about unit spread."""
        return (proprio - self.mean) / self.spread

    def restore(self, state: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return state * self.spread + self.mean

    def unroll(self, state: Tensor, actions: Tensor) -> Tensor:
        """Normalised proprioception after each action, from these alone: (B, P), (B, K, A) float -> (B, K, P) float."""
        memory = state.new_zeros(len(state), self.width)
        states = []
        for action in actions.unbind(1):
            seen = torch.cat([action, state], dim=-1)
            look = self.look(seen)
            memory = self.cell(look, memory)
            state = state + STEP * self.move(torch.cat([memory, look, seen], dim=-1))
            states.append(state)
        return torch.stack(states, dim=1)

    @torch.no_grad()
    def foresee(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """What the recurrent network says of a chunk; arguments and result as of `states`."""
        with torch.autocast(proprio.device.type, enabled=False):  # tiny, and millimetres count
            start = self.normalise(proprio)
            return torch.cat([start[:, None], self.unroll(start, actions.float())], dim=1)

    def courses(self, states: Tensor, actions: Tensor, frame: Tensor) -> Courses:
        """Guess the `touch` numbers of a chunk; only with some.

        Args:
            states: (B, 1 + K, P) float32, normalised proprioception before the chunk and as `unroll` has it after.
            actions: (B, K, A) float in [-1, 1].
            frame: (B, H, W, 3) uint8, before the chunk.
        """
        assert self.touch_head is not None
        with torch.autocast(states.device.type, enabled=False):
            states = states.detach().float()
            with torch.no_grad():
                places, _ = self.project(states)
            return self.touch_head(frame, states, places, actions.float())

    @torch.no_grad()
    def states(self, proprio: Tensor, actions: Tensor, frame: Tensor, after: Tensor | None = None) -> Tensor:
        """Proprioception before a chunk and, predicted, after each action.

        Args:
            proprio: (B, P) float32 before the first one, in the robot's units.
            actions: (B, K, A) float in [-1, 1].
            frame: (B, H, W, 3) uint8, before the chunk; only `touch` looks at it.
            after: (B, K, P) float, true proprioception after each action, for its `touch` numbers to be taken from
                there and not guessed; None to guess them.

        Returns:
            (B, 1 + K, P) float32, normalised. Of two courses that the `touch` numbers may take this is the likelier.
        """
        states = self.foresee(proprio, actions)
        if self.touch and after is not None:
            states[:, 1:, self.touch] = self.normalise(after.to(states))[..., self.touch]
        elif self.touch:
            states[:, 1:, self.touch] = self.courses(states, actions, frame).likelier()
        return states

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
