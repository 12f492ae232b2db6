"""ST-DiT against a reference written token by token, and what actions and times may change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.world_model.tiny_world import pictures, random_actions
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.opensora import OpenSoraBackbone
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination

FULL = 907_771_408
"""Parameters at full size, those that are in use."""

CROSS = 56 * (4 * 1152**2 + 4 * 1152)
"""Those of the released model's cross-attention, which is not."""


def tiny(**changes: Any) -> OpenSoraBackbone:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {
        "in_channels": 8, "out_channels": 8, "action_dim": 3, "latent_frames": 3, "patch": 2, "width": 24, "heads": 2,
        "layers": 2, "frequencies": 16,
    }  # fmt: skip
    backbone = OpenSoraBackbone(**numbers | changes)
    for parameter in backbone.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def inputs(backbone: OpenSoraBackbone, size: tuple[int, int] = (4, 6), batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = backbone.latent_frames
    latents = torch.randn(batch, backbone.in_channels, frames, *size, generator=generator)
    time = torch.rand(batch, frames, generator=generator)
    return latents, time, torch.rand(batch, 4 * frames, backbone.action_dim, generator=generator) * 2 - 1


class Reference:
    """The same network from its description, with loops over frames, places and heads, on its weights by name."""

    def __init__(self, backbone: OpenSoraBackbone) -> None:
        self.w = {name: weight.detach() for name, weight in backbone.transformer.named_parameters()}
        self.width, self.heads, self.patch, self.layers = (
            backbone.width,
            backbone.heads,
            backbone.patch,
            backbone.layers,
        )
        self.frequencies = backbone.frequencies

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def level(self, sigma: float) -> Tensor:
        half = self.frequencies // 2
        angles = [1000 * sigma * 10000 ** (-i / half) for i in range(half)]
        waves = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
        return self.linear("t_embedder.mlp.2", F.silu(self.linear("t_embedder.mlp.0", waves)))

    def attend(self, name: str, x: Tensor, times: list[float] | None) -> Tensor:
        d = self.width // self.heads
        query, key, value = self.linear(f"{name}.qkv", x).view(len(x), 3, self.heads, d).unbind(1)

        def normed(v: Tensor, which: str) -> Tensor:
            return v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * self.w[f"{name}.{which}.weight"]

        def turned(v: Tensor) -> Tensor:
            if times is None:
                return v
            rows = []
            for row, moment in zip(v, times, strict=True):
                turn = torch.polar(
                    torch.ones(d // 2), torch.tensor([moment * 10000 ** (-2 * i / d) for i in range(d // 2)])
                )
                rows.append(torch.view_as_real(torch.view_as_complex(row.reshape(self.heads, -1, 2)) * turn).flatten(1))
            return torch.stack(rows)

        query, key = turned(normed(query, "q_norm")), turned(normed(key, "k_norm"))
        out = torch.zeros(len(x), self.heads, d)
        for i in range(len(x)):
            seen = i + 1 if times is not None else len(x)
            for h in range(self.heads):
                weight = (key[:seen, h] @ query[i, h] / math.sqrt(d)).softmax(0)
                out[i, h] = weight @ value[:seen, h]
        return self.linear(f"{name}.proj", out.flatten(1))

    def block(self, name: str, x: Tensor, told: list[Tensor], times: list[float] | None) -> Tensor:
        """x: (L, S, D); told: a vector for each frame."""
        tables = [
            self.w[f"{name}.scale_shift_table"] + self.linear("t_block.1", F.silu(vector)).view(6, -1)
            for vector in told
        ]
        shift, scale, gate, shift2, scale2, gate2 = torch.stack(tables, dim=1)[:, :, None]  # each (L, 1, D)
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        attended = torch.zeros_like(x)
        if times is None:
            for frame in range(len(x)):
                attended[frame] = self.attend(f"{name}.attn", normed[frame], None)
        else:
            for place in range(x.shape[1]):
                attended[:, place] = self.attend(f"{name}.attn", normed[:, place], times)
        x = x + gate * attended
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        fed = F.gelu(self.linear(f"{name}.mlp.fc1", normed), approximate="tanh")
        return x + gate2 * self.linear(f"{name}.mlp.fc2", fed)

    def place(self, row: int, column: int, rows: int, columns: int) -> Tensor:
        side, stretch = round((rows * columns) ** 0.5), 64 / (self.patch * (rows * columns) ** 0.5)
        parts = []
        for index, count in ((column, columns), (row, rows)):
            quarter = self.width // 4
            angles = [index * side / count * stretch / 10000 ** (i / quarter) for i in range(quarter)]
            parts += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        return torch.tensor(parts)

    def __call__(self, frames: Tensor, sigmas: list[float], actions: Tensor, times: list[float]) -> Tensor:
        """(L, C, h, w) and the actions of the last l frames -> (l, C, h, w)."""
        p, new = self.patch, len(actions)
        rows, columns = frames.shape[2] // p, frames.shape[3] // p
        kernel = self.w["x_embedder.proj.weight"].flatten(1)
        x = torch.zeros(len(frames), rows * columns, self.width)
        for row in range(rows):
            for column in range(columns):
                square = frames[:, :, row * p : (row + 1) * p, column * p : (column + 1) * p].flatten(1)
                x[:, row * columns + column] = square @ kernel.T + self.w["x_embedder.proj.bias"]
                x[:, row * columns + column] += self.place(row, column, rows, columns)
        level = [self.level(sigma) for sigma in sigmas]
        acted = [self.linear("action_embedder.fc.2", F.silu(self.linear("action_embedder.fc.0", a))) for a in actions]
        none = self.w["action_embedder.none_action.weight"][0]
        with_actions = [a + b for a, b in zip(level, [none] * (len(frames) - new) + acted, strict=True)]
        for layer in range(self.layers):
            x = self.block(f"spatial_blocks.{layer}", x, with_actions, None)
            x = self.block(f"temporal_blocks.{layer}", x, level, times)
        shift, scale = (self.w["final_layer.scale_shift_table"][:, None] + torch.stack(level)[None])[:, :, None]
        x = self.linear("final_layer.linear", F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)[-new:]
        out = torch.zeros(new, x.shape[-1] // p**2, rows * p, columns * p)
        for row in range(rows):
            for column in range(columns):
                square = x[:, row * columns + column].view(new, p, p, -1).permute(0, 3, 1, 2)
                out[:, :, row * p : (row + 1) * p, column * p : (column + 1) * p] = square
        return out


@pytest.mark.parametrize(("frames", "patch"), [(4, 2), (1, 1), (2, 2)])
@torch.no_grad()
def test_it_computes_what_its_description_says(frames: int, patch: int) -> None:
    backbone = tiny(frames=frames, patch=patch)
    latents, time, actions = inputs(backbone, (4, 4))
    position = torch.tensor([[0.0, 7.5, 8.5], [0.0, 1.0, 2.0]])
    answer = backbone(latents, time, actions, position, new=2)
    reference = Reference(backbone)
    for b in range(2):
        single = latents[b].unflatten(0, (frames, -1)).permute(2, 0, 1, 3, 4).flatten(0, 1)  # frame after frame
        told = actions[b, 4:].reshape(2 * frames, -1)
        sigmas = [float(level) for level in time[b] for _ in range(frames)]
        times = [frames * float(moment) + i for moment in position[b] for i in range(frames)]
        expected = reference(single, sigmas, told, times).unflatten(0, (2, frames)).permute(1, 2, 0, 3, 4).flatten(0, 1)
        torch.testing.assert_close(answer[b], expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_frame_does_not_see_what_comes_later() -> None:
    backbone = tiny()
    latents, time, actions = inputs(backbone)
    answer = backbone(latents, time, actions)
    later, other = latents.clone(), actions.clone()
    later[:, 4:, 2] += 1  # the last two frames of the last latent frame
    other[:, 10:] *= -1  # and what leads to them
    changed = backbone(later, time, other)
    torch.testing.assert_close(changed[:, :, 0], answer[:, :, 0])
    torch.testing.assert_close(changed[:, :4, 1], answer[:, :4, 1])
    assert (changed[:, 4:, 1] - answer[:, 4:, 1]).abs().min(dim=0).values.max() > 1e-3
    earlier = latents.clone()
    earlier[:, :, 0] += 1  # the context
    assert not torch.allclose(backbone(earlier, time, actions)[:, 6:, 1], answer[:, 6:, 1], atol=1e-3)


@torch.no_grad()
def test_what_led_to_the_context_is_not_told_and_the_rest_is() -> None:
    backbone = tiny()
    latents, time, actions = inputs(backbone)
    answer = backbone(latents, time, actions)
    before, chunk = actions.clone(), actions.clone()
    before[:, :4] = 0
    assert torch.equal(backbone(latents, time, before), answer)
    for index in range(4, 12):
        chunk = actions.clone()
        chunk[:, index] = 0
        assert not torch.allclose(backbone(latents, time, chunk), answer, atol=1e-4)
    for frame in range(3):
        level = time.clone()
        level[:, frame] = 0.5 * level[:, frame]
        assert not torch.allclose(backbone(latents, level, actions), answer, atol=1e-4)


def world(**changes: Any) -> WorldModel:
    backbone = tiny(in_channels=None, out_channels=None, action_dim=None, latent_frames=None, patch=1)
    settings: dict[str, Any] = {
        "action_dim": 3, "reference": False, "told": True, "noisy_context": 0.015, "sampling_noise": 0.015,
        "shift": 1.0, "sigmas": 3,
    }  # fmt: skip
    model = WorldModel(PatchAutoencoder(8), backbone, **settings | changes).eval()
    torch.manual_seed(2)
    for parameter in backbone.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_a_chunk_does_not_depend_on_the_next_ones_actions_and_follows_its_own() -> None:
    model = world()
    actions = random_actions(2, 3, 8)

    def imagined(actions: Tensor) -> Tensor:
        imagination = Imagination(model)
        imagination.start(pictures(2))
        return torch.stack([imagination.step(chunk) for chunk in actions.unbind(1)], dim=1)

    first = imagined(actions)
    for changed in (1, 2):
        other = actions.clone()
        other[:, changed] *= -1
        again = imagined(other)
        assert torch.equal(again[:, :changed], first[:, :changed])
        assert not torch.equal(again[:, changed], first[:, changed])


def test_context_noise_in_sampling_is_of_the_rollout_and_the_chunk() -> None:
    model = world()
    assert model.noise_shape((16, 16)) == (768, 3, 2, 2)
    context, actions = model.encode_context(pictures(2)), random_actions(2, 8)
    noise = torch.randn(2, 768, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    other = noise.clone()
    other[:, :, 2] *= -1
    first, second = (model.sample_chunk(context, actions, each) for each in (noise, other))
    assert not torch.equal(first, second)
    # Each step asks with the same noisy context, whose level the network is told.
    seen: list[tuple[Tensor, Tensor]] = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append((given[0][:, :, 0], given[1][:, 0])))
    model.sample_chunk(context, actions, noise)
    assert len(seen) == 3
    for latents, level in seen:
        expected = 0.985 * context.latents[:, :, 1] + 0.015 * noise[:, :, 2]
        torch.testing.assert_close(latents, expected)
        torch.testing.assert_close(level, torch.full((2,), 0.015))
    plain = world(sampling_noise=0.0)
    assert plain.noise_shape((16, 16)) == (768, 2, 2, 2)


def test_full_size() -> None:
    with torch.device("meta"):
        backbone = OpenSoraBackbone(16, 16, 7, 3)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count == FULL
    assert 1.2e9 < count + CROSS < 1.25e9
    assert backbone.tokens_of((32, 32)) == 12 * 16 * 16


def test_bad_input() -> None:
    with pytest.raises(UserError, match="latent frames are 5 x 4, the backbone's patch is 2"):
        tiny().tokens_of((5, 4))
    with pytest.raises(UserError, match=r"in_channels is 6, which is not that of 4 frames"):
        tiny(in_channels=6)
    with pytest.raises(UserError, match="width is 30 with heads 2"):
        tiny(width=30)
    with pytest.raises(UserError, match="frames is 3"):
        tiny(frames=3)
    with pytest.raises(UserError, match="and the world model's context to tokens"):
        world(context="channels", told=False)
    with pytest.raises(UserError, match="takes nothing beside its frames"):
        tiny()(*inputs(tiny()), beside=[torch.zeros(2, 1, 1, 4, 6)])
    with pytest.raises(UserError, match="sampling_noise is 1"):
        world(sampling_noise=1.0)


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for saving in (False, True):
        backbone = tiny(gradient_checkpointing=saving)
        backbone(*inputs(backbone)).square().mean().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)
