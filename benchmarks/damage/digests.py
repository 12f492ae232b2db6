"""What a command has made, as one digest a file: equal digests, equal values; times, paths and logs left out."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

from wovr.data.store.reader import EpisodeStore

_LEFT_OUT = re.compile(
    r"(^|/)(\.[^/]*|DONE|(convert|collect|stage|chain)\.json|[^/]*\.log|config\.yaml|report\.\w+|tensorboard/.*)$"
)
"""Files that say how something came about: options, paths, seconds."""

_VOLATILE = re.compile(r"seconds|per_second|memory|version|fingerprint|^inputs$|^fps$|^attempts$")
"""Keys of JSON files that may differ between two runs that computed the same."""


def digest_files(folder: Path) -> dict[str, str]:
    """Path below `folder` -> digest of its values, for every file that holds results."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    found = {}
    for path in paths:
        name = str(path.relative_to(folder)) if path != folder else path.name
        if not _LEFT_OUT.search(name):
            found[name] = _digest(path)
    return found


def digest_episodes(folder: Path) -> dict[str, str]:
    """Key -> digest of an episode as it is read, and that of what dataset.json says."""
    store = EpisodeStore(folder)
    found = {"dataset.json": _of(store.datasets)}
    for index, entry in enumerate(store.entries):
        episode = store.read(index)
        arrays = [getattr(episode, name) for name in ("frames", "actions", "success", "sim_state", "proprio", "camera")]
        values = [None if array is None else hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
        found[entry.key] = _of([values, vars(episode.meta)])
    return found


def file_digests(folder: Path) -> dict[str, str]:
    """Path below `folder` -> SHA-256 of its bytes, for every file that is not hidden."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        return _of(_steady(json.loads(path.read_bytes())))
    if path.suffix == ".ckpt":
        return _of_weights(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _of_weights(path: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(path, map_location="cpu", weights_only=True)["state_dict"].items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _steady(value: Any) -> Any:
    """A JSON value without seconds and the like, and without fingerprints of what it was made from."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}|[0-9a-f]{64}", value):
        return ""
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if not _VOLATILE.search(key)}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
