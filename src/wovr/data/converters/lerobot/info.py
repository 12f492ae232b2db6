"""What `meta/info.json` says, held to types and bounds, and the files of a data set, held inside its folder.

A data set of strangers is compared, never obeyed: its numbers are checked before anything is made of them, its patterns
of paths may name numbers and nothing else, and no path leads out of its folder, by `..`, by `/` or by a link.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wovr.data.converters.lerobot import layout
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError

RESTORE = "restore it from a copy, or download the data set again"

_MEND_INFO = "mend it there, or download the data set again"
_MAX_JSON = 2**27
"""Bytes of a JSON file at most; 200,000 episodes are listed in 50 MB."""
_MAX_FPS = 1000.0
_MAX_DIM = 2**16
"""Numbers in a cell at most."""


class Info:
    """`meta/info.json` of a LeRobotDataset.

    Args:
        root: Folder of the data set.

    Attributes:
        values: The file's content.
        version: `v2.x` or `v3.x`.
        fps: Control rate, Hz.
        features: Name of a column or camera -> what is said of it.

    Raises:
        UserError: Missing, damaged, of another version, or with values of wrong types or sizes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / layout.INFO
        values = parse_json(read_bytes(root, layout.INFO), str(self.path))
        if not isinstance(values, dict):
            raise UserError(f"{self.path}: not a JSON object", RESTORE)
        self.values: dict[str, Any] = values
        self.version = str(values.get("codebase_version"))[:20]
        if not self.version.startswith(("v2.", "v3.")):
            raise UserError(f"{root}: LeRobotDataset {self.version}", "convert it to v2.1 or v3.0 with lerobot first")
        fps = values.get("fps")
        if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= _MAX_FPS:
            raise self.wrong("fps", f"a number above 0 and up to {_MAX_FPS:g}")
        self.fps = float(fps)
        self.chunks_size = layout.FILES_PER_CHUNK
        if "chunks_size" in values:
            self.chunks_size = self.whole("chunks_size", 1)
        features = values.get("features")
        if not isinstance(features, dict) or not all(
            isinstance(feature, dict) and isinstance(feature.get("dtype"), str) for feature in features.values()
        ):
            raise self.wrong("features", "an object of features that have a dtype")
        self.features: dict[str, dict[str, Any]] = features

    def kind(self, key: str) -> str:
        """The `dtype` of a feature."""
        return str(self.features[key]["dtype"])

    def whole(self, key: str, low: int) -> int:
        """A whole number of the file.

        Raises:
            UserError: It is none, or below `low`.
        """
        try:
            return whole(self.values.get(key), low)
        except ValueError as error:
            raise self.wrong(key, f"a whole number, {low} or more") from error

    def shape(self, key: str) -> tuple[int, ...]:
        """Declared shape of a cell of a column; () for a single number.

        Raises:
            UserError: It is not a shape, or larger than a cell may be.
        """
        shape = self._shape(key)
        if math.prod(shape) > _MAX_DIM:
            raise self.wrong(f"features.{key}.shape", f"{_MAX_DIM:,} numbers or fewer", list(shape))
        return () if math.prod(shape) == 1 else shape

    def picture_size(self, camera: str) -> tuple[int, int]:
        """Declared (H, W) of a camera's pictures.

        Raises:
            UserError: Not the shape of a picture, or too large.
        """
        _, height, width = self._picture_shape(camera)
        if max(height, width) > MAX_SIDE:
            raise self.wrong(f"features.{camera}.shape", f"{MAX_SIDE} x {MAX_SIDE} or smaller", [height, width])
        return height, width

    def other_than_colour(self, camera: str) -> str:
        """What a camera's pictures are said to be that is not 8-bit colour; empty for colour.

        Raises:
            UserError: Its shape is not that of a picture.
        """
        feature = self.features[camera]
        for detail in (feature, feature.get("info"), feature.get("video_info")):
            if isinstance(detail, Mapping):
                if any(detail.get(name) is True for name in ("is_depth_map", "video.is_depth_map")):
                    return "depth maps"
                pixels = detail.get("video.pix_fmt", "")
                if isinstance(pixels, str) and pixels.startswith(("gray", "mono")):
                    return f"{pixels} pictures"
        channels = self._picture_shape(camera)[0]
        return "" if channels == 3 else f"pictures of {channels} channel{'s' if channels > 1 else ''}"

    def _picture_shape(self, camera: str) -> tuple[int, int, int]:
        """Channels, height and width, whichever way round they are declared."""
        shape = self._shape(camera)
        if len(shape) != 3:
            raise self.wrong(f"features.{camera}.shape", "height, width and channels", list(shape))
        names = [name.lower() for name in flat_names(self.features[camera])]
        first = names[0].startswith("channel") if len(names) == 3 else shape[2] != 3 and shape[0] == 3
        channels, height, width = shape if first else (shape[2], *shape[:2])
        return channels, height, width

    def file(self, pattern: str, values: Mapping[str, int | str]) -> Path:
        """The path that a pattern of the file makes, inside the folder.

        Args:
            pattern: `data_path` or `video_path`.
            values: What may stand in it.

        Raises:
            UserError: Not such a pattern, or the path leaves the folder.
        """
        return pattern_file(self.root, self.values, pattern, values)

    def wrong(self, key: str, right: str, value: Any = None) -> UserError:
        """What to tell of a value that is not `right`."""
        shown = self.values.get(key) if value is None else value
        return UserError(f"{self.path}: {key} is {reprlib.repr(shown)}, must be {right}", _MEND_INFO)

    def _shape(self, key: str) -> tuple[int, ...]:
        shape = self.features[key].get("shape")
        try:
            if not isinstance(shape, list) or len(shape) > 4:
                raise ValueError
            return tuple(whole(size, 1) for size in shape)
        except ValueError as error:
            raise self.wrong(f"features.{key}.shape", "a list of whole numbers", shape) from error


