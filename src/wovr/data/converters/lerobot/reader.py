"""LeRobotDataset, versions 2.0, 2.1 and 3.0, as a source of episodes: parquet, and videos or pictures."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.lerobot import layout
from wovr.data.converters.lerobot.episodes import read_episodes, split_episodes
from wovr.data.converters.lerobot.info import RESTORE, Info, flat_names, inside, pattern_file, whole
from wovr.data.converters.lerobot.pictures import decode_picture, most_bytes, video_frames
from wovr.data.converters.lerobot.rows import frame_order
from wovr.data.converters.lerobot.tables import Table
from wovr.data.converters.lerobot.texts import read_subtasks, read_tasks, spans, texts_in_time
from wovr.data.converters.source import EpisodeSource, need, no_column
from wovr.errors import UserError

_NOT_NUMBERS = ("video", "image", "string", "language", "audio")


@dataclass(frozen=True)
class _Rows:
    """The rows of an episode.

    Attributes:
        places: (T,) their places in the file, in the order of their frames.
        first: Frame of the first one, counted in the episode's video.
    """

    places: np.ndarray
    first: int


class LeRobotReader(EpisodeSource):
    """Episodes of a LeRobotDataset.

    Rows are put into the order of their frames by `frame_index` and `timestamp`; where these contradict each other or
    leave a hole the episode is refused. Nothing in the folder leads out of it.

    Args:
        path: Its folder, with `meta/info.json`.
        instruction: Column with the sentence of each row, or `tasks` for what the list of episodes says; empty for
            the row's task.

    Raises:
        UserError: Not such a folder, another version, a file is missing or damaged, or pyarrow is missing.
    """

    kind = "lerobot"

    def __init__(self, path: Path, instruction: str = "") -> None:
        super().__init__(path)
        need("pyarrow.parquet", "reading LeRobot data sets")
        self._info = Info(path)
        self.info = self._info.values
        self.version = self._info.version
        self.features = self._info.features
        self.fps = self._info.fps
        kinds = {key: self._info.kind(key) for key in self.features}
        pictures = [key for key, kind in kinds.items() if kind in ("video", "image")]
        self.other_pictures = {key: what for key in pictures if (what := self._info.other_than_colour(key))}
        self.cameras = [key for key in pictures if key not in self.other_pictures]
        self.columns = [key for key, kind in kinds.items() if kind not in _NOT_NUMBERS]
        self.sentences = [key for key, kind in kinds.items() if kind == "string"]
        self.calibration = [layout.CALIBRATION] if layout.CALIBRATION in self.columns else []
        self.state = [layout.STATE] if layout.STATE in self.columns else []
        self.labels = [key for key in (*layout.SUCCESS, layout.REWARD) if key in self.columns]
        self.success = next(iter(self.labels), None)
        self.done = layout.DONE if layout.DONE in self.columns else None
        kept = (layout.ACTION, layout.STATE)
        self.about = {
            "robot_type": self.info.get("robot_type"),
            "names": {key: self.features[key].get("names") for key in kept if key in self.features},
        }
        self.instructions = read_tasks(self._info)
        self.subtasks = read_subtasks(self._info)
        self.episodes = read_episodes(self._info)
        self._table: tuple[Path | None, Any] = (None, None)
        self._table_of = -1
        self._rows_of: tuple[int, _Rows | None] = (-1, None)
        self._numbers: dict[str, int] = {}
        self.filters = split_episodes(self._info, self.episodes)
        self.known = (*self.columns, *self.sentences, "tasks")
        if instruction and instruction not in self.known:
            raise UserError(f"{path}: --instruction is '{instruction}'", f"give one of: {', '.join(self.known)}")
        self.instruction = instruction

    def __len__(self) -> int:
        return len(self.episodes)

    def where(self, index: int) -> str:
        """Parquet file and number of the episode."""
        return f"{self._data_path(index)}: episode {self.episodes[index]['episode_index']}"

    def names(self, key: str) -> list[str]:
        """Names of a column's numbers, where `info.json` has them."""
        return flat_names(self.features[key])

    def source_files(self, camera: str) -> list[Path]:
        """Every file that episodes with this camera's frames are read from.

        Raises:
            UserError: One is a link that leads out of the folder.
        """
        found = super().source_files(camera)
        for path in found:
            inside(self.path, str(path.relative_to(self.path)), str(self.path))
        return found

    def column(self, index: int, key: str) -> np.ndarray:
        """(T,) or (T, D), a column of the episode's rows, in the order of their frames."""
        if key not in self.columns:
            raise no_column(str(self.path), key, self.columns)
        return self._column(index, key, self._rows(index).places)

    def frames(self, index: int, camera: str) -> Iterator[np.ndarray]:
        """T times (H, W, 3) uint8, decoded from the video or from pictures in the table."""
        size = self._info.picture_size(camera)
        rows = self._rows(index)
        if self.features[camera]["dtype"] == "image":
            where = f"{self.where(index)}: {camera}"
            cells = self._file(index).pictures(camera, rows.places, most_bytes(size))
            for frame, cell in enumerate(cells):
                yield decode_picture(self.path, cell, size, f"{where}: frame {frame}")
            return
        path, start, length = self._stretch(index, camera)
        total = rows.first + len(rows.places)
        if length is not None and (length < total or (length > total and rows.first == 0)):
            raise UserError(
                f"{self.where(index)}: {camera}: {length} frames, {len(rows.places)} rows from frame {rows.first} on",
                f"leave it out with --skip {index}",
            )
        assert self.fps is not None
        if rows.first:
            self._note("there are rows that begin after their video's first frame; frames without a row are left out")
        # Rows from frame 0 on, to the end of a video, are all its frames: others would have lost their rows.
        is_whole = length is None and rows.first == 0
        first = True
        for picture in video_frames(path, start + rows.first, len(rows.places), self.fps, is_whole=is_whole):
            if first and picture.shape[:2] != size:  # the header says how large pictures are
                found, declared = (f"{height} x {width}" for height, width in (picture.shape[:2], size))
                self._note(f"{camera}: pictures of {found}, {layout.INFO} declares {declared}; taken as they are")
            first = False
            yield picture

    def _note(self, text: str) -> None:
        """Something that is told once."""
        if text not in self.notes:
            self.notes.append(text)

    def task(self, index: int) -> tuple[int, str]:
        """Index and instruction of the episode's first stretch."""
        return self.tasks(index)[0][1:]

    def tasks(self, index: int) -> list[tuple[int, int, str]]:
        """(first frame, index of the task, instruction) of each stretch of frames that is told one sentence."""
        return [(frame, self._number(text), text) for frame, text in spans(self._sentences(index))]

    def extra(self, index: int) -> dict[str, Any]:
        """Subtasks, as [first frame, text], and texts in time, as [frame, style, role, text]."""
        found: dict[str, Any] = {}
        if layout.SUBTASK_INDEX in self.columns and self.subtasks and self.instruction != layout.SUBTASK_INDEX:
            found["subtasks"] = [list(span) for span in spans(self._texts(index, layout.SUBTASK_INDEX))]
        keys = [key for key in layout.LANGUAGE if key in self.features]
        if keys:
            rows, file = self._rows(index), self._file(index)
            assert self.fps is not None
            try:
                cells = {key: file.texts(key, rows.places) for key in keys}
                found["language"] = texts_in_time(cells, rows.first, self.fps)
            except (TypeError, ValueError, OverflowError) as error:
                raise UserError(f"{self.where(index)}: {error}", RESTORE) from error
        return found

    def _sentences(self, index: int) -> list[str]:
        """The instruction of each frame."""
        episode = self.episodes[index]
        listed = list(episode.get("tasks") or [])
        if self.instruction not in ("", "tasks"):
            return self._texts(index, self.instruction)
        length = len(self._rows(index).places)
        if self.instruction == "tasks" or layout.TASK_INDEX not in self.columns:
            if len(listed) != 1:
                raise UserError(
                    f"{self.where(index)}: {len(listed)} tasks in the list of episodes, one is needed",
                    f"give --instruction, one of: {', '.join((*self.columns, *self.sentences))}",
                )
            return listed * length
        texts = self._texts(index, layout.TASK_INDEX)
        others = {text: "tasks of the list of episodes" for text in texts if listed and text not in listed}
        for key in layout.SENTENCES:
            if key in self.sentences:
                spoken = self._texts(index, key)
                texts = [text if text.strip() else other for text, other in zip(texts, spoken, strict=True)]
                pairs = zip(texts, spoken, strict=True)
                others |= {text: key for text, other in pairs if other.strip() and other != text}
        for text, key in others.items():
            raise UserError(
                f"{self.where(index)}: {layout.TASK_INDEX} says {reprlib.repr(text)}, {key} something else",
                f"give --instruction {layout.TASK_INDEX} or {key.split()[0]}",
            )
        return texts

    def _texts(self, index: int, key: str) -> list[str]:
        """A text a frame: of a column of texts, or what a column of indices means."""
        rows = self._rows(index)
        if key in self.sentences:
            return ["" if text is None else str(text) for text in self._file(index).texts(key, rows.places)]
        meaning = self.subtasks if key == layout.SUBTASK_INDEX else self.instructions
        values = self.column(index, key)
        if values.ndim != 1:
            raise UserError(f"{self.where(index)}: {key}: shape {values.shape}, must be one index a row", RESTORE)
        try:
            found = {value: whole(value) for value in np.unique(values).tolist()}
        except ValueError as error:
            raise UserError(f"{self.where(index)}: {key}: {error}", RESTORE) from error
        for number in found.values():
            if number not in meaning:
                raise UserError(f"{self.where(index)}: {key}: {number} is not in the list of tasks", RESTORE)
        return [meaning[found[value]] for value in values.tolist()]

    def _number(self, text: str) -> int:
        """Index of an instruction: its task's, or one after them, in alphabetical order."""
        if not self._numbers:
            self._numbers = {task: number for number, task in sorted(self.instructions.items(), reverse=True)}
        if text not in self._numbers:
            all_texts = {text}
            for index in range(len(self)):
                with suppress(UserError):  # an episode that cannot be read is refused when it is its turn, or left out
                    all_texts |= set(self._sentences(index))
            for new in sorted(all_texts - self._numbers.keys()):
                self._numbers[new] = max(self._numbers.values(), default=-1) + 1
        return self._numbers[text]

    def _column(self, index: int, key: str, places: np.ndarray | None) -> np.ndarray:
        shape = self._info.shape(key) if key in self.features else ()
        return self._file(index).column(key, shape, places)

    def _rows(self, index: int) -> _Rows:
        """Where an episode's rows are.

        Raises:
            UserError: There are more or fewer than listed, or they are not frames that follow each other.
        """
        if self._rows_of[0] == index and self._rows_of[1] is not None:
            return self._rows_of[1]
        table = self._file(index)
        number, length = (int(self.episodes[index][name]) for name in ("episode_index", "length"))
        mine = np.flatnonzero(table.column("episode_index") == number)
        if len(mine) != length:
            raise UserError(f"{self.where(index)}: {len(mine)} rows, the list of episodes says {length}", RESTORE)
        given = {
            key: self._column(index, key, mine) if key in self.columns or key in table.names else None
            for key in ("frame_index", "timestamp")
        }
        assert self.fps is not None
        try:
            for key, values in given.items():
                if values is not None and values.ndim != 1:
                    raise ValueError(f"{key}: shape {values.shape}, must be one a row")
            order, first = frame_order(length, given["frame_index"], given["timestamp"], self.fps)
        except ValueError as error:
            raise UserError(
                f"{self.where(index)}: {error}", f"mend the file, or leave the episode out with --skip {index}"
            ) from error
        self._rows_of = (index, _Rows(mine[order], first))
        return _Rows(mine[order], first)

    def _file(self, index: int) -> Table:
        """The table that holds an episode; it must have the rows that are listed for it."""
        if self._table_of == index:  # paths are followed through their links: not once a column
            return self._table[1]
        path = self._data_path(index)
        if self._table[0] != path:
            table = Table(path)
            listed = sum(int(self.episodes[other]["length"]) for other in self._sharing(index, "data/"))
            if table.rows != listed:
                raise UserError(
                    f"{self.where(index)}: {table.rows:,} rows in the file, the list of episodes says {listed:,}",
                    RESTORE,
                )
            self._table = (path, table)
        self._table_of = index
        return self._table[1]

    def _sharing(self, index: int, prefix: str) -> list[int]:
        """Episodes in the same file, of rows (`data/`) or of a camera's frames."""
        if self.version.startswith("v2."):
            return [index]
        keys = (prefix + "chunk_index", prefix + "file_index")
        mine = [self.episodes[index].get(key) for key in keys]
        return [n for n, episode in enumerate(self.episodes) if [episode.get(key) for key in keys] == mine]

    def _data_path(self, index: int) -> Path:
        return self._path("data_path", index, "data/")

    def _video_place(self, index: int, camera: str) -> tuple[Path, int]:
        """A camera's file and the number of the episode's first frame in it."""
        path, start, _ = self._stretch(index, camera)
        return path, start

    def _stretch(self, index: int, camera: str) -> tuple[Path, int, int | None]:
        """A camera's file, the number of the episode's first frame in it, and of its frames where that is said."""
        prefix = f"videos/{camera}/"
        path = self._path("video_path", index, prefix, camera)
        start, stop = (self._frame(index, prefix + name) for name in ("from_timestamp", "to_timestamp"))
        if start is None:
            return path, 0, None
        if stop is None:  # what comes after it in the same file
            after = [self._frame(other, prefix + "from_timestamp") for other in self._sharing(index, prefix)]
            stop = min((frame for frame in after if frame is not None and frame > start), default=None)
        return path, start, None if stop is None else stop - start

    def _frame(self, index: int, key: str) -> int | None:
        """The frame that a time stamp of the list of episodes means."""
        stamp = self.episodes[index].get(key)
        if stamp is None:
            return None
        assert self.fps is not None
        if not isinstance(stamp, int | float) or not math.isfinite(stamp) or stamp < 0:
            raise UserError(f"{self.where(index)}: {key} is {reprlib.repr(stamp)}", RESTORE)
        if abs(stamp * self.fps - round(stamp * self.fps)) > 0.25:
            raise UserError(f"{self.where(index)}: {key}: {stamp:g} s is between two frames", RESTORE)
        return round(stamp * self.fps)

    def _path(self, pattern: str, index: int, prefix: str, camera: str = "") -> Path:
        episode = self.episodes[index]
        number = int(episode["episode_index"])
        values: dict[str, int | str] = {"episode_index": number, "video_key": camera}
        values["episode_chunk"] = number // int(self.info.get("chunks_size", layout.FILES_PER_CHUNK))
        if not self.version.startswith("v2."):
            for name in ("chunk_index", "file_index"):
                try:
                    values[name] = whole(episode.get(prefix + name))
                except ValueError as error:
                    where = f"{self.path / layout.EPISODES_FOLDER}: episode {number}"
                    raise UserError(f"{where}: {prefix + name}: {error}", RESTORE) from error
        return pattern_file(self.path, self.info, pattern, values)
