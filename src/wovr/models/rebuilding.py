"""What a checkpoint from elsewhere may make us do: build networks of a fixed list, no larger than its own weights.

What raises ValueError says what is wrong; who knows the file adds it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wovr.errors import UserError
from wovr.runs import read_json

NETWORKS = frozenset(
    {
        "wovr.models.world_model.autoencoders.grouped.GroupedAutoencoder",
        "wovr.models.world_model.autoencoders.image.ImageAutoencoder",
        "wovr.models.world_model.autoencoders.patch.PatchAutoencoder",
        "wovr.models.world_model.autoencoders.wan.WanAutoencoder",
        "wovr.models.world_model.backbones.cosmos.CosmosBackbone",
        "wovr.models.world_model.backbones.opensora.OpenSoraBackbone",
        "wovr.models.world_model.backbones.wan.WanBackbone",
        "wovr.models.probes.inverse_dynamics.InverseDynamics",
        "wovr.models.policies.openvla.policy.OpenVLAOFT",
        "wovr.models.policies.tiny_vla.TinyVLA",
        "wovr.models.reward.SuccessClassifier",
        "wovr.models.robot.conditioning.RobotConditioning",
        "wovr.models.robot.model.RobotModel",
        "wovr.models.probes.state_probe.StateProbe",
        "wovr.models.trust.critic.ChunkCritic",
        "wovr.models.trust.model.Trust",
        "wovr.models.world_model.conditioning.Conditioning",
        "wovr.models.world_model.model.WorldModel",
    }
)
"""The package's networks that a checkpoint may name. Any other name is refused before anything is imported."""

_MOST_VALUES = 100_000  # in a record
_DEEPEST = 16  # of its lists and dictionaries
_LARGEST = 1 << 24  # integer among a network's arguments: none counts more than the words of a language
_SHARED = 4  # times a file's bytes may be in its weights, which may share storage
_BESIDE = 1 << 24  # numbers of one tensor that is no weight: a mask, angles of positions


