"""PSNR and SSIM, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from wovr.metrics.rollouts import FrameMetric


class PSNR(FrameMetric):
    """Peak signal-to-noise ratio, dB, by torchmetrics; the mean over frames of each frame's own.

    A frame that is equal in every byte counts as one that is off by one grey level in one byte, the smallest error
    there is (86 dB at 64 x 64); only if all frames are equal is the result infinite.

    Args:
        horizons: Horizons to report.
    """

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__("psnr", horizons, better="higher", digits=2)
        self.largest = torch.inf

    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """See `FrameMetric.measure`."""
        self.largest = float(10 * torch.log10(torch.tensor(255.0**2 * real[0].numel())))
        return peak_signal_noise_ratio(
            imagined.float(), real.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
        ).view(-1)

    def average(self, values: Tensor) -> float:
        """The mean of (N,) values in dB."""
        if len(values) and values.isinf().all():
            return torch.inf
        return super().average(values.clamp(max=self.largest))


class SSIM(FrameMetric):
    """Structural similarity, by torchmetrics: Gaussian window of 11 pixels, sigma 1.5, the mean over colours.

    Args:
        horizons: Horizons to report.
    """

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__("ssim", horizons, better="higher")

    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """See `FrameMetric.measure`."""
        one, other = (frames.movedim(-1, 1).float() for frames in (imagined, real))
        found = structural_similarity_index_measure(one, other, data_range=255.0, reduction="none")
        assert isinstance(found, Tensor)
        return found.view(-1)
