"""Wan's video transformer with actions in place of words: diffusers' `WanTransformer3DModel` at any size.

Weights, and their names, are diffusers' (see wan_weights.py for the released ones). The forward pass is written anew
and gives the same numbers: noise levels and actions are one vector a latent frame, which is broadcast over the tokens
of that frame instead of being computed and stored for each, and the last block and the head answer for the new latent
frames only, because nobody looks at the answer for the context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel, WanTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wovr.errors import UserError, check_least
from wovr.models.world_model.backbones.action_encoder import ActionTimeEmbedder
from wovr.models.world_model.backbones.base import Backbone

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""Linear layers of a block that low-rank adapters are put on."""


class WanBlock(WanTransformerBlock):
    """Self-attention, cross-attention, feed-forward as in diffusers, over (B, T, S, D): T latent frames of S tokens."""

    def forward(  # type: ignore[override]
        self, x: Tensor, tokens: Tensor | None, modulation: Tensor, rotary: tuple[Tensor, Tensor], new: int | None
    ) -> Tensor:
        """One block.

        Args:
            x: (B, T, S, D) float.
            tokens: (B, P, D) float, action tokens; None to leave cross-attention out.
            modulation: (B, T, 6, D) float, of each latent frame.
            rotary: Cosines and sines, (B or 1, T * S, 1, d / 2) float32 each.
            new: Answer for the last so many latent frames only; None for all.

        Returns:
            (B, T or new, S, D) float.
        """
        table = self.scale_shift_table[:, None] + modulation.float()  # (B, T, 6, D)
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = table[:, :, :, None].unbind(2)  # each (B, T, 1, D)
        normed = _modulate(x, scale, shift, self.norm1.eps).to(x.dtype)
        if new is None:
            asking, rotary_asking = normed, rotary
        else:
            x, asking = x[:, -new:], normed[:, -new:]
            gate, shift_ffn, scale_ffn, gate_ffn = (m[:, -new:] for m in (gate, shift_ffn, scale_ffn, gate_ffn))
            first = asking.shape[1] * asking.shape[2]
            rotary_asking = rotary[0][:, -first:], rotary[1][:, -first:]
        attended = attend(self.attn1, asking.flatten(1, 2), normed.flatten(1, 2), rotary_asking, rotary)
        x = (x.float() + attended.view(x.shape) * gate).to(x.dtype)
        if tokens is not None:
            x = x + attend(self.attn2, self.norm2(x).flatten(1, 2), tokens).view(x.shape)
        fed = feed_forward(self.ffn, _modulate(x, scale_ffn, shift_ffn, self.norm3.eps).to(x.dtype))
        return (x.float() + fed.float() * gate_ffn).to(x.dtype)


class ActionWanTransformer(WanTransformer3DModel):
    """The transformer of diffusers with its `condition_embedder` swapped, and the forward pass of this module."""

    condition_embedder: ActionTimeEmbedder  # type: ignore[assignment]
    patch: int
    head_dim: int
    checkpointing: bool

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        actions: Tensor,
        position: Tensor | None,
        beside: Sequence[Tensor],
        reference: bool,
        new: int,
    ) -> Tensor:
        """See `Backbone.forward`."""
        x = self._embed_patches([latents, *beside])  # (B, T, h', w', D)
        _, frames, rows, columns, _ = x.shape
        x = x.flatten(2, 3)  # (B, T, S, D)
        condition = self.condition_embedder(time, actions, reference, new)
        if position is None:
            position = torch.arange(frames, device=x.device, dtype=torch.float32)[None]
        rotary = rotary_table(position, rows, columns, self.head_dim)
        for index, block in enumerate(self.blocks):
            wanted = new if index == len(self.blocks) - 1 else None
            arguments = (x, condition.tokens, condition.modulation, rotary, wanted)
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        table = self.scale_shift_table[:, None] + condition.time[:, -new:, None].float()  # (B, new, 2, D)
        shift, scale = table[:, :, :, None].unbind(2)  # each (B, new, 1, D)
        x = self.proj_out(_modulate(x, scale, shift, self.norm_out.eps).to(x.dtype))  # (B, new, S, p * p * C_out)
        x = x.view(*x.shape[:2], rows, columns, self.patch, self.patch, -1)  # (B, new, h', w', p, p, C_out)
        x = x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)  # (B, C_out, new, h, w)
        return x.contiguous()  # a view would be in the way of FSDP's hooks

    def _embed_patches(self, parts: Sequence[Tensor]) -> Tensor:
        """`patch_embedding` as a matrix product, which is what a convolution whose stride is its kernel comes to.

        Part by part of the channels: nothing is copied beside something else, and what all latent frames share is
        multiplied once.
        """
        weight = self.patch_embedding.weight.flatten(2)  # (D, C, p * p)
        cast = torch.get_autocast_dtype(weight.device.type) if torch.is_autocast_enabled(weight.device.type) else None
        bias = self.patch_embedding.bias  # given to the first part
        found: list[Tensor] = []
        for part, of_part in zip(parts, weight.split([part.shape[1] for part in parts], dim=1), strict=True):
            x = torch.unflatten(
                torch.unflatten(part, 4, (-1, self.patch)), 3, (-1, self.patch)
            )  # (B, C, T, h', p, w', p)
            x = x.permute(0, 2, 3, 5, 1, 4, 6)  # (B, T, h', w', C, p, p)
            # Contiguous: a product with a strided matrix is broken up into many small ones on a CPU.
            x = x.to(cast or parts[0].dtype, memory_format=torch.contiguous_format)
            found.append(F.linear(x.flatten(4), of_part.flatten(1), None if found else bias))
        total = sum((embedded.float() for embedded in found[1:]), found[0].float())
        return total.to(found[0].dtype)


