"""Mutations of what wovr writes itself: shards, dataset.json, checkpoints; and of YAML."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]

from benchmarks.damage.mutation import (
    ABSURD,
    CANARY,
    DEEP,
    HOSTILE,
    WRONG,
    Canary,
    Mutation,
    Path_,
    as_text,
    change_tree,
    mutate_bytes,
)
from tests.data.store.damage import members, npy, reseal
from wovr.data.store.seals import sealed
from wovr.data.store.shards import DATASET_FILE
from wovr.models.checkpoint import KEY

COMPUTES = {"max_steps", "max_epochs", "horizon", "episodes", "rounds", "size", "val_check_interval", "jobs"}
"""Keys of YAML with which a user may ask for more than a bench has time for: they get no absurd numbers."""


def mutate_shards(rng: random.Random, folder: Path, other: Path) -> Mutation:
    """Damage one of a folder's shards; in half of the cases dataset.json is made to agree, as by one who rewrote it."""
    path = rng.choice(sorted(folder.glob("*.tar")))
    if rng.random() < 0.4:
        way = rng.random()
        if way < 0.85:
            what = mutate_bytes(rng, path, other / path.name)
        elif way < 0.9:
            path.unlink()
            what = f"{path}: deleted"
        elif way < 0.95:
            path.with_name("spatial-000007.tar").write_bytes(path.read_bytes())
            what = f"{path}: there twice"
        else:
            first, second = sorted(folder.glob("*.tar"))[:2]
            one = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(one)
            what = f"{first} and {second}: names exchanged"
        return Mutation(what, "checksum")
    found = members(path)
    name = rng.choice(sorted(found))
    what, revealed_by, would = _change_member(rng, found, name)
    if rng.random() < 0.25 and revealed_by != "checksum":
        _write_tar(path, found)
        return Mutation(f"{path}: {what}, dataset.json as it was", "checksum")
    _write_tar(path, found)
    reseal(path)
    return Mutation(f"{path}: {what}, dataset.json made to agree", revealed_by, would)


