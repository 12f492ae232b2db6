"""World models small enough for tests, and pictures for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wovr.models.checkpoint import register
from wovr.models.robot.follow_head import COARSE
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.base import Autoencoder
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.model import WorldModel

SIZE = 16


@register
class CausalAutoencoder(Autoencoder):
    """Each latent frame holds a fifth of the one before it, so groups cannot be encoded on their own: as Wan's does."""

    def __init__(self, patch: int = 8) -> None:
        super().__init__(patch, 4 * patch * patch * 3)
        self.patches = PatchAutoencoder(patch)
        self.encoded: list[int] = []

    def encode(self, frames: Tensor) -> Tensor:
        self.encoded.append(frames.shape[2])
        latents = list(self.patches.encode(frames).unbind(2))
        for index in range(1, len(latents)):
            latents[index] = latents[index] + 0.2 * latents[index - 1]
        return torch.stack(latents, dim=2)

    def decode(self, latents: Tensor, reference: Tensor | None = None) -> Tensor:
        frames = list(latents.unbind(2))
        for index in range(len(frames) - 1, 0, -1):
            frames[index] = frames[index] - 0.2 * frames[index - 1]
        return self.patches.decode(torch.stack(frames, dim=2))


def tiny_backbone(seed: int = 0, alive: bool = True, **arguments: Any) -> WanBackbone:
    """A backbone for 16 x 16 pixels in patches of 8; `alive` gives its answer and its actions weight from the start."""
    torch.manual_seed(seed)
    numbers: dict[str, Any] = {
        "in_channels": 768,
        "out_channels": 1280,
        "action_dim": 3,
        "patch": 1,
        "heads": 2,
        "head_dim": 12,
        "layers": 2,
        "ffn_dim": 48,
        "frequencies": 16,
    }
    backbone = WanBackbone(**numbers | arguments)
    if alive:
        for name, parameter in backbone.named_parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1 if "proj_out" in name else 0.5)
    return backbone


def tiny_world(
    seed: int = 0, alive: bool = True, backbone: dict[str, Any] | None = None, **arguments: Any
) -> WorldModel:
    """A world model of `tiny_backbone`; `arguments` are those of WorldModel."""
    settings: dict[str, Any] = {"prediction": "data", "head": "copy", "noisy_context": 0.0} | arguments
    network = tiny_backbone(seed, alive, **(backbone or {}))
    return WorldModel(settings.pop("autoencoder", PatchAutoencoder(8)), network, **settings).eval()


def linear_world(seed: int = 0, **arguments: Any) -> WorldModel:
    """The same without the copy head."""
    backbone = {"out_channels": None} | arguments.pop("backbone", {})
    return tiny_world(seed, backbone=backbone, **{"prediction": "velocity", "head": "linear"} | arguments)


def tiny_robot(
    seed: int = 0, action_dim: int = 3, proprio_dim: int = 5, touch: list[int] | None = None, chunk: int = 8
) -> RobotModel:
    """A robot model with random weights, mean, spread, and a camera that sees x to the right and y downwards."""
    torch.manual_seed(seed)
    robot = RobotModel(action_dim, proprio_dim, width=8, touch=touch, chunk=chunk).eval()
    robot.mean.normal_()
    robot.spread.uniform_(0.5, 2)
    with torch.no_grad():
        robot.camera.copy_(torch.eye(2, 4) * 0.5)
        robot.depth.copy_(torch.tensor([0.0, 0.1, 0.2]))
    return robot


def following_world(seed: int = 0, alive: bool = True, **arguments: Any) -> WorldModel:
    """A world model with `tiny_robot` and head `follow`."""
    robot = arguments.pop("robot", None) or tiny_robot()
    latents = PatchAutoencoder(8).latent_channels
    beside = 5 * len(COARSE) ** 2 + latents  # offsets of four frames and of the one before; the frame that followed
    backbone = {
        "in_channels": 3 * latents + 4 * robot.action_dim + 2 + beside,
        "out_channels": 4 * 96,
        "action_dim": robot.action_dim + 2 * robot.proprio_dim,
        "latent_frames": 2,
    } | arguments.pop("backbone", {})
    return tiny_world(
        seed,
        alive,
        backbone,
        **{"robot": robot, "head": "follow", "head_hidden": 16, "context": "channels"} | arguments,
    )


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 16, 16, 3) uint8."""
    return torch.randint(
        0, 256, (*shape, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def random_actions(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 3) float32 in [-1, 1]."""
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
