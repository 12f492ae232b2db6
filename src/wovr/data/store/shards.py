"""Episodes to shards: `NAME-%06d.tar`, one sample an episode, and `dataset.json` that counts and seals them.

Several processes may write different shards of one folder at once. A shard appears whole or not at all, with a hidden
record beside it (`.NAME-000003.tar.json`: size, SHA-256, what is inside). A shard whose record is missing, because its
writer was killed between the two or because `finish_dataset` has already merged it, is whole all the same and counted
anew. `complete_shards` is what a collector resumes from; `finish_dataset` merges the records and removes them and
whatever half-written files killed writers left.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarFile
from typing import IO, Any

import numpy as np

from wovr.data.store.arrays import actions_shape, array_header, decode_array
from wovr.data.store.members import (
    check_actions,
    decode_meta,
    decode_success,
    encode_episode,
    remedy_of,
)
from wovr.data.store.seals import sealed
from wovr.data.store.statistics import ActionStatistics
from wovr.data.store.tar_index import RESTORE, add_members, open_tar, read_member, scan_shard
from wovr.data.store.video import video_shape
from wovr.errors import UserError
from wovr.runs import atomic_write, file_sha256, read_json, write_json
from wovr.types import SCHEMA_VERSION, Episode, EpisodeMeta

__all__ = [
    "DATASET_FILE",
    "EpisodeRecord",
    "ShardRecord",
    "complete_shards",
    "encode_episode",
    "finish_dataset",
    "shard_path",
    "summarise",
    "write_shard",
]

DATASET_FILE = "dataset.json"

_KEEP_APART = "keep episodes of different kinds in different folders"
_SHARD_NAME = re.compile(r"(?P<name>.+)-(?P<index>\d{6})\.tar")


@dataclass(frozen=True)
class EpisodeRecord:
    """What is counted of an episode.

    Attributes:
        key: Its key.
        suite: Suite name.
        task: Index of the task.
        instruction: What the policy was told.
        frames: Its length.
        succeeded: Any frame satisfies the success predicate, or it is a piece of a demonstration that succeeded.
    """

    key: str
    suite: str
    task: int
    instruction: str
    frames: int
    succeeded: bool

    @classmethod
    def of(cls, key: str, meta: EpisodeMeta, success: np.ndarray) -> EpisodeRecord:
        """Count an episode; `success` is (T,) bool."""
        return cls(
            key, meta.suite, meta.task, meta.instruction, len(success), bool(success.any()) or meta.shares_success
        )


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a whole shard.

    Attributes:
        file: Its name in the folder.
        bytes: Its size.
        sha256: Of its bytes, 64 hexadecimal digits.
        image_size: (H, W) of the frames.
        action_dim: Dimensions of an action, A.
        fps: Control rate, Hz.
        episodes: Its episodes, in order.
    """

    file: str
    bytes: int
    sha256: str
    image_size: tuple[int, int]
    action_dim: int
    fps: float
    episodes: tuple[EpisodeRecord, ...]


def shard_path(folder: Path, name: str, index: int) -> Path:
    """`folder/NAME-000007.tar`."""
    return folder / f"{name}-{index:06d}.tar"


def write_shard(
    path: Path, episodes: Iterable[Episode | Mapping[str, bytes]], *, lossless: bool = False
) -> ShardRecord:
    """Write one shard, whole or not at all; the same episodes give the same bytes.

    Each episode is encoded and written as it is taken and then let go of: one at a time is held.

    Args:
        path: `folder/NAME-000007.tar`; the folder is made when missing, an older shard of that name is replaced.
        episodes: Episodes, or what `encode_episode` made of them, may be made as they are taken; at least one, with
            keys that differ and images and actions of one size.
        lossless: How to encode those that are not encoded yet.

    Returns:
        What is counted of the shard.

    Raises:
        UserError: An episode breaks the format, or the disk is full.
    """
    if not _SHARD_NAME.fullmatch(path.name):
        raise UserError(f"{path}: not a shard's name", "name it NAME-000000.tar")
    with atomic_write(path) as file:
        counter = _HashingFile(file)
        with open_tar(counter) as tar:  # type: ignore[arg-type]
            record = _count(path, _written(path, tar, episodes, lossless))
        # First the old record, then the shard, then its record: a record that is there always belongs to its shard.
        _record_path(path).unlink(missing_ok=True)
    record = dataclasses.replace(record, bytes=counter.size, sha256=counter.digest.hexdigest())
    write_json(_record_path(path), dataclasses.asdict(record))
    return record


