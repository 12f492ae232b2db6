"""What conditions a convolutional network on an embedding: FiLM (Perez et al. 2018), and a residual block with it."""

from __future__ import annotations

from torch import Tensor, nn


class Film(nn.Module):
    """Scale and shift of every channel, linear in an embedding; neutral at the start.

    Args:
        embedding: Numbers of the embedding, E.
        channels: Channels, C.
    """

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(B, C, ...) and (B, E) float -> (B, C, ...)."""
        numbers = self.linear(embedded).view(len(embedded), -1, *(1,) * (x.ndim - 2))
        scale, shift = numbers.chunk(2, dim=1)
        return x * (1 + scale) + shift


class ConditionedBlock(nn.Module):
    """A residual block: norm, SiLU, convolution, twice, the second norm scaled and shifted by an embedding.

    Args:
        before: Channels that come in, a multiple of 8.
        after: Channels that go out, a multiple of 8.
        stride: Of the first convolution: 2 halves the picture.
        embedding: Numbers of the embedding, E.
    """

    def __init__(self, before: int, after: int, stride: int, embedding: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(8, before)
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.second_norm = nn.GroupNorm(8, after)
        self.film = Film(embedding, after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1)
        self.stride = stride

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(B, before, H, W) and (B, E) float -> (B, after, H / stride, W / stride)."""
        y = self.first(nn.functional.silu(self.first_norm(x)))
        y = self.second(nn.functional.silu(self.film(self.second_norm(y), embedded)))
        if self.stride > 1:  # the mean of what is skipped, and not one pixel of it
            x = nn.functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return self.skip(x) + y
