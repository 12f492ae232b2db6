"""The released weights of Open-Sora's ST-DiT as WMPO trained it, from a local folder into an `OpenSoraBackbone`.

The layout is the one of the published files: `*.safetensors` whose names are those of the backbone, with weights for
words, frame rate and variance beside them that WMPO does not use. Its network answers data - noise, a world model of
ours the opposite, so the last layer changes its sign.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from wovr.errors import UserError
from wovr.models.world_model.backbones.opensora import OpenSoraBackbone
from wovr.models.world_model.backbones.released import ReleasedWeights, check_complete, read_weights, take_over

UNUSED = ("y_embedder.", "fps_embedder.", "rope.", "pos_embed")
"""Beginnings of the names of weights that are in the files and have no part in the answer; so has `cross_attn`."""

PREFIXES = ("module.", "model.")
"""Beginnings that a trainer's wrapping puts before every name."""


def load_opensora_weights(backbone: OpenSoraBackbone, folder: Path | str) -> ReleasedWeights:
    """Copy released weights into a backbone.

    A model without actions (Open-Sora's own) leaves the action embedding with its initial values.

    Args:
        backbone: Of the same numbers as the released model, `frames` 4.
        folder: Holds the transformer's safetensors files.

    Raises:
        UserError: No such folder, only pickled weights in it, damaged files, or a model of other numbers.
    """
    folder = Path(folder)
    places = dict(backbone.transformer.named_parameters())
    result = ReleasedWeights(loaded=[], left_out=[], new=[])
    for full, weight in read_weights(folder, ""):
        name = full
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith(UNUSED) or ".cross_attn." in name:
            result.left_out.append(full)
            continue
        if name.startswith("final_layer.linear.") and name in places:
            weight = _without_variance(weight, len(places[name]), backbone.out_channels // backbone.frames)
        elif name == "action_embedder.fc.0.weight" and weight.shape[1] != places[name].shape[1]:
            raise UserError(
                f"{folder}: an action has {weight.shape[-1]} numbers there, {places[name].shape[1]} here",
                "give weights that were trained on actions of these dimensions",
            )
        take_over(result, places, name, weight, full)
    actions = [name for name in places if name.startswith("action_embedder.")]
    if not set(actions) & set(result.loaded):
        result.new = actions
    check_complete(result, places, folder, "ST-DiT (Open-Sora, WMPO)")
    return result


def _without_variance(weight: Tensor, rows: int, channels: int) -> Tensor:
    """The last layer's rows that stand for the answer, with its sign changed.

    Args:
        weight: (R, ...) float; rows are (place in the patch, channel). Where there are twice as many as here, the
            second half of the channels is a variance that nobody reads.
        rows: As many as there are here.
        channels: Of the answer.
    """
    if len(weight) == 2 * rows:
        weight = weight.unflatten(0, (-1, 2, channels))[:, 0].flatten(0, 1)
    return -weight
