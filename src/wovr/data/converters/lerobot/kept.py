"""What a conversion kept in `dataset.json` and in episodes for the way back to LeRobot, held to types and bounds.

These files may be a stranger's too: the camera's name becomes part of paths, lists become rows.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.lerobot import layout
from wovr.errors import UserError

_AGAIN = "convert the data again, or mend the value"


@dataclass(frozen=True)
class Kept:
    """Of a whole data set.

    Attributes:
        camera: Feature of the frames, `observation.images.NAME`.
        taken: Row t's action is taken at frame t, not the one that led to it.
        order: Which number of the proprioception came first, second, ...; empty for as they are.
        names: Of actions and state, as `info.json` has them.
        robot_type: As `info.json` has it.
    """

    camera: str
    taken: bool
    order: tuple[int, ...]
    names: Mapping[str, Any]
    robot_type: Any

    @classmethod
    def of(cls, extra: Mapping[str, Any], proprio_dim: int, folder: Path) -> Kept:
        """From `extra` of `dataset.json`.

        Args:
            extra: The values.
            proprio_dim: Numbers of the proprioception.
            folder: Of the data set, for messages.

        Raises:
            UserError: One is of another type, or the camera's name cannot be part of a path.
        """
        convert = extra.get("convert", {})
        about = convert.get("about", {}) if isinstance(convert, Mapping) else None
        names = about.get("names", {}) if isinstance(about, Mapping) else None
        if not isinstance(names, Mapping):
            raise UserError(f"{folder}: dataset.json: extra.convert is {reprlib.repr(convert)}", _AGAIN)
        camera, order = convert.get("camera", "front"), convert.get("state_order", [])
        if not isinstance(camera, str) or not re.fullmatch(r"[^/\\\x00-\x1f]{1,200}", camera) or camera in (".", ".."):
            raise UserError(f"{folder}: dataset.json: camera is {reprlib.repr(camera)}, not a name", _AGAIN)
        if order != [] and (
            not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(proprio_dim)))
        ):
            raise UserError(f"{folder}: dataset.json: state_order is {reprlib.repr(order)}", _AGAIN)
        return cls(
            camera=camera if camera.startswith("observation.") else layout.CAMERA_PREFIX + camera,
            taken=convert.get("action_is_taken", True) is True,
            order=tuple(int(number) for number in order),
            names=names,
            robot_type=about.get("robot_type") if isinstance(about, Mapping) else None,
        )


@dataclass(frozen=True)
class KeptRow:
    """Of an episode.

    Attributes:
        unused: (1, A) float32, the action of the row that no frame follows; None where it is not known.
        labels: Of the last two rows; None where they are those of the frames.
        is_last: The episode is the last piece of the one it was converted from.
    """

    unused: np.ndarray | None
    labels: list[bool] | None
    is_last: bool

    @classmethod
    def of(cls, extra: Mapping[str, Any], action_dim: int, where: str) -> KeptRow:
        """From `extra` of an episode's `meta.json`.

        Raises:
            UserError: A value is of another type or length.
        """
        unused, labels = extra.get("unused_action"), extra.get("last_labels")
        part, parts = extra.get("part", 0), extra.get("parts", 1)
        if unused is not None and not (
            isinstance(unused, list) and len(unused) == action_dim and all(map(_is_finite, unused))
        ):
            raise UserError(f"{where}: meta.json: unused_action is {reprlib.repr(unused)}", _AGAIN)
        if labels is not None and not (
            isinstance(labels, list) and len(labels) == 2 and all(isinstance(label, bool) for label in labels)
        ):
            raise UserError(f"{where}: meta.json: last_labels is {reprlib.repr(labels)}", _AGAIN)
        if not all(isinstance(number, int) for number in (part, parts)):
            raise UserError(f"{where}: meta.json: part {reprlib.repr(part)} of {reprlib.repr(parts)}", _AGAIN)
        row = None if unused is None else np.asarray(unused, np.float32)[None]
        return cls(row, labels, part == parts - 1)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= float(np.finfo(np.float32).max)
