"""The layout of the authors' release: one `.npy` file an episode, an array of T dictionaries, one a frame.

A dictionary holds `image` ((H, W, 3) uint8), `delta_action` and often `abs_action`, `init_ee_pose` and `instruction`.
The action beside a frame is the one that led to it; the first is a zero action. Such an array is a pickle, a program
that builds it when numpy loads it. It is read here without running it, see `plain_objects`; even so only on request.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wovr.data.converters.plain_objects import read_plain_objects
from wovr.data.converters.source import MAX_COLUMN, EpisodeSource, no_column, numbered, text_of
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError

SUCCESS = ("success", "is_success", "reward")
"""Columns that tell of success, the surest first."""

INSTRUCTIONS = ("instruction", "language_instruction", "task_description", "task")
"""Keys of the instruction, the first that holds a text."""

_MAX_HEADER = 4096  # bytes; that of an array of objects has some 128
_REPLACE = "restore the file from a copy, or move it out of the folder"


class TrajectoryFiles(EpisodeSource):
    """Episodes in `.npy` files of dictionaries.

    Args:
        path: A folder, or one file. Files `*_kir.npy` hold starts near keyframes, not episodes, and are left out.
        trust: Read pickled arrays.
        instruction: Key of the instruction; empty for the first of INSTRUCTIONS that holds a text.

    Raises:
        UserError: No such file, a pickle that is not trusted, or not this layout.
    """

    kind = "npy"
    hand_first = True
    action_is_taken = False

    def __init__(self, path: Path, trust: bool, instruction: str = "") -> None:
        super().__init__(path)
        found = [path] if path.is_file() else path.glob("*.npy")
        self.files = sorted((file for file in found if not file.stem.endswith("_kir")), key=lambda p: numbered(p.name))
        if not self.files:
            raise UserError(f"{path}: no .npy file of an episode", "give the folder that holds them")
        with _opened(self.files[0]) as file:
            _read_header(self.files[0], file)
        if not trust:
            raise UserError(
                f"{self.files[0]}: an array of Python objects is a pickle, which can run any code when it is loaded",
                "if you know who made the files, give --trust true: then arrays, numbers and text are read from them "
                "and anything else is refused, nothing is run",
            )
        self._cached: tuple[int, list[dict[str, Any]]] = (-1, [])
        keys = (instruction,) if instruction else INSTRUCTIONS
        texts: list[str] = []
        there: dict[str, Any] = {}  # a value of each key that any frame has, so that one that lacks it is seen
        for index in range(len(self.files)):
            texts.append(self._text(index, keys))
            for row in self._rows(index):
                there = {**{key: value for key, value in row.items() if isinstance(key, str)}, **there}
        self.cameras = [key for key, value in there.items() if _is_picture(value)]
        self.columns = [key for key, value in there.items() if _is_numeric(value) and np.ndim(value) <= 1]
        self.other_pictures = {key: f"{v.dtype} {v.shape}" for key, v in there.items() if _is_other_picture(v)}
        self.action = next((key for key in ("delta_action", "abs_action", "action") if key in there), "delta_action")
        self.state = [str(key) for key in ("ee_pose", "proprio", "state") if key in self.columns][:1]
        self.labels = [key for key in SUCCESS if key in self.columns]
        self.success = next(iter(self.labels), None)
        self.instructions = sorted(set(texts))
        self._tasks = [self.instructions.index(text) for text in texts]
        if "" in texts:
            self.notes.append(f"{self.where(texts.index(''))}: no instruction; it stays empty")

    def __len__(self) -> int:
        return len(self.files)

    def where(self, index: int) -> str:
        """The file."""
        return str(self.files[index])

    def column(self, index: int, key: str) -> np.ndarray:
        """(T,) or (T, D), the values of a key in each dictionary."""
        rows = self._rows(index)
        if any(key not in row for row in rows):
            raise no_column(self.where(index), key, self.columns)
        if not all(_is_numeric(row[key]) for row in rows):
            raise UserError(f"{self.where(index)}: {key}: not numbers", f"choose one of {', '.join(self.columns)}")
        cells = [np.asarray(row[key]) for row in rows]
        if len({cell.shape for cell in cells}) != 1:
            raise UserError(f"{self.where(index)}: {key}: rows of different lengths", _REPLACE)
        if sum(cell.nbytes for cell in cells) > MAX_COLUMN:
            raise UserError(f"{self.where(index)}: {key}: {len(cells)} rows of shape {cells[0].shape}", _REPLACE)
        values = np.stack(cells)
        return values.reshape(len(values)) if values.ndim > 1 and values.size == len(values) else values

    def frames(self, index: int, camera: str) -> Iterator[np.ndarray]:
        """T times (H, W, 3) uint8."""
        rows = self._rows(index)
        for number, row in enumerate(rows):
            if not _is_picture(row.get(camera)):
                what = f"{row[camera].dtype} {row[camera].shape}" if isinstance(row.get(camera), np.ndarray) else "none"
                raise UserError(
                    f"{self.where(index)}: {camera}: row {number} is no 8-bit colour picture: {what}", _REPLACE
                )
        yield from (row[camera] for row in rows)

    def task(self, index: int) -> tuple[int, str]:
        """The instruction and its place among all that occur, in alphabetical order."""
        number = self._tasks[index]
        return number, self.instructions[number]

    def source_files(self, camera: str) -> list[Path]:
        """The files of episodes, whatever else lies beside them."""
        return self.files

    def _text(self, index: int, keys: tuple[str, ...]) -> str:
        """The instruction, the same in every row."""
        rows = self._rows(index)
        try:
            key = next((key for key in keys if any(text_of(row.get(key)) for row in rows)), "")
            texts = {text_of(row.get(key)) for row in rows} if key else {""}
        except ValueError as error:
            raise UserError(f"{self.where(index)}: an instruction is no text ({error})", _REPLACE) from error
        if len(texts) > 1:
            one, other = sorted(texts)[:2]
            raise UserError(
                f"{self.where(index)}: {key}: two instructions in one episode, '{one[:60]}' and '{other[:60]}'",
                "name a key that says one with --instruction, or cut the file into two",
            )
        return texts.pop()

    def _rows(self, index: int) -> list[dict[str, Any]]:
        if self._cached[0] != index:
            self._cached = (-1, [])  # one episode is held at a time
            self._cached = (index, _read(self.files[index]))
        return self._cached[1]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "check the path") from error


def _read_header(path: Path, file: BinaryIO) -> int:
    """How many dictionaries a file says it holds; the file then stands at the first byte of the pickle.

    Raises:
        UserError: It holds something else.
    """
    # 6 bytes magic, 2 version, then the length of the header in 2 bytes (version 1) or 4, then the header.
    start = file.read(12)
    wide = start[6:7] != b"\x01"
    length = int.from_bytes(start[8 : 12 if wide else 10], "little") + (12 if wide else 10)
    try:
        if length > _MAX_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        header = io.BytesIO(start + file.read(max(0, length - len(start))))
        np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, _, dtype = read(header)
        file.seek(length)
    # The header is Python's notation: what parses it raises a dozen kinds at nonsense.
    except Exception as error:
        raise UserError(f"{path}: not a .npy file ({str(error)[:200]})", _REPLACE) from error
    if dtype.kind != "O" or len(shape) != 1:
        raise UserError(f"{path}: {dtype} {shape}, must be an array of one dictionary a frame", _REPLACE)
    return int(shape[0])


def _read(path: Path) -> list[dict[str, Any]]:
    """The dictionaries of a file."""
    with _opened(path) as file:
        count = _read_header(path, file)
        try:
            value = read_plain_objects(file.read())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}", _REPLACE) from error
    rows = list(value) if isinstance(value, np.ndarray) and value.ndim == 1 else []
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: not an array of one dictionary a frame", _REPLACE)
    if len(rows) != count:
        raise UserError(f"{path}: {len(rows)} frames, its header says {count}", _REPLACE)
    return rows


def _is_picture(value: Any) -> bool:
    """Whether a value is 8-bit colour, (H, W, 3)."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
        and 0 < min(value.shape) <= max(value.shape) <= MAX_SIDE
    )


def _is_other_picture(value: Any) -> bool:
    """Whether a value may be a picture, but not 8-bit colour."""
    two = isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim in (2, 3)
    return two and not _is_picture(value) and min(value.shape[:2]) >= 8


def _is_numeric(value: Any) -> bool:
    """Whether a value is a number, an array of them, or a plain list of them."""
    if isinstance(value, (list, tuple)):
        plain = bool(value) and all(isinstance(item, (bool, int, float, np.number)) for item in value)
    else:
        plain = isinstance(value, (bool, int, float, np.bool_, np.number, np.ndarray))
    return plain and np.asarray(value).dtype.kind in "biuf"
