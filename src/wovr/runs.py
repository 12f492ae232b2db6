"""A run's folder: atomic writes, the DONE marker, fingerprints of what a result was made from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wovr.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under `path` whole or not at all.

    The bytes go to a hidden neighbour, are flushed to disk and renamed. On any error the neighbour is removed and
    what stood at `path` before stays.

    Args:
        path: Final path; its folder is made when missing.

    Yields:
        A binary file object.

    Raises:
        UserError: The disk is full or the place is not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        with suppress(OSError):  # it is gone after the rename, and where its folder could not be made
            temporary.unlink()


def explain_os_error(error: OSError, path: Path) -> UserError:
    """Turn a failed write into the line a user can act on."""
    remedies = {
        errno.ENOSPC: "free some space or choose another --out, then run the same command again",
        errno.EDQUOT: "free some of your quota or choose another --out, then run the same command again",
        errno.EACCES: "choose an --out you may write to",
        errno.EROFS: "choose an --out on a writable disk",
    }
    return UserError(
        f"{path}: cannot be written: {os.strerror(error.errno or 0)}",
        remedies.get(error.errno or 0, "choose another --out; what was already written is kept"),
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; the same value gives the same bytes."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", "check the path") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})", "restore the file or make it anew") from error


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunFolder:
    """A folder that one command fills and marks DONE.

    Args:
        path: The folder; made when missing.
        inputs: What the result depends on (options, fingerprints of inputs); JSON values.
    """

    def __init__(self, path: Path, inputs: Any) -> None:
        self.path = path
        self.inputs = inputs
        self.marker = path / "DONE"

    def is_done(self) -> bool:
        """True when the folder was finished with the same inputs."""
        return self.marker.exists() and read_json(self.marker).get("inputs") == json.loads(json.dumps(self.inputs))

    def start(self) -> None:
        """Make the folder and take back an older marker."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.marker.unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def finish(self, **result: Any) -> None:
        """Write the marker, with the inputs and whatever the command wants to be read beside them."""
        write_json(self.marker, {"inputs": self.inputs, **result})
