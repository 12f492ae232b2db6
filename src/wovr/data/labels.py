"""The frame from which an episode succeeds, given by hand: answers kept as they come, then put into a new data set.

`labels/labels.json` beside the shards holds the answers and the fingerprint of the data they belong to; it is written
whole after every answer. Applying them copies every other byte of an episode, its video included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wovr.data.pictures import Cell, SheetRow, draw_sheet
from wovr.data.store.entry import demonstration_of
from wovr.data.store.members import FIELDS, encode_episode
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import complete_shards, finish_dataset, shard_path, write_shard
from wovr.data.store.tar_index import read_member
from wovr.errors import UserError
from wovr.runs import read_json, write_json
from wovr.types import Episode

LABELS_FOLDER = "labels"
LABELS_FILE = "labels.json"

_SHARD_EPISODES = 64


class Labels:
    """The answers of one data set.

    Args:
        store: The episodes; one folder.
        path: Where the answers are kept.

    Attributes:
        frames: Key -> first frame that succeeds, or None where none does.

    Raises:
        UserError: The answers that are there belong to other data.
    """

    def __init__(self, store: EpisodeStore, path: Path) -> None:
        self.store = store
        self.path = path
        self.frames: dict[str, int | None] = {}
        if path.exists():
            self._load()

    def waiting(self) -> list[int]:
        """Episodes without an answer, in order."""
        return [index for index, entry in enumerate(self.store.entries) if entry.key not in self.frames]

    def give(self, index: int, frame: int | None) -> None:
        """Keep an answer, on disk at once.

        Args:
            index: Episode.
            frame: The first frame that succeeds; None where none does.

        Raises:
            UserError: The episode has no such frame, or the disk is full.
        """
        entry = self.store.entries[index]
        if frame is not None and not 0 <= frame < entry.num_frames:
            raise UserError(f"{entry.key}: no frame {frame}", f"give 0 to {entry.num_frames - 1}, or none")
        self.frames[entry.key] = frame
        write_json(self.path, {"data": self.store.fingerprint, "frames": self.frames})

    def take_back(self) -> int | None:
        """Forget the answer given last in the order of episodes; its episode, or None where there is none."""
        given = [index for index, entry in enumerate(self.store.entries) if entry.key in self.frames]
        if not given:
            return None
        del self.frames[self.store.entries[given[-1]].key]
        write_json(self.path, {"data": self.store.fingerprint, "frames": self.frames})
        return given[-1]

    def success(self, index: int) -> np.ndarray:
        """(T,) bool, False before the frame given and True from it on."""
        entry = self.store.entries[index]
        frame = self.frames[entry.key]
        return np.arange(entry.num_frames) >= (entry.num_frames if frame is None else frame)

    def shares_success(self, index: int) -> bool:
        """True where no frame of a piece succeeds, but one of another piece of the same demonstration does."""
        if self.success(index).any():
            return False
        pieces = self._pieces[demonstration_of(self.store.entries[index])]
        return any(self.success(piece).any() for piece in pieces if piece != index)

    @cached_property
    def _pieces(self) -> dict[str, list[int]]:
        """Demonstration -> the episodes that are its pieces."""
        found: dict[str, list[int]] = {}
        for index, entry in enumerate(self.store.entries):
            found.setdefault(demonstration_of(entry), []).append(index)
        return found

    def _load(self) -> None:
        value = read_json(self.path)
        remedy = "move this file away to begin anew"
        if not isinstance(value, dict) or not isinstance(value.get("frames"), dict):
            raise UserError(f"{self.path}: not a list of labels", remedy)
        if value.get("data") != self.store.fingerprint:
            raise UserError(f"{self.path}: these labels belong to other data", remedy)
        lengths = {entry.key: entry.num_frames for entry in self.store.entries}
        for key, frame in value["frames"].items():
            whole = isinstance(frame, int) and not isinstance(frame, bool) and 0 <= frame < lengths.get(key, 0)
            if key not in lengths or not (frame is None or whole):
                raise UserError(f"{self.path}: {key}: {frame} is no frame of it", remedy)
        self.frames = value["frames"]


def apply_labels(labels: Labels, out: Path, on_episode: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Write the labelled episodes as a new data set.

    Args:
        labels: An answer for every episode.
        out: Folder of the new data set; shards that are there already are kept.
        on_episode: Called after each episode.

    Returns:
        What `dataset.json` says.

    Raises:
        UserError: An episode has no answer or is damaged, or the disk is full.
    """
    store = labels.store
    waiting = labels.waiting()
    if waiting:
        key = store.entries[waiting[0]].key
        raise UserError(
            f"{labels.path}: {len(waiting)} of {len(store)} episodes have no label, the first is {key}",
            "label them first: the same command without --out",
        )
    there = complete_shards(out, "labelled")
    for shard, first in enumerate(range(0, len(store), _SHARD_EPISODES)):
        members = []
        for index in range(first, min(first + _SHARD_EPISODES, len(store))):
            if shard not in there:
                members.append(_relabelled(labels, index))
            on_episode()
        if members:
            write_shard(shard_path(out, "labelled", shard), members)
    extra = {**store.datasets[0].get("extra", {}), "labelled": {"by": "hand", "data": store.fingerprint}}
    return finish_dataset(out, **extra)


def _relabelled(labels: Labels, index: int) -> dict[str, bytes]:
    """The members of an episode with another success.npy; frames, actions and the rest byte for byte."""
    store = labels.store
    entry = store.entries[index]
    with entry.shard.open("rb") as file:
        stored = {field: read_member(file, place) for field, place in entry.places.items()}
    extra = {**entry.meta.extra, "success": "labelled by hand", "shares_success": labels.shares_success(index)}
    # What its source said of the last frames is said by hand now.
    meta = dataclasses.replace(entry.meta, extra={k: v for k, v in extra.items() if v and k != "last_labels"})
    # An episode of one-pixel frames stands in for the frames, which need not be decoded to be kept.
    blank = np.zeros((entry.num_frames, 1, 1, 3), np.uint8)
    small = Episode(entry.key, blank, store.actions(index), labels.success(index), meta)
    made = encode_episode(small, lossless=True)
    fresh = {field: made[f"{entry.key}.{field}"] for field in ("success.npy", "meta.json")}
    merged = {**stored, **fresh}
    return {f"{entry.key}.{field}": merged[field] for field in FIELDS if field in merged}


def frame_sheet(frames: np.ndarray, most: int = 48, columns: int = 8) -> Image.Image:
    """A picture of an episode's frames with their numbers: all of them, or `most` evenly spaced, the last included.

    Args:
        frames: (T, H, W, 3) uint8.
        most: Frames shown at most.
        columns: Frames in a row.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    cells = [Cell(frames[number], label=str(number)) for number in shown]
    rows = [SheetRow(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return draw_sheet(rows, frames.shape[1:3])
