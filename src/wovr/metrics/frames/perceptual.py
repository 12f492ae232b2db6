"""LPIPS and FloLPIPS: distances between the feature maps of frames."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import lpips
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wovr.errors import UserError
from wovr.metrics.networks.weights import read_state_dict
from wovr.metrics.rollouts import FrameMetric
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.keypoints import network_images

SMALLEST = 63
"""Shortest side of a picture that AlexNet's convolutions leave anything of, pixels."""


class FeatureDistance(nn.Module, ABC):
    """Distances between pictures, layer by layer and place by place."""

    @abstractmethod
    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        """Compare pictures.

        Args:
            one: (N, 3, H, W) float in [-1, 1].
            other: The same.

        Returns:
            A map (N, h, w) float, at least 0, for each layer. The distance is the sum of their means.
        """


class LPIPSDistance(FeatureDistance):
    """LPIPS (Zhang et al. 2018), version 0.1, on AlexNet, by the `lpips` package, whose linear layers it carries.

    Args:
        weights: torchvision's AlexNet weights; only its convolutions are used.

    Raises:
        UserError: The file holds no AlexNet.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package calls torchvision in an outdated way
            self.network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        # The package cuts AlexNet's `features` into slices and keeps the numbers: features.3 is net.slice2.3.
        trunk = self.network.net.state_dict()
        places = {f"features.{name.partition('.')[2]}": name for name in trunk}
        found = read_state_dict(weights, {old: trunk[new].shape for old, new in places.items()})
        self.network.net.load_state_dict({places[name]: tensor for name, tensor in found.items()})
        self.requires_grad_(False).eval()

    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        """See `FeatureDistance.forward`.

        Raises:
            UserError: The pictures are too small for AlexNet.
        """
        if min(one.shape[2:]) < SMALLEST:
            raise UserError(
                f"lpips: pictures of {one.shape[2]} x {one.shape[3]}, AlexNet takes {SMALLEST} x {SMALLEST} or more",
                "leave it out, or measure the stand-in lpips[idm]",
            )
        scaled = (self.network.scaling_layer(one), self.network.scaling_layer(other))
        layers = zip(*(self.network.net(picture) for picture in scaled), self.network.lins, strict=True)
        return [
            linear((lpips.normalize_tensor(mine) - lpips.normalize_tensor(theirs)) ** 2)[:, 0]
            for mine, theirs, linear in layers
        ]


class IDMDistance(FeatureDistance):
    """The same construction on the maps of an inverse-dynamics network, every channel and layer with equal weight.

    Args:
        network: The inverse-dynamics network.
    """

    def __init__(self, network: InverseDynamics) -> None:
        super().__init__()
        self.network = network

    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        """See `FeatureDistance.forward`."""
        maps = [self.network.encoder(picture).maps for picture in (one, other)]
        return [
            (F.normalize(mine, dim=1) - F.normalize(theirs, dim=1)).square().sum(1) / len(maps[0])
            for mine, theirs in zip(*maps, strict=True)
        ]


class LPIPS(FrameMetric):
    """Mean distance of feature maps between an imagined frame and the real one.

    Args:
        name: Of its score: `lpips`, or `lpips[idm]` for a stand-in.
        horizons: Horizons to report.
        distance: The feature maps.
    """

    def __init__(self, name: str, horizons: Sequence[int], distance: FeatureDistance) -> None:
        super().__init__(name, horizons)
        self.distance = distance

    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """See `FrameMetric.measure`."""
        layers = self.distance(network_images(imagined), network_images(real))
        return torch.stack([layer.mean((1, 2)) for layer in layers]).sum(0)


class FloLPIPS(FrameMetric):
    """LPIPS weighted by where motion is wrong (Danier et al. 2022).

    Each layer's map is averaged with weights proportional to the length of the difference between the real and the
    imagined optical flow, resized to the layer. Unlike the authors' code, weights add up to one in every frame (theirs
    do over a batch, so that the result depends on its size), flow leads from the frame before to the frame compared
    (theirs to the one after, which the last frame lacks), and equal flows weigh all places alike.

    Args:
        name: Of its score.
        horizons: Horizons to report.
        distance: The feature maps.
        flow: Optical flow: two (N, H, W, 3) uint8 pictures to (N, 2, H, W) float, pixels.
    """

    def __init__(
        self,
        name: str,
        horizons: Sequence[int],
        distance: FeatureDistance,
        flow: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__(name, horizons)
        self.distance = distance
        self.flow = flow

    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """See `FrameMetric.measure`."""
        difference = self.flow(before[0], imagined) - self.flow(before[1], real)  # (N, 2, H, W)
        layers = self.distance(network_images(imagined), network_images(real))
        return torch.stack([flow_weighted_mean(layer, difference) for layer in layers]).sum(0)


def flow_weighted_mean(values: Tensor, difference: Tensor) -> Tensor:
    """Mean of a map with weights proportional to the length of a flow difference.

    Args:
        values: (N, h, w) float.
        difference: (N, 2, H, W) float; resized to h x w.

    Returns:
        (N,) float.
    """
    resized = F.interpolate(difference, values.shape[1:], mode="bilinear", align_corners=False)
    weight = torch.linalg.vector_norm(resized, dim=1)  # (N, h, w)
    total = weight.sum((1, 2), keepdim=True)
    weight = torch.where(total > 1e-6, weight / total.clamp(min=1e-6), 1 / values[0].numel())
    return (values * weight).sum((1, 2))
