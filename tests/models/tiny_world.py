"""World models small enough for tests, and pictures for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wovr.models.autoencoders.base import Autoencoder
from wovr.models.autoencoders.patch import PatchAutoencoder
from wovr.models.backbones.wan import WanBackbone
from wovr.models.checkpoint import register
from wovr.models.world_model import WorldModel

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


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 16, 16, 3) uint8."""
    return torch.randint(
        0, 256, (*shape, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def random_actions(*shape: int, seed: int = 0) -> Tensor:
    """(*shape, 3) float32 in [-1, 1]."""
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
