"""Networks whose features FID and FVD compare: Inception, I3D, and the inverse-dynamics network that stands in."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.metrics.networks.inception import FIDInception
from wovr.metrics.rollouts import parts
from wovr.models.probes.inverse_dynamics import InverseDynamics, frame_features
from wovr.models.probes.keypoints import network_images


@dataclass
class ClipFeatures:
    """Features of n clips of each of B videos.

    Attributes:
        values: (B, n, D) float.
        ends: (n,) int64, one past the last frame of each clip.
    """

    values: Tensor
    ends: Tensor


class FeatureNetwork(nn.Module, ABC):
    """Cuts videos into clips and says what each looks like.

    Attributes:
        dimensions: Length of a feature vector, D.
        clip: Frames of a clip; a horizon has to be as long.
    """

    dimensions: int
    clip: int

    @abstractmethod
    def forward(self, videos: Tensor) -> ClipFeatures:
        """Features of the clips of (B, T, H, W, 3) uint8 videos; frame 0 is the given one."""


class InceptionFrames(FeatureNetwork):
    """Every imagined frame through FID's Inception.

    Args:
        weights: The weights of pytorch-fid.

    Raises:
        UserError: The file holds another network.
    """

    dimensions = 2048
    clip = 2  # the given frame is not scored

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = FIDInception(weights)

    def forward(self, videos: Tensor) -> ClipFeatures:
        """See `FeatureNetwork.forward`."""
        frames = videos[:, 1:].flatten(0, 1)
        # Inception sees 299 x 299 whatever the size of a frame.
        values = [self.network(network_images(frames[part])) for part in parts(len(frames), 299 * 299)]
        return ClipFeatures(torch.cat(values).unflatten(0, videos[:, 1:].shape[:2]), _ends(2, videos))


class I3DClips(FeatureNetwork):
    """Clips of 16 frames, side by side, through the I3D that FVD is defined by: its 400 logits.

    The network is TorchScript, a program in a language of its own that can only compute; the file's SHA-256 was checked
    before it came here. It resizes to 224 x 224 itself.

    Args:
        weights: The TorchScript file.

    Raises:
        UserError: The file is no TorchScript.
    """

    dimensions = 400
    clip = 16

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch would rather have another format
                self.network = torch.jit.load(str(weights), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{weights}: not a TorchScript file", "fetch it again: wovr weights fetch i3d") from error

    def forward(self, videos: Tensor) -> ClipFeatures:
        """See `FeatureNetwork.forward`."""
        count = videos.shape[1] // self.clip
        clips = videos[:, : count * self.clip].unflatten(1, (count, self.clip)).flatten(0, 1)  # (B * n, 16, H, W, 3)
        values = []
        for part in parts(len(clips), self.clip * 224 * 224):
            pictures = clips[part].movedim(-1, 1).float()  # (m, 3, 16, H, W) in [0, 255]
            values.append(self.network(pictures, rescale=True, resize=True, return_features=True))
        return ClipFeatures(
            torch.cat(values).unflatten(0, (len(videos), count)), self.clip * torch.arange(1, count + 1)
        )


class IDMFrames(FeatureNetwork):
    """Every imagined frame through the eyes of an inverse-dynamics network: where its keypoints are, and the mean map.

    Args:
        network: The inverse-dynamics network.
    """

    clip = 2

    def __init__(self, network: InverseDynamics) -> None:
        super().__init__()
        self.network = network
        self.dimensions = network.look.in_features

    def forward(self, videos: Tensor) -> ClipFeatures:
        """See `FeatureNetwork.forward`."""
        images = network_images(videos[:, 1:])
        values = frame_features(self.network.encoder(images.flatten(0, 1)))
        return ClipFeatures(values.unflatten(0, images.shape[:2]), _ends(2, videos))


class IDMWindows(FeatureNetwork):
    """Every window of an inverse-dynamics network: its last hidden layer, from which it reads the actions.

    Args:
        network: The inverse-dynamics network.
    """

    def __init__(self, network: InverseDynamics) -> None:
        super().__init__()
        self.network = network
        self.dimensions = network.width
        self.clip = network.window

    def forward(self, videos: Tensor) -> ClipFeatures:
        """See `FeatureNetwork.forward`."""
        return ClipFeatures(self.network(network_images(videos)).features, _ends(self.clip, videos))


def _ends(first: int, videos: Tensor) -> Tensor:
    """Ends of clips that begin at successive frames, the first of which has `first` frames."""
    return torch.arange(first, videos.shape[1] + 1)