def pattern_file(root: Path, info: Mapping[str, Any], name: str, values: Mapping[str, int | str]) -> Path:
    """The path that a pattern of `info.json` makes; see `Info.file`."""
    pattern = info.get(name)
    try:
        if not isinstance(pattern, str):
            raise ValueError(f"{reprlib.repr(pattern)}, must be a text")
        parts = []
        for text, field, form, conversion in string.Formatter().parse(pattern):
            parts.append(text)
            if field is None:
                continue
            # Only plain fields: `{0.__class__}` or `{episode_index:999999999d}` are not paths.
            if field not in values or conversion or not re.fullmatch(r"(0?\d)?d?|", form or ""):
                raise ValueError(f"field '{{{field[:40]}}}' is none of: {', '.join(values)}")
            parts.append(format(values[field], form or ""))
        path = "".join(parts)
    except ValueError as error:
        raise UserError(f"{root / layout.INFO}: {name}: {error}", _MEND_INFO) from error
    return inside(root, path, f"{root / layout.INFO}: {name}")


def inside(root: Path, name: str, what: str) -> Path:
    """The file `name` of a folder.

    Links are followed first. A snapshot in the hub's own cache holds links into the `blobs` folder beside it: these are
    the data set's own files.

    Raises:
        UserError: It lies outside; `what` says where the name came from.
    """
    path = root / name
    try:
        target, home = path.resolve(), root.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # loops of links, null bytes
        raise UserError(f"{what}: {reprlib.repr(name)} is not a path", RESTORE) from error
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(folder) for folder in homes):
        raise UserError(
            f"{what}: {reprlib.repr(name)} leads out of {root}", "copy the data set with the files its links lead to"
        )
    return path


def read_bytes(root: Path, name: str, most: int = _MAX_JSON) -> bytes:
    """A file of the folder, whole.

    Raises:
        UserError: Missing, no plain file, outside the folder, or larger than `most`.
    """
    path = inside(root, name, str(root))
    check_file(path)
    try:
        size = path.stat().st_size
        if size > most:
            raise UserError(f"{path}: {size:,} bytes, at most {most:,} are read", RESTORE)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", RESTORE) from error


def check_file(path: Path) -> None:
    """Refuse what is not a plain file (a pipe would be waited for).

    Raises:
        UserError: Missing, or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'missing'}", RESTORE)


def parse_json(data: bytes, where: str) -> Any:
    """A JSON text.

    Raises:
        UserError: It is none.
    """
    try:
        value = json.loads(data)
        if b"\\u" in data:  # half of a pair can be written so, and is no text that can be shown or stored
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({str(error)[:100]})", RESTORE) from error


def json_lines(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, which end at line feeds and nowhere else.

    Raises:
        UserError: Missing, or a line that is not an object.
    """
    for number, line in enumerate(read_bytes(root, name).split(b"\n"), 1):
        if line.strip():
            where = f"{root / name}: line {number}"
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise UserError(f"{where}: not a JSON object", RESTORE)
            yield value


def whole(value: Any, low: int = 0, high: int = 2**53) -> int:
    """A whole number of a JSON or parquet file.

    Raises:
        ValueError: Not one, or outside [low, high].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{reprlib.repr(value)} is not a whole number from {low} to {high}")
    if value != int(value):
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def flat_names(feature: Mapping[str, Any]) -> list[str]:
    """Names of a feature's numbers: a list, lists in a list, any of them in a dictionary, or places by name."""

    def texts(value: Any, depth: int = 0) -> list[str]:
        if isinstance(value, Mapping):  # {"motors": [names]}, or {name: place}
            places = all(isinstance(place, int) for place in value.values())
            value = sorted(value, key=lambda name: value[name]) if places else list(value.values())
        if isinstance(value, list) and depth < 4:
            return [text for part in value for text in texts(part, depth + 1)]
        return [value] if isinstance(value, str) else []

    return texts(feature.get("names"))
