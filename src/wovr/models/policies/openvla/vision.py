"""OpenVLA's eyes: DINOv2 and SigLIP side by side on one picture, their features projected into the words' space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wovr.errors import UserError

MEAN_STD = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's, for DINOv2
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # SigLIP's
)
"""Mean and standard deviation of colours in [0, 1] that each network expects."""

CROP_AREA = 0.9
"""Share of the picture's area that the centre crop keeps: random crops of that size were the augmentation."""

EXTRA = "pip install 'wovr[openvla]'"
"""What brings the packages."""


def fit_picture(image: Tensor, size: int, center_crop: bool) -> Tensor:
    """Bring pictures to the networks' size and crop them.

    The released data pipeline resizes with a Lanczos filter and stores JPEG in between; this resizes with an
    antialiased bicubic one and stores nothing. The crop has its first and last row at sample points, as TensorFlow's.

    Args:
        image: (N, 3, H, H) float in [-1, 1].
        size: Side of the result.
        center_crop: Cut out the middle, CROP_AREA of the picture, and enlarge it to `size` again.

    Returns:
        (N, 3, size, size) float32 in [-1, 1].

    Raises:
        UserError: The pictures are not square.
    """
    height, width = image.shape[2:]
    if height != width:
        raise UserError(
            f"images are {height} x {width}, OpenVLA takes square ones",
            "make the environment render, and the data set hold, square pictures",
        )
    image = image.to(torch.float32)
    if height != size:
        image = nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    if center_crop:
        side = torch.linspace(-1, 1, size, device=image.device) * CROP_AREA**0.5
        rows, columns = torch.meshgrid(side, side, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1).expand(len(image), -1, -1, -1)  # (N, size, size, 2)
        image = nn.functional.grid_sample(image, grid, mode="bilinear", align_corners=True)
    return image


class FusedVision(nn.Module):
    """Features of the block before the last of two vision transformers, concatenated.

    What comes after that block is part of the released weights and is not used: it is kept, frozen.

    Args:
        timm_models: timm's names of the two networks, first DINOv2, then SigLIP.
        image_size: Side of a picture, a multiple of both patch sizes.
        numbers: For each network what replaces its own numbers (`embed_dim`, `depth`, `num_heads`); None for none.
        gradient_checkpointing: Compute a block's activations again in the backward pass instead of keeping them.

    Raises:
        UserError: timm is missing or knows no such network, or the picture is not made of whole patches.
    """

    def __init__(
        self,
        timm_models: Sequence[str],
        image_size: int,
        numbers: Sequence[Mapping[str, Any]] | None,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        if len(timm_models) != 2 or (numbers is not None and len(numbers) != 2):
            raise UserError(
                f"timm_models has {len(timm_models)} networks, vision numbers for {len(numbers or timm_models)}",
                "give DINOv2 and SigLIP: two of each",
            )
        own, fused = numbers or ({}, {})
        self.featurizer = _vision_transformer(timm_models[0], image_size, own, gradient_checkpointing)
        self.fused_featurizer = _vision_transformer(timm_models[1], image_size, fused, gradient_checkpointing)
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Take what is not computed out of the training."""
        for network in (self.featurizer, self.fused_featurizer):
            for unused in (network.blocks[-1], network.norm, network.attn_pool):
                if unused is not None:
                    unused.requires_grad_(False)

    @property
    def width(self) -> int:
        """Features of a patch, both networks'."""
        return int(self.featurizer.embed_dim + self.fused_featurizer.embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, size, size) float32 in [-1, 1] -> (N, patches, width) in the weights' type."""
        features = []
        for network, (mean, std) in zip((self.featurizer, self.fused_featurizer), MEAN_STD, strict=True):
            shift = torch.tensor(mean, device=image.device)[:, None, None]
            scale = torch.tensor(std, device=image.device)[:, None, None]
            pixels = ((image + 1) / 2 - shift) / scale  # (N, 3, size, size)
            [seen] = network.forward_intermediates(
                pixels.to(network.patch_embed.proj.weight.dtype),
                indices=[len(network.blocks) - 2],
                stop_early=True,
                norm=False,
                output_fmt="NLC",
                intermediates_only=True,
            )
            features.append(seen)
        return torch.cat(features, dim=-1)


class Projector(nn.Module):
    """Three linear layers from features of patches to the words' space.

    Args:
        vision_width: Features of a patch.
        language_width: Features of a word.
    """

    def __init__(self, vision_width: int, language_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, language_width)
        self.fc3 = nn.Linear(language_width, language_width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, patches, vision_width) -> (N, patches, language_width)."""
        gelu = nn.functional.gelu
        return self.fc3(gelu(self.fc2(gelu(self.fc1(x)))))


class ProprioProjector(nn.Module):
    """Proprioception to one feature of the language model, which stands after the picture's patches.

    Args:
        proprio_dim: Numbers of proprioception, P; the released ones for LIBERO take 8.
        language_width: Features of a word.
    """

    def __init__(self, proprio_dim: int, language_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(proprio_dim, language_width)
        self.fc2 = nn.Linear(language_width, language_width)

    def forward(self, proprio: Tensor) -> Tensor:
        """(N, P) normalised -> (N, language_width)."""
        return self.fc2(nn.functional.gelu(self.fc1(proprio)))


def _vision_transformer(name: str, image_size: int, numbers: Mapping[str, Any], checkpointing: bool) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("OpenVLA needs the package timm", EXTRA) from error
    if not timm.is_model(name):
        raise UserError(f"timm_models: timm {timm.__version__} knows no '{name}'", "use the released checkpoint's")
    # act_layer: newer versions of timm gave SigLIP the tanh approximation, the released weights were trained without.
    try:
        network: Any = timm.create_model(
            name, pretrained=False, num_classes=0, img_size=image_size, act_layer="gelu", **dict(numbers)
        )
    except (TypeError, AssertionError) as error:
        raise UserError(f"vision: {name}: {error}", "give embed_dim, depth and num_heads that go together") from error
    patch = network.patch_embed.patch_size[0]
    if image_size % patch:
        raise UserError(f"image_size is {image_size}, {name} has patches of {patch}", f"give a multiple of {patch}")
    if len(network.blocks) < 2:
        raise UserError(
            f"vision: {name} has depth {len(network.blocks)}", "give at least 2: the last block is not used"
        )
    network.set_grad_checkpointing(checkpointing)
    return network
