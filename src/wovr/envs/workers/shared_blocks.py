"""Arrays shared by a vector environment and its simulator workers, so that no picture travels through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wovr.runs import explain_os_error


@dataclass(frozen=True)
class BlockShape:
    """The numbers that decide the layout.

    Attributes:
        num_envs: Environments, N.
        max_chunk: Most actions one message executes, K.
        image_size: (H, W).
        action_dim: Dimensions of an action, A.
    """

    num_envs: int
    max_chunk: int
    image_size: tuple[int, int]
    action_dim: int

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Name -> (shape, dtype) of each array; see SharedBlocks."""
        rows, steps, picture = self.num_envs, self.max_chunk, (*self.image_size, 3)
        return {
            "actions": ((rows, steps, self.action_dim), np.dtype(np.float32)),
            "current": ((rows, *picture), np.dtype(np.uint8)),
            "images": ((rows, steps, *picture), np.dtype(np.uint8)),
            **{name: ((rows, steps), np.dtype(bool)) for name in ("success", "terminated", "truncated", "valid")},
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.arrays().values())


class SharedBlocks:
    """The arrays of one vector environment, in memory that parent and workers both see.

    A worker writes only the rows of its own environments and only between a request and its reply, so no lock is
    needed. The memory is a file that loses its name as soon as every worker has opened it: nothing stays behind,
    however the processes end.

    Args:
        path: The file behind the memory.
        shape: The layout.

    Attributes:
        actions: (N, K, A) float32, what to execute; under the scripted expert, what was executed.
        current: (N, H, W, 3) uint8, the current frame.
        images: (N, K, H, W, 3) uint8, the frames of the last chunk.
        success, terminated, truncated, valid: (N, K) bool, as in ChunkStep.
    """

    actions: np.ndarray
    current: np.ndarray
    images: np.ndarray
    success: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray

    def __init__(self, path: Path, shape: BlockShape) -> None:
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), shape.num_bytes)
        offset = 0
        for name, (dimensions, dtype) in shape.arrays().items():
            array: np.ndarray = np.ndarray(dimensions, dtype, buffer=memory, offset=offset)
            setattr(self, name, array)
            offset += array.nbytes


def make_shared_file(shape: BlockShape) -> Path:
    """Make the zeroed file behind a SharedBlocks; the caller removes its name once everybody has opened it.

    Raises:
        UserError: There is no room for it.
    """
    # Containers often give /dev/shm 64 MB: a mapping past its end is a bus error, so the room is asked for here.
    folder = Path(tempfile.gettempdir())
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK):
        status = os.statvfs(shared)
        if status.f_bavail * status.f_frsize > 2 * shape.num_bytes:
            folder = shared
    try:
        descriptor, name = tempfile.mkstemp(prefix="wovr-", dir=folder)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, shape.num_bytes)
        else:
            os.ftruncate(descriptor, shape.num_bytes)
    except OSError as error:
        Path(name).unlink()
        raise explain_os_error(error, Path(name)) from error
    finally:
        os.close(descriptor)
    return Path(name)
