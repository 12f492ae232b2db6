from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from tests.extras import needs
from tests.models.world_model.tiny_world import tiny_backbone
from wovr.errors import UserError
from wovr.models.world_model.backbones.action_encoder import ActionTimeEmbedder
from wovr.models.world_model.backbones.wan import WanBackbone, dot_product_attention, rotary_table, rotate

CONF = Path(__file__).resolve().parents[4] / "conf"


class PerToken(nn.Module):
    """In place of diffusers' `condition_embedder`: our embeddings, repeated for every token as diffusers wants them."""

    def __init__(self, embedder: ActionTimeEmbedder, tokens: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.tokens = tokens

    def forward(self, time: Tensor, actions: Tensor, image: None, timestep_seq_len: int) -> tuple[Any, ...]:
        frames = timestep_seq_len // self.tokens
        embedding = self.embedder(time.view(len(actions), frames, self.tokens)[:, :, 0], actions, True, 1)
        per_token = embedding.time.repeat_interleave(self.tokens, dim=1)
        modulation = embedding.modulation.flatten(2).repeat_interleave(self.tokens, dim=1)
        return per_token, modulation, embedding.tokens, None


def inputs(backbone: WanBackbone, size: tuple[int, int] = (4, 6), batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = backbone.latent_frames
    latents = torch.randn(batch, backbone.in_channels, frames, *size, generator=generator)
    time = torch.rand(batch, frames, generator=generator)
    return latents, time, torch.rand(batch, 4 * frames, backbone.action_dim, generator=generator) * 2 - 1


@pytest.mark.parametrize("patch", [1, 2])
def test_the_forward_pass_is_that_of_diffusers(patch: int) -> None:
    backbone = tiny_backbone(in_channels=6, out_channels=5, patch=patch)
    latents, time, actions = inputs(backbone)
    theirs = WanTransformer3DModel(
        patch_size=(1, patch, patch), num_attention_heads=2, attention_head_dim=12, in_channels=6, out_channels=5,
        text_dim=1, freq_dim=16, ffn_dim=48, num_layers=2, rope_max_seq_len=16,
    )  # fmt: skip
    tokens = latents.shape[3] * latents.shape[4] // patch**2
    weights = {k: v for k, v in backbone.transformer.state_dict().items() if not k.startswith("condition_embedder")}
    theirs.condition_embedder = PerToken(backbone.transformer.condition_embedder, tokens)
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("condition_embedder") for name in missing)
    with torch.no_grad():
        expected = theirs(latents, time.repeat_interleave(tokens, dim=1), actions).sample
        for new in (4, 2, 1):  # the last block answers for the new latent frames only
            torch.testing.assert_close(backbone(latents, time, actions, new=new), expected[:, :, -new:])


@pytest.mark.parametrize("patch", [1, 2])
def test_channels_beside_are_as_good_as_channels_in_between(patch: int) -> None:
    backbone = tiny_backbone(in_channels=9, out_channels=5, patch=patch)
    torch.nn.init.normal_(backbone.transformer.proj_out.weight)
    latents, time, actions = inputs(backbone)
    latents[:, 4:6] = latents[:, 4:6, :1]  # two channels that all latent frames share
    beside = [latents[:, 4:6, :1], latents[:, 6:]]
    with torch.no_grad():
        expected = backbone(latents, time, actions)
        torch.testing.assert_close(backbone(latents[:, :4], time, actions, beside=beside), expected)
        assert not torch.allclose(backbone(latents[:, :4], time, actions, beside=[2 * beside[0], beside[1]]), expected)


def test_rotary_positions_with_a_real_gap_in_time() -> None:
    """Against complex multiplication, token by token, at positions that are not 0, 1, 2."""
    head_dim, rows, columns = 20, 2, 3
    position = torch.tensor([[0.0, 7.25, 8.25], [0.0, 1.0, 2.0]])
    table = rotary_table(position, rows, columns, head_dim)
    x = torch.randn(2, 3 * rows * columns, 2, head_dim)
    turned = rotate(x, table)
    spatial = 2 * (head_dim // 6)
    for b in range(2):
        for token in range(x.shape[1]):
            frame, row, column = token // (rows * columns), token // columns % rows, token % columns
            angles: list[float] = []
            for place, size in ((position[b, frame].item(), head_dim - 2 * spatial), (row, spatial), (column, spatial)):
                angles += [place * 10000 ** (-2 * i / size) for i in range(size // 2)]
            pairs = torch.view_as_complex(x[b, token].view(2, -1, 2))
            factors = torch.tensor([complex(math.cos(a), math.sin(a)) for a in angles])
            expected = torch.view_as_real(pairs * factors).flatten(1)
            torch.testing.assert_close(turned[b, token], expected, atol=1e-5, rtol=1e-4)


def test_positions_of_0_to_3_are_the_default_and_others_change_the_answer() -> None:
    backbone = tiny_backbone(in_channels=6, out_channels=6)
    latents, time, actions = inputs(backbone)
    default = backbone(latents, time, actions)
    torch.testing.assert_close(backbone(latents, time, actions, torch.arange(4.0).expand(2, -1)), default)
    far = backbone(latents, time, actions, torch.tensor([[0.0, 1, 2, 3], [0.0, 9, 10, 11]]))
    torch.testing.assert_close(far[0], default[0])
    assert not torch.allclose(far[1], default[1], atol=1e-4)
    # Only differences of positions count.
    torch.testing.assert_close(
        backbone(latents, time, actions, torch.arange(4.0)[None] + 5), default, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("channel", ["adaln", "cross"])
def test_actions_come_in_through_either_channel(channel: str) -> None:
    backbone = tiny_backbone(in_channels=6, out_channels=6, **{"adaln": False, "cross": False} | {channel: True})
    latents, time, actions = inputs(backbone)
    names = [name for name, _ in backbone.named_parameters()]
    assert any("action_embedder" in name for name in names) == (channel == "adaln")
    assert any("action_tokens" in name or "attn2" in name for name in names) == (channel == "cross")
    answer = backbone(latents, time, actions)
    for frame in (4, 11, 15):  # memory, first new, last
        other = actions.clone()
        other[:, frame] = 0
        assert not torch.allclose(backbone(latents, time, other), answer, atol=1e-5)
    # Swapping two actions of a latent frame is seen: their order is not lost.
    swapped = actions.clone()
    swapped[:, [12, 13]] = actions[:, [13, 12]]
    assert not torch.allclose(backbone(latents, time, swapped), answer, atol=1e-5)


def test_channels_off_change_the_computation() -> None:
    latents, time, actions = inputs(tiny_backbone(in_channels=6, out_channels=6))
    both, adaln, cross = (
        tiny_backbone(in_channels=6, out_channels=6, **off)(latents, time, actions)
        for off in ({}, {"cross": False}, {"adaln": False})
    )
    assert not torch.allclose(both, adaln, atol=1e-4)
    assert not torch.allclose(both, cross, atol=1e-4)
    with pytest.raises(UserError, match="adaln and cross are both false"):
        tiny_backbone(adaln=False, cross=False)


def test_the_reference_has_no_action_tokens_but_places() -> None:
    backbone = tiny_backbone(in_channels=6, out_channels=6, adaln=False)
    latents, time, actions = inputs(backbone)
    answer = backbone(latents, time, actions)
    changed = actions.clone()
    changed[:, :4] = 0.9
    torch.testing.assert_close(backbone(latents, time, changed), answer)
    assert not torch.allclose(backbone(latents, time, changed, reference=False), answer, atol=1e-5)


def test_the_adaln_branch_starts_at_zero() -> None:
    backbone = tiny_backbone(alive=False, in_channels=6, out_channels=6, cross=False)
    nn.init.normal_(backbone.transformer.proj_out.weight)
    latents, time, actions = inputs(backbone)
    torch.testing.assert_close(backbone(latents, time, actions), backbone(latents, time, actions * 0))
    backbone(latents, time, actions).sum().backward()
    embedder = backbone.transformer.condition_embedder.action_embedder
    assert embedder is not None
    assert embedder[-1].weight.grad is not None
    assert embedder[-1].weight.grad.any()


def test_every_parameter_learns() -> None:
    """A parameter without a gradient would be an error under DDP."""
    for arguments in ({}, {"cross": False}, {"adaln": False}):
        backbone = tiny_backbone(in_channels=6, out_channels=6, **arguments)
        backbone(*inputs(backbone)).square().sum().backward()
        assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    gradients: list[list[Tensor | None]] = []
    calls: list[bool] = []
    for checkpointing in (False, True):
        backbone = tiny_backbone(in_channels=6, out_channels=6, gradient_checkpointing=checkpointing)
        for block in backbone.blocks:
            block.register_forward_pre_hook(lambda *_, which=checkpointing: calls.append(which))
        backbone(*inputs(backbone)).square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    torch.testing.assert_close(*gradients)
    assert calls.count(False) == 2
    assert calls.count(True) == 4  # forward, and again backward


def test_wan5b_has_the_paper_s_size() -> None:
    config = yaml.safe_load((CONF / "paper" / "wm.yaml").read_text())
    numbers = config["model"]["init_args"]["world_model"]["init_args"]["backbone"]["init_args"]
    with torch.device("meta"):
        backbone = WanBackbone(**numbers)
        backbone.complete(in_channels=48, out_channels=48, action_dim=7, latent_frames=4)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    assert parameters == pytest.approx(5.0e9, rel=0.02)
    assert backbone.tokens_of((16, 16)) == 256
    # The swap takes the text embedder out (4096 x 3072 and 3072 x 3072) and puts the two action channels in.
    embedder = backbone.transformer.condition_embedder
    assert sum(p.numel() for name, p in embedder.named_parameters() if "action" in name or "token" in name) == (
        (28 * 12288 + 12288 + 12288 * 3072 + 3072) + (7 * 3072 + 3072 + 3072 * 3072 + 3072) + 16 * 3072
    )


def test_latent_frames_that_cannot_be_cut() -> None:
    assert tiny_backbone(patch=2).tokens_of((4, 6)) == 24
    with pytest.raises(UserError, match="latent frames are 3 x 4"):
        tiny_backbone(patch=2).tokens_of((3, 4))


@pytest.mark.parametrize("arguments", [{"head_dim": 4}, {"head_dim": 9}, {"lora_alpha": 8.0}])
def test_arguments_that_do_not_make_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        tiny_backbone(**arguments)


def test_adapters_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'wovr\[lora\]'"):
        tiny_backbone(lora_rank=2)


@needs("lora")
def test_adapters_and_actions_learn_and_nothing_else() -> None:
    plain = tiny_backbone(in_channels=6, out_channels=6)
    torch.manual_seed(0)
    adapted = WanBackbone(6, 6, 3, 4, patch=1, heads=2, head_dim=12, layers=2, ffn_dim=48, frequencies=16, lora_rank=2)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name or "action_" in name or "token_position" in name for name in learning)
    layers = {name.split(".lora_")[0].split("blocks.0.")[-1] for name in learning if "blocks.0." in name}
    assert len(layers) == 10  # four of each attention, two of the feed-forward part
    # At the start adapters add nothing.
    weights = {
        name.replace(".base_layer", ""): parameter
        for name, parameter in adapted.named_parameters()
        if "lora_" not in name
    }
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            weights[name].copy_(parameter)
    torch.testing.assert_close(adapted(*inputs(plain)), plain(*inputs(plain)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_either_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=generator) for n in (5, 7, 7))
    weight = torch.einsum("bhqd,bhpd->bhqp", query, key).div(8**0.5).softmax(-1)
    expected = torch.einsum("bhqp,bhpd->bhqd", weight, value)
    found = dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=0.01)


def test_attention_sees_all_tokens() -> None:
    """The context's answer is not asked for, but what is new looks at all of it."""
    backbone = tiny_backbone(in_channels=6, out_channels=6)
    latents, time, actions = inputs(backbone)
    answer = backbone(latents, time, actions)
    for frame in range(4):
        other = latents.clone()
        other[:, :, frame, 0, 0] += 1
        assert not torch.allclose(backbone(other, time, actions), answer, atol=1e-6), frame


@pytest.mark.parametrize(
    ("name", "count"), [("layers", -1), ("layers", 0), ("heads", 0), ("ffn_dim", -(2**31)), ("patch", 0)]
)
def test_a_count_below_one_is_refused(name: str, count: int) -> None:
    with pytest.raises(UserError, match=f"{name} is {count}; give 1 or more"):
        tiny_backbone(**{name: count})
