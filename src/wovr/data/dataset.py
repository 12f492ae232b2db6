"""`dataset.json`, which counts and seals the shards of a folder: reading it and holding the files against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wovr.data.shards import DATASET_FILE
from wovr.data.statistics import ActionStatistics
from wovr.data.tar_index import RESTORE, scan_shard
from wovr.errors import UserError
from wovr.runs import read_json
from wovr.types import SCHEMA_VERSION


def read_dataset(folder: Path) -> dict[str, Any]:
    """Read and check a folder's `dataset.json`.

    Raises:
        UserError: No such folder, empty, unfinished, of another schema version, or not what `finish_dataset` writes.
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
    try:
        ActionStatistics.from_json(dataset["action_statistics"])
        height, width = dataset["image_size"]
        float(dataset["fps"])
        numbers = [height, width, *(dataset[name] for name in ("action_dim", "episodes", "frames", "successes"))]
        for shard in dataset["shards"]:
            numbers += [shard["bytes"], shard["episodes"], shard["frames"]]
            if Path(shard["file"]).name != shard["file"] or not isinstance(shard["sha256"], str):
                raise ValueError(f"shard {shard['file']!r} is not the name of a file")
        if not dataset["shards"]:
            raise ValueError("it lists no shard")
        if not all(isinstance(number, int) for number in numbers) or not isinstance(dataset["suites"], dict):
            raise ValueError("a count is not an integer")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a data set's summary: {error}", "run the wovr collect command again") from error
    return dataset


def check_shard_list(folder: Path, dataset: dict[str, Any]) -> None:
    """Hold the files of a folder against its `dataset.json`: none missing, none more, each of its size.

    Raises:
        UserError: The first file that is not as it should be.
    """
    for path in unlisted_shards(folder, dataset):
        raise unlisted_error(path)
    for shard in dataset["shards"]:
        check_shard_file(folder / shard["file"], shard)


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
