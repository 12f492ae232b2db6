"""Ways to break a stored data set, one thing at a time."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.store.seals import sealed
from wovr.data.store.shards import DATASET_FILE
from wovr.data.store.tar_index import add_members, open_tar
from wovr.runs import file_sha256, read_json, write_json


def members(path: Path) -> dict[str, bytes]:
    """Member name -> bytes, by Python's own tarfile."""
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def change(path: Path, name: str, value: bytes | Callable[[bytes], bytes] | None) -> None:
    """Replace, add or (None) remove a member and make dataset.json agree with the shard's new size and SHA-256."""
    found = members(path)
    if value is None:
        del found[name]
    else:
        found[name] = value(found[name]) if callable(value) else value
    with path.open("wb") as file, open_tar(file) as tar:
        add_members(tar, found)
    reseal(path)


def change_array(path: Path, name: str, value: Callable[[np.ndarray], np.ndarray]) -> None:
    """`change` for an array."""
    change(path, name, lambda data: npy(value(np.load(io.BytesIO(data)))))


def reseal(path: Path) -> None:
    """Make dataset.json agree with a shard's size and SHA-256."""
    change_dataset(
        path.parent,
        lambda dataset: [
            shard.update(bytes=path.stat().st_size, sha256=file_sha256(path))
            for shard in dataset["shards"]
            if shard["file"] == path.name
        ],
    )


def change_dataset(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit dataset.json in place and seal it again, as one who rewrites it would."""
    dataset = read_json(folder / DATASET_FILE)
    edit(dataset)
    write_json(folder / DATASET_FILE, sealed(dataset))
