"""Released weights out of files into a network: what is the same for every layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wovr.errors import UserError
from wovr.models.rebuilding import weight_places

_SHOWN = 5  # names in a message


@dataclass
class ReleasedWeights:
    """What became of the weights.

    Attributes:
        loaded: Names of the weights that were copied.
        left_out: Names of released weights that have no place here.
        new: Names of our weights that keep their initial values.
        misfits: Weights that have no place, or one of another shape: names as they are in the files, and shapes.
    """

    loaded: list[str]
    left_out: list[str]
    new: list[str]
    misfits: list[str] = field(default_factory=list)


def read_weights(folder: Path, stem: str) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model in a folder, by their names there.

    Args:
        folder: Holds one or several safetensors files, and perhaps an index of them.
        stem: How the names of the files begin.

    Raises:
        UserError: No such files, only pickled ones, one that the index names is absent, or one is damaged.
    """
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    if not files:
        pickled = any(path for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = "only pickled weights, which are never loaded" if pickled else "no weights"
        raise UserError(f"{folder}: {found}", f"put the model's {stem}*.safetensors there")
    for index in folder.glob(f"{stem}*.safetensors.index.json"):
        absent = set(weight_places(index, "download the model again").values()) - {file.name for file in files}
        if absent:
            raise UserError(f"{folder / min(absent)}: no such file", "download the model again")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dictionary)
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error})", "download the model again") from error


@torch.no_grad()
def take_over(
    result: ReleasedWeights, places: Mapping[str, Tensor], name: str, weight: Tensor, found: str | None = None
) -> None:
    """Copy one weight, or note that it does not fit.

    Args:
        result: Is told.
        places: The network's weights, by name.
        name: Of the weight.
        weight: It.
        found: Its name in the file, where that is another.
    """
    if name not in places or places[name].shape != weight.shape:
        result.misfits.append(f"'{found or name}' {tuple(weight.shape)}")
        return
    places[name].copy_(weight)
    result.loaded.append(name)


def check_complete(result: ReleasedWeights, places: Mapping[str, Tensor], source: Path, model: str) -> None:
    """Check that all weights fitted, and that each of ours got its numbers or keeps its own by intention.

    Args:
        result: What was copied.
        places: The network's weights, by name.
        source: Where they came from, for messages.
        model: What should have come from there, for messages.

    Raises:
        UserError: Some do not fit, or are lacking.
    """
    if result.misfits:
        rest = len(result.misfits) - _SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        raise UserError(
            f"{source}: weight {', '.join(result.misfits[:_SHOWN])}{more} does not fit the backbone",
            f"give the folder of a {model} transformer whose numbers the backbone has",
        )
    missing = places.keys() - set(result.loaded) - set(result.new)
    if missing:
        raise UserError(f"{source}: lacks {len(missing)} weights, e.g. '{min(missing)}'", "download the model again")
