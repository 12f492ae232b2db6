"""The released Wan transformer's weights, by diffusers' names or Wan-AI's own, from a folder into a `WanBackbone`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wovr.errors import UserError
from wovr.models.world_model.backbones.released import ReleasedWeights, check_complete, read_weights, take_over
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.runs import read_json

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model"

OURS = ("condition_embedder.action_", "condition_embedder.token_position")
"""Beginnings of the names of weights that the released model does not have: the actions'."""

THEIRS = ("condition_embedder.text_embedder.", "condition_embedder.image_embedder.")
"""Beginnings of the names of weights that have no place here: those of words and pictures."""

ARGUMENTS = {
    "num_attention_heads": "heads",
    "attention_head_dim": "head_dim",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "ffn_dim": "ffn_dim",
    "num_layers": "layers",
    "freq_dim": "frequencies",
}
"""Number in diffusers' config.json -> argument of WanBackbone that must equal it."""

NATIVE = {"num_heads": "num_attention_heads", "in_dim": "in_channels", "out_dim": "out_channels"}
"""Number in Wan-AI's own config.json -> what diffusers calls it; the others have one name in both."""


def load_released_weights(backbone: WanBackbone, folder: Path | str) -> ReleasedWeights:
    """Copy the released weights into a backbone; those of the actions keep their initial values.

    Blocks, patch embedding, output head, time embedding and its projection are taken over; the text embedder is not.

    Args:
        backbone: Of the same numbers as the released model.
        folder: The folder that `save_pretrained` wrote or a download of the model, Wan-AI's own included: it or its
            `transformer` holds config.json and safetensors files.

    Raises:
        UserError: No such folder, only pickled weights in it, damaged files, a model of other numbers, or weights that
            have no place here, which are named.
    """
    folder = _transformer_folder(Path(folder))
    native = _check_numbers(backbone, folder)
    # peft keeps the weight it adapts under `base_layer`.
    places = {
        name.replace(".base_layer", ""): parameter
        for name, parameter in backbone.transformer.named_parameters()
        if "lora_" not in name
    }
    result = ReleasedWeights(loaded=[], left_out=[], new=[name for name in places if name.startswith(OURS)])
    without_cross = backbone.transformer.condition_embedder.action_tokens is None
    for found, weight in read_weights(folder, WEIGHTS):
        name = _diffusers_name(found) if native else found
        if name.startswith(THEIRS) or (without_cross and (".attn2." in name or ".norm2." in name)):
            result.left_out.append(name)
        else:
            take_over(result, places, name, weight, found)
    check_complete(result, places, folder, "Wan")
    return result


def _transformer_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "transformer"):
        # The pipeline's own folder holds model_index.json, not config.json.
        if (candidate / CONFIG).is_file():
            return candidate
    raise UserError(
        f"{folder}: no {CONFIG} here or in {folder / 'transformer'}",
        "give the folder of a Wan transformer, e.g. a download of Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    )


def _diffusers_name(name: str) -> str:
    """What diffusers calls a weight that Wan-AI calls `name`."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers  # imports transformers

    convert: Any = convert_wan_transformer_to_diffusers  # without annotations
    [found] = convert({name: torch.empty(0)})
    return str(found)


def _check_numbers(backbone: WanBackbone, folder: Path) -> bool:
    """Compare the numbers of the model; whether its weights have Wan-AI's names.

    Raises:
        UserError: They differ.
    """
    released: dict[str, Any] = read_json(folder / CONFIG)
    if not isinstance(released, dict):
        raise UserError(f"{folder / CONFIG}: no numbers of a model", "download the model again")
    native = "num_heads" in released
    released = {NATIVE.get(name, name): value for name, value in released.items()}
    ours = backbone.transformer.config
    different = [
        f"{argument} {ours[name]} (there {released[name]})"
        for name, argument in ARGUMENTS.items()
        if released.get(name) not in (None, ours[name])
    ]
    if list(released.get("patch_size", ours.patch_size)) != list(ours.patch_size):
        different.append(f"patch {backbone.patch} (there {released['patch_size']})")
    if different:
        raise UserError(
            f"{folder / CONFIG}: the backbone has {', '.join(different)}", "set the backbone's arguments to those there"
        )
    return native
