"""`dataset.json`, which counts and seals the shards of a folder: reading it and holding the files against it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wovr.data.converters.action_range import ActionRange
from wovr.data.store.members import MAX_FPS, MIN_FPS
from wovr.data.store.seals import check_sums, unsealed
from wovr.data.store.shards import DATASET_FILE, EpisodeRecord, count_episodes
from wovr.data.store.statistics import ActionStatistics
from wovr.data.store.tar_index import RESTORE, scan_shard
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError
from wovr.runs import read_json
from wovr.types import SCHEMA_VERSION

MAX_ACTION_DIM = 4096
"""Most dimensions of an action."""

_FILE = re.compile(r"[^/\\\0.][^/\\\0]{0,250}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_dataset(folder: Path) -> dict[str, Any]:
    """Read and check a folder's `dataset.json`.

    Raises:
        UserError: No such folder, empty, unfinished, of another schema version, changed since it was written, or not
            what `finish_dataset` writes.
    """
    path = folder / DATASET_FILE
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "check the path, or collect episodes: wovr collect --out DIR")
    if not path.exists():
        if any(folder.glob("*.tar")):
            raise UserError(f"{path}: missing, the collection was not finished", "run its wovr collect command again")
        raise UserError(f"{folder}: holds no episodes", "collect some: wovr collect --out DIR")
    dataset = read_json(path)
    version = dataset.get("schema_version") if isinstance(dataset, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this wovr reads {SCHEMA_VERSION}",
            "convert the data or use the wovr that wrote them",
        )
    dataset = unsealed(path, dataset)
    try:
        _check_summary(dataset)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not a data set's summary: {what}", "run the wovr collect command again") from error
    return dataset


def _check_summary(dataset: dict[str, Any]) -> None:
    """Check what `dataset.json` says: types, ranges, and that shards are named as files of the folder itself.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: The first thing that is not as `finish_dataset` writes it.
    """
    shards = dataset["shards"]
    if not isinstance(shards, list) or not shards:
        raise ValueError("it lists no shard")
    for shard in shards:
        if not isinstance(shard["file"], str) or not _FILE.fullmatch(shard["file"]):
            raise ValueError(f"shard {str(shard['file'])[:80]!r} is not the name of a shard in this folder")
        if not isinstance(shard["sha256"], str) or not _SHA256.fullmatch(shard["sha256"]):
            raise ValueError(f"shard {shard['file']}: sha256 is not 64 hexadecimal digits")
        for name in ("bytes", "episodes", "frames"):
            _check_count(f"shard {shard['file']}: {name}", shard[name], 2**53)
    names = [shard["file"] for shard in shards]
    if len(set(names)) < len(names):
        raise ValueError("it lists a shard twice")
    height, width = dataset["image_size"]
    _check_count("image_size", height, MAX_SIDE, 1)
    _check_count("image_size", width, MAX_SIDE, 1)
    _check_count("action_dim", dataset["action_dim"], MAX_ACTION_DIM, 1)
    for name in ("episodes", "frames", "successes"):
        _check_count(name, dataset[name], 2**53)
    if isinstance(dataset["fps"], bool) or not MIN_FPS <= dataset["fps"] <= MAX_FPS:
        raise ValueError("fps is not a positive number")
    statistics = ActionStatistics.from_json(dataset["action_statistics"])
    if len(statistics.min) != dataset["action_dim"]:
        raise ValueError(f"action_statistics are of {len(statistics.min)} dimensions, not {dataset['action_dim']}")
    if not isinstance(dataset["suites"], dict) or not isinstance(dataset.setdefault("extra", {}), dict):
        raise ValueError("suites or extra is no object")


def _check_count(name: str, value: Any, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is {str(value)[:40]}, not an integer from {least} to {most}")


def check_shard_list(folder: Path, dataset: dict[str, Any]) -> None:
    """Hold the files of a folder against its `dataset.json`: none missing, none more, each of its size.

    Raises:
        UserError: The first file that is not as it should be.
    """
    for path in unlisted_shards(folder, dataset):
        raise unlisted_error(path)
    for shard in dataset["shards"]:
        check_shard_file(folder / shard["file"], shard)


def check_shards(folder: Path, dataset: dict[str, Any], chosen: Sequence[dict[str, Any]]) -> None:
    """`check_shard_list`, and every byte of some shards against the SHA-256 that `dataset.json` gives.

    Args:
        folder: The data set's folder.
        dataset: Its `dataset.json`.
        chosen: What it says of those shards.

    Raises:
        UserError: The first file that is not as it should be.
    """
    check_shard_list(folder, dataset)
    check_sums((folder / shard["file"], shard["sha256"]) for shard in chosen)


def check_counts(folder: Path, dataset: dict[str, Any], episodes: Sequence[EpisodeRecord]) -> None:
    """Hold what `dataset.json` counts against the episodes of its shards.

    Raises:
        UserError: It counts others, or a key is there twice.
    """
    wrong = [name for name, value in count_episodes(episodes).items() if dataset.get(name) != value]
    if len({episode.key for episode in episodes}) < len(episodes):
        wrong.append("the number of different keys")
    if wrong:
        raise UserError(f"{folder / DATASET_FILE}: {', '.join(wrong)}: not what its shards hold", RESTORE)


def unlisted_shards(folder: Path, dataset: dict[str, Any]) -> list[Path]:
    """Shards in the folder that `dataset.json` does not know: a collection that was resumed and not finished."""
    listed = {shard["file"] for shard in dataset["shards"]}
    return [path for path in sorted(folder.glob("*.tar")) if path.name not in listed]


def unlisted_error(path: Path) -> UserError:
    """What to tell the user about such a shard."""
    return UserError(
        f"{path}: not listed in {DATASET_FILE}", "finish the collection with the same wovr collect command"
    )


def check_shard_file(path: Path, shard: dict[str, Any]) -> None:
    """Check that a shard is there and has the size that `dataset.json` gives.

    Raises:
        UserError: It is missing, truncated, or another file.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing, {DATASET_FILE} lists it", RESTORE)
    size = path.stat().st_size
    if size != shard["bytes"]:
        scan_shard(path)  # says where it is cut
        raise UserError(f"{path}: {size} bytes, {DATASET_FILE} says {shard['bytes']}", RESTORE)