def _written(
    path: Path, tar: TarFile, episodes: Iterable[Episode | Mapping[str, bytes]], lossless: bool
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Write episodes one by one; yields key and members (by field) of each when it is written."""
    keys: set[str] = set()
    for episode in episodes:
        encoded = encode_episode(episode, lossless=lossless) if isinstance(episode, Episode) else episode
        add_members(tar, encoded)
        for key, fields in _by_key(encoded).items():
            if key in keys:
                raise UserError(f"{path}: episode {key} twice", "give every episode of a shard its own key")
            keys.add(key)
            yield key, fields


def complete_shards(folder: Path, name: str) -> dict[int, ShardRecord]:
    """Which shards of a collection are on disk, whole.

    Args:
        folder: Where they are; need not exist.
        name: The collection's name, as in `NAME-%06d.tar`.

    Returns:
        Index -> what is counted of the shard, in order.

    Raises:
        UserError: A shard that something else than a killed writer has damaged.
    """
    found, listed = {}, _listed_sums(folder)
    for path in _shards(folder):
        match = _SHARD_NAME.fullmatch(path.name)
        if match and match["name"] == name:
            found[int(match["index"])] = _load_record(path, listed)
    return found


def finish_dataset(folder: Path, **extra: Any) -> dict[str, Any]:
    """Count the shards of a folder and write `dataset.json`, which readers hold them against.

    All writers must have ended. The same shards give the same bytes: no times, no paths.

    Args:
        folder: The folder; all its `*.tar` are shards of the data set.
        extra: Further JSON values to keep under `extra`.

    Returns:
        What was written.

    Raises:
        UserError: No shard, a broken one, one key in two shards, sizes that disagree, or the disk is full.
    """
    paths = _shards(folder)
    if not paths:
        raise UserError(f"{folder}: holds no shard", "collect episodes into it: wovr collect --out DIR")
    listed = _listed_sums(folder)
    records = [_load_record(path, listed) for path in paths]
    _check_agreement(folder, records)
    statistics = ActionStatistics.of(actions for path in paths for actions in _shard_actions(path))
    episodes = [episode for record in records for episode in record.episodes]
    values = {
        "schema_version": SCHEMA_VERSION,
        **summarise(episodes, statistics),
        "image_size": list(records[0].image_size),
        "action_dim": records[0].action_dim,
        "fps": records[0].fps,
        "shards": [
            {
                "file": record.file,
                "bytes": record.bytes,
                "sha256": record.sha256,
                "episodes": len(record.episodes),
                "frames": sum(episode.frames for episode in record.episodes),
            }
            for record in records
        ],
        "extra": extra,
    }
    dataset = sealed(values)
    write_json(folder / DATASET_FILE, dataset)
    for path in paths:
        _record_path(path).unlink(missing_ok=True)
    for leftover in (*folder.glob(".*.tar.*.tmp"), *folder.glob(f".{DATASET_FILE}.*.tmp")):
        leftover.unlink(missing_ok=True)
    return dataset


def summarise(episodes: Sequence[EpisodeRecord], statistics: ActionStatistics) -> dict[str, Any]:
    """The part of `dataset.json` that is counted from the episodes: totals, suites with their tasks, statistics."""
    return {**count_episodes(episodes), "action_statistics": statistics.to_json()}


def count_episodes(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """The part of it that needs no actions: totals, suites with their tasks."""
    frames = sum(episode.frames for episode in episodes)
    return {**_tally(episodes), "frames": frames, "suites": _by_suite(episodes)}


class _HashingFile:
    """A file that counts and hashes what is written to it, so that a shard need not be read again.

    Args:
        file: Where the bytes go.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        """Bytes written."""
        return self.size


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _listed_sums(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of each shard that an earlier `dataset.json` lists; empty where there is none to read."""
    try:
        return {shard["file"]: shard["sha256"] for shard in read_json(folder / DATASET_FILE)["shards"]}
    except (UserError, KeyError, TypeError):
        return {}


def _load_record(path: Path, listed: Mapping[str, str]) -> ShardRecord:
    """The record beside a shard, or the shard counted anew where there is none that fits it.

    Raises:
        UserError: It is broken, or not the one that was `listed` under its name, whose damage counting would seal.
    """
    record_path = _record_path(path)
    if record_path.exists():
        try:
            value = read_json(record_path)
            value["episodes"] = tuple(EpisodeRecord(**episode) for episode in value["episodes"])
            record = ShardRecord(**value | {"image_size": tuple(value["image_size"])})
            if record.bytes == path.stat().st_size and record.file == path.name:
                return record
        except (KeyError, TypeError, UserError):
            pass  # left by another version
    record = dataclasses.replace(_count(path, _samples(path)), bytes=path.stat().st_size, sha256=file_sha256(path))
    if record.sha256 != listed.get(path.name, record.sha256):
        raise UserError(f"{path}: its SHA-256 is not the one in {DATASET_FILE}: it has changed", RESTORE)
    return record


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (by field) of each sample of a shard."""
    places = scan_shard(path)
    with path.open("rb") as file:
        for key, fields in places.items():
            yield key, {field: read_member(file, place) for field, place in fields.items()}


def _by_key(members: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in members.items():
        key, _, field = name.partition(".")
        samples.setdefault(key, {})[field] = data
    return samples


def _count(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardRecord:
    """Count a shard from its members; size and SHA-256 are left for who knows them."""
    episodes: list[EpisodeRecord] = []
    formats: list[tuple[tuple[int, int], int, float]] = []
    for key, fields in samples:
        try:
            meta = decode_meta(fields["meta.json"])
            success = decode_success(fields["success.npy"])
            _, action_dim = actions_shape(fields["actions.npy"])
            formats.append((_image_size(fields), action_dim, meta.fps))
        except ValueError as error:
            raise UserError(f"{path}: episode {key}: {error}", remedy_of(error)) from error
        if formats[-1] != formats[0]:
            raise UserError(
                f"{path}: episode {key}: (image size, action dimensions, fps) are {formats[-1]}, {formats[0]} before",
                _KEEP_APART,
            )
        episodes.append(EpisodeRecord.of(key, meta, success))
    if not formats:
        raise UserError(f"{path}: no episode to write", "collect at least one")
    image_size, action_dim, fps = formats[0]
    return ShardRecord(path.name, 0, "", image_size, action_dim, fps, tuple(episodes))


def _image_size(fields: Mapping[str, bytes]) -> tuple[int, int]:
    if "frames.npy" in fields:
        shape, _, _ = array_header("frames.npy", fields["frames.npy"])
    else:
        shape = video_shape(fields["frames.mp4"])
    return shape[1], shape[2]


def _shard_actions(path: Path) -> Iterable[np.ndarray]:
    """The actions of each episode of a shard, checked."""
    with path.open("rb") as file:
        for key, sample in scan_shard(path).items():
            try:
                actions = decode_array("actions.npy", read_member(file, sample["actions.npy"]))
                check_actions(actions, len(actions) + 1)
            except ValueError as error:
                raise UserError(f"{path}: episode {key}: {error}", remedy_of(error)) from error
            yield actions


def _check_agreement(folder: Path, records: Sequence[ShardRecord]) -> None:
    first = records[0]
    owner: dict[str, str] = {}
    for record in records:
        for name in ("image_size", "action_dim", "fps"):
            if getattr(record, name) != getattr(first, name):
                raise UserError(
                    f"{folder / record.file}: {name} {getattr(record, name)}, {first.file} has {getattr(first, name)}",
                    _KEEP_APART,
                )
        for episode in record.episodes:
            if episode.key in owner:
                raise UserError(
                    f"{folder / record.file}: episode {episode.key}: {owner[episode.key]} has it too",
                    "remove one of the two shards",
                )
            owner[episode.key] = record.file


def _tally(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    successes = sum(episode.succeeded for episode in episodes)
    rate = round(successes / len(episodes), 6)
    return {"episodes": len(episodes), "successes": successes, "success_rate": rate}


def _by_suite(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    suites: dict[str, Any] = {}
    for suite in sorted({episode.suite for episode in episodes}):
        of_suite = [episode for episode in episodes if episode.suite == suite]
        tasks = {}
        for task in sorted({episode.task for episode in of_suite}):
            of_task = [episode for episode in of_suite if episode.task == task]
            tasks[str(task)] = {"instructions": sorted({e.instruction for e in of_task}), **_tally(of_task)}
        suites[suite] = {**_tally(of_suite), "tasks": tasks}
    return suites
