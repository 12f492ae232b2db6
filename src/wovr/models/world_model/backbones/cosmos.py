"""Cosmos-Predict2's video transformer with actions: diffusers' `CosmosTransformer3DModel` at any size.

Weights, and their names, are diffusers' (see cosmos_weights.py). The forward pass is written anew and gives the same
numbers: noise levels and actions are one vector a latent frame, broadcast over its tokens. Words are zero in the
action-conditioned model, and cross-attention to zeros, without bias, adds nothing: it is left out.

Two small networks let the actions in. One is added to the noise level before it is normalised, the other to what
modulates every block (the AdaLN-LoRA term).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import CosmosTransformer3DModel
from diffusers.models.transformers.transformer_cosmos import CosmosEmbedding, CosmosTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wovr.errors import UserError, check_least
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.backbones.wan import dot_product_attention

NETWORK: Any = CosmosTransformer3DModel
"""diffusers' class, whose annotations mypy cannot follow."""


class ActionLayers(nn.Module):
    """Two linear layers with the tanh form of GELU between; at the start they answer 0."""

    def __init__(self, numbers: int, hidden: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(numbers, hidden)
        self.fc2 = nn.Linear(hidden, width)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, actions: Tensor) -> Tensor:
        """(..., numbers) -> (..., width)."""
        return self.fc2(F.gelu(self.fc1(actions), approximate="tanh"))


