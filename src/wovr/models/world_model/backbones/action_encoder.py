"""Actions and noise levels into a video transformer: what stands in for the text branch (paper, section 4.1).

Two channels, either of which can be switched off. AdaLN: the four actions behind a latent frame become one vector that
is added to the time embedding of that latent frame, and so modulates every block and the output head. Cross-attention:
one token an action in place of words. Unlike the authors' the tokens carry a learned position, so that the order of
actions is visible, and the AdaLN branch starts at zero, so that released weights start as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn

ACTIONS_PER_LATENT = 4
"""Actions behind one latent frame: an autoencoder turns four frames into one."""


@dataclass
class ConditionEmbedding:
    """What a transformer over T latent frames is conditioned on.

    Attributes:
        time: (B, T, D) float, noise level (and actions) of each latent frame: modulates the output head.
        modulation: (B, T, 6, D) float, the same projected to the six modulations of a block.
        tokens: (B, 4 T, D) float, one an action, for cross-attention; None where that channel is off.
    """

    time: Tensor
    modulation: Tensor
    tokens: Tensor | None


class ActionTimeEmbedder(nn.Module):
    """The noise level and the actions of each latent frame, embedded.

    `time_embedder` and `time_proj` have the names and shapes of diffusers' `condition_embedder`.

    Args:
        width: Features of the transformer, D.
        frequencies: Sine and cosine features of the noise level.
        action_dim: Dimensions of an action, A.
        latent_frames: Longest clip in latent frames: how many positions the action tokens have.
        adaln: Add the actions to the time embedding.
        cross: Make a token of every action.
        cumulative: Beside each action of the chunk give the sum of the chunk's actions so far, which says where they
            have led: without it the network has to add them up by attention.
    """

    def __init__(
        self,
        width: int,
        frequencies: int,
        action_dim: int,
        latent_frames: int,
        adaln: bool,
        cross: bool,
        cumulative: bool,
    ) -> None:
        super().__init__()
        self.cumulative = cumulative
        action_dim = 2 * action_dim if cumulative else action_dim
        self.frequencies = frequencies
        self.time_embedder = TimestepEmbedding(frequencies, width)
        self.time_proj = nn.Linear(width, 6 * width)
        self.action_embedder: nn.Sequential | None = None
        self.action_tokens: nn.Sequential | None = None
        if adaln:
            last = nn.Linear(4 * width, width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.action_embedder = nn.Sequential(nn.Linear(ACTIONS_PER_LATENT * action_dim, 4 * width), nn.SiLU(), last)
        if cross:
            self.action_tokens = nn.Sequential(nn.Linear(action_dim, width), nn.GELU(), nn.Linear(width, width))
            self.token_position = nn.Parameter(torch.randn(latent_frames * ACTIONS_PER_LATENT, width) * 0.02)

    def forward(self, time: Tensor, actions: Tensor, reference: bool, new: int) -> ConditionEmbedding:
        """Embed.

        Args:
            time: (B, T) float in [0, 1], the noise level of each latent frame.
            actions: (B, 4 T, A) float, the action that produced each frame.
            reference: The first latent frame is the reference: no action leads to it, so its tokens say nothing but
                where they stand.
            new: Latent frames of the chunk, the last ones.
        """
        if self.cumulative:
            sums = actions[:, -ACTIONS_PER_LATENT * new :].cumsum(1) / ACTIONS_PER_LATENT
            before = actions.shape[1] - sums.shape[1]
            actions = torch.cat([actions, nn.functional.pad(sums, (0, 0, before, 0))], dim=-1)  # (B, 4 T, 2 A)
        waves = get_timestep_embedding(
            1000 * time.flatten().float(), self.frequencies, flip_sin_to_cos=True, downscale_freq_shift=0
        )  # (B * T, frequencies)
        embedding = self.time_embedder(torch.unflatten(waves, 0, time.shape))  # (B, T, D)
        if self.action_embedder is not None:
            grouped = torch.unflatten(actions, 1, (-1, ACTIONS_PER_LATENT)).flatten(2)  # (B, T, 4 A)
            embedding = embedding + self.action_embedder(grouped)
        modulation = torch.unflatten(self.time_proj(nn.functional.silu(embedding)), -1, (6, -1))  # (B, T, 6, D)
        return ConditionEmbedding(embedding, modulation, self._tokens(actions, reference))

    def _tokens(self, actions: Tensor, reference: bool) -> Tensor | None:
        if self.action_tokens is None:
            return None
        first = ACTIONS_PER_LATENT if reference else 0
        content = self.action_tokens(actions[:, first:])  # (B, 4 T - first, D)
        content = nn.functional.pad(content, (0, 0, first, 0))  # (B, 4 T, D)
        return content + self.token_position[: actions.shape[1]].to(content.dtype)
