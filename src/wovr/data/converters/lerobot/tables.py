"""Parquet tables of a LeRobotDataset, read a column at a time and never further than their headers' sizes are right.

A column of a few kilobytes can say that it is a billion numbers. What a file's header promises is held against what the
list of episodes and `info.json` say before anything is decoded; page checksums are verified where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.lerobot.info import RESTORE, check_file
from wovr.data.converters.source import need
from wovr.errors import UserError

PICTURE_SLACK = 2**16
"""Bytes that a compressed picture may be larger than its pixels twice over."""

_VALUE_BYTES = 64
"""Of a stored number at most, with its levels, before decompression into values."""
_CHUNK_SLACK = 2**20
_MAX_TEXT = 2**16
"""Bytes of a text at most, on average over a column."""


class Table:
    """A parquet file.

    Args:
        path: The file.

    Attributes:
        rows: Number of rows.
        names: Of its columns.

    Raises:
        UserError: Missing, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_file(path)
        parquet = need("pyarrow.parquet", "reading LeRobot data sets")
        with self._explained():
            self._file = parquet.ParquetFile(path, page_checksum_verification=True)
            self.rows = int(self._file.metadata.num_rows)
            self.names = [str(name) for name in self._file.schema_arrow.names]
            sizes = [self._file.metadata.row_group(n).num_rows for n in range(self._file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._kept: dict[tuple[str, tuple[int, ...]], Any] = {}

    def column(self, key: str, shape: tuple[int, ...] = (), rows: np.ndarray | None = None) -> np.ndarray:
        """Numbers of a column.

        Args:
            key: Its name.
            shape: Of a cell.
            rows: Which rows, in this order; None for all.

        Returns:
            (T,) where a cell holds one number, or (T, D).

        Raises:
            UserError: No such column, empty cells, cells of another shape or without numbers, or the file is damaged.
        """
        groups = self._groups(rows)
        if (key, groups) not in self._kept:
            array = self._read(key, groups, math.prod(shape) * _VALUE_BYTES, math.prod(shape))
            with self._explained():
                first = int(self._starts[groups[0]]) if groups else 0
                self._kept[key, groups] = self._numbers(array, key, shape, first)
        values = self._kept[key, groups]
        return values if rows is None else values[self._places(rows, groups)]

    def texts(self, key: str, rows: np.ndarray | None = None) -> list[Any]:
        """Cells of a column of texts, or of lists of them, as Python's values; None where a cell is empty."""
        groups = self._groups(rows)
        array = self._read(key, groups, _MAX_TEXT, 2**10)
        with self._explained():
            return array.to_pylist() if rows is None else array.take(self._places(rows, groups)).to_pylist()

    def pictures(self, key: str, rows: np.ndarray, most: int) -> Iterator[Any]:
        """Cells of a column of pictures, one at a time; `most` bytes each on average.

        Raises:
            UserError: No such column, larger cells, or the file is damaged.
        """
        groups = self._groups(rows)
        self._check_size(key, groups, most, 2)
        places = self._places(rows, groups)
        if (np.diff(places) > 0).all():
            yield from self._batches(key, groups, set(places.tolist()))
        else:  # stored out of order: as they are stored, then in order
            order = np.argsort(places)
            cells = list(self._batches(key, groups, set(places.tolist())))
            yield from (cells[place] for place in np.argsort(order))

    def records(self, most: int, skipped: str = "stats/") -> list[dict[str, Any]]:
        """All rows of a small table as dictionaries, without columns that begin with `skipped`.

        Raises:
            UserError: More than `most` rows, or the file is damaged.
        """
        if self.rows > most:
            raise UserError(f"{self.path}: {self.rows:,} rows, at most {most:,} are read", RESTORE)
        names = [name for name in self.names if not name.startswith(skipped)]
        groups = self._groups(None)
        for name in names:
            self._check_size(name, groups, _MAX_TEXT, 2**10)
        with self._explained():
            return list(self._file.read_row_groups(groups, columns=names).to_pylist())

    def _batches(self, key: str, groups: Sequence[int], wanted: set[int]) -> Iterator[Any]:
        place = 0
        with self._explained():
            for batch in self._file.iter_batches(batch_size=8, row_groups=list(groups), columns=[key]):
                cells = batch.column(key)
                for number in range(len(cells)):
                    if place + number in wanted:
                        yield cells[number].as_py()
                place += len(cells)

    def _groups(self, rows: np.ndarray | None) -> tuple[int, ...]:
        """Row groups that hold the rows."""
        if rows is None:
            return tuple(range(len(self._starts) - 1))
        return tuple(np.unique(np.searchsorted(self._starts, rows, side="right") - 1).tolist())

    def _places(self, rows: np.ndarray, groups: Sequence[int]) -> np.ndarray:
        """Where rows lie in their row groups together."""
        chosen = np.asarray(groups)
        sizes = (self._starts[1:] - self._starts[:-1])[chosen]
        offsets = np.cumsum(sizes) - sizes
        mine = np.searchsorted(self._starts, rows, side="right") - 1
        return rows - self._starts[mine] + offsets[np.searchsorted(chosen, mine)]

    def _read(self, key: str, groups: Sequence[int], row_bytes: int, row_values: int) -> Any:
        self._check_size(key, groups, row_bytes, row_values)
        with self._explained():
            column = self._file.read_row_groups(list(groups), columns=[key]).column(key)
            if len(column) != sum(int(self._starts[group + 1] - self._starts[group]) for group in groups):
                raise ValueError("fewer cells than rows")
            return column.combine_chunks()

    def _check_size(self, key: str, groups: Sequence[int], row_bytes: int, row_values: int) -> None:
        """Hold what the header says of a column against what a row may be."""
        if key not in self.names:
            raise UserError(f"{self.path}: {key}: missing, meta/info.json lists it", RESTORE)
        with self._explained():
            for group in groups:
                header = self._file.metadata.row_group(group)
                for number in range(header.num_columns):
                    chunk = header.column(number)
                    if chunk.path_in_schema.split(".")[: key.count(".") + 1] != key.split("."):
                        continue
                    size, values = int(chunk.total_uncompressed_size), int(chunk.num_values)
                    if size > header.num_rows * row_bytes + _CHUNK_SLACK or values > header.num_rows * row_values:
                        raise UserError(
                            f"{self.path}: {key}: {values:,} values of {size:,} bytes in {header.num_rows:,} rows, "
                            "more than the declared shape holds",
                            RESTORE,
                        )

    def _numbers(self, array: Any, key: str, shape: tuple[int, ...], first: int) -> np.ndarray:
        """(T,) or (T, D) from an Arrow array whose cells are numbers or (nested) lists of them."""
        compute = need("pyarrow.compute", "reading LeRobot data sets")
        rows, per_row, depth = len(array), 1, 0
        where = f"{self.path}: {key}"
        while _is_list(array.type):
            if array.null_count:
                row = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))) // per_row
                raise UserError(f"{where}: row {row} is empty", RESTORE)
            lengths = np.asarray(compute.list_value_length(array))
            whole = depth == 0 and not _is_list(array.type.value_type)  # one list of all numbers
            expected = math.prod(shape) if whole else (shape[depth] if depth < len(shape) else 1)
            if (lengths != expected).any():
                place = int(np.argmax(lengths != expected))
                raise UserError(
                    f"{where}: row {first + place // per_row} has {lengths[place]} numbers, meta/info.json declares "
                    f"the shape {list(shape) or [1]}",
                    "mend the file or the shape there",
                )
            array, per_row, depth = array.flatten(), per_row * expected, depth + 1
        if per_row != math.prod(shape):
            raise UserError(
                f"{where}: {per_row} numbers a row, meta/info.json declares the shape {list(shape) or [1]}",
                "mend the file or the shape there",
            )
        if array.null_count:
            row = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))) // per_row
            raise UserError(f"{where}: row {row} is empty", RESTORE)
        values = np.asarray(array.to_numpy(zero_copy_only=False))
        if values.dtype.kind not in "biuf":
            raise UserError(f"{where}: {array.type}, not numbers", "choose another column")
        return values.reshape(rows, -1) if per_row > 1 else values

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever Arrow raises as a line."""
        pyarrow = need("pyarrow", "reading LeRobot data sets")
        try:
            yield
        except MemoryError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            raise UserError(f"{self.path}: not a readable parquet file", RESTORE) from error


def _is_list(kind: Any) -> bool:
    types = need("pyarrow.types", "reading LeRobot data sets")
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
