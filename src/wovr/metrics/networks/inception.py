"""The Inception network of the original FID, as torchvision modules that take pytorch-fid's weights.

It is Inception v3 but for how some blocks pool: averages leave out the padding, and the last block takes a maximum.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception_v3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE

from wovr.metrics.networks.weights import read_state_dict

_SIDE = 299


class _MeanBlockA(InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return _pooled(self, super()._forward(x), _inner_mean(x))


class _MeanBlockC(InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return _pooled(self, super()._forward(x), _inner_mean(x))


class _MeanBlockE(InceptionE):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return _pooled(self, super()._forward(x), _inner_mean(x))


class _MaxBlockE(InceptionE):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return _pooled(self, super()._forward(x), F.max_pool2d(x, kernel_size=3, stride=1, padding=1))


def _pooled(block: nn.Module, outputs: list[Tensor], pooled: Tensor) -> list[Tensor]:
    """The block's branches with the last one, which pools, computed from another pooling."""
    assert isinstance(block.branch_pool, nn.Module)
    return [*outputs[:-1], block.branch_pool(pooled)]


def _inner_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class FIDInception(nn.Module):
    """2048 features of a picture.

    Args:
        weights: The weights of pytorch-fid, a state dict; None for random ones.

    Raises:
        UserError: The file holds another network.
    """

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        network.Mixed_5b = _MeanBlockA(192, pool_features=32)
        network.Mixed_5c = _MeanBlockA(256, pool_features=64)
        network.Mixed_5d = _MeanBlockA(288, pool_features=64)
        network.Mixed_6b = _MeanBlockC(768, channels_7x7=128)
        network.Mixed_6c = _MeanBlockC(768, channels_7x7=160)
        network.Mixed_6d = _MeanBlockC(768, channels_7x7=160)
        network.Mixed_6e = _MeanBlockC(768, channels_7x7=192)
        network.Mixed_7b = _MeanBlockE(1280)
        network.Mixed_7c = _MaxBlockE(2048)
        if weights is not None:
            shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
            network.load_state_dict(read_state_dict(weights, shapes))
        network.fc = nn.Identity()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FIDInception:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float in [-1, 1] -> (N, 2048) float."""
        resized = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self.network(resized)
        return features
