"""Released weights, with a tiny random model that diffusers itself saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from tests.extras import needs
from tests.models.world_model.tiny_world import tiny_backbone
from wovr.errors import UserError
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.backbones.wan_weights import WEIGHTS, load_released_weights


def released(folder: Path, max_shard_size: str = "10GB", **changes: Any) -> WanTransformer3DModel:
    numbers: dict[str, Any] = {
        "patch_size": (1, 1, 1), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 6,
        "out_channels": 6, "text_dim": 10, "freq_dim": 16, "ffn_dim": 48, "num_layers": 2, "rope_max_seq_len": 16,
    }  # fmt: skip
    torch.manual_seed(1)
    model = WanTransformer3DModel(**numbers | changes)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


def backbone(**changes: Any) -> WanBackbone:
    return tiny_backbone(in_channels=6, out_channels=6, **changes)


@pytest.mark.parametrize("max_shard_size", ["10GB", "20KB"])
def test_everything_but_words_and_actions_is_taken_over(tmp_path: Path, max_shard_size: str) -> None:
    # A download of the whole pipeline: the transformer has a folder of its own.
    theirs = released(tmp_path / "transformer", max_shard_size)
    assert (len(list(tmp_path.glob("transformer/*.safetensors"))) > 1) == (max_shard_size == "20KB")
    ours = backbone()
    before = {name: value.clone() for name, value in ours.transformer.state_dict().items()}
    result = load_released_weights(ours, tmp_path)
    after, expected = ours.transformer.state_dict(), theirs.state_dict()
    assert set(result.loaded) == after.keys() - set(result.new)
    assert set(result.loaded) | set(result.left_out) == expected.keys()
    for name in result.loaded:
        assert torch.equal(after[name], expected[name]), name
    for name in result.new:
        assert torch.equal(after[name], before[name]), name
    assert all("text_embedder" in name for name in result.left_out)
    assert {"condition_embedder.time_embedder.linear_1.weight", "condition_embedder.time_proj.bias"} < set(
        result.loaded
    )


def native_name(name: str) -> str:
    """What Wan-AI's own code calls a weight of diffusers'."""
    beginnings = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "proj_out": "head.head",
        "scale_shift_table": "head.modulation",
    }
    for theirs, own in beginnings.items():
        if name.startswith(theirs):
            return own + name.removeprefix(theirs)
    parts = name.split(".")
    if parts[0] != "blocks":
        return name
    inside = ".".join(parts[2:])
    for theirs, own in (("attn1", "self_attn"), ("attn2", "cross_attn"), ("to_out.0", "o"), ("to_", "")):
        inside = inside.replace(theirs, own)
    # The norm of the cross-attention is its third, the second of diffusers'.
    inside = inside.replace("norm2", "norm3").replace("net.0.proj", "0").replace("net.2", "2")
    return f"blocks.{parts[1]}.{inside.replace('scale_shift_table', 'modulation')}"


def renamed(folder: Path, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Give a saved model Wan-AI's names and numbers; returns its weights by diffusers' names."""
    file, config = folder / f"{WEIGHTS}.safetensors", folder / "config.json"
    weights = load_file(file)
    save_file({native_name(name): weight for name, weight in weights.items()} | more, file)
    numbers = {"dim": 24, "ffn_dim": 48, "freq_dim": 16, "in_dim": 6, "out_dim": 6, "num_heads": 2, "num_layers": 2}
    config.write_text(json.dumps({"_class_name": "WanModel", "model_type": "ti2v", "text_len": 512, **numbers}))
    return weights


def test_wan_ai_s_own_names(tmp_path: Path) -> None:
    released(tmp_path)
    theirs = renamed(tmp_path)
    assert {"blocks.1.self_attn.q.weight", "blocks.0.ffn.0.bias", "blocks.0.norm3.weight", "head.modulation"} <= set(
        load_file(tmp_path / f"{WEIGHTS}.safetensors")
    )
    ours = backbone()
    result = load_released_weights(ours, tmp_path)
    after = ours.transformer.state_dict()
    assert set(result.loaded) == after.keys() - set(result.new)
    assert all(torch.equal(after[name], theirs[name]) for name in result.loaded)


def test_what_does_not_map_is_named(tmp_path: Path) -> None:
    released(tmp_path)
    renamed(tmp_path, **{f"adapter.{i}.weight": torch.zeros(2) for i in range(7)})
    with pytest.raises(
        UserError, match=r"weight 'adapter\.0\.weight' \(2,\), .*'adapter\.4\.weight' \(2,\) and 2 more"
    ):
        load_released_weights(backbone(), tmp_path)
    released(tmp_path)
    renamed(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_heads": 3, "in_dim": 48}))
    with pytest.raises(UserError, match=r"heads 2 \(there 3\), in_channels 6 \(there 48\)"):
        load_released_weights(backbone(), tmp_path)


def test_without_cross_attention_theirs_is_left_out(tmp_path: Path) -> None:
    released(tmp_path)
    result = load_released_weights(backbone(cross=False), tmp_path)
    assert any(".attn2." in name for name in result.left_out)
    assert not any(".attn2." in name or ".norm2." in name for name in result.loaded)


@needs("lora")
def test_under_adapters(tmp_path: Path) -> None:
    theirs = released(tmp_path)
    ours = backbone(lora_rank=2)
    load_released_weights(ours, tmp_path)
    name = "blocks.1.attn1.to_q"
    assert torch.equal(
        ours.transformer.state_dict()[f"{name}.base_layer.weight"], theirs.state_dict()[f"{name}.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 3}, r"config.json: the backbone has layers 2 \(there 3\)"),
        ({"patch_size": (1, 2, 2), "ffn_dim": 32}, r"ffn_dim 48 \(there 32\), patch 1 \(there \[1, 2, 2\]\)"),
        ({"added_kv_proj_dim": 8}, "weight 'blocks.0.attn2.add_k_proj"),
    ],
)
def test_models_of_other_numbers(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    released(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_released_weights(backbone(), tmp_path)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json here or in"):
        load_released_weights(backbone(), tmp_path)
    released(tmp_path)
    file = tmp_path / f"{WEIGHTS}.safetensors"
    weights = load_file(file)

    del weights["proj_out.bias"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"lacks 1 weights, e.g. 'proj_out.bias'"):
        load_released_weights(backbone(), tmp_path)

    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"{file.name}: damaged"):
        load_released_weights(backbone(), tmp_path)

    file.unlink()
    with pytest.raises(UserError, match="no weights"):
        load_released_weights(backbone(), tmp_path)
    torch.save({}, tmp_path / f"{WEIGHTS}.bin")
    with pytest.raises(UserError, match="only pickled weights, which are never loaded"):
        load_released_weights(backbone(), tmp_path)


def test_a_download_that_is_not_complete(tmp_path: Path) -> None:
    released(tmp_path, "20KB")
    index = json.loads((tmp_path / f"{WEIGHTS}.safetensors.index.json").read_text())
    gone = max(index["weight_map"].values())
    (tmp_path / gone).unlink()
    with pytest.raises(UserError, match=f"{gone}: no such file"):
        load_released_weights(backbone(), tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        [],
        {"weight_map": []},
        {"weight_map": {"a": "../../x.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": 3}},
        {"weight_map": {"a": ".."}},
    ],
    ids=range(6),
)
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, index: Any) -> None:
    released(tmp_path)
    (tmp_path / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="weight_map does not name files of this folder"):
        load_released_weights(backbone(), tmp_path)
