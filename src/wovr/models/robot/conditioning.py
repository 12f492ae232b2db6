"""A world model that is told where the robot is going to be, and copies the hand from there: see `Conditioning`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.robot.follow_head import FollowHead, HandCues
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.conditioning import Conditioning, Frame, Inputs, Setting, State


@dataclass(frozen=True)
class RobotInputs(Inputs):
    """What the robot model says of a chunk.

    Attributes:
        states: (B, 1 + K, P) float32, normalised proprioception before it and after each action.
        cues: The same in pixels; None without a follow head.
    """

    states: Tensor | None = None
    cues: HandCues | None = None


class RobotConditioning(Conditioning):
    """Tells the network, beside each action, the proprioception that follows, and how far that is from the start's.

    Args:
        robot: A fitted robot model. Frozen here; its weights travel in the world model's checkpoint.
        follow_hidden: Units of the perceptron of a head that blends generated colour, last memory frame, reference
            frame and the last memory frame moved along with the hand (`FollowHead`); only with prediction `data`, head
            `linear`, PatchAutoencoder and context `channels`. Null for the world model's own head.
    """

    def __init__(self, robot: RobotModel, follow_hidden: int | None = None) -> None:
        super().__init__()
        self.robot = robot.requires_grad_(False).eval()
        self.follow_hidden = follow_hidden
        self.head: FollowHead | None = None
        self.action_dim = robot.action_dim
        self.told_dim = 2 * robot.proprio_dim
        self.predicts = {"proprio": robot.proprio_dim}

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the robot model."""
        super().train(mode)
        self.robot.eval()
        return self

    def attach(self, setting: Setting) -> None:
        """See `Conditioning.attach`."""
        robot, autoencoder = self.robot, setting.autoencoder
        if robot.action_dim != setting.action_dim:
            raise UserError(
                f"the robot model's actions have {robot.action_dim} dimensions, the world model's {setting.action_dim}",
                "set world_model.init_args.action_dim to null, or fit a robot model on episodes of this robot",
            )
        if robot.touch and robot.chunk != setting.chunk:
            raise UserError(
                f"world_model: chunk is {setting.chunk}, the robot model's {robot.chunk}",
                "fit a robot model with data.chunk and the network's chunk as here",
            )
        if self.follow_hidden is None:
            return
        if (
            setting.prediction != "data"
            or setting.head != "linear"
            or setting.context != "channels"
            or not isinstance(autoencoder, PatchAutoencoder)
        ):
            raise UserError(
                "follow_hidden needs prediction data, head linear, PatchAutoencoder and context channels",
                "set them, or set follow_hidden to null",
            )
        self.head = FollowHead(autoencoder, setting.reference, robot.proprio_dim, self.follow_hidden)
        self.shown_channels = self.head.channels_beside
        self.answer_channels = self.head.channels

    def begin(self, start: Mapping[str, Tensor], after: Mapping[str, Tensor] | None = None) -> State:
        """See `Conditioning.begin`: of `proprio`, (B, P), the true one after the chunk tells what touch decides.

        Of what cannot be known the network is told the truth, so that it draws that and not the mean of what may be.
        """
        state = {"proprio": self._checked(start.get("proprio"))}
        return state if after is None else state | {"after": self._checked(after.get("proprio"))}

    def inputs(self, state: State, actions: Tensor, frame: Frame) -> RobotInputs:
        """See `Conditioning.inputs`."""
        states = self.robot.states(state["proprio"], actions, frame.picture, state.get("after"))
        return self.inputs_of(states, frame)

    def inputs_of(self, states: Tensor, frame: Frame) -> RobotInputs:
        """The inputs of states that are known: (B, 1 + K, P) float32, normalised."""
        told = torch.cat([states[:, 1:], states[:, 1:] - states[:, :1]], dim=-1)
        if self.head is None:
            return RobotInputs(told, states=states)
        cues = self.head.cues(self.robot, states, frame.latent)
        return RobotInputs(told, tuple(self.head.cue_channels(cues)), states, cues)

    def read(self, answer: Tensor, inputs: Inputs, reference: Tensor, last: Tensor) -> Tensor:
        """See `Conditioning.read`: the head's blend."""
        assert self.head is not None
        assert isinstance(inputs, RobotInputs)
        assert inputs.cues is not None
        return self.head(answer, inputs.cues, reference, last)

    def advance(self, state: State, inputs: Inputs) -> State:
        """See `Conditioning.advance`: the proprioception that was predicted."""
        assert isinstance(inputs, RobotInputs)
        assert inputs.states is not None
        return {"proprio": self.robot.restore(inputs.states[:, -1])}

    def predicted(self, inputs: Inputs) -> dict[str, Tensor]:
        """See `Conditioning.predicted`: the proprioception."""
        assert isinstance(inputs, RobotInputs)
        assert inputs.states is not None
        return {"proprio": self.robot.restore(inputs.states[:, 1:])}

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The robot model, which may have seen more episodes than the one that a training begins from."""
        return (self.robot,)

    @property
    def hidden(self) -> tuple[nn.Module, ...]:
        """The hidden layer of the head."""
        return () if self.head is None else (self.head.look,)

    def compile_parts(self) -> None:
        """See `Conditioning.compile_parts`."""
        if self.head is not None:
            self.head.compile()

    def check_data(self, dims: Mapping[str, int]) -> None:
        """See `Conditioning.check_data`; or the robot model was never fitted."""
        found = dims.get("proprio", 0)
        if found != self.robot.proprio_dim:
            raise UserError(
                f"proprio_dim is {self.robot.proprio_dim} in the model and {found} in the data",
                "use episodes with proprioception, or set world_model.conditioning to null",
            )
        if not self.robot.spread.any():
            raise UserError("the robot model was never fitted", "fit one first: wovr fit --config conf/robot.yaml")

    def example(self, count: int) -> dict[str, Tensor]:
        """The mean proprioception: any state is as fast to follow as another."""
        if not self.robot.spread.any():  # not fitted: by 0 nothing can be divided
            self.robot.spread.fill_(1.0)
        return {"proprio": self.robot.mean.expand(count, -1)}

    def _checked(self, proprio: Tensor | None) -> Tensor:
        """Proprioception (..., P) as it is needed.

        Raises:
            UserError: There is none, or of another size.
        """
        needed = self.robot.proprio_dim
        if proprio is None or proprio.shape[-1] != needed:
            given = "none" if proprio is None or not proprio.shape[-1] else f"{proprio.shape[-1]} numbers of it"
            raise UserError(
                f"the world model's robot model takes {needed} numbers of proprioception, there are {given}",
                "use episodes that hold it",
            )
        return proprio
