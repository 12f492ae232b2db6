"""Small transformer parts: attention with a mask over what is attended to, and pre-norm blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention from one sequence to another.

    Args:
        width: Features of the queries and of the result.
        context_width: Features of what is attended to.
        heads: Number of heads; divides `width`.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (N, Q, width) float.
            context: (N, P, context_width) float.
            mask: (N, P) bool, True where there is something to attend to; at least one True in a row.

        Returns:
            (N, Q, width) float.
        """
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, Q, width / heads)
        key_value = self.key_value(context).unflatten(-1, (2, self.heads, -1))  # (N, P, 2, heads, width / heads)
        key, value = key_value.permute(2, 0, 3, 1, 4)  # each (N, heads, P, width / heads)
        mask = None if mask is None else mask[:, None, None]  # (N, 1, 1, P)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))  # (N, Q, width)


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between, `expansion` times as wide inside.

    Args:
        width: Features in and out.
        expansion: Hidden features as a multiple of `width`.
    """

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer block: self-attention, then feed-forward.

    Args:
        width: Features.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, width, heads)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = FeedForward(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (N, P, width) to (N, P, width); `mask` (N, P) bool is True where there is something."""
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.feed(self.norm_feed(x))


class CrossAttentionBlock(nn.Module):
    """Pre-norm transformer block of a decoder: self-attention, cross-attention, feed-forward.

    Args:
        width: Features of queries and context.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = Attention(width, width, heads)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map queries (N, Q, width) to (N, Q, width), attending to `context` (N, P, width) where `mask` (N, P)."""
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, normed)
        x = x + self.cross_attention(self.norm_cross(x), context, mask)
        return x + self.feed(self.norm_feed(x))