def _change_member(rng: random.Random, found: dict[str, bytes], name: str) -> tuple[str, str, str]:
    """What was done to a member of a shard, what reveals it, what would."""
    field = name.partition(".")[2]
    way = rng.choice(("dropped", "renamed", "twice", "exchanged", "foreign", "values", "values", "values", "values"))
    if way == "dropped":
        del found[name]
        optional = field in ("proprio.npy", "sim_state.npy", "camera.npy")
        return f"{name} dropped", "" if optional else "schema", "that all episodes of a data set hold the same members"
    if way == "renamed":
        new = rng.choice((f"{name}x", f"../{name}", f"/tmp/{name}", name.upper(), f"{name[:-4]}.pkl", "a" * 90 + ".x"))
        found[new] = found.pop(name)
        return f"{name} renamed to {new}", "schema", ""
    if way == "twice":
        found[f"{name}\0"] = found[name]
        return f"{name} twice", "schema", ""
    if way == "exchanged":
        others = [other for other in sorted(found) if other.partition(".")[2] == field and other != name]
        other = rng.choice(others)
        found[name], found[other] = found[other], found[name]
        return f"{name} and {other} exchanged", "", "a signature over each episode, kept apart from the data"
    if way == "foreign":
        other = rng.choice([other for other in sorted(found) if other.partition(".")[2] != field])
        found[name] = found[other]
        return f"{name} replaced by {other}", "schema", ""
    if field == "meta.json":
        tree = json.loads(found[name])
        change = change_tree(rng, tree)
        found[name] = as_text(json.dumps(tree)).encode("utf-8", "surrogatepass")
        free = change.where[0] in ("extra", "seed", "init_state", "policy", "source") or (
            change.way == "hostile string" and change.where[0] in ("instruction", "suite")
        )
        return f"{name}: {change.what}", "" if free else "schema", "what it says is known to its writer only"
    if field == "frames.mp4":
        found[name] = rng.choice((b"", rng.randbytes(1000), found[name][: len(found[name]) // 2]))
        return f"{name} replaced by junk", "schema", ""
    array = np.load(io.BytesIO(found[name]))
    return (f"{name}: {_change_array(rng, found, name, array)}", "schema", "")


def _change_array(rng: random.Random, found: dict[str, bytes], name: str, array: np.ndarray) -> str:
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    ways: dict[str, Callable[[], bytes]] = {
        "a row less": lambda: npy(array[:-1]),
        "no row": lambda: npy(array[:0]),
        "a dimension more": lambda: npy(array[..., None]),
        "flat": lambda: npy(array.reshape(-1)) if array.ndim > 1 else npy(array[:, None]),
        "complex numbers": lambda: npy(array.astype(np.complex64)),
        "of texts": lambda: npy(array.astype("U8")),
        "a shape beyond all memory": lambda: found[name].replace(
            header.encode(), header.replace(str(array.shape), str((10**12,) * array.ndim)).encode()
        ),
        "a header of nonsense": lambda: found[name].replace(b"descr", rng.choice((b"xxxxx", b"\0\0\0\0\0"))),
        "a pickle": lambda: npy(np.array([Canary()], object), allow_pickle=True),
    }
    if array.dtype.kind == "f":
        bad = array.copy()
        bad.reshape(-1)[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -np.inf))
        ways["a number that is none"] = lambda: npy(bad)
        ways["of another width"] = lambda: npy(array.astype("f4" if array.dtype == "f8" else "f8"))
    if name.endswith("actions.npy"):
        ways["far outside"] = lambda: npy(array * np.float32(rng.choice((1.5, 1e30))))
    way = rng.choice(list(ways))
    found[name] = ways[way]()
    return way


def _write_tar(path: Path, found: dict[str, bytes]) -> None:
    """A tar of any names, a name with a zero at its end without it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(name.rstrip("\0"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def mutate_dataset(rng: random.Random, folder: Path, other: Path) -> Mutation:
    """Damage a data set's dataset.json."""
    path = folder / DATASET_FILE
    if rng.random() < 0.3:
        return Mutation(mutate_bytes(rng, path, other / DATASET_FILE), "checksum")
    tree = json.loads(path.read_bytes())
    change = change_tree(rng, tree)
    again = rng.random() < 0.5 and change.what.find(DEEP) < 0
    if again:  # as one who rewrites it would; then only types and what is counted can tell
        tree = sealed(tree)
    path.write_bytes(as_text(json.dumps(tree, indent=2, sort_keys=True)).encode("utf-8", "surrogatepass"))
    if not again:
        return Mutation(f"{path}: {change.what}", "checksum")
    counted = str(change.where[0]) in ("episodes", "frames", "successes", "success_rate", "suites", "fps")
    counted |= str(change.where[0]) in ("image_size", "action_dim", "shards", "schema_version")
    return Mutation(
        f"{path}: {change.what}, sealed again", "redundancy" if counted else "", "wovr data verify, in part"
    )


def mutate_yaml(rng: random.Random, path: Path) -> Mutation:
    """Damage a configuration."""
    whole = path.read_bytes()
    while True:
        path.write_bytes(whole)
        mutation = _change_yaml(rng, path)
        if _asks_for_little(path.read_bytes()):
            return mutation


def _asks_for_little(text: bytes) -> bool:
    """Whether a training that is understood ends after the two steps that a bench has time for."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return True
    if not isinstance(tree, dict) or "stages" in tree or not {"model", "data"} <= tree.keys():
        return True
    trainer = tree.get("trainer", {})
    return not isinstance(trainer, dict) or trainer.get("max_steps") == 2


def _change_yaml(rng: random.Random, path: Path) -> Mutation:
    own = "nothing: it is the user's to say"
    if rng.random() < 0.3:
        return Mutation(mutate_bytes(rng, path, None), "", own)
    tree = yaml.safe_load(path.read_text())

    def allowed(where: Path_) -> bool:
        return not COMPUTES & set(map(str, where))

    change = change_tree(rng, tree, allowed)
    text = as_text(yaml.safe_dump(tree, sort_keys=False))
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    revealing = change.way in ("renamed", "duplicated") and isinstance(change.where[-1], str)
    if "args" in change.where[:-1] and change.way == "renamed":
        return Mutation(f"{path}: {change.what}", "", "the stage's own command, when it runs")
    return Mutation(f"{path}: {change.what}", "schema" if revealing else "", own)


def mutate_checkpoint(rng: random.Random, path: Path, beside: Path | None) -> Mutation:
    """Damage a checkpoint: its bytes, the members of its zip file, or what it holds."""
    way = rng.random()
    if way < 0.4:
        strangers = [path.with_name(name) for name in ("bc.ckpt", "reward.ckpt", "wm.ckpt") if name != path.name]
        other = next((stranger for stranger in strangers if stranger.exists()), None)
        return Mutation(mutate_bytes(rng, path, other), "checksum")
    if beside is not None and way < 0.44:
        path.write_bytes(beside.read_bytes())
        return Mutation(f"{path}: replaced by another training's", "", "nothing: it is a checkpoint like any other")
    if way < 0.55:
        return _change_zip(rng, path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if beside is None and rng.random() < 0.4:  # what a run goes on from
        change = change_tree(rng, checkpoint, lambda where: where[0] not in (KEY, "state_dict"), absurd=False)
        torch.save(checkpoint, path)
        return Mutation(f"{path}: {change.what}, written anew", "", "a signature kept apart from the file")
    if rng.random() < 0.5:
        record = checkpoint[KEY]
        change = change_tree(rng, record, absurd=rng.random() < 0.5)
        free = {"version", "data", "prefix"} & set(map(str, change.where)) or change.way in ("swapped", "dropped")
        what, revealed_by = change.what, "" if free or "init_args" in change.where else "schema"
    else:
        what, revealed_by = _change_weights(rng, checkpoint)
    torch.save(checkpoint, path)
    return Mutation(f"{path}: {what}, written anew", revealed_by, "a signature kept apart from the file")


def _change_weights(rng: random.Random, checkpoint: dict[str, Any]) -> tuple[str, str]:
    weights = checkpoint["state_dict"]
    name = rng.choice([name for name in sorted(weights) if weights[name].is_floating_point() and weights[name].numel()])
    tensor = weights[name]
    bad = tensor.clone()
    bad.reshape(-1)[rng.randrange(bad.numel())] = rng.choice((float("nan"), float("inf")))
    ways: dict[str, tuple[Any, str]] = {
        "not finite": (bad, "schema"),
        "a row less": (tensor[:-1].clone(), "schema"),
        "flat": (tensor.reshape(-1, 1, 1).clone(), "schema"),
        "complex": (tensor.to(torch.complex64), "schema"),
        "whole numbers": (torch.ones_like(tensor, dtype=torch.int64), "schema"),
        "bool": (tensor > 0, "schema"),
        "on no device": (torch.empty_like(tensor, device="meta"), "schema"),
        "sparse": (tensor.to_sparse(), "schema"),
        "no tensor": (rng.choice(WRONG), "schema"),
        "huge": (tensor * 1e30, ""),
        "of stride 0": (torch.zeros(1).expand(tensor.shape), ""),
    }
    way = rng.choice([*ways, "dropped", "renamed", "a key of a number"])
    if way in ways:
        weights[name], revealed_by = ways[way]
        return f"{name}: {way}", revealed_by
    value = weights.pop(name)
    if way == "renamed":
        weights[rng.choice((f"{name}x", rng.choice(HOSTILE)[:100]))] = value
    elif way == "a key of a number":
        weights[rng.choice(ABSURD)] = value
    return f"{name}: {way}", "schema"


def _change_zip(rng: random.Random, path: Path) -> Mutation:
    with zipfile.ZipFile(path) as file:
        found = {info.filename: file.read(info) for info in file.infolist()}
    name = rng.choice(sorted(found))
    way = rng.choice(("dropped", "renamed", "twice", "compressed", "a bomb", "shorter", "a pickle"))
    value = found.pop(name)
    kept = list(found.items())
    if way == "renamed":
        kept.append((rng.choice((f"{name}x", f"../{name}", f"/{name}")), value))
    elif way == "twice":
        kept += [(name, value), (name, rng.randbytes(len(value)))]
    elif way in ("compressed", "a bomb"):
        kept.append((name, value if way == "compressed" else bytes(2**28)))
    elif way == "shorter":
        kept.append((name, value[: len(value) // 2]))
    elif way == "a pickle":
        name = next((key for key in found if key.endswith("data.pkl")), name)
        text = f"cos\nsystem\n(S'touch {CANARY}.seen'\ntR.".encode()
        kept = [(key, text if key == name else data) for key, data in [*kept, (name, value)]]
    packing = zipfile.ZIP_DEFLATED if way in ("compressed", "a bomb") else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packing) as file:
        for key, data in kept:
            file.writestr(key, data)
    harmless = name.rpartition("/")[2] in ("version", "byteorder", ".format_version", ".storage_alignment")
    return Mutation(f"{path}: {name} {way}", "" if harmless else "schema", "nothing reads that member")


def describe(mutation: Mutation) -> dict[str, str]:
    """JSON values of a mutation; surrogates written out."""
    values = dataclasses.asdict(mutation)
    return {key: value.encode("utf-8", "backslashreplace").decode() for key, value in values.items()}
