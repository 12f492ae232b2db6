"""Shards as a LeRobotDataset v3.0: parquet tables and H.264 videos, many episodes a file.

Every file holds 64 episodes. The table of a file's episodes is written last, so one that is there says that the others
are whole: a conversion that was stopped goes on after it. Rows: T an episode, with the action taken at each frame; the
last frame's is the one that the source of a converted episode had there, or the one before again.
Simulator states and camera matrices have no place in that format and are left out, as are subtasks and texts in time.
Pages of tables carry checksums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.lerobot import layout
from wovr.data.converters.lerobot.kept import Kept, KeptRow
from wovr.data.converters.lerobot.stats import Stats, column_stats, frames_stats, merge_stats
from wovr.data.converters.source import need
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.video import Coding, VideoFile
from wovr.runs import atomic_write, write_json
from wovr.types import Episode

FILE_EPISODES = 64

_PIXELS = "yuv444p"  # half the colour resolution costs 15 dB on small pictures of small coloured things
CODING = Coding(
    "libx264",
    _PIXELS,
    {
        "preset": "veryfast",
        "crf": "12",
        "x264-params": "threads=1:keyint=8:min-keyint=8:scenecut=0:open-gop=0:bframes=0:force-cfr=1"
        ":fps=10:no-psy=1:aq-mode=0:mbtree=0:log=-1",
    },
)
"""Players show it, and `lerobot` decodes any frame of it after seven others at most."""


class LeRobotWriter:
    """Writes one data set.

    Args:
        store: The episodes; one folder.
        out: Folder of the LeRobotDataset.

    Attributes:
        camera: Feature of the frames, `observation.images.NAME`.
        features: As `info.json` has them.

    Raises:
        UserError: pyarrow is missing, or the stored conversion is not one.
    """

    def __init__(self, store: EpisodeStore, out: Path) -> None:
        self.store = store
        self.out = out
        self.pyarrow = need("pyarrow", "writing LeRobot data sets")
        self.parquet = need("pyarrow.parquet", "writing LeRobot data sets")
        self.kept = Kept.of(store.datasets[0].get("extra", {}), store.proprio_dim, store.folders[0])
        self.range = store.action_range
        self.fps = float(store.datasets[0]["fps"])
        self.camera = self.kept.camera
        self.features = self._features()
        self.instructions = _instructions(store)

    def write(self, on_episode: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Write what is missing.

        Args:
            on_episode: Called after each episode, those included that are there already.

        Returns:
            What `info.json` says.

        Raises:
            UserError: An episode is damaged, or the disk is full.
        """
        first_row = 0
        for number, first in enumerate(range(0, len(self.store), FILE_EPISODES)):
            indices = range(first, min(first + FILE_EPISODES, len(self.store)))
            if self._path(layout.EPISODES, number).exists():
                for _ in indices:
                    on_episode()
            else:
                self._write_files(number, indices, first_row, on_episode)
            first_row += sum(self.store.entries[index].num_frames for index in indices)
        self._write_tasks()
        write_json(self.out / layout.STATS, self._stats())
        info = self._info(first_row)
        write_json(self.out / layout.INFO, info)
        return info

    def rows(self, episode: Episode) -> dict[str, np.ndarray]:
        """The columns of an episode that are not counters: action, labels, proprioception."""
        actions = episode.actions if self.range is None else self.range.invert(episode.actions)
        kept = KeptRow.of(episode.meta.extra, actions.shape[1], f"{self.store.folders[0]}: {episode.key}")
        is_known = self.kept.taken and kept.is_last and kept.unused is not None
        actions = np.concatenate([actions, kept.unused if is_known else actions[-1:]])
        labels = np.append(episode.success[1:], episode.success[-1])
        if kept.labels is not None and kept.is_last:
            labels[-2:] = kept.labels
        columns = {layout.ACTION: actions, layout.NEXT_SUCCESS: labels}
        if layout.STATE in self.features:
            assert episode.proprio is not None
            order = self.kept.order
            columns[layout.STATE] = episode.proprio[:, np.argsort(order)] if order else episode.proprio
        if layout.CALIBRATION in self.features:
            columns[layout.CALIBRATION] = np.ascontiguousarray(episode.signals["camera"])
        return columns

    def _write_files(self, number: int, indices: range, first_row: int, on_episode: Callable[[], None]) -> None:
        """Video, table, and list of episodes of one file."""
        tables: list[dict[str, np.ndarray]] = []
        episodes: list[dict[str, Any]] = []
        row = first_row
        with atomic_write(self._path(layout.VIDEOS, number)) as file:
            height, width = self.store.image_size
            with VideoFile(file, self.fps, (height, width), CODING) as video:
                for index in indices:
                    episode = self.store.read(index)
                    video.add(episode.frames)
                    columns = self._counted(episode, index, row)
                    stats = {key: column_stats(values) for key, values in columns.items()}
                    stats[self.camera] = frames_stats(episode.frames)
                    start = (row - first_row) / self.fps
                    tables.append(columns)
                    episodes.append(self._listed(episode, index, number, row, start, stats))
                    row += len(episode.frames)
                    on_episode()
        self._write_table(layout.DATA, number, self._data_table(tables))
        self._write_table(layout.EPISODES, number, self.pyarrow.Table.from_pylist(episodes))

    def _counted(self, episode: Episode, index: int, row: int) -> dict[str, np.ndarray]:
        """All columns of an episode; `row` is that of its first frame."""
        length = len(episode.frames)
        steps = np.arange(length)
        task = self.instructions.index(episode.meta.instruction)
        return {
            **self.rows(episode),
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, index),
            "index": row + steps,
            "task_index": np.full(length, task),
        }

    def _listed(
        self, episode: Episode, index: int, number: int, row: int, start: float, stats: dict[str, Stats]
    ) -> dict[str, Any]:
        """What the list of episodes says of one."""
        length = len(episode.frames)
        place = {"chunk_index": number // layout.FILES_PER_CHUNK, "file_index": number % layout.FILES_PER_CHUNK}
        listed: dict[str, Any] = {
            "episode_index": index,
            "tasks": [episode.meta.instruction],
            "length": length,
            "dataset_from_index": row,
            "dataset_to_index": row + length,
        }
        for prefix in ("data", f"videos/{self.camera}", "meta/episodes"):
            listed |= {f"{prefix}/{name}": value for name, value in place.items()}
        listed[f"videos/{self.camera}/from_timestamp"] = start
        listed[f"videos/{self.camera}/to_timestamp"] = start + length / self.fps
        for key, values in stats.items():
            listed |= {f"stats/{key}/{name}": value.tolist() for name, value in values.items()}
        return listed

    def _data_table(self, tables: Sequence[dict[str, np.ndarray]]) -> Any:
        pyarrow = self.pyarrow
        columns = {}
        for key in tables[0]:
            values = np.concatenate([table[key] for table in tables])
            flat = pyarrow.array(np.ascontiguousarray(values).ravel())
            wide = self.features[key]["shape"][0] > 1
            columns[key] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
        return pyarrow.table(columns)

    def _write_tasks(self) -> None:
        """`tasks.parquet`, as pandas writes a table whose index is the instruction; without pandas."""
        index = "__index_level_0__"
        table = self.pyarrow.table({"task_index": list(range(len(self.instructions))), index: self.instructions})

        def described(name: str | None, place: str, kind: str, numpy_kind: str) -> dict[str, Any]:
            return {"name": name, "field_name": place, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}

        pandas = {
            "index_columns": [index],
            "column_indexes": [],
            "columns": [
                described("task_index", "task_index", "int64", "int64"),
                described(None, index, "unicode", "object"),
            ],
            "creator": {"library": "wovr", "version": "1"},
            "pandas_version": "2.0.0",
        }
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
        with atomic_write(self.out / layout.TASKS) as file:
            self.parquet.write_table(table, file, write_page_checksum=True)

    def _stats(self) -> dict[str, Any]:
        """Statistics over all episodes, from the lists of episodes."""
        parts: dict[str, list[Stats]] = {key: [] for key in self.features}
        for number in range(-(-len(self.store) // FILE_EPISODES)):
            for listed in self.parquet.read_table(self._path(layout.EPISODES, number)).to_pylist():
                for key, found in parts.items():
                    prefix = f"stats/{key}/"
                    names = [name for name in listed if name.startswith(prefix)]
                    found.append({name.removeprefix(prefix): np.asarray(listed[name]) for name in names})
        merged = {key: merge_stats(found) for key, found in parts.items()}
        return {key: {name: value.tolist() for name, value in stats.items()} for key, stats in merged.items()}

    def _features(self) -> dict[str, dict[str, Any]]:
        names = self.kept.names
        height, width = self.store.image_size
        features: dict[str, dict[str, Any]] = {
            self.camera: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": _PIXELS,
                    "video.is_depth_map": False,
                    "video.fps": _whole(self.fps),
                    "video.channels": 3,
                    "has_audio": False,
                },
            },
            layout.ACTION: _vector(self.store.action_dim, names.get(layout.ACTION)),
            layout.NEXT_SUCCESS: {"dtype": "bool", "shape": [1], "names": None},
        }
        if self.store.proprio_dim:
            features[layout.STATE] = _vector(self.store.proprio_dim, names.get(layout.STATE))
        if self.store.has_cameras:
            features[layout.CALIBRATION] = _vector(self.store.signal_dims["camera"], None)
        return features | layout.COUNTERS

    def _info(self, frames: int) -> dict[str, Any]:
        return {
            "codebase_version": layout.VERSION,
            "robot_type": self.kept.robot_type,
            "total_episodes": len(self.store),
            "total_frames": frames,
            "total_tasks": len(self.instructions),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": _whole(self.fps),
            "splits": {"train": f"0:{len(self.store)}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEOS,
            "features": self.features,
        }

    def _write_table(self, pattern: str, number: int, table: Any) -> None:
        with atomic_write(self._path(pattern, number)) as file:
            self.parquet.write_table(table, file, write_page_checksum=True)

    def _path(self, pattern: str, number: int) -> Path:
        chunk, file = divmod(number, layout.FILES_PER_CHUNK)
        return self.out / pattern.format(chunk_index=chunk, file_index=file, video_key=self.camera)


def _instructions(store: EpisodeStore) -> list[str]:
    """All instructions, in the order of suites and tasks; an index into them is LeRobot's task."""
    found = sorted((entry.meta.suite, entry.meta.task, entry.meta.instruction) for entry in store.entries)
    return list(dict.fromkeys(instruction for _, _, instruction in found))


def _vector(dim: int, names: Any) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [dim], "names": names}


def _whole(fps: float) -> float | int:
    return int(fps) if fps == int(fps) else fps
