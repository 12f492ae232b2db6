"""A tiny OpenVLA in the released checkpoints' layout: config.json, tokenizer, statistics, shards with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.extras import needs

VISION = [{"embed_dim": 16, "depth": 3, "num_heads": 2}, {"embed_dim": 24, "depth": 3, "num_heads": 2}]
LANGUAGE = {
    **{"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 320},
}
STATISTICS = {
    "toy_no_noops": {
        "action": {"q01": [-0.5, -0.25, 0.0], "q99": [0.5, 0.75, 1.0], "mask": [True, True, False], "mean": [0, 0, 0]},
        "num_trajectories": 3,
    }
}


needs_openvla = needs("openvla")


def tokenizer_text() -> str:
    """One token a character, with Llama's marks and its way with spaces."""
    from tokenizers import Tokenizer, models, normalizers, processors

    characters = "abcdefghijklmnopqrstuvwxyzIOW?:\n"
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, **{c: 4 + i for i, c in enumerate(characters)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer.to_str()


def tiny(**arguments: Any) -> Any:
    """A policy with random weights."""
    from wovr.models.policies.openvla.policy import OpenVLAOFT

    torch.manual_seed(0)
    numbers = {"image_size": 28, "vision": VISION, "language": LANGUAGE, "vocabulary": 320, "dtype": "float32"}
    return OpenVLAOFT(**{**numbers, "tokenizer": tokenizer_text(), "chunk": 4, "action_dim": 3, **arguments}).eval()


def save_released(folder: Path, shards: int = 3) -> dict[str, torch.Tensor]:
    """Write random weights as a released checkpoint; returns them under their released names."""
    from safetensors.torch import save_file

    # The names are spelt out in the test of the full layout; here only timm's own name for one of them is replaced.
    weights = {name.replace(".gamma", ".scale_factor"): value for name, value in tiny().state_dict().items()}
    for seed, name in enumerate(sorted(weights)):
        noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(seed))
        weights[name] = (weights[name] + 0.05 * noise).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "openvla",
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "image_sizes": [28, 28],
        "use_fused_vision_backbone": True,
        "text_config": {"model_type": "llama", "torch_dtype": "bfloat16", **LANGUAGE},
        "pad_to_multiple_of": 64,
        "n_action_bins": 256,
        "norm_stats": {"elsewhere": {"action": {"q01": [0.0] * 3, "q99": [1.0] * 3}}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "dataset_statistics.json").write_text(json.dumps(STATISTICS))
    (folder / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    place = {name: files[i % shards] for i, name in enumerate(weights)}
    for file in files:
        save_file({name: value for name, value in weights.items() if place[name] == file}, folder / file)
    index = {"metadata": {"total_size": 4 * sum(value.numel() for value in weights.values())}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return weights


def release(folder: Path, **arguments: Any) -> Any:
    """The policy of a folder that `save_released` wrote."""
    from wovr.models.policies.openvla.policy import OpenVLAOFT

    return OpenVLAOFT(
        **{"folder": str(folder), "vision": VISION, "chunk": 4, "action_dim": 3, "dtype": "float32", **arguments}
    ).eval()
