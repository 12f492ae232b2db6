"""The contract of a backbone: latents of a clip, a noise level for each latent frame, and the actions behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from wovr.errors import UserError
from wovr.models.checkpoint import Network


class Backbone(Network, ABC):
    """A network over T latent frames that answers for the new ones. What its answer means is the world model's matter.

    A clip is [reference, memory, new]; context latents have noise level 0 (or the level of their noise, when the world
    model tells it).

    Its layers are made when the four numbers are known: at once where all are given, else by the world model that it
    becomes part of.

    Args:
        in_channels: Channels of a latent frame, C, with those that are given beside it.
        out_channels: Channels of the answer; as many as of a latent frame, or what the world model's head needs.
        action_dim: Numbers that are told of each action, A.
        latent_frames: Latent frames of a clip, T.

    Attributes:
        given: The four as they were given, by name; None where the world model is to say.
    """

    kind: ClassVar[str] = "backbone"
    in_channels: int
    out_channels: int
    action_dim: int
    latent_frames: int

    def __init__(
        self, in_channels: int | None, out_channels: int | None, action_dim: int | None, latent_frames: int | None
    ) -> None:
        super().__init__()
        self.given = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "action_dim": action_dim,
            "latent_frames": latent_frames,
        }

    def complete(self, **numbers: int) -> None:
        """Make the layers, unless they are made, with the numbers that a world model derives from its other parts.

        Args:
            numbers: Those of `given`, all of them.

        Raises:
            UserError: One was given otherwise.
        """
        for name, number in numbers.items():
            if self.given[name] not in (None, number):
                raise UserError(
                    f"the backbone's {name} is {self.given[name]}, the other parts of the world model make it {number}",
                    f"set backbone.init_args.{name} to null",
                )
        if None in self.given.values():
            self._make_with(numbers)

    def _make_with(self, numbers: Mapping[str, int | None]) -> None:
        """Make the layers if all numbers are known."""
        known = {name: number for name, number in numbers.items() if number is not None}
        if len(known) == len(numbers):
            for name, number in known.items():
                setattr(self, name, number)
            self.make()

    @abstractmethod
    def make(self) -> None:
        """Make the layers; the four numbers are attributes now."""

    @abstractmethod
    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        actions: Tensor,
        position: Tensor | None = None,
        *,
        beside: Sequence[Tensor] = (),
        reference: bool = True,
        new: int = 2,
    ) -> Tensor:
        """Answer for the last latent frames.

        Args:
            latents: (B, C - those beside, T, h, w) float.
            time: (B, T) float in [0, 1], noise level of each latent frame.
            actions: (B, 4 T, A) float in [-1, 1], the action that produced each frame; neutral where none did.
            position: (B, T) float, when each latent frame is, in latent frames; None for 0, 1, 2, ...
            beside: Further channels after those of `latents`, in parts of (B, c, T or 1, h, w) float; those with 1 are
                the same for all latent frames.
            reference: The first latent frame is the reference.
            new: Latent frames at the end that are asked for.

        Returns:
            (B, out_channels, new, h, w) float.
        """

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The repeated parts in order: what is compiled and sharded piece by piece."""

    @abstractmethod
    def tokens_of(self, latent_size: tuple[int, int]) -> int:
        """Tokens of a clip whose latent frames are (h, w).

        Raises:
            UserError: The backbone cannot cut such latent frames into tokens.
        """

    @staticmethod
    def squares_of(latent_size: tuple[int, int], patch: int) -> int:
        """Squares of `patch` places a side that a latent frame of (h, w) is cut into.

        Raises:
            UserError: The sides are no multiples of it.
        """
        height, width = latent_size
        if height % patch or width % patch:
            raise UserError(
                f"latent frames are {height} x {width}, the backbone's patch is {patch}",
                "set the backbone's patch to 1 or choose another image size",
            )
        return (height // patch) * (width // patch)

    def compile_blocks(self) -> None:
        """Let torch.compile make faster code of the blocks, in place: names of weights do not change.

        One block is compiled and its code serves all of them, which takes seconds where the whole would take minutes.
        """
        for block in self.blocks:
            block.compile()

    def shard(self, mesh: DeviceMesh) -> None:
        """Share the weights out over the processes of a mesh (FSDP2), block by block, in place; once only."""
        for part in (*self.blocks, *self.children()):
            if not isinstance(part, FSDPModule):
                fully_shard(part, mesh=mesh)
