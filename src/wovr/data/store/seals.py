"""SHA-256 sums that reveal a changed byte: of each shard in `dataset.json`, and of `dataset.json` in itself.

Every byte of a data set is held against them when it is opened, once a process (about a second for every 400 MB and
core), so nothing is learned, measured or converted from a shard that has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from wovr.data.store.tar_index import RESTORE
from wovr.errors import UserError
from wovr.runs import file_sha256, value_sha256

SEAL = "sha256"
"""Key of the sum that `dataset.json` holds of all else in it. Data sets from before it existed have none."""


def sealed(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What `dataset.json` says, with the sum of it."""
    values = {key: value for key, value in dataset.items() if key != SEAL}
    return {**values, SEAL: value_sha256(values)}


def unsealed(path: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What `dataset.json` says without its sum, which is checked where there is one.

    Raises:
        UserError: It has changed since it was written.
    """
    values = {key: value for key, value in dataset.items() if key != SEAL}
    if SEAL in dataset and dataset[SEAL] != value_sha256(values):
        raise UserError(
            f"{path}: its content is not what its key {SEAL} was made of: it has changed since it was written",
            f"restore the file; where the change is meant, remove its line {SEAL}",
        )
    return values


def check_sums(sums: Iterable[tuple[Path, str]]) -> None:
    """Hold whole files against their SHA-256, on all cores; a file that has not changed since is not read again.

    Args:
        sums: Path and 64 hexadecimal digits of each.

    Raises:
        UserError: The first one that has changed.
    """
    listed = list(sums)
    with ThreadPoolExecutor(min(len(listed), os.cpu_count() or 1) or 1) as pool:
        for (path, expected), found in zip(listed, pool.map(_sum_of, (path for path, _ in listed)), strict=True):
            if found != expected:
                raise UserError(f"{path}: its SHA-256 is not the one in dataset.json: it has changed", RESTORE)


def _sum_of(path: Path) -> str:
    try:
        there = path.stat()
        return _sum(path.resolve(), there.st_ino, there.st_size, there.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", RESTORE) from error


@lru_cache(maxsize=100_000)
def _sum(path: Path, inode: int, size: int, modified: int) -> str:
    return file_sha256(path)
