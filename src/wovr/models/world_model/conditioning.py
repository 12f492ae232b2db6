"""What a world model's network is told beyond actions: one plug-in, and its default, which tells nothing.

A world model asks it four things: `begin` when a rollout starts, `inputs` before each chunk, `read` for what the
network answers, `advance` after the chunk. What goes on from chunk to chunk is a dictionary of tensors, which travels
in the `Context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from wovr.models.checkpoint import Network
from wovr.models.world_model.autoencoders.base import Autoencoder

State = dict[str, Tensor]
"""What a conditioning knows of B rollouts between two chunks: each (B, ...), by name."""


@dataclass(frozen=True)
class Frame:
    """The last frame before a chunk.

    Attributes:
        picture: (B, H, W, 3) uint8.
        latent: (B, C, h, w) float32, the latent frame that it ends; in training there may be noise on it.
    """

    picture: Tensor
    latent: Tensor


@dataclass(frozen=True)
class Inputs:
    """What the network gets for a chunk beside actions and latents. A conditioning may add to it what `read` needs.

    Attributes:
        told: (B, K, E) float, numbers beside each action; None for none.
        shown: Further channels of the new latent frames, in parts of (B, c, n or 1, h, w) float; only with context
            `channels`.
    """

    told: Tensor | None = None
    shown: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Setting:
    """The world model that a conditioning is part of, see the arguments there.

    Attributes:
        autoencoder: Its autoencoder.
        action_dim: Dimensions of an action, A.
        chunk: Actions of a chunk, K.
        prediction: `velocity` or `data`.
        head: `linear` or `copy`.
        reference: Whether the reference frame is shown.
        context: `tokens` or `channels`.
    """

    autoencoder: Autoencoder
    action_dim: int
    chunk: int
    prediction: str
    head: str
    reference: bool
    context: str


class Conditioning(Network):
    """Tells the network nothing.

    Attributes:
        action_dim: Dimensions of the actions that it is made for, A; None for any.
        told_dim: Numbers beside each action, E.
        shown_channels: Channels of what is shown.
        predicts: Numbers, at each frame, of what it knows to come beside frames, by name; a policy may be shown them.
        answer_channels: Channels that the network has to answer with where `read` makes latents of something else; None
            where it answers with what the world model's own head needs.
    """

    kind: ClassVar[str] = "conditioning"
    action_dim: int | None = None
    told_dim: int = 0
    shown_channels: int = 0
    predicts: Mapping[str, int] = MappingProxyType({})
    answer_channels: int | None = None

    def attach(self, setting: Setting) -> None:
        """Become part of a world model, before the network is made: what depends on its other parts is made here.

        Raises:
            UserError: It cannot be had with them.
        """

    def begin(self, start: Mapping[str, Tensor], after: Mapping[str, Tensor] | None = None) -> State:
        """What there is to know at the start of B rollouts.

        Args:
            start: What the episodes hold beside frames and actions, at the last frame before the chunk: each (B, ...)
                float32, by name. There may be more than is needed.
            after: In training, the same after each action of the chunk, (B, K, ...) each; None in imagination.

        Raises:
            UserError: Something that is needed is missing.
        """
        return {}

    def inputs(self, state: State, actions: Tensor, frame: Frame) -> Inputs:
        """What to tell and to show the network for a chunk.

        Args:
            state: From `begin` or `advance`.
            actions: (B, K, A) float in [-1, 1].
            frame: Before the chunk.
        """
        return Inputs()

    def read(self, answer: Tensor, inputs: Inputs, reference: Tensor, last: Tensor) -> Tensor:
        """Make latents of what the network answers; only with `answer_channels`.

        Args:
            answer: (B, answer_channels, n, h, w) float.
            inputs: What it was asked with.
            reference: (B, C, h, w) float, latent of the reference frame.
            last: (B, C, h, w) float, the last latent frame before the chunk.

        Returns:
            (B, C, n, h, w) float32.
        """
        return answer.float()

    def advance(self, state: State, inputs: Inputs) -> State:
        """What is known after a chunk.

        Args:
            state: Before it.
            inputs: What `inputs` said of it.
        """
        return {}

    def predicted(self, inputs: Inputs) -> dict[str, Tensor]:
        """What it knows to come, of `predicts`.

        Args:
            inputs: What `inputs` said of a chunk.

        Returns:
            (B, K, ...) float32 each, after each action, in the units of `begin`'s `start`.
        """
        return {}

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that are not trained with the world model, and stay as given where a training begins from another's."""
        return ()

    @property
    def hidden(self) -> tuple[nn.Module, ...]:
        """Layers from features to features: what an optimiser for hidden matrices may have."""
        return ()

    def compile_parts(self) -> None:
        """Let torch.compile make faster code of what takes the time, in place."""

    def check_data(self, dims: Mapping[str, int]) -> None:
        """Compare with episodes to train on.

        Args:
            dims: Numbers, at each frame, of what all episodes hold beside frames and actions, by name.

        Raises:
            UserError: Something that is needed is missing or of another size.
        """

    def example(self, count: int) -> dict[str, Tensor]:
        """A `start` for measuring speed, the same for all of some rollouts."""
        return {}
