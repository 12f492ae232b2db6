"""The video transformer of Open-Sora as WMPO has it: a causal spatial-temporal transformer (ST-DiT) over single frames.

Blocks come in pairs. A spatial one lets the places of a frame see each other, a temporal one lets a place see itself in
this frame and those before. An action is added to the noise level of the frame that it produced, in spatial blocks
only; frames of the context have one learned vector in its place, whatever produced them. There are no words: the
released model's cross-attention to them is not in use, and not here.

Weights have the names of the released ones (see opensora_weights.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wovr.errors import UserError, check_least
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.backbones.wan import dot_product_attention, rotate

SIDE = 64
"""Places along a side of the latent frame whose positions in the picture are 0, 1, 2, ...: 512 pixels of stride 8."""

EPS = 1e-6


class FrameAttention(nn.Module):
    """Self-attention with normalised queries and keys, over (N, L, D).

    Args:
        width: Features, D.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=EPS)
        self.k_norm = nn.RMSNorm(width // heads, eps=EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None, causal: bool = False) -> Tensor:
        """Attend: (N, L, D) -> (N, L, D), with rotary positions of (N or 1, L, 1, d / 2), to what is not later."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)  # each (N, L, heads, d)
        query, key = self.q_norm(query.float()), self.k_norm(key.float())
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        query, key = query.to(value.dtype).transpose(1, 2), key.to(value.dtype).transpose(1, 2)  # (N, heads, L, d)
        attended = dot_product_attention(query, key, value.transpose(1, 2), causal)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Hidden(nn.Module):
    """Two linear layers with the tanh form of GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class STDiTBlock(nn.Module):
    """Attention and feed-forward, each between scale, shift and gate that the noise level of a frame makes.

    Args:
        width: Features, D.
        heads: Attention heads.
        temporal: A place attends to itself over time, not to the other places of its frame.
    """

    def __init__(self, width: int, heads: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.attn = FrameAttention(width, heads)
        self.mlp = Hidden(width, 4 * width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, x: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """One block.

        Args:
            x: (B, L, S, D) float, L frames of S places.
            modulation: (B, L, 6, D) float.
            rotary: Cosines and sines of the frames' times, (B or 1, L, 1, d / 2); a spatial block ignores them.

        Returns:
            (B, L, S, D) float.
        """
        table = self.scale_shift_table + modulation.float()
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table[:, :, :, None].unbind(2)  # each (B, L, 1, D)
        normed = (_norm(x) * (1 + scale) + shift).to(x.dtype)
        if self.temporal:
            places = x.shape[2]
            cos, sin = (t.repeat_interleave(places, dim=0) if len(t) > 1 else t for t in rotary)
            rows = normed.transpose(1, 2).flatten(0, 1)  # (B * S, L, D)
            attended = self.attn(rows, (cos, sin), causal=True)
            attended = attended.unflatten(0, (len(x), -1)).transpose(1, 2)  # (B, L, S, D)
        else:
            attended = self.attn(normed.flatten(0, 1)).view(x.shape)
        x = (x.float() + gate * attended).to(x.dtype)
        fed = self.mlp((_norm(x) * (1 + scale_mlp) + shift_mlp).to(x.dtype))
        return (x.float() + gate_mlp * fed).to(x.dtype)


class FrameActions(nn.Module):
    """An action as a vector, and the one that stands for all frames of the context.

    Args:
        action_dim: Numbers that are told of what produced a frame.
        width: Features, D.
    """

    def __init__(self, action_dim: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(action_dim, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.none_action = nn.Embedding(1, width)

    def forward(self, actions: Tensor, context: int) -> Tensor:
        """(B, l, A) float actions of the new frames, after so many of the context -> (B, context + l, D)."""
        embedded = self.fc(actions)
        none = self.none_action.weight.to(embedded.dtype).expand(len(actions), context, -1)
        return torch.cat([none, embedded], dim=1)


class Time(nn.Module):
    """The noise level of a frame as a vector.

    Args:
        width: Features, D.
        frequencies: Sine and cosine features of the noise level.
    """

    def __init__(self, width: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """(B, L) float in [0, 1] -> (B, L, D)."""
        waves = get_timestep_embedding(
            1000 * time.flatten().float(), self.frequencies, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.mlp(waves.unflatten(0, time.shape))


class Patches(nn.Module):
    """Squares of a frame's places to tokens; a convolution whose stride is its kernel, as a matrix product."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(channels, width, (1, patch, patch), (1, patch, patch))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, L, h, w) -> (B, L, h', w', D)."""
        x = frames.unflatten(4, (-1, self.patch)).unflatten(3, (-1, self.patch))  # (B, C, L, h', p, w', p)
        x = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)  # (B, L, h', w', C * p * p)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class Head(nn.Module):
    """Tokens to squares of a frame's places."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, numbers)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        # At the start the answer is 0 everywhere, as is usual for diffusion transformers.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, L, S, D) and (B, L, D) -> (B, L, S, numbers)."""
        shift, scale = (self.scale_shift_table + time.float()[:, :, None])[:, :, :, None].unbind(2)  # (B, L, 1, D)
        return self.linear((_norm(x) * (1 + scale) + shift).to(x.dtype))


class STDiT(nn.Module):
    """The transformer, over frames; see `OpenSoraBackbone` for the arguments."""

    def __init__(
        self, channels: int, out_channels: int, action_dim: int, patch: int, width: int, heads: int, layers: int,
        frequencies: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch, self.head_dim = patch, width // heads
        self.checkpointing = False
        self.x_embedder = Patches(channels, width, patch)
        self.t_embedder = Time(width, frequencies)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.action_embedder = FrameActions(action_dim, width)
        self.spatial_blocks = nn.ModuleList(STDiTBlock(width, heads, temporal=False) for _ in range(layers))
        self.temporal_blocks = nn.ModuleList(STDiTBlock(width, heads, temporal=True) for _ in range(layers))
        self.final_layer = Head(width, patch**2 * out_channels)

    def forward(self, frames: Tensor, time: Tensor, actions: Tensor, position: Tensor) -> Tensor:
        """Answer for the last frames.

        Args:
            frames: (B, C, L, h, w) float.
            time: (B, L) float in [0, 1].
            actions: (B, l, A) float, those that produced the last l frames.
            position: (B or 1, L) float, when each frame is, in frames.

        Returns:
            (B, C_out, l, h, w) float.
        """
        x = self.x_embedder(frames)  # (B, L, h', w', D)
        rows, columns, width = x.shape[2:]
        x = x.flatten(2, 3)
        x = x + place_embedding(rows, columns, self.patch, width, x.device).to(x.dtype)
        new = actions.shape[1]
        level = self.t_embedder(time)  # (B, L, D)
        with_actions = level + self.action_embedder(actions, time.shape[1] - new)
        of_space, of_time = (self.t_block(told).unflatten(-1, (6, -1)) for told in (with_actions, level))
        rotary = frame_rotary(position, self.head_dim)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block, modulation in ((spatial, of_space), (temporal, of_time)):
                if self.checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, modulation, rotary, use_reentrant=False)
                else:
                    x = block(x, modulation, rotary)
        x = self.final_layer(x[:, -new:], level[:, -new:])  # (B, l, S, p * p * C_out)
        x = x.view(*x.shape[:2], rows, columns, self.patch, self.patch, -1)  # (B, l, h', w', p, p, C_out)
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4).contiguous()  # (B, C_out, l, h, w)


class OpenSoraBackbone(Backbone):
    """Open-Sora's ST-DiT as a backbone of the world model. The default arguments are its shape XL/2.

    It works frame by frame: the `frames` frames of a latent frame stand side by side in its channels, the first C /
    `frames` being those of the first one. So it goes with an autoencoder that treats frames alone (`ImageAutoencoder`,
    `PatchAutoencoder`), or with `frames` 1, where a latent frame is one frame with four actions.

    Args:
        in_channels: Channels of a latent frame, C; null for what the world model makes it, as the next three.
        out_channels: Channels of the answer.
        action_dim: Numbers that are told of each action, A.
        latent_frames: Latent frames of a clip, T.
        frames: Frames that stand side by side in the channels: 1, 2 or 4.
        patch: Side of the square of a frame's places that becomes one token.
        width: Features, D.
        heads: Attention heads; D / heads is even.
        layers: Pairs of a spatial and a temporal block.
        frequencies: Sine and cosine features of the noise level.
        gradient_checkpointing: Compute a block's activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        action_dim: int | None = None,
        latent_frames: int | None = None,
        frames: int = FRAMES_PER_LATENT,
        patch: int = 2,
        width: int = 1152,
        heads: int = 16,
        layers: int = 28,
        frequencies: int = 256,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, action_dim, latent_frames)
        for name, count in {"patch": patch, "heads": heads, "layers": layers, "frequencies": frequencies}.items():
            check_least(name, count)
        if frames not in (1, 2, FRAMES_PER_LATENT):
            raise UserError(f"frames is {frames}", "give 1, 2 or 4: as many as stand side by side in a latent frame")
        if width < 1 or width % (2 * heads) or width % 4:
            raise UserError(f"width is {width} with heads {heads}", "give a multiple of 4 and of twice the heads")
        self.frames, self.patch, self.width, self.heads, self.layers = frames, patch, width, heads, layers
        self.frequencies, self.gradient_checkpointing = frequencies, gradient_checkpointing
        self._make_with(self.given)

    def make(self) -> None:
        """See `Backbone.make`.

        Raises:
            UserError: Channels that are not those of so many frames.
        """
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.frames:
                raise UserError(
                    f"the backbone's {name} is {getattr(self, name)}, which is not that of {self.frames} frames side by"
                    " side",
                    "set backbone.init_args.frames to 1, and the world model's context to tokens",
                )
        self.transformer = STDiT(
            self.in_channels // self.frames, self.out_channels // self.frames,
            self.action_dim * FRAMES_PER_LATENT // self.frames, self.patch, self.width, self.heads, self.layers,
            self.frequencies,
        )  # fmt: skip
        self.transformer.checkpointing = self.gradient_checkpointing

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Backbone.blocks`."""
        pairs = zip(self.transformer.spatial_blocks, self.transformer.temporal_blocks, strict=True)
        return [block for pair in pairs for block in pair]

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
            UserError: There are channels beside the frames.
        """
        if beside:
            raise UserError(
                "OpenSoraBackbone takes nothing beside its frames", "set the world model's context to tokens"
            )
        count, side = len(latents), self.frames
        frames = latents.unflatten(1, (side, -1)).movedim(1, 3).flatten(2, 3)  # (B, C / side, T * side, h, w)
        if position is None:
            position = torch.arange(latents.shape[2], device=latents.device, dtype=torch.float32)[None]
        steps = torch.arange(side, device=latents.device)
        each = (side * position[..., None] + steps).flatten(1)  # (B or 1, T * side)
        of_frames = actions[:, -FRAMES_PER_LATENT * new :].reshape(count, new * side, -1)
        answer = self.transformer(frames, time.repeat_interleave(side, dim=1), of_frames, each)
        return answer.unflatten(2, (new, side)).movedim(3, 1).flatten(1, 2)  # (B, C_out, new, h, w)

    def tokens_of(self, latent_size: tuple[int, int]) -> int:
        """Tokens of a clip whose latent frames are (h, w).

        Raises:
            UserError: The sides are no multiples of the patch.
        """
        return self.latent_frames * self.frames * self.squares_of(latent_size, self.patch)


def place_embedding(rows: int, columns: int, patch: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of each token's place in the picture, first of its column, then of its row.

    Pictures of any size cover the same positions, as far as their sides are equal: those of a latent frame with `SIDE`
    places a side.

    Returns:
        (rows * columns, D) float32.
    """
    side = round((rows * columns) ** 0.5)
    scale = patch * (rows * columns) ** 0.5 / SIDE
    wavelengths = 10000.0 ** (torch.arange(0, width // 2, 2, dtype=torch.float32, device=device) / (width // 2))
    of_axis = []
    for count in (columns, rows):
        angles = torch.arange(count, dtype=torch.float32, device=device)[:, None] * side / count / scale / wavelengths
        of_axis.append(torch.cat([angles.sin(), angles.cos()], dim=-1))  # (count, D / 2)
    across = of_axis[0][None].expand(rows, -1, -1)
    down = of_axis[1][:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


def frame_rotary(position: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of frames' times: (B or 1, L) float -> (B or 1, L, 1, d / 2) float32 each."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position.device) / head_dim
    angles = (position[..., None] * 10000.0**-exponents)[:, :, None]
    return angles.cos(), angles.sin()


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], eps=EPS)
