"""Optical flow without weights: Farnebäck's two-frame method ("Two-Frame Motion Estimation Based on Polynomial
Expansion", SCIA 2003), batched.

Each neighbourhood is written as a quadratic polynomial x'Ax + b'x + c. If the second picture is the first one moved by
d, then b2 = b1 - 2 A d; averaged over a window this gives d by least squares. Coarse to fine over a pyramid.
"""  # noqa: D205

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_EXPANSION_RADIUS, _EXPANSION_SIGMA = 3, 1.2
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 2.2
_ITERATIONS = 3
_SMALLEST = 14  # pixels of the coarsest picture's shorter side


def farneback_flow(first: Tensor, second: Tensor) -> Tensor:
    """Where every pixel of the first picture has gone in the second.

    Args:
        first: (N, H, W) float, grey pictures of any range.
        second: (N, H, W) float, what came after.

    Returns:
        (N, 2, H, W) float32, displacement along columns (x) and rows (y), in pixels.
    """
    flow = None
    for height, width in _pyramid(first.shape[1], first.shape[2]):
        one, other = (_resize(picture.float()[:, None], height, width)[:, 0] for picture in (first, second))
        if flow is None:
            flow = one.new_zeros(len(one), 2, height, width)
        else:
            scale = torch.tensor([width / flow.shape[3], height / flow.shape[2]], device=flow.device)
            flow = _resize(flow, height, width) * scale[:, None, None]
        matrix, vector = _expand(one)
        other_matrix, other_vector = _expand(other)
        for _ in range(_ITERATIONS):
            flow = _update(flow, matrix, vector, other_matrix, other_vector)
    assert flow is not None
    return flow


def _pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes, coarse to fine, each half the next."""
    sizes = [(height, width)]
    while min(sizes[0]) // 2 >= _SMALLEST:
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    return sizes


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True)


def _gaussian(radius: int, sigma: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places -radius .. radius, and a normalised Gaussian over them."""
    places = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (places / sigma) ** 2)
    return places, weights / weights.sum()


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Correlate every channel of (N, C, H, W) with an outer product of kernels; the border is repeated."""
    radius = len(rows) // 2
    channels = x.shape[1]
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, rows.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, columns.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _expand(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Polynomial expansion of (N, H, W): A as (N, 3, H, W) = (Axx, Ayy, Axy), and b as (N, 2, H, W) = (bx, by).

    Weighted least squares on 1, x, y, x^2, y^2, xy with a Gaussian weight; x and y are symmetric about the pixel, so
    the normal equations fall apart into small ones.
    """
    places, weights = _gaussian(_EXPANSION_RADIUS, _EXPANSION_SIGMA, picture.device)
    zeroth, first, second = weights, weights * places, weights * places**2
    m2, m4 = second.sum(), (weights * places**4).sum()
    x = picture[:, None]
    one = _separable(x, zeroth, zeroth)
    along_x, along_y = _separable(x, zeroth, first), _separable(x, first, zeroth)
    xx, yy = _separable(x, zeroth, second), _separable(x, second, zeroth)
    xy = _separable(x, first, first)
    # With the moments of a normalised weight: <x^2 x^2> - <x^2>^2 = m4 - m2^2, and <x^2 y^2> = m2^2.
    a_xx = (xx - m2 * one) / (m4 - m2**2)
    a_yy = (yy - m2 * one) / (m4 - m2**2)
    matrix = torch.cat([a_xx, a_yy, xy / m2**2 / 2], dim=1)
    return matrix, torch.cat([along_x / m2, along_y / m2], dim=1)


def _update(flow: Tensor, matrix: Tensor, vector: Tensor, other_matrix: Tensor, other_vector: Tensor) -> Tensor:
    """One least-squares step: the displacement that explains b2(x + flow) - b1(x)."""
    height, width = flow.shape[2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    x = 2 * (columns + flow[:, 0]) / max(1, width - 1) - 1
    y = 2 * (rows[:, None] + flow[:, 1]) / max(1, height - 1) - 1
    there = F.grid_sample(
        torch.cat([other_matrix, other_vector], dim=1),
        torch.stack([x, y], dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    a_xx, a_yy, a_xy = ((matrix + there[:, :3]) / 2).unbind(1)
    d_x, d_y = ((vector - there[:, 3:]) / 2).unbind(1)
    # Plus A times the displacement that the second expansion was already moved by.
    d_x = d_x + a_xx * flow[:, 0] + a_xy * flow[:, 1]
    d_y = d_y + a_xy * flow[:, 0] + a_yy * flow[:, 1]
    normal = torch.stack(
        [a_xx**2 + a_xy**2, a_xy * (a_xx + a_yy), a_xy**2 + a_yy**2, a_xx * d_x + a_xy * d_y, a_xy * d_x + a_yy * d_y],
        dim=1,
    )
    _, weights = _gaussian(_WINDOW_RADIUS, _WINDOW_SIGMA, flow.device)
    g_xx, g_xy, g_yy, h_x, h_y = _separable(normal, weights, weights).unbind(1)
    # A little on the diagonal keeps still what has no texture.
    ridge = 1e-3 * (g_xx + g_yy).amax((1, 2), keepdim=True) + 1e-12
    g_xx, g_yy = g_xx + ridge, g_yy + ridge
    determinant = g_xx * g_yy - g_xy**2
    return torch.stack([(g_yy * h_x - g_xy * h_y) / determinant, (g_xx * h_y - g_xy * h_x) / determinant], dim=1)
