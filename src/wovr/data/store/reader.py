"""Random access to stored episodes: shards are indexed once by their headers, members are read by offset.

When a store is opened, every shard is held against its SHA-256 and dataset.json against what the shards hold (schema
versions, lengths, action dimensions, counts); what needs the values is checked when they are read. Whatever is broken
is named: shard, key, field.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.store.arrays import actions_shape, array_header, decode_array
from wovr.data.store.dataset import check_agreement, check_counts, check_shard_file, check_shards, read_dataset
from wovr.data.store.entry import EpisodeEntry
from wovr.data.store.members import (
    OPTIONAL_ARRAYS,
    check_actions,
    check_image_size,
    check_optional,
    check_optional_header,
    check_success,
    decode_episode,
    decode_meta,
    decode_success,
    remedy_of,
    take_off_mark,
)
from wovr.data.store.seals import check_sums
from wovr.data.store.shards import DATASET_FILE
from wovr.data.store.statistics import ActionStatistics
from wovr.data.store.tar_index import RESTORE, OpenShards, Place, scan_shard
from wovr.data.store.video import decode_pieces
from wovr.errors import UserError
from wovr.functional.cameras import CAMERA_SHAPE
from wovr.runs import fingerprint
from wovr.types import Clip, Episode

_HEADER_BYTES = 256  # of an .npy file; numpy pads its header to 128 for arrays of few dimensions


class EpisodeStore:
    """The episodes of one or several folders, by index.

    Travels into DataLoader workers (forked or spawned): files are opened where they are read. Not for several threads
    at once.

    Args:
        folders: Folders with shards and `dataset.json`; they must agree in image size and in what an action does.
        only: Shards whose episodes are wanted; None for all. The others are looked for and left unread.

    Attributes:
        folders: The folders.
        datasets: What their `dataset.json` say.
        entries: The episodes, folder by folder, shard by shard.
        image_size: (H, W).
        action_dim: A.
        action_range: What -1 and 1 are in the units of whoever recorded them; None where no folder says.
        action_repeat: Times that each action was executed in a simulator; None where no folder says.

    Raises:
        UserError: A folder or file is missing, unfinished, broken, or does not agree with the others.
    """

    def __init__(self, *folders: Path | str, only: Collection[Path] | None = None) -> None:
        if not folders:
            raise UserError("no data folder given", "name at least one folder with episodes")
        self.folders = [Path(folder) for folder in folders]
        self._files = OpenShards()
        self._unchecked: list[tuple[Path, str]] = []  # shards that no frames were read of, and their SHA-256
        self.datasets = [read_dataset(folder) for folder in self.folders]
        self.action_range, self.action_repeat = check_agreement(self.folders, self.datasets)
        height, width = self.datasets[0]["image_size"]
        self.image_size: tuple[int, int] = (height, width)
        self.action_dim: int = self.datasets[0]["action_dim"]
        self.whole = only is None
        self.entries: list[EpisodeEntry] = []
        for folder, dataset in zip(self.folders, self.datasets, strict=True):
            chosen = [shard for shard in dataset["shards"] if only is None or folder / shard["file"] in only]
            check_shards(folder, dataset, chosen)
            entries = [entry for shard in chosen for entry in self._index(folder, dataset, shard)]
            if self.whole:
                check_counts(folder, dataset, [entry.record for entry in entries])
            self.entries += entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OpenShards()}

    def part(self, shard: Path) -> EpisodeStore:
        """The episodes of one of the shards, whether or not they are among these.

        Its headers are read now; it is held against its SHA-256 before the first of its frames is.

        Raises:
            UserError: It is missing or broken.
        """
        folder, dataset, listed = self._listed[shard]
        check_shard_file(shard, listed)
        found = copy.copy(self)
        found.__dict__.pop("proprio_dim", None)
        found._files = self._files  # together: there may be more parts than files can be open
        found._unchecked, found.whole = [(shard, listed["sha256"])], False
        found.entries = list(found._index(folder, dataset, listed))
        return found

    @cached_property
    def _listed(self) -> dict[Path, tuple[Path, dict[str, Any], dict[str, Any]]]:
        """Every shard -> its folder, and what `dataset.json` says of the folder and of it."""
        return {
            folder / shard["file"]: (folder, dataset, shard)
            for folder, dataset in zip(self.folders, self.datasets, strict=True)
            for shard in dataset["shards"]
        }

    @cached_property
    def action_statistics(self) -> ActionStatistics:
        """Statistics of all actions: one folder's as stored, several folders' counted together."""
        stored = [ActionStatistics.from_json(dataset["action_statistics"]) for dataset in self.datasets]
        if len(stored) == 1:
            return stored[0]
        if not self.whole:
            return ActionStatistics.pooled(stored)
        return ActionStatistics.of(self.actions(index) for index in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for the contents, from the `dataset.json` of all folders."""
        return fingerprint(self.datasets)

    def read(self, index: int) -> Episode:
        """A whole episode, every value of it checked.

        Raises:
            UserError: A member is damaged or breaks the format.
        """
        entry = self.entries[index]
        self._check_first()
        with _naming(entry):
            members = {field: self._files.read(entry.shard, place) for field, place in entry.places.items()}
            episode = decode_episode(entry.key, members, self.image_size)
            check_actions(episode.actions, entry.num_frames, self.action_dim)
            check_image_size(episode.frames, self.image_size)
        return episode

    def frames(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames start .. stop - 1 of an episode, decoded without the rest of it.

        Args:
            index: Episode.
            start: First frame.
            stop: One past the last; None for the end.

        Returns:
            (stop - start, H, W, 3) uint8.

        Raises:
            UserError: The frames are damaged or have another size than `dataset.json` says.
        """
        return self._frame_pieces(index, [(start, stop)])[0]

    def actions(self, index: int) -> np.ndarray:
        """(T - 1, A) float32 in [-1, 1], the actions of an episode.

        Raises:
            UserError: They are damaged, of another shape, out of range or not finite.
        """
        entry = self.entries[index]
        with _naming(entry):
            actions = decode_array("actions.npy", self._files.read(entry.shard, entry.places["actions.npy"]))
            check_actions(actions, entry.num_frames, self.action_dim)
        return actions

    def success(self, index: int) -> np.ndarray:
        """(T,) bool, the success predicate on each frame.

        `entries[index].succeeded` is its `any`, except for a piece of a demonstration that succeeded in another piece:
        it shares that outcome though no frame of it satisfies the predicate.

        Raises:
            UserError: It is damaged.
        """
        entry = self.entries[index]
        with _naming(entry):
            success = decode_array("success.npy", self._files.read(entry.shard, entry.places["success.npy"]))
            check_success(success, entry.num_frames)
        return take_off_mark(success, entry.meta)

    def sim_state(self, index: int) -> np.ndarray | None:
        """(T, S) float64, the simulator's state at each frame of an episode, or None where it holds none.

        Raises:
            UserError: It is damaged.
        """
        return self._optional(index, "sim_state")

    def proprio(self, index: int) -> np.ndarray | None:
        """(T, P) float32, what the robot knew of itself at each frame of an episode, or None where it holds none.

        Raises:
            UserError: It is damaged or not finite.
        """
        return self._optional(index, "proprio")

    def camera(self, index: int) -> np.ndarray | None:
        """(T, 3, 7) float32, the camera at each frame of an episode, (1, 3, 7) where it stands still; None where none.

        Raises:
            UserError: It is damaged, or no camera.
        """
        return self._optional(index, "camera")

    @cached_property
    def has_cameras(self) -> bool:
        """Whether every episode holds its camera."""
        return all("camera.npy" in entry.places for entry in self.entries)

    @cached_property
    def proprio_dim(self) -> int:
        """P if every episode has proprioception of one and the same P, else 0. Reads headers, at the first use."""
        if not all("proprio.npy" in entry.places for entry in self.entries):
            return 0
        dims = {self._header(entry, "proprio.npy")[0][1] for entry in self.entries}
        return dims.pop() if len(dims) == 1 else 0

    @property
    def signal_dims(self) -> dict[str, int]:
        """Numbers, at each frame, of what all episodes hold beside frames and actions, by name."""
        found = {"proprio": self.proprio_dim} if self.proprio_dim else {}
        return found | ({"camera": math.prod(CAMERA_SHAPE)} if self.has_cameras else {})

    def signals(self, index: int) -> dict[str, np.ndarray]:
        """What an episode holds beside frames and actions, of `signal_dims`: (T, P) float32 each, by name.

        Raises:
            UserError: It is damaged.
        """
        found = {name: self._optional(index, name) for name in self.signal_dims}
        length = self.entries[index].num_frames
        return {
            name: np.broadcast_to(values.reshape(len(values), -1), (length, self.signal_dims[name]))
            for name, values in found.items()
            if values is not None
        }

    def first_signals(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """The same at the first frames of some episodes: (N, P) float32 each.

        Raises:
            UserError: It is damaged.
        """
        found = [self.signals(index) for index in indices]
        return {name: np.stack([values[name][0] for values in found]) for name in self.signal_dims}

    def encoded_video(self, index: int) -> bytes:
        """The bytes of an episode's video.

        Raises:
            UserError: The episode holds its frames without loss, not as video.
        """
        entry = self.entries[index]
        if "frames.mp4" not in entry.places:
            raise UserError(f"{entry.shard}: episode {entry.key}: frames.mp4: missing", "use episodes stored as video")
        self._check_first()
        return self._files.read(entry.shard, entry.places["frames.mp4"])

    def clip(self, index: int, start: int, length: int) -> Clip:
        """A training window with the episode's first frame as its reference.

        Args:
            index: Episode.
            start: First frame of the window.
            length: Frames of the window, L.

        Raises:
            UserError: Something of it is damaged.
        """
        entry = self.entries[index]
        window = (start, start + length)
        if start == 0:
            frames = self.frames(index, *window)
            reference = frames[0]
        else:
            first, frames = self._frame_pieces(index, [(0, 1), window])
            reference = first[0]
        return Clip(
            frames=frames,
            actions=self.actions(index)[start : start + length - 1],
            success=self.success(index)[start : start + length],
            reference=reference,
            key=entry.key,
            start=start,
            meta=entry.meta,
        )

    def _optional(self, index: int, name: str) -> np.ndarray | None:
        """One of OPTIONAL_ARRAYS, None where the episode holds none."""
        entry = self.entries[index]
        place = entry.places.get(f"{name}.npy")
        if place is None:
            return None
        with _naming(entry):
            array = decode_array(f"{name}.npy", self._files.read(entry.shard, place))
            check_optional(name, array, entry.num_frames)
        return array

    def _header(self, entry: EpisodeEntry, field: str) -> tuple[tuple[int, ...], np.dtype, int]:
        """Shape, dtype and offset of the values of a member."""
        place = entry.places[field]
        head = self._files.read(entry.shard, Place(place.offset, min(place.size, _HEADER_BYTES)))
        return array_header(field, head)

    def _frame_pieces(self, index: int, pieces: Sequence[tuple[int, int | None]]) -> list[np.ndarray]:
        entry = self.entries[index]
        self._check_first()
        with _naming(entry):
            if "frames.npy" in entry.places:
                found = [self._raw_frames(entry, start, stop) for start, stop in pieces]
            else:
                data = self._files.read(entry.shard, entry.places["frames.mp4"])
                try:
                    found = decode_pieces(data, pieces, self.image_size, entry.num_frames)
                except ValueError as error:
                    raise ValueError(f"frames.mp4: {error}") from error
            for frames in found:
                check_image_size(frames, self.image_size)
        return found

    def _check_first(self) -> None:
        if self._unchecked:
            check_sums(self._unchecked)
            self._unchecked = []

    def _raw_frames(self, entry: EpisodeEntry, start: int, stop: int | None) -> np.ndarray:
        """Rows of `frames.npy`, read without the others."""
        place = entry.places["frames.npy"]
        shape, dtype, skip = self._header(entry, "frames.npy")
        stop = entry.num_frames if stop is None else stop
        row = math.prod(shape[1:])
        whole = (entry.num_frames, *self.image_size, 3)
        if dtype != np.uint8 or shape != whole or skip + shape[0] * row != place.size:
            raise ValueError(f"frames.npy: {dtype} {shape} in {place.size} bytes, must be uint8 {whole}")
        if not 0 <= start < stop <= shape[0]:
            raise ValueError(f"frames.npy: frames {start} to {stop} are not in {dtype} {shape}, {place.size} bytes")
        data = self._files.read(entry.shard, Place(place.offset + skip + start * row, (stop - start) * row))
        return np.frombuffer(data, np.uint8).reshape(stop - start, *shape[1:]).copy()

    def _index(self, folder: Path, dataset: dict[str, Any], shard: dict[str, Any]) -> Iterator[EpisodeEntry]:
        path = folder / shard["file"]
        samples = scan_shard(path)
        if len(samples) != shard["episodes"]:
            raise UserError(f"{path}: {len(samples)} episodes, {DATASET_FILE} says {shard['episodes']}", RESTORE)
        for key, places in samples.items():
            try:
                meta = decode_meta(self._files.read(path, places["meta.json"]))
                success = decode_success(self._files.read(path, places["success.npy"]))
                place = places["actions.npy"]
                head = self._files.read(path, Place(place.offset, min(place.size, _HEADER_BYTES)))
                num_actions, action_dim = actions_shape(head)
                if num_actions != len(success) - 1:
                    raise ValueError(f"actions: {num_actions} of them for {len(success)} frames")
                if action_dim != self.action_dim:
                    raise ValueError(f"actions: {action_dim} dimensions, {DATASET_FILE} says {self.action_dim}")
                for name in OPTIONAL_ARRAYS:
                    if (there := places.get(f"{name}.npy")) is not None:
                        head = self._files.read(path, Place(there.offset, min(there.size, _HEADER_BYTES)))
                        check_optional_header(name, head, there.size, len(success))
                if meta.fps != dataset["fps"]:
                    raise ValueError(f"meta: {meta.fps:g} fps, {DATASET_FILE} says {dataset['fps']:g}")
            except ValueError as error:
                raise UserError(f"{path}: episode {key}: {error}", remedy_of(error)) from error
            succeeded = bool(success.any()) or meta.shares_success
            yield EpisodeEntry(key, path, len(success), action_dim, meta, succeeded, places)


@contextmanager
def _naming(entry: EpisodeEntry) -> Iterator[None]:
    """Add shard and key to what is found wrong inside."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{entry.shard}: episode {entry.key}: {error}", remedy_of(error)) from error
