"""What the fingers will feel: how wide they stay open when they close, on something or on nothing.

Where a hand closes half of the chunks end with something in it, and whether they do is not to be had from the robot's
own state. A network that is told the wrong answer, or none, draws the thing half. So the answer is guessed here, from
the picture around the hand, once for a whole chunk: two courses of those numbers, and how likely each is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, logsigmoid

from wovr.functional.images import frames_to_float

SIDE = 28
"""Points of a crop along each side."""

REACH = 28 / 64
"""Half of a crop's side, in half pictures."""

FINEST = 64
"""Rows of a picture above which it is made smaller before the crops are taken."""

DROPPED, DROPPED_LATE = 0.3, 0.2
"""Dropout of what the convolutions see, and before the last layer."""

SCALE = 0.12
"""Scale of the Laplace distribution around a course, in spreads of the numbers."""


@dataclass
class Courses:
    """Two guesses.

    Attributes:
        logit: (B,) float32, of the first being the true one.
        values: (B, 2, K, N) float32, the numbers after each action under each, normalised.
    """

    logit: Tensor
    values: Tensor

    def likelier(self) -> Tensor:
        """(B, K, N) float32, the course that is the likelier of the two."""
        first = (self.logit > 0)[:, None, None]
        return torch.where(first, self.values[:, 0], self.values[:, 1])

    def negative_log_likelihood(self, truth: Tensor) -> Tensor:
        """Of a mixture of two Laplace distributions of scale SCALE, one around each course, without constants.

        Args:
            truth: (B, K, N) float, normalised.

        Returns:
            (B,) float32.
        """
        off = (self.values - truth[:, None]).abs().flatten(2).mean(-1) / SCALE  # (B, 2)
        likely = torch.stack([logsigmoid(self.logit), logsigmoid(-self.logit)], dim=1)
        return -torch.logsumexp(likely - off, dim=1)


class TouchHead(nn.Module):
    """Guesses the numbers that touch decides from the picture where the hand is going to be.

    Args:
        numbers: How many numbers, N.
        action_dim: Dimensions of an action, A.
        proprio_dim: Numbers of the proprioception, P.
        chunk: Actions of a chunk, K.
        width: Channels of the first convolution.
        hidden: Units of the layers after the convolutions.
    """

    grid: Tensor

    def __init__(
        self, numbers: int, action_dim: int, proprio_dim: int, chunk: int, width: int = 24, hidden: int = 128
    ) -> None:
        super().__init__()
        self.numbers, self.chunk = numbers, chunk
        self.moments = sorted({0, chunk // 2, chunk})
        self.look = nn.Sequential(
            nn.Conv2d(3 * len(self.moments), width, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Dropout(DROPPED),
        )
        seen = 2 * width * (-(-SIDE // 8)) ** 2 + (1 + chunk) * (proprio_dim + 2) + chunk * action_dim
        self.guess = nn.Sequential(
            nn.Linear(seen, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(DROPPED_LATE),
            nn.Linear(hidden, 1 + 2 * chunk * numbers),
        )
        last = self.guess[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # the two begin apart, or they would never part
            last.bias[1 : 1 + chunk * numbers] += 0.5
            last.bias[1 + chunk * numbers :] -= 0.5
        points = torch.linspace(-REACH, REACH, SIDE)
        grid = torch.stack(torch.meshgrid(points, points, indexing="ij")[::-1], dim=-1)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, frame: Tensor, states: Tensor, places: Tensor, actions: Tensor) -> Courses:
        """Guess.

        Args:
            frame: (B, H, W, 3) uint8, before the chunk.
            states: (B, 1 + K, P) float32, normalised, before the chunk and, as far as known, after each action.
            places: (B, 1 + K, 2) float32, where the camera sees the hand then, in [-1, 1].
            actions: (B, K, A) float32 in [-1, 1].
        """
        crops = self._crops(frame, places[:, self.moments])
        if self.training:
            crops = blemished(crops)
        seen = [self.look(crops), states.flatten(1), places.flatten(1), actions.flatten(1)]
        guess = self.guess(torch.cat(seen, dim=1))
        return Courses(guess[:, 0], guess[:, 1:].unflatten(1, (2, self.chunk, self.numbers)))

    def _crops(self, frame: Tensor, places: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 and (B, m, 2) -> (B, 3 m, SIDE, SIDE) float32 in [-1, 1]."""
        picture = frames_to_float(frame[:, None])[:, :, 0]  # (B, 3, H, W)
        height, width = picture.shape[-2:]
        if height > FINEST:
            picture = interpolate(picture, (FINEST, round(width * FINEST / height)), mode="area")
        where = [self.grid + place[:, None, None] for place in places.unbind(1)]
        cut = [grid_sample(picture, grid, padding_mode="border", align_corners=False) for grid in where]
        return torch.cat(cut, dim=1)


def blemished(crops: Tensor) -> Tensor:
    """Crops with what imagined pictures have and real ones do not, drawn from torch's generator: (B, C, h, w) float32.

    Contrast and brightness off by a tenth of the range, grain, and blur of random strength.
    """
    count, device = len(crops), crops.device

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    smooth = avg_pool2d(crops, 3, 1, 1, count_include_pad=False)
    blurred = torch.lerp(crops, smooth, torch.rand(count, 1, 1, 1, device=device))
    return blurred * (1 + 0.1 * drawn(count, 1, 1, 1)) + 0.1 * drawn(count, 1, 1, 1) + 0.03 * drawn(*crops.shape)
