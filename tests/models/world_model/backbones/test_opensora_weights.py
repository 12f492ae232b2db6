"""Tiny random checkpoints in the layout of WMPO's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.world_model.backbones.test_opensora import inputs, tiny
from wovr.errors import UserError
from wovr.models.world_model.backbones.opensora_weights import load_opensora_weights

D, C, P = 24, 2, 2


def released(variance: bool = True, actions: int = 3) -> dict[str, Tensor]:
    """Names and shapes as published, for two layers of width 24."""
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (D, C, 1, P, P), "x_embedder.proj.bias": (D,),
        "t_embedder.mlp.0.weight": (D, 16), "t_embedder.mlp.0.bias": (D,),
        "t_embedder.mlp.2.weight": (D, D), "t_embedder.mlp.2.bias": (D,),
        "t_block.1.weight": (6 * D, D), "t_block.1.bias": (6 * D,),
        "fps_embedder.mlp.0.weight": (D, 16), "y_embedder.y_embedding": (5, 7), "rope.freqs": (6,),
        "pos_embed.inv_freq": (6,),
        "action_embedder.fc.0.weight": (4 * D, actions), "action_embedder.fc.0.bias": (4 * D,),
        "action_embedder.fc.2.weight": (D, 4 * D), "action_embedder.fc.2.bias": (D,),
        "action_embedder.none_action.weight": (1, D),
        "final_layer.scale_shift_table": (2, D),
        "final_layer.linear.weight": (P * P * C * (2 if variance else 1), D),
        "final_layer.linear.bias": (P * P * C * (2 if variance else 1),),
    }  # fmt: skip
    for kind in ("spatial", "temporal"):
        for layer in range(2):
            at = f"{kind}_blocks.{layer}"
            shapes |= {
                f"{at}.scale_shift_table": (6, D), f"{at}.attn.qkv.weight": (3 * D, D), f"{at}.attn.qkv.bias": (3 * D,),
                f"{at}.attn.q_norm.weight": (D // 2,), f"{at}.attn.k_norm.weight": (D // 2,),
                f"{at}.attn.proj.weight": (D, D), f"{at}.attn.proj.bias": (D,),
                f"{at}.mlp.fc1.weight": (4 * D, D), f"{at}.mlp.fc1.bias": (4 * D,),
                f"{at}.mlp.fc2.weight": (D, 4 * D), f"{at}.mlp.fc2.bias": (D,),
                f"{at}.cross_attn.q_linear.weight": (D, D), f"{at}.cross_attn.kv_linear.weight": (2 * D, D),
            }  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, Tensor]) -> Path:
    save_file(weights, folder / "model-00001.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_the_published_layout(tmp_path: Path, prefix: str) -> None:
    weights = released()
    backbone = tiny()
    result = load_opensora_weights(
        backbone, write(tmp_path, {f"{prefix}{name}": value for name, value in weights.items()})
    )
    ours = backbone.transformer.state_dict()
    assert set(result.loaded) == ours.keys()
    assert not result.new
    used = {name for name in weights if "cross_attn" not in name}
    used = {name for name in used if not name.startswith(("y_", "fps_", "rope", "pos_embed"))}
    assert {name.removeprefix(prefix) for name in result.left_out} == weights.keys() - used
    for name in used - {"final_layer.linear.weight", "final_layer.linear.bias"}:
        assert torch.equal(ours[name], weights[name]), name
    # It answers data - noise, eight channels at every place of a patch, the last four of which are a variance.
    rows = weights["final_layer.linear.weight"].view(P, P, 2 * C, D)[:, :, :C].reshape(-1, D)
    assert torch.equal(ours["final_layer.linear.weight"], -rows)
    backbone(*inputs(backbone))


def test_without_variance_and_without_actions(tmp_path: Path) -> None:
    weights = {name: w for name, w in released(variance=False).items() if not name.startswith("action_")}
    backbone = tiny()
    before = backbone.transformer.action_embedder.none_action.weight.clone()
    result = load_opensora_weights(backbone, write(tmp_path, weights))
    assert all(name.startswith("action_embedder.") for name in result.new)
    assert len(result.new) == 5
    assert torch.equal(backbone.transformer.action_embedder.none_action.weight, before)
    assert torch.equal(backbone.transformer.final_layer.linear.bias, -weights["final_layer.linear.bias"])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights"):
        load_opensora_weights(tiny(), tmp_path)
    write(tmp_path, {"blocks.0.attn1.to_q.weight": torch.zeros(2, 2)})  # of a Wan transformer
    with pytest.raises(UserError, match=r"weight 'blocks.0.attn1.to_q.weight' \(2, 2\) does not fit") as raised:
        load_opensora_weights(tiny(), tmp_path)
    assert "ST-DiT (Open-Sora, WMPO)" in str(raised.value)
    write(tmp_path, released(actions=7))
    with pytest.raises(UserError, match="an action has 7 numbers there, 3 here"):
        load_opensora_weights(tiny(), tmp_path)
    weights = released()
    del weights["t_block.1.bias"]
    write(tmp_path, weights)
    with pytest.raises(UserError, match=r"lacks 1 weights, e.g. 't_block.1.bias'"):
        load_opensora_weights(tiny(), tmp_path)
    (tmp_path / "model-00001.safetensors").unlink()
    torch.save({}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="only pickled weights"):
        load_opensora_weights(tiny(), tmp_path)
