"""Where in a shard each member lies, read from the tar's headers alone; and tar files with nothing left to chance."""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from wovr.data.store.members import FIELDS, KEY_PATTERN, MAX_BYTES, check_fields
from wovr.errors import UserError

RESTORE = "restore the file from a copy, or delete it and collect its episodes again"
"""Remedy for a shard that is damaged."""

_BLOCK = tarfile.BLOCKSIZE

_OPEN_FILES = 64

_MAX_HEADER = 1 << 16  # bytes of an extended header, which holds a name and a time


@dataclass(frozen=True)
class Place:
    """Where a member's bytes lie in its shard.

    Attributes:
        offset: Of the first byte, from the beginning of the file.
        size: Bytes.
    """

    offset: int
    size: int


def scan_shard(path: Path) -> dict[str, dict[str, Place]]:
    """Index a shard.

    Args:
        path: A tar file.

    Returns:
        Key -> field (`actions.npy`) -> place, in the shard's order.

    Raises:
        UserError: No such file, not a tar, truncated, or with members that do not belong in a shard.
    """
    samples: dict[str, dict[str, Place]] = {}
    end = 0
    try:
        # mypy: what reading needs of a file object is less than the annotation asks for.
        with path.open("rb") as file, tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
            for info in tar:
                key, field = _split_name(path, info)
                if field in samples.setdefault(key, {}):
                    raise UserError(f"{path}: episode {key}: {field} is there twice", RESTORE)
                if info.size > MAX_BYTES.get(field, info.size):
                    raise UserError(f"{path}: episode {key}: {field} has {info.size} bytes", RESTORE)
                samples[key][field] = Place(info.offset_data, info.size)
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
        with path.open("rb") as file:
            file.seek(end)
            whole = file.read(2 * _BLOCK) == bytes(2 * _BLOCK)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", "check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", RESTORE) from error
    except (tarfile.TarError, RecursionError, ValueError) as error:  # ValueError: numbers and names that are none
        raise UserError(f"{path}: {_truncated(samples)} or not a tar file ({error})", RESTORE) from error
    if not whole:
        raise UserError(f"{path}: {_truncated(samples)}", RESTORE)
    for key, fields in samples.items():
        try:
            check_fields(fields)
        except ValueError as error:
            raise UserError(f"{path}: episode {key}: {error}", RESTORE) from error
    if not samples:
        raise UserError(f"{path}: holds no episode", "delete it and collect its episodes again")
    return samples


class _Headers:
    """A shard of which headers are read only, so that no header decides how much is read.

    Args:
        file: The shard, open for reading.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            tarfile.ReadError: More of them than a header has.
        """
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int) -> int:
        """Go to a place."""
        return self.file.seek(offset)

    def tell(self) -> int:
        """The place."""
        return self.file.tell()


def read_member(file: IO[bytes], place: Place) -> bytes:
    """The bytes of a member of an open shard."""
    file.seek(place.offset)
    return file.read(place.size)


class OpenShards:
    """Shards open for reading, the longest unused closed first. Reads by offset share no position across a fork."""

    def __init__(self) -> None:
        self._descriptors: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, place: Place) -> bytes:
        """Bytes of a member.

        Raises:
            UserError: The file is gone or shorter than it was.
        """
        try:
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                if len(self._descriptors) > _OPEN_FILES:
                    os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors.move_to_end(path)
            data = os.pread(self._descriptors[path], place.size, place.offset)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", RESTORE) from error
        if len(data) != place.size:
            raise UserError(f"{path}: truncated", RESTORE)
        return data

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def _truncated(samples: Mapping[str, object]) -> str:
    return f"truncated at episode {list(samples)[-1]}" if samples else "truncated"


def _split_name(path: Path, info: tarfile.TarInfo) -> tuple[str, str]:
    key, _, field = info.name.partition(".")
    # A sparse file is a regular one to tarfile, of whatever size it says.
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    if plain and field in FIELDS and KEY_PATTERN.fullmatch(key):
        return key, field
    raise UserError(
        f"{path}: episode {key[:80]}: member '{info.name[:120]}' is not part of the episode format and is never opened",
        "remove the member or get the shard from a source you trust",
    )


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """A tar file to be written into `file`, for `add_members`; close it at the end."""
    return tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)


def add_members(tar: tarfile.TarFile, members: Mapping[str, bytes]) -> None:
    """Write members: the same members give the same bytes (no times, owners or modes of this machine).

    Args:
        tar: From `open_tar`.
        members: Member name -> bytes, in the order of the file.
    """
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        tar.addfile(info, BytesIO(data))
