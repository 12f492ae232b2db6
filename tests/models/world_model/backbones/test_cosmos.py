"""Cosmos with actions against diffusers' own forward pass, with an embedding that knows the actions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor, nn

from tests.models.world_model.tiny_world import pictures, random_actions
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.cosmos import CosmosBackbone
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination

DIFFUSERS: Any = CosmosTransformer3DModel


def tiny(**changes: Any) -> CosmosBackbone:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {
        "in_channels": 6, "out_channels": 5, "action_dim": 3, "latent_frames": 3, "patch": 2, "heads": 2,
        "head_dim": 20, "layers": 2, "lora_dim": 8,
    }  # fmt: skip
    backbone = CosmosBackbone(**numbers | changes)
    for parameter in backbone.parameters():
        if parameter.ndim < 2 or not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return backbone


def inputs(backbone: CosmosBackbone, size: tuple[int, int] = (4, 6), batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = backbone.latent_frames
    latents = torch.randn(batch, backbone.in_channels, frames, *size, generator=generator)
    time = torch.rand(batch, frames, generator=generator)
    return latents, time, torch.rand(batch, 4 * frames, backbone.action_dim, generator=generator) * 2 - 1


class Told(nn.Module):
    """In place of diffusers' `time_embed`, from the description: what of the actions is added, and where."""

    def __init__(self, weights: dict[str, Tensor], width: int, vectors: Tensor) -> None:
        super().__init__()
        self.weights, self.width, self.vectors = weights, width, vectors  # (B * T, numbers)

    def layers(self, name: str) -> Tensor:
        w = self.weights
        hidden = self.vectors @ w[f"{name}.fc1.weight"].T + w[f"{name}.fc1.bias"]
        return nn.functional.gelu(hidden, approximate="tanh") @ w[f"{name}.fc2.weight"].T + w[f"{name}.fc2.bias"]

    def forward(self, _: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        half = self.width // 2
        angles = timestep[:, None] * 10000 ** (-torch.arange(half) / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        w = self.weights
        term = nn.functional.silu(waves @ w["t_embedder.linear_1.weight"].T) @ w["t_embedder.linear_2.weight"].T
        level = waves + self.layers("action_embedder_B_D")
        normed = level / (level.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w["norm.weight"]
        return term + self.layers("action_embedder_B_3D"), normed


@pytest.mark.parametrize(("told", "patch"), [("chunk", 2), ("latent", 1)])
@torch.no_grad()
def test_the_forward_pass_is_that_of_diffusers_with_words_of_zero(told: str, patch: int) -> None:
    backbone = tiny(actions=told, patch=patch)
    latents, time, actions = inputs(backbone)
    theirs = DIFFUSERS(
        in_channels=7, out_channels=5, num_attention_heads=2, attention_head_dim=20, num_layers=2, adaln_lora_dim=8,
        text_embed_dim=4, patch_size=(1, patch, patch), rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=False,
        extra_pos_embed_type=None, max_size=(8, 16, 16),
    )  # fmt: skip
    weights = backbone.transformer.state_dict()
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert all(".attn2." in name or ".norm2." in name for name in missing)
    assert all("action_embedder" in name for name in unexpected)
    embedding = {name.removeprefix("time_embed."): w for name, w in weights.items() if name.startswith("time_embed.")}
    if told == "chunk":
        vectors = actions[:, 4:].reshape(2, 1, 24).expand(-1, 3, -1)
    else:
        vectors = torch.cat([torch.zeros(2, 1, 12), actions[:, 4:].reshape(2, 2, 12)], dim=1)
    theirs.time_embed = Told(embedding, 40, vectors.flatten(0, 1))
    mask = torch.zeros(2, 1, 3, *latents.shape[3:])
    mask[:, :, 0] = 1
    words = torch.zeros(2, 4, 4)
    expected = theirs(latents, time[:, None, :, None, None], words, condition_mask=mask, return_dict=False)[0]
    torch.testing.assert_close(backbone(latents, time, actions, new=2), expected[:, :, 1:], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("path", ["action_embedder_B_D", "action_embedder_B_3D"])
@torch.no_grad()
def test_actions_come_in_through_either_path(path: str) -> None:
    backbone = tiny()
    other = "action_embedder_B_3D" if path == "action_embedder_B_D" else "action_embedder_B_D"
    for parameter in getattr(backbone.transformer.time_embed, other).fc2.parameters():
        parameter.zero_()
    latents, time, actions = inputs(backbone)
    answer = backbone(latents, time, actions)
    before = actions.clone()
    before[:, :4] = 0  # what led to the context is not told
    assert torch.equal(backbone(latents, time, before), answer)
    for index in range(4, 12):
        changed = actions.clone()
        changed[:, index] *= -1
        assert not torch.allclose(backbone(latents, time, changed), answer, atol=1e-5)


@torch.no_grad()
def test_channels_beside_and_positions() -> None:
    backbone = tiny(in_channels=9)
    latents, time, actions = inputs(backbone)
    latents[:, 4:6] = latents[:, 4:6, :1]
    answer = backbone(latents, time, actions)
    beside = [latents[:, 4:6, :1], latents[:, 6:]]
    torch.testing.assert_close(backbone(latents[:, :4], time, actions, beside=beside), answer)
    torch.testing.assert_close(backbone(latents, time, actions, torch.arange(3.0).expand(2, -1)), answer)
    assert not torch.allclose(backbone(latents, time, actions, torch.tensor([[0.0, 9, 10]])), answer, atol=1e-4)


def test_a_chunk_does_not_depend_on_the_next_ones_actions() -> None:
    numbers = dict.fromkeys(("in_channels", "out_channels", "action_dim", "latent_frames"))
    model = WorldModel(PatchAutoencoder(8), tiny(**numbers, patch=1), action_dim=3, reference=False, sigmas=3).eval()
    torch.manual_seed(2)
    for parameter in model.backbone.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    actions = random_actions(2, 2, 8)

    def imagined(actions: Tensor) -> Tensor:
        imagination = Imagination(model)
        imagination.start(pictures(2))
        return torch.stack([imagination.step(chunk) for chunk in actions.unbind(1)], dim=1)

    other = actions.clone()
    other[:, 1] *= -1
    first, again = imagined(actions), imagined(other)
    assert torch.equal(again[:, 0], first[:, 0])
    assert not torch.equal(again[:, 1], first[:, 1])


def test_full_size() -> None:
    with torch.device("meta"):
        ours = CosmosBackbone(16, 16, 7, 4)
        theirs = DIFFUSERS(
            in_channels=17, num_attention_heads=16, attention_head_dim=128, num_layers=28, adaln_lora_dim=256,
            rope_scale=(1, 3, 3), extra_pos_embed_type=None,
        )  # fmt: skip

    def count(module: nn.Module, of: str = "") -> int:
        return sum(parameter.numel() for name, parameter in module.named_parameters() if of in name)

    assert round(count(theirs) / 1e9, 2) == 1.96
    words = count(theirs, ".attn2.") + count(theirs, ".norm2.")
    padding = 4 * 2048
    assert count(ours) - count(ours, "action_embedder") == count(theirs) - words - padding
    assert count(ours) == 1_613_407_232


def test_bad_input() -> None:
    with pytest.raises(UserError, match="latent frames are 5 x 4, the backbone's patch is 2"):
        tiny().tokens_of((5, 4))
    with pytest.raises(UserError, match="a chunk has 8 actions, the backbone's layers are made for 12"):
        tiny(chunk=12)(*inputs(tiny()))
    tiny(chunk=12, actions="latent")(*inputs(tiny()))  # not bound to a length
    for changes, message in (
        ({"head_dim": 17}, "head_dim is 17"),
        ({"chunk": 6}, "chunk is 6"),
        ({"rope_scale": [1.0]}, "rope_scale"),
        ({"actions": "words"}, "actions is words"),
    ):
        with pytest.raises(UserError, match=message):
            tiny(**changes)


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for saving in (False, True):
        backbone = tiny(gradient_checkpointing=saving)
        backbone(*inputs(backbone)).square().mean().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)