def stored_range(dataset: Mapping[str, Any], folder: Path) -> ActionRange | None:
    """The range that the actions of a data set were scaled by; None where it does not say, as when collected.

    Args:
        dataset: What `dataset.json` says, see `read_dataset`.
        folder: The data set's folder, for messages.

    Raises:
        UserError: It says something else than a range of its actions.
    """
    extra = dataset.get("extra")
    convert = extra.get("convert") if isinstance(extra, Mapping) else None
    stored = convert.get("action_range") if isinstance(convert, Mapping) else None
    if stored is None:
        return None
    try:
        found = ActionRange.from_json(stored)
        if len(found.low) != dataset["action_dim"]:
            raise ValueError(f"action_range: {len(found.low)} dimensions, actions have {dataset['action_dim']}")
    except ValueError as error:
        raise UserError(f"{folder / DATASET_FILE}: {error}", "convert the data again") from error
    return found


def read_range(value: Any, checkpoint: Path | str) -> ActionRange:
    """The range that a checkpoint says its data had.

    Raises:
        UserError: It is none.
    """
    try:
        return ActionRange.from_json(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{checkpoint}: {error}", "train it again") from error


def check_trained_range(
    checkpoint: Path, record: Mapping[str, Any], whose: Path | str, found: ActionRange | None
) -> None:
    """Compare the range of actions that a network was trained on with that of the episodes or robot it is used with.

    Args:
        checkpoint: Where the network comes from.
        record: What the checkpoint says of its data; without `action_range` nothing is compared.
        whose: Folder of the episodes, or name of the environment.
        found: Their range; None for actions that stay as they are.

    Raises:
        UserError: They differ, so that the network's 1 is another motion.
    """
    if record.get("action_range") is None:
        return
    trained = read_range(record["action_range"], checkpoint)
    found = found or ActionRange.untouched(len(trained.low))
    if not trained.agrees(found):
        raise UserError(
            f"{checkpoint}: was trained on actions of the range {trained.describe()}, that of {whose} is "
            f"{found.describe()}, so -1 and 1 are other motions",
            "use the data set it was trained on, or one that took over its range: wovr data convert ... --range_of DIR",
        )


def stored_repeat(dataset: Mapping[str, Any]) -> int | None:
    """Times that each action of a data set was executed when it was collected, 1 unless it says otherwise.

    Args:
        dataset: What `dataset.json` says, see `read_dataset`.

    Returns:
        None where the episodes were not collected here, or what stands there is no such number.
    """
    extra = dataset.get("extra")
    collected = extra.get("collect") if isinstance(extra, Mapping) else None
    arguments = collected.get("env_args") if isinstance(collected, Mapping) else None
    return _repeat(arguments.get("action_repeat", 1)) if isinstance(arguments, Mapping) else None


def check_trained_repeat(checkpoint: Path, record: Mapping[str, Any], whose: Path | str, found: int | None) -> None:
    """Compare how often each action was executed in a network's training with where the network is used.

    Args:
        checkpoint: Where the network comes from.
        record: What the checkpoint says of its data; without `action_repeat` nothing is compared.
        whose: Folder of the episodes, or name of the environment.
        found: How often there; None where that is unknown, and nothing is compared.

    Raises:
        UserError: They differ, so that an action is another motion.
    """
    trained = _repeat(record.get("action_repeat"))
    if None not in (trained, found) and trained != found:
        raise UserError(
            f"{checkpoint}: was trained with action_repeat {trained}, {whose} has {found}, so actions are other "
            "motions",
            f"give --env_args.action_repeat {trained}, or a checkpoint trained with {found}",
        )


def _repeat(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def check_replayed_repeat(episodes: int | None, simulator: int | None) -> None:
    """Compare how often each action of stored episodes was executed with a simulator that is to go on with them.

    Args:
        episodes: How often when they were collected; None for unknown.
        simulator: How often there; None for unknown.

    Raises:
        UserError: They differ, so that stored actions lead elsewhere.
    """
    if None not in (episodes, simulator) and episodes != simulator:
        raise UserError(
            f"the episodes were collected with action_repeat {episodes}, the simulator has {simulator}",
            f"give --env_args.action_repeat {episodes}",
        )


def check_agreement(
    folders: Sequence[Path], datasets: Sequence[dict[str, Any]]
) -> tuple[ActionRange | None, int | None]:
    """Check that episodes of several folders go together.

    Args:
        folders: The folders.
        datasets: What `read_dataset` returned for each.

    Returns:
        The range that their actions were scaled by, and times that each was executed; None where no folder says.

    Raises:
        UserError: They differ in image size, action dimensions, range, or in how often an action was executed.
    """
    for folder, dataset in zip(folders[1:], datasets[1:], strict=True):
        for name in ("image_size", "action_dim"):
            if dataset[name] != datasets[0][name]:
                raise UserError(
                    f"{folder}: {name} {dataset[name]}, {folders[0]} has {datasets[0][name]}",
                    "use folders of one image size and one kind of action",
                )
    repeats = [
        (folder, times)
        for folder, dataset in zip(folders, datasets, strict=True)
        if (times := stored_repeat(dataset)) is not None
    ]
    for other, repeat in repeats[1:]:
        if repeat != repeats[0][1]:
            raise UserError(
                f"{other}: was collected with action_repeat {repeat}, {repeats[0][0]} with {repeats[0][1]}",
                "use folders of one control rate",
            )
    ranges = [stored_range(dataset, folder) for folder, dataset in zip(folders, datasets, strict=True)]
    for folder, found in zip(folders[1:], ranges[1:], strict=True):
        check_same_range(folders[0], ranges[0], folder, found)
    return next((found for found in ranges if found is not None), None), repeats[0][1] if repeats else None


def check_same_range(first: Path, range_of_first: ActionRange | None, second: Path, other: ActionRange | None) -> None:
    """Check that an action of two data sets is the same motion; one that does not say has its actions as they are.

    Args:
        first: Folder of a data set.
        range_of_first: Its `stored_range`.
        second: Another folder.
        other: Its `stored_range`.

    Raises:
        UserError: They were scaled by different ranges.
    """
    if range_of_first is None and other is None:
        return
    as_they_are = ActionRange.untouched(len((range_of_first or other).low))  # type: ignore[union-attr]
    one, two = range_of_first or as_they_are, other or as_they_are
    if not one.agrees(two):
        raise UserError(
            f"{second}: its actions' range is {two.describe()}, that of {first} is {one.describe()}, so -1 and 1 are "
            "other motions",
            f"convert one of them again with the other's range: wovr data convert ... --range_of {first}",
        )
