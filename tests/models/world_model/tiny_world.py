"""World models small enough for tests, and pictures for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wovr.models.checkpoint import register
from wovr.models.robot.conditioning import RobotConditioning
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
        "latent_frames": 4,
        "patch": 1,
        "heads": 2,
        "head_dim": 12,
        "layers": 2,
        "ffn_dim": 48,
        "frequencies": 16,
    }
    backbone = WanBackbone(**numbers | arguments)
    if alive:
        enliven(backbone)
    return backbone


def enliven(backbone: WanBackbone) -> None:
    """Give the answer and the actions of a backbone weight."""
    for name, parameter in backbone.named_parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1 if "proj_out" in name else 0.5)


def tiny_world(
    seed: int = 0, alive: bool = True, backbone: dict[str, Any] | None = None, **arguments: Any
) -> WorldModel:
    """A world model of `tiny_backbone`, whose numbers it derives; `arguments` are those of WorldModel."""
    settings: dict[str, Any] = {"prediction": "data", "head": "copy", "noisy_context": 0.0} | arguments
    if settings.get("conditioning") is None:
        settings.setdefault("action_dim", 3)
    derived = dict.fromkeys(("in_channels", "out_channels", "action_dim", "latent_frames"))
    network = tiny_backbone(seed, alive=False, **derived | (backbone or {}))
    model = WorldModel(settings.pop("autoencoder", PatchAutoencoder(8)), network, **settings).eval()
    if alive:
        enliven(network)
    return model


def linear_world(seed: int = 0, **arguments: Any) -> WorldModel:
    """The same without the copy head."""
    return tiny_world(seed, **{"prediction": "velocity", "head": "linear"} | arguments)


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
    """A world model with `tiny_robot`, or another `robot`, and a head that follows it."""
    conditioning = RobotConditioning(arguments.pop("robot", None) or tiny_robot(), follow_hidden=16)
    settings = {"conditioning": conditioning, "head": "linear", "context": "channels"} | arguments
    return tiny_world(seed, alive, **settings)


def robot_of(model: WorldModel) -> RobotModel:
    """The robot model of a world model that has one."""
    assert isinstance(model.conditioning, RobotConditioning)
    return model.conditioning.robot


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 16, 16, 3) uint8."""
    return torch.randint(
        0, 256, (*shape, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def random_actions(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 3) float32 in [-1, 1]."""
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
