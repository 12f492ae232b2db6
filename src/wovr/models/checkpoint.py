"""Checkpoints that can be rebuilt with no YAML at hand: what they record, and how networks come back from them.

A checkpoint is Lightning's own dictionary plus one key, `wovr`, that holds primitives only:

    {"format": 1, "version": code version,
     "networks": {kind: {"class_path": ..., "init_args": {...}, "prefix": where its weights are in `state_dict`}},
     "data": {"fingerprint": ..., "action_statistics": {...}, ...}}

The weights in `state_dict` are the ones to use: a run that averages its weights (Lightning's WeightAveraging) puts the
averaged ones there and keeps the others beside them.

Files are read with `weights_only=True`, so nothing is unpickled. A class path is followed only to the networks of a
fixed list (`rebuilding.NETWORKS`, by their names of before too: `renames`) and to classes that were registered, so a
checkpoint from elsewhere cannot make us import anything; no argument of it is opened as a file
(`Network.check_arguments`); and a network is built without memory first and compared with the weights, so its arguments
cannot make it larger than the file.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from wovr import __version__
from wovr.errors import UserError
from wovr.models.rebuilding import (
    NETWORKS,
    BoundedBuilding,
    check_archive,
    check_record,
    check_storages,
    check_tensors,
    misfits,
)
from wovr.models.sharding import own_class
from wovr.renames import RENAMES, first_arguments, first_weight, present_arguments, present_weight
from wovr.runs import fingerprint

KEY = "wovr"
"""Key of the record in a checkpoint."""

FORMAT = 1
"""Version of the record; readers refuse any other."""

REGISTERED: dict[str, type[Network]] = {}
"""Classes outside the package that checkpoints may name, by class path. Filled by `register`."""

NetworkT = TypeVar("NetworkT", bound="Network")


class Network(nn.Module):
    """A module that remembers the arguments it was made with, so that a checkpoint can say how to make it again.

    Arguments must be primitives, lists, tuples or dictionaries of primitives, or other Networks. One that names a file
    must be replaced in `init_args` by what was read from it, and `check_arguments` must refuse it. `__init__` has to
    work on torch's meta device, too.

    Attributes:
        kind: What the network is (`policy`, `world_model`, ...); a checkpoint holds at most one network of a kind.
        added: Weights that checkpoints from before they existed lack; those then stay as the network is made with.
        init_args: Every argument of `__init__` by name, defaults included.
    """

    kind: ClassVar[str]
    added: ClassVar[frozenset[str]] = frozenset()
    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments before `__init__` runs; `copy.deepcopy` comes here with none."""
        self = super().__new__(cls)
        # bind_partial: a missing argument is reported by __init__ itself, in Python's usual words.
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(self, "init_args", dict(list(bound.arguments.items())[1:]))
        return self

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that somebody's checkpoint may not decide: names of files, keys of others' functions.

        Args:
            arguments: Of `__init__`, as a checkpoint holds them.

        Raises:
            ValueError: Naming the argument.
        """


def known(name: str, number: int | None) -> int:
    """A number that a training takes from its data where it is left null.

    Args:
        name: Of the argument.
        number: What was given.

    Raises:
        UserError: It is null.
    """
    if number is None:
        raise UserError(f"{name} is null", "give it, or make the network by `wovr fit`, which takes it from the data")
    return number


def register(network: type[NetworkT]) -> type[NetworkT]:
    """Allow checkpoints to name a class that lives outside the package; usable as a decorator."""
    REGISTERED[_class_path(network)] = network
    return network


def record(networks: Mapping[str, Network], data: Mapping[str, Any]) -> dict[str, Any]:
    """The value of a checkpoint's `wovr` key.

    Args:
        networks: State-dict prefix without the dot (the attribute's name in the LightningModule) -> network.
        data: What the weights were made from: fingerprint and action statistics; primitives only.

    Raises:
        TypeError: A network was made with arguments that a checkpoint cannot hold.
        ValueError: Two networks of a kind.
    """
    described = {network.kind: {**_blueprint(network), "prefix": f"{name}."} for name, network in networks.items()}
    if len(described) < len(networks):
        raise ValueError(f"two networks of a kind: {', '.join(f'{k} {n.kind}' for k, n in networks.items())}")
    return {"format": FORMAT, "version": __version__, "networks": described, "data": _plain(dict(data), "data")}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling, and check that it is one of ours.

    Returns:
        Lightning's dictionary; `checkpoint[KEY]` is the record.

    Raises:
        UserError: The file is missing, damaged, holds pickled objects, or was not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file", "give the path of a checkpoint, e.g. runs/bc/checkpoints/last.ckpt")
    try:
        stored = check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # Reading a damaged file fails in every way the unpickler, the zip reader and torch can: all mean the same here.
    except Exception as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            problem = "holds pickled objects, which are never loaded"
        else:
            problem = "is not a checkpoint, or is damaged"
        raise UserError(f"{path}: {problem}", "use a checkpoint written by `wovr fit`") from error
    found = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(found, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(
            f"{path}: is a checkpoint of something else: it has no key '{KEY}'", "use one written by `wovr fit`"
        )
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path}: key '{KEY}.format' is {found.get('format')!r}, this version reads {FORMAT}",
            "train again or use the version of wovr that wrote it",
        )
    if not isinstance(found.get("networks"), dict) or not isinstance(found.get("data"), dict):
        raise UserError(f"{path}: key '{KEY}' is incomplete", "use a checkpoint written by `wovr fit`")
    try:
        check_record(found)
        check_tensors(checkpoint["state_dict"], path.stat().st_size)
        check_storages(checkpoint, stored)
    except ValueError as error:
        raise UserError(f"{path}: key '{KEY}' or the weights hold {error}", "use one written by `wovr fit`") from error
    return checkpoint


def load_network(path: Path, kind: type[NetworkT]) -> NetworkT:
    """Rebuild the network of one kind from a checkpoint.

    Args:
        path: The checkpoint.
        kind: Base class of what is wanted, e.g. `Policy`.

    Returns:
        The network with its weights, on the CPU, in evaluation mode.

    Raises:
        UserError: As `read_checkpoint`; or the checkpoint holds no such network, names a class that may not be
            rebuilt, or its weights do not fit.
    """
    checkpoint = read_checkpoint(path)
    described = _described(checkpoint, kind, path)
    weights = _weights(checkpoint, described, path)
    where = f"{KEY}.networks.{kind.kind}"
    _import_classes(described, path, where)  # before, because tensors of a module would be without memory too
    with torch.device("meta"), BoundedBuilding(weights):
        shape = _build(described, path, where)
    if not isinstance(shape, kind):
        raise UserError(f"{path}: {type(shape).__name__} is no {kind.kind}", "use another checkpoint")
    _check_weights(shape, weights, path)
    network = _build(described, path, where)
    assert isinstance(network, kind)
    load_weights(network, checkpoint, path)
    return network.eval()


def load_weights(network: Network, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Copy the weights of a checkpoint into a network of the same shape.

    Args:
        network: Where the weights go.
        checkpoint: What `read_checkpoint` returned.
        path: Where it came from, for messages.

    Raises:
        UserError: The checkpoint has no network of this kind, or its weights do not fit.
    """
    weights = check_weights(network, checkpoint, path)
    network.load_state_dict({**network.state_dict(), **weights})


def check_weights(network: Network, checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights that a checkpoint holds for a network, by their names in it.

    Raises:
        UserError: As `load_weights`.
    """
    weights = _weights(checkpoint, _described(checkpoint, type(network), path), path)
    _check_weights(network, weights, path)
    return weights


def _check_weights(network: Network, weights: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and kinds of weights with those of a network, which may be on the meta device."""
    for problem, names in misfits(network.state_dict(), weights, network.added):
        if names:
            raise UserError(
                f"{path}: the {network.kind} {problem} {len(names)} weights, e.g. '{min(names)}'",
                "use a checkpoint of a network with the same arguments",
            )


def network_fingerprint(path: Path, kind: type[Network]) -> str:
    """16 hexadecimal digits that change with the network's class, arguments or any weight, and with nothing else.

    Raises:
        UserError: As `load_network`.
    """
    checkpoint = read_checkpoint(path)
    described = _described(checkpoint, kind, path)
    return _digest(described, _weights(checkpoint, described, path))


def fingerprint_of(network: Network) -> str:
    """`network_fingerprint` of a network in memory: the same digits as of a checkpoint that holds it."""
    return _digest(_blueprint(network), network.state_dict())


def networks_fingerprint(path: Path) -> str:
    """16 hexadecimal digits of all networks of a checkpoint and of what it says of their data, and of nothing else.

    Raises:
        UserError: As `load_network`.
    """
    checkpoint = read_checkpoint(path)
    found = {
        kind: _digest(described, _weights(checkpoint, described, path))
        for kind, described in checkpoint[KEY]["networks"].items()
    }
    return fingerprint([found, checkpoint[KEY]["data"]])


def data_record(path: Path) -> dict[str, Any]:
    """What the checkpoint says of the data it was trained on: fingerprint, action statistics.

    Raises:
        UserError: As `read_checkpoint`.
    """
    return dict(read_checkpoint(path)[KEY]["data"])


def check_image_size(path: Path, image_size: Sequence[int], whose: str) -> None:
    """Compare the pictures that a checkpoint's network is to see with those it was trained on.

    Args:
        path: The checkpoint.
        image_size: Height and width of the pictures at hand.
        whose: Subject and verb of the message's second half, as "those of FOLDER have".

    Raises:
        UserError: They differ.
    """
    trained = data_record(path).get("image_size")
    if trained is not None and not (isinstance(trained, list) and len(trained) == 2):
        raise UserError(f"{path}: key '{KEY}.data.image_size' is no height and width", "use one written by `wovr fit`")
    if trained is not None and trained != list(image_size):
        raise UserError(
            f"{path}: was trained on pictures of {trained[0]} x {trained[1]}, {whose} {image_size[0]} x "
            f"{image_size[1]}",
            "give episodes with pictures of that size",
        )


def _digest(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of a network's class path, arguments and weights."""
    # By the names that all had first, so that what was made from a network is still known after it has moved.
    class_path = RENAMES.get(described["class_path"], described["class_path"])
    first = first_arguments(described)
    digest = hashlib.sha256(json.dumps([first["class_path"], first["init_args"]], sort_keys=True).encode())
    for name, tensor in sorted((first_weight(class_path, name), tensor) for name, tensor in weights.items()):
        # A network in memory has the single precision that half a copy of it is read into.
        tensor = tensor.float() if tensor.dtype is torch.float16 else tensor
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _described(checkpoint: Mapping[str, Any], kind: type[Network], path: Path) -> dict[str, Any]:
    networks = checkpoint[KEY]["networks"]
    if kind.kind not in networks:
        raise UserError(
            f"{path}: holds {', '.join(sorted(map(str, networks))) or 'no network'}, not a {kind.kind}",
            f"give the checkpoint of a {kind.kind}",
        )
    described = networks[kind.kind]
    if not isinstance(described, dict) or not all(
        isinstance(described.get(name), of) for name, of in (("class_path", str), ("init_args", dict), ("prefix", str))
    ):
        raise UserError(f"{path}: key '{KEY}.networks.{kind.kind}' is incomplete", "use one written by `wovr fit`")
    return described


def _weights(checkpoint: Mapping[str, Any], described: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    prefix = str(described["prefix"])
    class_path = RENAMES.get(described["class_path"], described["class_path"])
    weights = {
        present_weight(class_path, name.removeprefix(prefix)): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: weight '{prefix}{name}' is no tensor", "use a checkpoint written by `wovr fit`")
    return weights


def _class_path(network: type[Network]) -> str:
    return f"{network.__module__}.{network.__qualname__}"


def _blueprint(network: Network) -> dict[str, Any]:
    """Class path and arguments of a network, nested networks likewise."""
    name = own_class(network).__name__
    return {
        "class_path": _class_path(own_class(network)),
        "init_args": {key: _plain(value, f"{name}.{key}") for key, value in network.init_args.items()},
    }


def _plain(value: Any, where: str) -> Any:
    """A copy of `value` made of primitives only.

    Raises:
        TypeError: There is something else in it.
    """
    if isinstance(value, Network):
        return _blueprint(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    raise TypeError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: primitives only")


def _build(described: Mapping[str, Any], path: Path, where: str) -> Network:
    """Make a network from its class path and arguments.

    Raises:
        UserError: The class may not be rebuilt, is unknown, or refuses the arguments.
    """
    class_path, arguments = described.get("class_path"), described.get("init_args")
    if not isinstance(class_path, str) or not isinstance(arguments, dict):
        raise UserError(f"{path}: key '{where}' is malformed", "use a checkpoint written by `wovr fit`")
    arguments = present_arguments(described)["init_args"]
    network = _find_class(class_path, path, where)
    made = {
        key: _build(value, path, f"{where}.{key}")
        if isinstance(value, dict) and value.keys() == {"class_path", "init_args"}
        else value
        for key, value in arguments.items()
    }
    try:
        network.check_arguments(arguments)
        return network(**made)
    # Arguments of the wrong type or size fail in every way there is, somewhere inside.
    except Exception as error:
        remedy = "" if isinstance(error, UserError) else "use the version of wovr that wrote it"
        raise UserError(f"{path}: key '{where}.init_args': {class_path}: {str(error)[:300]}", remedy) from error


def _import_classes(described: Mapping[str, Any], path: Path, where: str) -> None:
    """Import what `_build` is going to make networks of.

    Raises:
        UserError: As `_find_class`.
    """
    if not isinstance(described.get("class_path"), str) or not isinstance(described.get("init_args"), dict):
        return  # `_build` says so
    _find_class(described["class_path"], path, where)
    for key, value in present_arguments(described)["init_args"].items():
        if isinstance(value, dict) and value.keys() == {"class_path", "init_args"}:
            _import_classes(value, path, f"{where}.{key}")


def _find_class(class_path: str, path: Path, where: str) -> type[Network]:
    class_path = RENAMES.get(class_path, class_path)
    if class_path in REGISTERED:
        return REGISTERED[class_path]
    if class_path not in NETWORKS:
        raise UserError(
            f"{path}: key '{where}.class_path' names '{class_path[:120]}', which is no network of this version and not "
            "registered",
            "use the version of wovr that wrote it, or register a class of your own with "
            "wovr.models.checkpoint.register before loading",
        )
    module, _, name = class_path.rpartition(".")
    try:
        found: type[Network] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        problem = f"{path}: key '{where}.class_path': '{class_path}': {error}"
        raise UserError(problem, "install what it needs") from error
    return found