class WanBackbone(Backbone):
    """Wan's transformer as a backbone of the world model.

    Args:
        in_channels: Channels of a latent frame, C; null for what the world model makes it, as the next three.
        out_channels: Channels of the answer.
        action_dim: Numbers that are told of each action, A.
        latent_frames: Latent frames of a clip, T.
        patch: Side of the square of a latent frame that becomes one token.
        heads: Attention heads.
        head_dim: Features of a head, at least 6 and even; the width D is heads * head_dim.
        layers: Blocks.
        ffn_dim: Hidden features of a block's feed-forward part.
        frequencies: Sine and cosine features of the noise level.
        adaln: Actions modulate every block through the time embedding.
        cross: Every block attends to the actions; without it the cross-attention is left out.
        cumulative: Both channels are given, beside each action, the sum of the chunk's actions so far.
        gradient_checkpointing: Compute a block's activations again in the backward pass instead of keeping them.
        lora_rank: Train low-rank adapters of this rank on the blocks (and the action embedding) instead of all weights;
            needs the package peft. Null to train all.
        lora_alpha: Strength of the adapters; null for `lora_rank`.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        action_dim: int | None = None,
        latent_frames: int | None = None,
        patch: int = 2,
        heads: int = 24,
        head_dim: int = 128,
        layers: int = 30,
        ffn_dim: int = 14336,
        frequencies: int = 256,
        adaln: bool = True,
        cross: bool = True,
        cumulative: bool = False,
        gradient_checkpointing: bool = False,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, action_dim, latent_frames)
        counts = {"patch": patch, "heads": heads, "layers": layers, "ffn_dim": ffn_dim, "frequencies": frequencies}
        for name, count in counts.items():
            check_least(f"{name}", count)
        if head_dim < 6 or head_dim % 2:
            raise UserError(f"head_dim is {head_dim}", "give an even number of at least 6: rotary positions need it")
        if not adaln and not cross:
            raise UserError("adaln and cross are both false", "leave at least one way for the actions to get in")
        if lora_alpha is not None and lora_rank is None:
            raise UserError(f"lora_alpha is {lora_alpha} and lora_rank null", "give lora_rank too")
        self.patch, self.heads, self.head_dim, self.layers = patch, heads, head_dim, layers
        self.ffn_dim, self.frequencies = ffn_dim, frequencies
        self.adaln, self.cross, self.cumulative = adaln, cross, cumulative
        self.gradient_checkpointing = gradient_checkpointing
        self.lora_rank, self.lora_alpha = lora_rank, lora_alpha
        self._make_with(self.given)

    def make(self) -> None:
        """See `Backbone.make`."""
        width = self.heads * self.head_dim
        self.transformer = ActionWanTransformer(
            patch_size=(1, self.patch, self.patch),
            num_attention_heads=self.heads,
            attention_head_dim=self.head_dim,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            text_dim=1,  # the text branch is thrown away below
            freq_dim=self.frequencies,
            ffn_dim=self.ffn_dim,
            num_layers=0,
            rope_max_seq_len=1,  # rotary_table needs no table
        )
        self.transformer.register_to_config(num_layers=self.layers)
        self.transformer.condition_embedder = ActionTimeEmbedder(
            width, self.frequencies, self.action_dim, self.latent_frames, self.adaln, self.cross, self.cumulative
        )
        self.transformer.blocks = nn.ModuleList(
            WanBlock(width, self.ffn_dim, self.heads, cross_attn_norm=True) for _ in range(self.layers)
        )
        if not self.cross:
            for block in self.transformer.blocks:
                block.attn2 = block.norm2 = nn.Identity()
        # At the start the answer is 0 everywhere, as is usual for diffusion transformers.
        nn.init.zeros_(self.transformer.proj_out.weight)
        nn.init.zeros_(self.transformer.proj_out.bias)
        self.transformer.patch = self.patch
        self.transformer.head_dim = self.head_dim
        self.transformer.checkpointing = self.gradient_checkpointing
        if self.lora_rank is not None:
            self._add_adapters(self.lora_rank, self.lora_rank if self.lora_alpha is None else self.lora_alpha)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Backbone.blocks`."""
        return list(self.transformer.blocks)

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
        """See `Backbone.forward`."""
        return self.transformer(latents, time, actions, position, beside, reference, new)

    def tokens_of(self, latent_size: tuple[int, int]) -> int:
        """Tokens of a clip whose latent frames are (h, w).

        Raises:
            UserError: The sides are no multiples of the patch.
        """
        return self.latent_frames * self.squares_of(latent_size, self.patch)

    def _add_adapters(self, rank: int, alpha: float) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise UserError("lora_rank needs the package peft", "pip install 'wovr[lora]'") from error
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS))
        inject_adapter_in_model(config, self.transformer.blocks)
        # peft freezes what it was given; the rest stands outside the released weights' care for words.
        self.transformer.requires_grad_(False)
        for name, parameter in self.transformer.named_parameters():
            parameter.requires_grad_(
                "lora_" in name
                or name.startswith("condition_embedder.action_")
                or name == "condition_embedder.token_position"
            )


