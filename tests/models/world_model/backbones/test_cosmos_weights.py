"""Tiny random checkpoints in the two known layouts of Cosmos-Predict2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor

from tests.models.world_model.backbones.test_cosmos import inputs, tiny
from wovr.errors import UserError
from wovr.models.world_model.backbones.cosmos_weights import load_cosmos_weights

DIFFUSERS: Any = CosmosTransformer3DModel
D = 40


def authors(actions: int = 24) -> dict[str, Tensor]:
    """Names and shapes of the authors' files, for two layers of width 40, six channels and padding."""
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.1.weight": (D, 8 * 4), "t_embedder.1.linear_1.weight": (D, D),
        "t_embedder.1.linear_2.weight": (3 * D, D), "t_embedding_norm.weight": (D,),
        "action_embedder_B_D.fc1.weight": (4 * D, actions), "action_embedder_B_D.fc1.bias": (4 * D,),
        "action_embedder_B_D.fc2.weight": (D, 4 * D), "action_embedder_B_D.fc2.bias": (D,),
        "action_embedder_B_3D.fc1.weight": (4 * D, actions), "action_embedder_B_3D.fc1.bias": (4 * D,),
        "action_embedder_B_3D.fc2.weight": (3 * D, 4 * D), "action_embedder_B_3D.fc2.bias": (3 * D,),
        "final_layer.linear.weight": (5 * 4, D), "final_layer.adaln_modulation.1.weight": (8, D),
        "final_layer.adaln_modulation.2.weight": (2 * D, 8),
        "pos_embedder.seq": (16,), "accum_video_sample_counter": (1,),
    }  # fmt: skip
    for layer in range(2):
        at = f"blocks.{layer}"
        for part in ("self_attn", "cross_attn", "mlp"):
            shapes |= {
                f"{at}.adaln_modulation_{part}.1.weight": (8, D),
                f"{at}.adaln_modulation_{part}.2.weight": (3 * D, 8),
            }
        for part in ("self_attn", "cross_attn"):
            shapes |= {f"{at}.{part}.{name}_proj.weight": (D, D) for name in ("q", "k", "v", "output")}
            shapes |= {f"{at}.{part}.{name}_norm.weight": (20,) for name in "qk"}
        shapes |= {f"{at}.mlp.layer1.weight": (4 * D, D), f"{at}.mlp.layer2.weight": (D, 4 * D)}
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def test_the_authors_file(tmp_path: Path) -> None:
    weights = authors()
    path = tmp_path / "model-480p-4fps_ema_bf16.pt"
    averaged = {f"net_ema.{name}": value for name, value in weights.items()}
    torch.save({f"net.{name}": value + 1 for name, value in weights.items()} | averaged, path)
    backbone = tiny()
    result = load_cosmos_weights(backbone, path)
    ours = backbone.transformer.state_dict()
    assert set(result.loaded) == ours.keys()
    assert not result.new
    assert all("cross_attn" in name or name.startswith(("pos_embedder", "accum_")) for name in result.left_out)
    for there, here in (
        ("blocks.1.self_attn.k_proj.weight", "transformer_blocks.1.attn1.to_k.weight"),
        ("blocks.0.self_attn.output_proj.weight", "transformer_blocks.0.attn1.to_out.0.weight"),
        ("blocks.0.self_attn.q_norm.weight", "transformer_blocks.0.attn1.norm_q.weight"),
        ("blocks.1.mlp.layer2.weight", "transformer_blocks.1.ff.net.2.weight"),
        ("blocks.1.adaln_modulation_mlp.2.weight", "transformer_blocks.1.norm3.linear_2.weight"),
        ("action_embedder_B_3D.fc2.bias", "time_embed.action_embedder_B_3D.fc2.bias"),
        ("final_layer.adaln_modulation.1.weight", "norm_out.linear_1.weight"),
    ):
        assert torch.equal(ours[here], weights[there])
    assert torch.equal(ours["patch_embed.proj.weight"], weights["x_embedder.proj.1.weight"][:, :28])
    backbone(*inputs(backbone))


def save_diffusers(folder: Path, **changes: Any) -> Any:
    numbers = {
        "in_channels": 7, "out_channels": 5, "num_attention_heads": 2, "attention_head_dim": 20, "num_layers": 2,
        "adaln_lora_dim": 8, "text_embed_dim": 4, "extra_pos_embed_type": None,
    }  # fmt: skip
    torch.manual_seed(3)
    model = DIFFUSERS(**numbers | changes)
    model.save_pretrained(folder)
    return model


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    theirs = save_diffusers(tmp_path / "transformer").state_dict()
    backbone = tiny()
    result = load_cosmos_weights(backbone, tmp_path)
    ours = backbone.transformer.state_dict()
    assert all("action_embedder" in name for name in result.new)
    assert len(result.new) == 8
    assert set(result.loaded) | set(result.new) == ours.keys()
    assert all(".attn2." in name or ".norm2." in name for name in result.left_out)
    for name in set(result.loaded) - {"patch_embed.proj.weight"}:
        assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"][:, :28])


def test_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(authors(actions=84), path)
    with pytest.raises(UserError, match="its actions are 84 numbers at once, 8 x 3 here") as raised:
        load_cosmos_weights(tiny(), path)
    assert "init_args.chunk" in str(raised.value)
    torch.save({"net.blocks.0.attn.qkv.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UserError, match=r"weight '(net\.)?blocks.0.attn.qkv.weight' .* does not fit"):
        load_cosmos_weights(tiny(), path)
    torch.save({"net": range(3)}, path)
    with pytest.raises(UserError, match="no file of weights, or holds pickled objects"):
        load_cosmos_weights(tiny(), path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no file of weights"):
        load_cosmos_weights(tiny(), path)
    with pytest.raises(UserError, match="no weights"):
        load_cosmos_weights(tiny(), tmp_path / "nowhere")
    save_diffusers(tmp_path / "deep", num_layers=3)
    with pytest.raises(UserError, match=r"weight 'transformer_blocks.2"):
        load_cosmos_weights(tiny(), tmp_path / "deep")
    save_diffusers(tmp_path / "first", extra_pos_embed_type="learnable")  # Cosmos 1
    with pytest.raises(UserError, match="weight 'learnable_pos_embed"):
        load_cosmos_weights(tiny(), tmp_path / "first")
