"""Which format a path holds."""

from __future__ import annotations

from pathlib import Path

from wovr.data.converters.hdf5.files import Hdf5Files
from wovr.data.converters.lerobot.layout import INFO
from wovr.data.converters.lerobot.reader import LeRobotReader
from wovr.data.converters.source import EpisodeSource
from wovr.data.converters.trajectory_files import TrajectoryFiles
from wovr.errors import UserError


def open_source(path: Path, trust: bool, instruction: str) -> EpisodeSource:
    """The source that a path holds.

    Args:
        path: Folder or file.
        trust: Read `.npy` files of pickled objects.
        instruction: Field or column with the instruction; empty for the format's own.

    Raises:
        UserError: No known format, or as the format's class.
    """
    if (path / INFO).exists():
        return LeRobotReader(path, instruction)
    files = [path] if path.is_file() else list(path.rglob("*"))
    suffixes = {file.suffix for file in files}
    if suffixes & {".hdf5", ".h5"}:
        return Hdf5Files(path, instruction)
    if ".npy" in suffixes:
        return TrajectoryFiles(path, trust, instruction)
    raise UserError(
        f"{path}: no known format",
        f"give a LeRobotDataset (with {INFO}), .hdf5 files, .npy files of dictionaries, or a folder of shards",
    )