def attend(
    attention: WanAttention,
    x: Tensor,
    context: Tensor,
    rotary: tuple[Tensor, Tensor] | None = None,
    rotary_context: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """What diffusers' `WanAttnProcessor` does, with queries that may be fewer than the keys.

    Args:
        attention: Holds the weights.
        x: (B, Q, D) float, who asks.
        context: (B, P, D) float, who is asked.
        rotary: Cosines and sines of the positions of `x`; None for no positions.
        rotary_context: The same of `context`.

    Returns:
        (B, Q, D) float.
    """
    # Norm and rotation in float32, whatever the matrix products are in.
    query = attention.norm_q(attention.to_q(x).float()).unflatten(2, (attention.heads, -1))  # (B, Q, heads, d)
    key = attention.norm_k(attention.to_k(context).float()).unflatten(2, (attention.heads, -1))  # (B, P, heads, d)
    value = attention.to_v(context).unflatten(2, (attention.heads, -1))
    if rotary is not None and rotary_context is not None:
        query, key = rotate(query, rotary), rotate(key, rotary_context)
    query, key = query.to(value.dtype).transpose(1, 2), key.to(value.dtype).transpose(1, 2)  # (B, heads, ..., d)
    attended = dot_product_attention(query, key, value.transpose(1, 2))
    return attention.to_out[0](attended.transpose(1, 2).flatten(2))  # (B, Q, D)


def feed_forward(layers: FeedForward, x: Tensor) -> Tensor:
    """What diffusers' `FeedForward` does with the tanh form of GELU: (..., D) -> (..., D).

    That form, x (1 + tanh u) / 2, is x sigmoid(2 u), which torch.compile makes three times faster code of for a CPU.
    """
    x = layers.net[0].proj(x)  # type: ignore[operator]
    if torch.compiler.is_compiling():
        x = x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        x = F.gelu(x, approximate="tanh")
    return layers.net[2](x)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Scaled dot-product attention: (B, heads, Q, d) and twice (B, heads, P, d) -> (B, heads, Q, d).

    With `causal`, Q = P and nobody is asked who comes later.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # Where bfloat16 products are fast, torch's fused kernel for the CPU takes more than twice as long as this.
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
        return torch.matmul(scores.softmax(-1), value)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of neighbouring features by its angle: (B, N, heads, d) -> the same shape."""
    cos, sin = rotary
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def rotary_table(position: Tensor, rows: int, columns: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions over time, row and column, as in diffusers' `WanRotaryPosEmbed`.

    There the time of a latent frame is its index; here it is whatever `position` says.

    Args:
        position: (B or 1, T) float, time of each latent frame.
        rows: Tokens of a latent frame, down.
        columns: Tokens of a latent frame, across.
        head_dim: Features of a head, d; 2 (d // 6) of them turn with the row, as many with the column, the rest with
            time.

    Returns:
        Cosines and sines, (B or 1, T * rows * columns, 1, d / 2) float32 each.
    """
    spatial = 2 * (head_dim // 6)
    shape = (*position.shape, rows, columns)
    places = [
        (position[:, :, None, None], head_dim - 2 * spatial),
        (torch.arange(rows, device=position.device)[None, None, :, None], spatial),
        (torch.arange(columns, device=position.device)[None, None, None], spatial),
    ]
    angles = torch.cat(
        [(place[..., None] * _inverse_wavelengths(size, position.device)).expand(*shape, -1) for place, size in places],
        dim=-1,
    )  # (B, T, rows, columns, d / 2)
    angles = angles.flatten(1, 3)[:, :, None]
    return angles.cos(), angles.sin()


def _inverse_wavelengths(size: int, device: torch.device) -> Tensor:
    return 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)


def _modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Layer norm, then scale and shift, in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps) * (1 + scale) + shift
