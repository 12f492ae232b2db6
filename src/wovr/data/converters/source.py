"""What every foreign data set looks like to the conversion: rows of numbers, frames and tasks, an episode at a time."""

from __future__ import annotations

import hashlib
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wovr.errors import UserError
from wovr.runs import file_sha256


@dataclass(frozen=True)
class SourceContent:
    """What a source's files hold.

    Attributes:
        files: Number of files.
        bytes: Their size together.
        sha256: Of their names and bytes, 64 hexadecimal digits.
        times: Size and time of the last change, ns, of each.
    """

    files: int
    bytes: int
    sha256: str
    times: dict[Path, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """What stands for the contents, as JSON values."""
        return {"files": self.files, "bytes": self.bytes, "sha256": self.sha256}

    def check_unchanged(self) -> None:
        """Check that no file was touched since.

        Raises:
            UserError: One was.
        """
        for path, before in self.times.items():
            try:
                status = path.stat()
                now = (status.st_size, status.st_mtime_ns)
            except OSError:
                now = (0, 0)
            if now != before:
                raise UserError(
                    f"{path}: changed while it was converted, the result may mix old and new",
                    "wait until nothing writes to the source and convert it into another --out",
                )


MAX_COLUMN = 2**28
"""Bytes of the largest column of an episode that is read, e.g. 4.7 million rows of 7 float64."""


class EpisodeSource(ABC):
    """Episodes of another format.

    An episode has as many rows as frames, T. What rows mean differs by format, see `action_is_taken` and `is_after`.

    Attributes:
        path: Folder or file.
        name: Short name, without its folder.
        fps: Control rate, Hz; None where the format does not say.
        cameras: Names of the cameras.
        columns: Names of the numeric columns.
        state: Columns that together are the proprioception by default; may be empty.
        calibration: Columns of the camera by default, see `wovr.data.converters.calibration`; may be empty.
        success: The column that holds success labels; None where there is none.
        labels: All columns that tell of success, the surest first; what they say is held against each other.
        done: The column that marks the end of an episode, by success or not; None where there is none.
        action: The column with the actions.
        filters: Named parts of the source (robomimic's filter keys, LeRobot's splits), by their episodes' numbers.
        other_pictures: Pictures that are not 8-bit colour, and what they are.
        notes: What the command says about this source, a line each.
        about: What is worth keeping of the source and cannot go into an episode; JSON values.
    """

    kind: ClassVar[str]
    """`lerobot`, `hdf5` or `npy`."""
    action_is_taken: ClassVar[bool] = True
    """True when row t's action is taken at frame t, False when it is the one that led to frame t."""
    upside_down: bool = False
    """True when pictures are stored with their last line first."""

    hand_first: bool = False
    """True when `state` begins with the hand's x, y, z."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem if path.is_file() else path.resolve().name
        self.fps: float | None = None
        self.cameras: list[str] = []
        self.columns: list[str] = []
        self.state: list[str] = []
        self.calibration: list[str] = []
        self.success: str | None = None
        self.labels: list[str] = []
        self.done: str | None = None
        self.action = "action"
        self.filters: dict[str, set[int]] = {}
        self.other_pictures: dict[str, str] = {}
        self.notes: list[str] = []
        self.about: dict[str, Any] = {}

    def close(self) -> None:  # noqa: B027 - most formats keep no file open
        """Let go of what is open."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of episodes."""

    @abstractmethod
    def where(self, index: int) -> str:
        """File and key of an episode, for messages."""

    @abstractmethod
    def column(self, index: int, key: str) -> np.ndarray:
        """(T,) or (T, D), the values of a column in an episode.

        Raises:
            UserError: No such column, or the file is damaged.
        """

    @abstractmethod
    def frames(self, index: int, camera: str) -> Iterator[np.ndarray]:
        """T pictures of one size, (H, W, 3) uint8 RGB each, as stored; decoded one by one as they are taken.

        Raises:
            UserError: One is damaged or of another kind, or there are more or fewer than T.
        """

    @abstractmethod
    def task(self, index: int) -> tuple[int, str]:
        """Index of the episode's task and its instruction."""

    def tasks(self, index: int) -> list[tuple[int, int, str]]:
        """First frame, index of the task and instruction of each stretch of frames that is told one sentence."""
        return [(0, *self.task(index))]

    def extra(self, index: int) -> dict[str, Any]:
        """What else of an episode is worth keeping with it; JSON values."""
        return {}

    def names(self, key: str) -> list[str]:
        """Names of a column's numbers, where the format has them; else empty."""
        return []

    def sim_state(self, index: int) -> np.ndarray | None:
        """(T, S) float64, or None where the format holds no simulator state."""
        return None

    def outcome(self, index: int) -> bool | None:
        """Whether an episode as a whole succeeded, where the format says so beside the columns; else None."""
        return None

    def source_files(self, camera: str) -> list[Path]:
        """Every file that episodes with this camera's frames are read from."""
        root = self.path
        if root.is_file():
            return [root]
        return [path for path in sorted(root.rglob("*")) if path.is_file() and not _is_left_out(self, path, camera)]

    def content(self, camera: str, on_file: Callable[[], None] = lambda: None) -> SourceContent:
        """What `source_files` hold. Equal contents under equal names are equal, wherever the folder lies.

        Args:
            camera: Whose frames are taken.
            on_file: Called after each file.

        Raises:
            UserError: A file cannot be read.
        """
        root = self.path if self.path.is_dir() else self.path.parent
        digest, size, times = hashlib.sha256(), 0, {}
        for path in self.source_files(camera):
            try:
                status = path.stat()
                times[path] = (status.st_size, status.st_mtime_ns)
                digest.update(f"{path.relative_to(root)}\0{file_sha256(path)}\n".encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}", "check the path and the disk") from error
            size += status.st_size
            on_file()
        return SourceContent(len(times), size, digest.hexdigest(), times)

    def is_after(self, key: str) -> bool:
        """True when row t of a label tells of the state after row t's action, not of frame t."""
        return key.startswith("next.")


def _is_left_out(source: EpisodeSource, path: Path, camera: str) -> bool:
    """Hidden files (a hub's cache, a version control's) and the videos of other cameras."""
    parts = path.relative_to(source.path).parts
    others = set(source.cameras) - {camera}
    return any(part.startswith(".") or part in others for part in parts)


def need(module: str, what: str) -> Any:
    """Import a package of the extra `convert`.

    Args:
        module: Name of the module.
        what: What it is needed for, for the message.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f"{what} needs {package}, which is not installed", "pip install 'wovr[convert]'") from error


def numbered(name: str) -> list[Any]:
    """A sort key by which demo_10 comes after demo_9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def no_column(where: str, key: str, columns: list[str]) -> UserError:
    """What to tell the user about a column that is not there."""
    return UserError(f"{where}: no column '{key}'", f"there are: {', '.join(columns) or 'none'}")


def text_of(value: Any) -> str:
    """A text out of a cell or an attribute; empty where it is none.

    Raises:
        ValueError: Its bytes are no UTF-8.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        return ""
    value.encode()  # h5py keeps other bytes as halves of characters, which cannot be written again
    return value