class ActionTime(CosmosEmbedding):
    """diffusers' embedding of the noise level, with actions.

    Args:
        width: Features of the transformer, D.
        numbers: Of the actions that are told at once.
    """

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__(width, width)
        self.action_embedder_B_D = ActionLayers(numbers, 4 * width, width)
        self.action_embedder_B_3D = ActionLayers(numbers, 4 * width, 3 * width)

    def forward(self, time: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Embed.

        Args:
            time: (B, T) float in [0, 1].
            actions: (B, T or 1, numbers) float.

        Returns:
            (B, T, 3 D) float, the AdaLN-LoRA term; (B, T, D) float, the level.
        """
        waves = self.time_proj(time.flatten().float()).unflatten(0, time.shape)  # (B, T, D)
        waves = waves.to(self.t_embedder.linear_1.weight.dtype)
        term = self.t_embedder(waves) + self.action_embedder_B_3D(actions)
        return term, self.norm(waves + self.action_embedder_B_D(actions))


class CosmosBlock(CosmosTransformerBlock):
    """Self-attention and feed-forward as in diffusers, over (B, T, S, D): T latent frames of S tokens."""

    def forward(  # type: ignore[override]
        self, x: Tensor, level: Tensor, term: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> Tensor:
        """One block.

        Args:
            x: (B, T, S, D) float.
            level: (B, T, 1, D) float.
            term: (B, T, 1, 3 D) float.
            rotary: Cosines and sines, (B or 1, T * S, 1, d) float32 each.

        Returns:
            (B, T, S, D) float.
        """
        normed, gate = self.norm1(x, level, term)
        x = x + gate * self._attend(normed.flatten(1, 2), rotary).view(x.shape)
        normed, gate = self.norm3(x, level, term)
        return x + gate * self.ff(normed)

    def _attend(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        attention: Any = self.attn1
        query, key, value = (
            layer(x).unflatten(2, (attention.heads, -1)) for layer in (attention.to_q, attention.to_k, attention.to_v)
        )  # each (B, T * S, heads, d)
        query = turn(attention.norm_q(query).float(), rotary).to(value.dtype)
        key = turn(attention.norm_k(key).float(), rotary).to(value.dtype)
        attended = dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return attention.to_out[0](attended.transpose(1, 2).flatten(2))


class CosmosBackbone(Backbone):
    """Cosmos-Predict2's transformer as a backbone of the world model. The default arguments are its shape 2B.

    Args:
        in_channels: Channels of a latent frame, C; null for what the world model makes it, as the next three.
        out_channels: Channels of the answer.
        action_dim: Numbers that are told of each action, A.
        latent_frames: Latent frames of a clip, T.
        chunk: Actions of a chunk, K, which `actions` `chunk` takes as one vector: the layers are made for so many.
        actions: How they are told: `chunk`, all of them to every latent frame, as in Cosmos-Predict2; or `latent`, to
            each latent frame the four that produced it, zeros to those of the context, as in 2.5.
        patch: Side of the square of a latent frame that becomes one token.
        heads: Attention heads.
        head_dim: Features of a head, even and at least 18; the width D is heads * head_dim.
        layers: Blocks.
        lora_dim: Hidden features of a block's AdaLN-LoRA.
        rope_scale: Stretch of rotary positions over time, row, column.
        gradient_checkpointing: Compute a block's activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        action_dim: int | None = None,
        latent_frames: int | None = None,
        chunk: int = 8,
        actions: Literal["chunk", "latent"] = "chunk",
        patch: int = 2,
        heads: int = 16,
        head_dim: int = 128,
        layers: int = 28,
        lora_dim: int = 256,
        rope_scale: list[float] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, action_dim, latent_frames)
        for name, count in {"patch": patch, "heads": heads, "layers": layers, "lora_dim": lora_dim}.items():
            check_least(name, count)
        if head_dim < 18 or head_dim % 2:
            raise UserError(f"head_dim is {head_dim}", "give an even number of at least 18: rotary positions need it")
        if chunk < FRAMES_PER_LATENT or chunk % FRAMES_PER_LATENT:
            raise UserError(f"the backbone's chunk is {chunk}", f"give a multiple of {FRAMES_PER_LATENT}")
        if actions not in ("chunk", "latent"):
            raise UserError(f"the backbone's actions is {actions}", "give chunk or latent")
        self.rope_scale = [1.0, 3.0, 3.0] if rope_scale is None else list(rope_scale)
        if len(self.rope_scale) != 3 or min(self.rope_scale) <= 0:
            raise UserError(f"rope_scale is {rope_scale}", "give three numbers above 0: time, row, column")
        self.chunk, self.told = chunk, actions
        self.patch, self.heads, self.head_dim, self.layers, self.lora_dim = patch, heads, head_dim, layers, lora_dim
        self.gradient_checkpointing = gradient_checkpointing
        self._make_with(self.given)

    def make(self) -> None:
        """See `Backbone.make`."""
        width = self.heads * self.head_dim
        self.transformer = NETWORK(
            in_channels=self.in_channels + 1,  # which latent frames are context
            out_channels=self.out_channels,
            num_attention_heads=self.heads,
            attention_head_dim=self.head_dim,
            num_layers=0,
            adaln_lora_dim=self.lora_dim,
            patch_size=(1, self.patch, self.patch),
            rope_scale=tuple(self.rope_scale),
            concat_padding_mask=False,  # always 0 there
            extra_pos_embed_type=None,
        )
        self.transformer.register_to_config(num_layers=self.layers)
        told = self.chunk if self.told == "chunk" else FRAMES_PER_LATENT
        self.transformer.time_embed = ActionTime(width, told * self.action_dim)
        self.transformer.transformer_blocks = nn.ModuleList(
            CosmosBlock(self.heads, self.head_dim, cross_attention_dim=1, adaln_lora_dim=self.lora_dim)
            for _ in range(self.layers)
        )
        for block in self.transformer.transformer_blocks:
            block.attn2 = block.norm2 = nn.Identity()
        # At the start the answer is 0 everywhere, as is usual for diffusion transformers.
        nn.init.zeros_(self.transformer.proj_out.weight)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Backbone.blocks`."""
        return list(self.transformer.transformer_blocks)

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        actions: Tensor,
        position: Tensor | None = None,
        *,
        beside: Sequence[Tensor] = (),
        reference: bool = True,
        new: int = 2,
    ) -> Tensor:
        """See `Backbone.forward`.

        Raises:
            UserError: A chunk of another length.
        """
        if FRAMES_PER_LATENT * new != self.chunk and self.told == "chunk":
            raise UserError(
                f"a chunk has {FRAMES_PER_LATENT * new} actions, the backbone's layers are made for {self.chunk}",
                f"set backbone.init_args.chunk to {FRAMES_PER_LATENT * new}, or its actions to latent",
            )
        count, _, frames, height, width = latents.shape
        context = latents.new_zeros(1, 1, frames, 1, 1)
        context[:, :, : frames - new] = 1
        parts = [
            part.expand(count, -1, frames, height, width).to(latents.dtype) for part in (latents, *beside, context)
        ]
        x = self.transformer.patch_embed(torch.cat(parts, dim=1))  # (B, T, h', w', D)
        rows, columns = x.shape[2:4]
        x = x.flatten(2, 3)
        term, level = self.transformer.time_embed(time, self._told(actions, frames, new))
        term, level = term[:, :, None], level[:, :, None]
        if position is None:
            position = torch.arange(frames, device=x.device, dtype=torch.float32)[None]
        rotary = rotary_table(position, rows, columns, self.head_dim, self.rope_scale)
        for block in self.transformer.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, level, term, rotary, use_reentrant=False)
            else:
                x = block(x, level, term, rotary)
        x = self.transformer.norm_out(x[:, -new:], level[:, -new:], term[:, -new:])
        x = self.transformer.proj_out(x)  # (B, new, S, p * p * C_out)
        x = x.view(count, new, rows, columns, self.patch, self.patch, -1)  # (B, new, h', w', p, p, C_out)
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4).contiguous()  # (B, C_out, new, h, w)

    def tokens_of(self, latent_size: tuple[int, int]) -> int:
        """Tokens of a clip whose latent frames are (h, w).

        Raises:
            UserError: The sides are no multiples of the patch.
        """
        return self.latent_frames * self.squares_of(latent_size, self.patch)

    def _told(self, actions: Tensor, frames: int, new: int) -> Tensor:
        """(B, 4 T, A) -> (B, 1, K * A), or (B, T, 4 A) with zeros for the context."""
        chunk = actions[:, -FRAMES_PER_LATENT * new :]
        if self.told == "chunk":
            return chunk.flatten(1)[:, None]
        return F.pad(chunk.unflatten(1, (new, FRAMES_PER_LATENT)).flatten(2), (0, 0, frames - new, 0))


def rotary_table(
    position: Tensor, rows: int, columns: int, head_dim: int, scale: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions over time, row and column, as in diffusers' `CosmosRotaryPosEmbed`.

    There the time of a latent frame is its index; here it is whatever `position` says.

    Args:
        position: (B or 1, T) float, time of each latent frame.
        rows: Tokens of a latent frame, down.
        columns: Tokens of a latent frame, across.
        head_dim: Features of a head, d.
        scale: Stretch over time, row and column.

    Returns:
        Cosines and sines, (B or 1, T * rows * columns, 1, d) float32 each.
    """
    device = position.device
    spatial = 2 * (head_dim // 6)
    places = (
        (position[:, :, None, None], head_dim - 2 * spatial),
        (torch.arange(rows, device=device)[None, None, :, None], spatial),
        (torch.arange(columns, device=device)[None, None, None], spatial),
    )
    angles = []
    for (place, size), stretch in zip(places, scale, strict=True):
        base = 10000.0 * stretch ** (size / (size - 2))
        exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
        angles.append((place[..., None] * base**-exponents).expand(*position.shape, rows, columns, -1))
    half = torch.cat(angles, dim=-1).flatten(1, 3)[:, :, None]  # (B, T * rows * columns, 1, d / 2)
    both = torch.cat([half, half], dim=-1)
    return both.cos(), both.sin()


def turn(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each feature of the first half with its fellow of the second: (B, N, heads, d) -> the same shape."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
