"""A released OpenVLA checkpoint, as a local folder in Hugging Face's layout: numbers, statistics and weights.

    config.json                     numbers of the networks, `norm_stats` by data set
    dataset_statistics.json         the same statistics of the fine-tuned ones (optional)
    tokenizer.json / .model         Llama's tokenizer
    model-00001-of-0000N.safetensors, model.safetensors.index.json

Weights have the names of the networks' parameters here, but for `scale_factor`, which timm calls `gamma`. The released
OFT policies that have an L1 or diffusion head keep it in files of its own beside these, pickled; those heads,
their projectors of proprioception, FiLM and second cameras are not read: the policy here speaks in tokens and looks
through one camera, as the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.policies.openvla.actions import action_statistics
from wovr.models.rebuilding import weight_places
from wovr.runs import read_json

CONFIG, STATISTICS, INDEX = "config.json", "dataset_statistics.json", "model.safetensors.index.json"

AGAIN = "download the checkpoint again"

TIMM_MODELS = ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224")
"""The released policies' vision networks."""

IMAGE_SIZE = 224
"""Side of the pictures they see."""

PADDED = 64
"""Rows that the word embedding has beyond the vocabulary of 32,000: it was padded to a multiple of that."""


@dataclass
class Shape:
    """Numbers of a policy, as config.json has them.

    Attributes:
        timm_models: timm's names of the vision networks.
        image_size: Side of a picture.
        language: Arguments of transformers' LlamaConfig.
        vocabulary: Words that the action tokens are the tail of.
        bins: Tokens an action dimension.
    """

    timm_models: tuple[str, ...] = TIMM_MODELS
    image_size: int = IMAGE_SIZE
    language: dict[str, Any] | None = None
    vocabulary: int = 32000
    bins: int = 256


def read_shape(folder: Path) -> Shape:
    """Numbers of a released checkpoint.

    Raises:
        UserError: No such folder or config.json, or one of another kind of model.
    """
    config = _config(folder)
    text = {k: v for k, v in config["text_config"].items() if k not in ("dtype", "torch_dtype", "architectures")}
    text.setdefault("vocab_size", 32000 + PADDED)
    sizes = list(config.get("image_sizes") or [IMAGE_SIZE])
    if text.pop("model_type", "llama") != "llama" or not config.get("use_fused_vision_backbone", True):
        raise UserError(
            f"{folder / CONFIG}: is no OpenVLA with Llama and two vision networks",
            "give the folder of openvla-7b or OFT",
        )
    if len(set(sizes)) != 1:
        raise UserError(f"{folder / CONFIG}: key 'image_sizes' is {sizes}", "both vision networks must see one size")
    return Shape(
        tuple(config.get("timm_model_ids") or TIMM_MODELS),
        int(sizes[0]),
        text,
        int(text["vocab_size"]) - int(config.get("pad_to_multiple_of", PADDED)),
        int(config.get("n_action_bins", 256)),
    )


def read_statistics(folder: Path, dataset: str) -> dict[str, list[Any]]:
    """A data set's action statistics out of a released checkpoint: the fine-tuning's file first, then config.json.

    Raises:
        UserError: No statistics for that data set.
    """
    config = _config(folder)
    of_config = config.get("norm_stats") or {}
    of_file = read_json(folder / STATISTICS) if (folder / STATISTICS).is_file() else {}
    where = folder / (STATISTICS if of_file else CONFIG)
    return action_statistics({**of_config, **of_file}, dataset, str(where))


def load_released(policy: nn.Module, folder: Path) -> None:
    """Put the weights of a released checkpoint in a policy's place, in the type of the weights that were there.

    They are not copied into memory that is there already: a policy on torch's meta device needs no more than its size.

    Args:
        policy: With `vision_backbone`, `projector` and `language_model`, and no adapters yet.
        folder: The checkpoint.

    Raises:
        UserError: No weights, only pickled ones, damaged files, or weights that are missing, unexpected or of another
            shape.
    """
    expected = policy.state_dict()
    found: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for name, weight in _read(folder):
        place = our_name(name)
        if place not in expected:
            if not name.endswith("rotary_emb.inv_freq"):  # older versions of transformers stored what is computed here
                unexpected.append(name)
            continue
        if weight.shape != expected[place].shape:
            raise UserError(
                f"{folder}: weight '{name}' is {tuple(weight.shape)}, the policy's {tuple(expected[place].shape)}",
                "leave image_size, language and vision to the checkpoint's config.json",
            )
        found[place] = weight.to(expected[place].dtype)
    missing = [released_name(name) for name in expected.keys() - found.keys()]
    if missing:
        raise UserError(f"{folder}: lacks {len(missing)} weights, e.g. '{min(missing)}'", AGAIN)
    if unexpected:
        raise UserError(
            f"{folder}: has {len(unexpected)} unexpected weights, e.g. '{min(unexpected)}'",
            "give a checkpoint without FiLM, adapters or other heads (merge adapters first)",
        )
    trained = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    policy.load_state_dict(found, assign=True)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(trained[name])


def our_name(name: str) -> str:
    """The released name of a weight to its name here."""
    return name.replace(".scale_factor", ".gamma") if name.startswith("vision_backbone.") else name


def released_name(name: str) -> str:
    """The name of a weight here to its released name."""
    return name.replace(".gamma", ".scale_factor") if name.startswith("vision_backbone.") else name


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no {CONFIG} here", "give the folder of a downloaded checkpoint, e.g. openvla-7b")
    config: dict[str, Any] = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("text_config"), dict):
        raise UserError(f"{folder / CONFIG}: has no key 'text_config'", "give the folder of an OpenVLA checkpoint")
    return config


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of all shards.

    Raises:
        UserError: See `load_released`.
    """
    index = folder / INDEX
    if index.is_file():
        places = weight_places(index, AGAIN)
        shards = sorted(set(places.values()))
    else:
        shards = ["model.safetensors"] if (folder / "model.safetensors").is_file() else []
    if not shards:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise UserError(
            f"{folder}: {'only pickled weights, which are never loaded' if pickled else 'no weights'}",
            f"put the safetensors files and {INDEX} there",
        )
    for shard in shards:
        path = folder / shard
        if not path.is_file():
            raise UserError(f"{path}: no such file, {INDEX} names it", AGAIN)
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dictionary)
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error})", AGAIN) from error
