"""Released weights of Cosmos-Predict2's transformer, from local files into a `CosmosBackbone`.

Two layouts are known: diffusers' (a folder with config.json and safetensors, without actions), and the authors' own of
the action-conditioned model (one .pt file, names with `net.` or `net_ema.` before them). Words and the padding mask,
which is 0 everywhere, have no place here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.models.rebuilding import check_archive
from wovr.models.world_model.backbones.cosmos import CosmosBackbone
from wovr.models.world_model.backbones.released import ReleasedWeights, check_complete, read_weights, take_over

NAMES = (
    (r"^t_embedder\.1\.", "time_embed.t_embedder."),
    (r"^t_embedding_norm\.", "time_embed.norm."),
    (r"^action_embedder_", "time_embed.action_embedder_"),
    (r"^x_embedder\.proj\.1\.", "patch_embed.proj."),
    (r"^final_layer\.adaln_modulation\.(\d)\.", r"norm_out.linear_\1."),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^blocks\.", "transformer_blocks."),
    (r"\.adaln_modulation_self_attn\.(\d)\.", r".norm1.linear_\1."),
    (r"\.adaln_modulation_cross_attn\.(\d)\.", r".norm2.linear_\1."),
    (r"\.adaln_modulation_mlp\.(\d)\.", r".norm3.linear_\1."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])_proj\.", r".to_\1."),
    (r"\.output_proj\.", ".to_out.0."),
    (r"\.([qk])_norm\.", r".norm_\1."),
    (r"\.mlp\.layer1\.", ".ff.net.0.proj."),
    (r"\.mlp\.layer2\.", ".ff.net.2."),
)
"""The authors' names of weights -> diffusers', one expression after the other."""

UNUSED = r"\.(attn2|norm2)\.|^(crossattn_proj|pos_embedder|accum_\w+)\b|_extra_state$"
"""Names, in diffusers' form, of what has no part in the answer here."""


def load_cosmos_weights(backbone: CosmosBackbone, source: Path | str) -> ReleasedWeights:
    """Copy released weights into a backbone; without actions among them, those keep their initial values.

    Args:
        backbone: Of the same numbers as the released model.
        source: A folder in diffusers' layout (it or its `transformer`), or a .pt file of the authors'.

    Raises:
        UserError: Nothing there, pickled objects in it, a damaged file, or a model of other numbers.
    """
    source = Path(source)
    places = dict(backbone.transformer.named_parameters())
    result = ReleasedWeights(loaded=[], left_out=[], new=[])
    for full, weight in _read(source):
        name = full
        for theirs, diffusers in NAMES:
            name = re.sub(theirs, diffusers, name)
        if re.search(UNUSED, name):
            result.left_out.append(full)
            continue
        if name == "patch_embed.proj.weight":
            weight = _without_padding(weight, places[name])
        elif re.search(r"action_embedder_B_3?D\.fc1\.weight$", name) and name in places:
            _check_actions(backbone, weight, places[name], source)
        take_over(result, places, name, weight, full)
    actions = [name for name in places if ".action_embedder_" in name]
    if not set(actions) & set(result.loaded):
        result.new = actions
    check_complete(result, places, source, "Cosmos-Predict2")
    return result


def _read(source: Path) -> Iterator[tuple[str, Tensor]]:
    if source.is_file():
        weights = _read_file(source)
        prefix = next((known for known in ("net_ema.", "net.") if any(name.startswith(known) for name in weights)), "")
        for name, weight in weights.items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), weight
        return
    folder = source / "transformer" if (source / "transformer").is_dir() else source
    yield from read_weights(folder, "diffusion_pytorch_model")


def _read_file(source: Path) -> Mapping[str, Tensor]:
    """One file as torch saves it, without unpickling.

    Raises:
        UserError: It holds anything but weights by name.
    """
    remedy = "give the .pt file of the model's weights, or a folder in diffusers' layout"
    try:
        check_archive(source)
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    # Reading a damaged file fails in every way the unpickler, the zip reader and torch can: all mean the same here.
    except Exception as error:
        raise UserError(f"{source}: is no file of weights, or holds pickled objects", remedy) from error
    if not isinstance(content, dict):
        raise UserError(f"{source}: holds no weights by name", remedy)
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _without_padding(weight: Tensor, ours: Tensor) -> Tensor:
    """(D, numbers) without the last channel, where there is one more than here: the mask of padding."""
    patch = weight.shape[-1] - ours.shape[-1]
    inputs = ours.shape[-1]
    return weight[:, :inputs] if patch > 0 and inputs % patch == 0 else weight


def _check_actions(backbone: CosmosBackbone, weight: Tensor, ours: Tensor, source: Path) -> None:
    """Raises: UserError: The layer is made for another number of actions."""
    there, here = weight.shape[-1], ours.shape[-1]
    if there != here:
        count = here // backbone.action_dim
        raise UserError(
            f"{source}: its actions are {there} numbers at once, {count} x {backbone.action_dim} here",
            "set backbone.init_args.chunk, and the world model's, so that they are as many",
        )