def check_archive(path: Path) -> int:
    """Check that a file is an archive as torch writes it, whole.

    Nothing in it is packed, so nothing in it is larger than it; nothing is there twice; and every part is held against
    its CRC-32, which torch does not do. A file that has not changed since is not read again.

    Returns:
        Bytes of all numbers that tensors may have in it, for `check_storages`.

    Raises:
        ValueError: It is not.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("an archive with packed parts")
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, RuntimeError) as error:
        raise ValueError(f"no archive ({error})") from error
    there = path.stat()
    if sum(entry.file_size for entry in entries) > there.st_size:
        raise ValueError("an archive that promises more than it holds")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("an archive with a part twice")
    _check_sums(path.resolve(), there.st_ino, there.st_size, there.st_mtime_ns)
    return sum(entry.file_size for entry in entries if entry.filename.split("/")[-2:-1] == ["data"])


@lru_cache(maxsize=1000)
def _check_sums(path: Path, inode: int, size: int, modified: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"an archive with a damaged part ({error})") from error
    if damaged is not None:
        raise ValueError(f"an archive whose part {damaged} has changed since it was written")


def check_record(record: Mapping[str, Any]) -> None:
    """Check that a record is made of a bounded number of primitives. Lists that hold each other count as often as seen.

    Args:
        record: Of a checkpoint, with `networks`.

    Raises:
        ValueError: It is not.
    """
    _check_values(record, 2**63)
    for described in record["networks"].values():
        _check_values(described, _LARGEST)


def _check_values(value: Any, largest: int) -> None:
    left, level = _MOST_VALUES, [value]
    for _ in range(_DEEPEST):
        left -= len(level)
        if left < 0:
            raise ValueError(f"more than {_MOST_VALUES} values")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(type(key) is str for key in item):
                    raise ValueError("a key that is no text")
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif type(item) is int and abs(item) > largest:
                raise ValueError(f"the number {str(item)[:40]}")
            elif item is not None and type(item) not in (bool, int, float, str):
                raise ValueError(f"a {type(item).__name__}")
            if len(below) > left:
                raise ValueError(f"more than {_MOST_VALUES} values")
        level = below
    if level:
        raise ValueError(f"values deeper than {_DEEPEST} lists")


def check_tensors(weights: Mapping[Any, Any], size: int) -> None:
    """Check that weights are plain tensors whose values are in the file.

    Args:
        weights: A state dict; what is no tensor is left to who knows its name.
        size: Bytes of the file.

    Raises:
        ValueError: A name that is no text, or a tensor of another kind or of more values than are stored.
    """
    total = 0
    for name, value in weights.items():
        if type(name) is not str:
            raise ValueError("a weight whose name is no text")
        if not isinstance(value, Tensor):
            continue
        plain = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized or value.is_complex():
            raise ValueError(f"weight '{name[:80]}' is no plain tensor")
        bytes_of_it = value.numel() * value.element_size()
        if bytes_of_it > value.untyped_storage().nbytes():
            raise ValueError(f"weight '{name[:80]}' has more values than are stored")
        total += bytes_of_it
    if total > _SHARED * size:
        raise ValueError(f"weights of {total} bytes in a file of {size}")


def check_storages(checkpoint: Any, stored: int) -> None:
    """Check that tensors have no more numbers than the archive holds: torch maps what stands behind a part as its end.

    Args:
        checkpoint: Nested dictionaries, lists and tuples.
        stored: From `check_archive`.

    Raises:
        ValueError: They have.
    """
    storages: dict[int, int] = {}
    seen, waiting = set[int](), [checkpoint]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    if sum(storages.values()) > stored:
        raise ValueError(f"tensors of {sum(storages.values())} bytes, of which {stored} are there")


def weight_places(index: Path, remedy: str) -> dict[str, str]:
    """Which file of its own folder holds each weight, from the index of released safetensors.

    Args:
        index: `*.safetensors.index.json`.
        remedy: What to do where it is no index.

    Raises:
        UserError: It is none, or names what is not a file of its folder.
    """
    value = read_json(index)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not all(
        isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]{0,200}", name) for name in places.values()
    ):
        raise UserError(f"{index}: weight_map does not name files of this folder", remedy)
    return places


def misfits(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], added: Collection[str]
) -> Iterator[tuple[str, set[str]]]:
    """What is wrong with weights and of which, one kind after another.

    Args:
        expected: A network's own state, which may be on the meta device.
        weights: What is to be copied into it.
        added: Names that weights may lack.

    Yields:
        A verb, and the names it is true of; none where nothing is wrong.
    """
    both = expected.keys() & weights.keys()
    yield "lacks", set(expected.keys() - weights.keys() - set(added))
    yield "has the unexpected", set(weights.keys() - expected.keys())
    yield "has another shape in", {name for name in both if expected[name].shape != weights[name].shape}
    yield "has another kind of number in", {name for name in both if _kind(expected[name]) != _kind(weights[name])}
    yield "has numbers that are not finite in", {name for name in both if not _is_finite(weights[name])}


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.dtype == torch.bool


def _is_finite(tensor: Tensor) -> bool:
    # Floats of one byte have no isfinite of their own.
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())


class BoundedBuilding(TorchFunctionMode):
    """While it is entered, no more and no larger tensors are made than weights call for.

    To be entered after `torch.device("meta")`, where tensors take no memory.

    Args:
        weights: What the network that is made is to hold.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._calls = 1000 + 50 * len(weights)  # of torch's functions; our networks make up to 15 a weight
        self._numbers = _BESIDE + sum(tensor.numel() for tensor in weights.values())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch and look at what it gives.

        Raises:
            ValueError: A tensor that is too large, or one too many.
        """
        self._calls -= 1
        result = func(*args, **(kwargs or {}))
        # Only where a tensor is made: the end of a `no_grad` is a call too, and must take place.
        if isinstance(result, Tensor) and (self._calls < 0 or result.numel() > self._numbers):
            raise ValueError("its arguments make a network larger than the weights")
        return result
