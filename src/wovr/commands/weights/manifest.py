"""What a folder of weights says of its files: names, sizes, SHA-256; compared before anything is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wovr.errors import UserError
from wovr.runs import file_sha256, read_json, write_json

MANIFEST, CARD = "weights.json", "README.md"

MOST_FILES = 256

_NAME = re.compile(r"README\.md|[a-z0-9_]{1,64}\.ckpt|episodes/[A-Za-z0-9_-]{1,64}\.(?:json|tar)")
_FORMAT = 1


def write_manifest(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """List the files of a folder.

    Args:
        folder: The folder.
        about: JSON values that are kept beside.

    Returns:
        What was written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
    }
    manifest = {"format": _FORMAT, "files": files, **about}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(path: Path, most_bytes: float) -> dict[str, dict[str, Any]]:
    """The files that a manifest lists: name -> `bytes` and `sha256`.

    Args:
        path: The manifest.
        most_bytes: All files together may have.

    Raises:
        UserError: It is missing or malformed, names a file that does not belong there, or lists too much.
    """
    read = read_json(path)
    files = read.get("files") if isinstance(read, dict) and read.get("format") == _FORMAT else None
    if not isinstance(files, dict) or not 1 <= len(files) <= MOST_FILES:
        raise UserError(f"{path}: not a list of weights", "make it with: wovr weights pack")
    for name, file in files.items():
        if _NAME.fullmatch(name) is None:
            raise UserError(
                f"{path}: names the file '{name[:80]}', which has no place there", "do not use these weights"
            )
        size, digest = (file.get(key) for key in ("bytes", "sha256")) if isinstance(file, dict) else (None, None)
        sound = type(size) is int and size >= 0 and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
        if not sound:
            raise UserError(f"{path}: says nothing sound of '{name}'", "make it with: wovr weights pack")
    total = sum(file["bytes"] for file in files.values())
    if total > most_bytes:
        raise UserError(f"{path}: {total / 1e6:.1f} MB in all", f"allow so much with --megabytes {total / 1e6:.0f}")
    return files


def check_file(path: Path, name: str, expected: dict[str, Any]) -> None:
    """Hold a file against what is said of it.

    Args:
        path: Where it is.
        name: What it is called in the manifest.
        expected: Its `bytes` and `sha256`.

    Raises:
        UserError: It is missing or another one.
    """
    remedy = "fetch it again, or pack it again"
    if not path.is_file() or path.is_symlink():
        raise UserError(f"{path}: missing, or no file", remedy)
    if (size := path.stat().st_size) != expected["bytes"]:
        raise UserError(f"{name}: {size:,} bytes, {expected['bytes']:,} expected", remedy)
    if (digest := file_sha256(path)) != expected["sha256"]:
        raise UserError(f"{name}: SHA-256 is {digest}, {expected['sha256']} expected", remedy)
