"""The members of a sample: one file an array, encoded and decoded by a fixed list. Nothing is ever unpickled.

    KEY.meta.json     EpisodeMeta                      KEY.frames.mp4    (T, H, W, 3) uint8, H.264
    KEY.actions.npy   (T - 1, A) float32 in [-1, 1]    KEY.frames.npy    the same, lossless, instead of the video
    KEY.success.npy   (T,) bool                        KEY.sim_state.npy (T, S) float64, optional
    KEY.proprio.npy   (T, P) float32, optional         KEY.camera.npy    (T, ...) float32, optional

Checks here raise ValueError with `FIELD: what is wrong`; who knows the file and the key adds them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from wovr.data.video import decode_video, encode_video
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, SCHEMA_VERSION, Episode, EpisodeMeta

FIELDS = (
    "meta.json",
    "actions.npy",
    "success.npy",
    "proprio.npy",
    "camera.npy",
    "sim_state.npy",
    "frames.mp4",
    "frames.npy",
)
"""Every member a sample may have, in the order in which they are stored (what is small and needed first, first)."""

REQUIRED = ("meta.json", "actions.npy", "success.npy")
FRAMES = ("frames.mp4", "frames.npy")
OPTIONAL_ARRAYS: dict[str, np.dtype] = {
    "sim_state": np.dtype(np.float64),
    "proprio": np.dtype(np.float32),
    "camera": np.dtype(np.float32),
}

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What a key may look like: WebDataset cuts a member's name at its first dot, and tar names end at 100 characters."""


def encode_episode(episode: Episode, *, lossless: bool = False) -> dict[str, bytes]:
    """Check an episode and encode it as the members of a sample.

    Args:
        episode: The episode.
        lossless: Store the frames as `.frames.npy` instead of as video.

    Returns:
        Member name (`KEY.actions.npy`) -> bytes, in the order of the shard; equal episodes give equal bytes.

    Raises:
        UserError: The episode breaks the format; names its key and the field.
    """
    if not KEY_PATTERN.fullmatch(episode.key):
        raise UserError(
            f"episode key {episode.key!r} cannot name a sample", "use up to 80 letters, digits, '-' and '_' for a key"
        )
    try:
        check_episode(episode)
        members = {"meta.json": encode_meta(episode.meta), "actions.npy": _encode_array(episode.actions)}
        members["success.npy"] = _encode_array(episode.success)
        for name in OPTIONAL_ARRAYS:
            if getattr(episode, name) is not None:
                members[f"{name}.npy"] = _encode_array(getattr(episode, name))
        if lossless:
            members["frames.npy"] = _encode_array(episode.frames)
        else:
            members["frames.mp4"] = encode_video(episode.frames, episode.meta.fps)
    except ValueError as error:
        raise UserError(f"episode {episode.key}: {error}", "mend what makes this episode; it was not stored") from error
    return {f"{episode.key}.{field}": members[field] for field in FIELDS if field in members}


def decode_episode(key: str, members: Mapping[str, bytes]) -> Episode:
    """Decode and check a whole sample.

    Args:
        key: The sample's key.
        members: Field (`actions.npy`) -> bytes.

    Raises:
        ValueError: A field is missing, cannot be decoded or breaks the format; the message begins with the field.
    """
    check_fields(members)
    arrays = {name: decode_array(f"{name}.npy", members[f"{name}.npy"]) for name in ("actions", "success")}
    for name in OPTIONAL_ARRAYS:
        if f"{name}.npy" in members:
            arrays[name] = decode_array(f"{name}.npy", members[f"{name}.npy"])
    frames = decode_frames(members)
    episode = Episode(key=key, frames=frames, meta=decode_meta(members["meta.json"]), **arrays)
    check_episode(episode)
    return episode


def decode_frames(members: Mapping[str, bytes]) -> np.ndarray:
    """(T, H, W, 3) uint8, from whichever of the two fields there is.

    Raises:
        ValueError: The field cannot be decoded.
    """
    if "frames.npy" in members:
        return decode_array("frames.npy", members["frames.npy"])
    try:
        return decode_video(members["frames.mp4"])
    except ValueError as error:
        raise ValueError(f"frames.mp4: {error}") from error


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check that the fields are known and none is missing.

    Raises:
        ValueError: Naming the field.
    """
    for field in fields:
        if field not in FIELDS:
            raise ValueError(f"{field}: not a member of the episode format")
    for field in REQUIRED:
        if field not in fields:
            raise ValueError(f"{field}: missing")
    if sum(field in fields for field in FRAMES) != 1:
        raise ValueError("frames.mp4: missing" if "frames.npy" not in fields else "frames.npy: frames.mp4 exists too")


def check_episode(episode: Episode) -> None:
    """Check an episode against the format.

    Raises:
        ValueError: The first thing that is wrong; the message begins with the field.
    """
    frames = episode.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape[1:3]:
        raise ValueError(f"frames: {_describe(frames)}, must be uint8 (T, H, W, 3)")
    num_frames = len(frames)
    check_num_frames(num_frames)
    check_actions(episode.actions, num_frames)
    check_success(episode.success, num_frames)
    for name in OPTIONAL_ARRAYS:
        array = getattr(episode, name)
        if array is not None:
            check_optional(name, array, num_frames)
    check_meta(episode.meta)


def check_optional(name: str, array: np.ndarray, num_frames: int) -> None:
    """Check one of OPTIONAL_ARRAYS.

    Raises:
        ValueError: Wrong type or shape, or proprioception that is not finite.
    """
    dtype = OPTIONAL_ARRAYS[name]
    shape_ok = array.ndim >= 2 if name == "camera" else array.ndim == 2
    if array.dtype != dtype or not shape_ok or len(array) != num_frames:
        raise ValueError(f"{name}: {_describe(array)}, must be {dtype} with one row for each of {num_frames} frames")
    if name == "proprio" and not np.isfinite(array).all():
        raise ValueError("proprio: not finite")


def check_num_frames(num_frames: int) -> None:
    """Check the length of an episode.

    Raises:
        ValueError: Fewer than 2 or more than MAX_FRAMES.
    """
    if not 2 <= num_frames <= MAX_FRAMES:
        raise ValueError(f"frames: {num_frames} of them, an episode has 2 to {MAX_FRAMES}")


def check_actions(actions: np.ndarray, num_frames: int, action_dim: int | None = None) -> None:
    """Check the actions of an episode.

    Args:
        actions: What must be (num_frames - 1, A) float32 in [-1, 1].
        num_frames: Frames of the episode, T.
        action_dim: The A asked for; None for any.

    Raises:
        ValueError: Wrong type, shape, or a value that is not finite or out of range.
    """
    if actions.dtype != np.float32 or actions.ndim != 2 or not actions.shape[1]:
        raise ValueError(f"actions: {_describe(actions)}, must be float32 (T - 1, A)")
    if len(actions) != num_frames - 1:
        raise ValueError(f"actions: {len(actions)} of them for {num_frames} frames, must be one fewer than frames")
    if action_dim is not None and actions.shape[1] != action_dim:
        raise ValueError(f"actions: {actions.shape[1]} dimensions, the data set has {action_dim}")
    inside = np.abs(actions) <= 1.0  # False for NaN
    if not inside.all():
        step, dim = (int(index) for index in np.argwhere(~inside)[0])
        value = float(actions[step, dim])
        what = f"{value:g} is outside [-1, 1]" if math.isfinite(value) else f"{value} is not finite"
        raise ValueError(f"actions: step {step}, dimension {dim}: {what}")


def check_success(success: np.ndarray, num_frames: int) -> None:
    """Check the success predicate's values.

    Raises:
        ValueError: Not bool (num_frames,).
    """
    if success.dtype != np.bool_ or success.shape != (num_frames,):
        raise ValueError(f"success: {_describe(success)}, must be bool ({num_frames},)")


def check_image_size(frames: np.ndarray, image_size: Sequence[int]) -> None:
    """Check that frames have the image size of their data set.

    Raises:
        ValueError: They have another.
    """
    if list(frames.shape[1:3]) != list(image_size):
        raise ValueError(f"frames: {frames.shape[1:3]} pixels each, the data set has {tuple(image_size)}")


def remedy_of(error: ValueError) -> str:
    """What a reader can advise about something the checks of this file found in a stored sample."""
    if "schema version" in str(error):
        return "convert the data or use the wovr that wrote them"
    if str(error).startswith("actions:"):
        return "normalise the actions to [-1, 1] where the episode is made and write it again"
    return "restore the shard from a copy, or delete it and collect its episodes again"


def check_meta(meta: EpisodeMeta) -> None:
    """Check an episode's meta data.

    Raises:
        ValueError: Another schema version, or a value of the wrong type.
    """
    if meta.schema_version != SCHEMA_VERSION:
        raise ValueError(f"meta: schema version {meta.schema_version}, this wovr reads and writes {SCHEMA_VERSION}")
    for name in ("instruction", "suite", "policy", "source"):
        if not isinstance(getattr(meta, name), str):
            raise ValueError(f"meta: {name} is {getattr(meta, name)!r}, must be text")
    for name in ("task", "seed", "init_state"):
        if not isinstance(getattr(meta, name), int) or isinstance(getattr(meta, name), bool):
            raise ValueError(f"meta: {name} is {getattr(meta, name)!r}, must be an integer")
    if not isinstance(meta.fps, (int, float)) or not math.isfinite(meta.fps) or meta.fps <= 0:
        raise ValueError(f"meta: fps is {meta.fps!r}, must be a positive number")
    if not isinstance(meta.extra, dict):
        raise ValueError(f"meta: extra is {meta.extra!r}, must be a dictionary of JSON values")


def encode_meta(meta: EpisodeMeta) -> bytes:
    """Canonical JSON of an episode's meta data.

    Raises:
        ValueError: `extra` holds what JSON cannot.
    """
    try:
        return json.dumps(dataclasses.asdict(meta), sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta: extra cannot be written as JSON ({error})") from error


def decode_meta(data: bytes) -> EpisodeMeta:
    """Read `meta.json`.

    Raises:
        ValueError: Not JSON, another schema version, or fields missing, unknown or of the wrong type.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"meta.json: not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("meta.json: not a JSON object")
    version = fields.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"meta.json: schema version {version}, this wovr reads {SCHEMA_VERSION}")
    try:
        meta = EpisodeMeta(**fields)
    except TypeError as error:
        reason = str(error).replace("EpisodeMeta.__init__() ", "")
        raise ValueError(f"meta.json: {reason}") from error
    check_meta(meta)
    return meta


def decode_array(field: str, data: bytes) -> np.ndarray:
    """Read an `.npy` member; an array of Python objects (a pickle) is refused.

    Raises:
        ValueError: Not a plain array; the message begins with `field`.
    """
    shape, dtype, offset = array_header(field, data)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - offset != expected:
        raise ValueError(f"{field}: {len(data) - offset} bytes of values, its header promises {expected}")
    return np.frombuffer(data, dtype, offset=offset).reshape(shape).copy()


def array_header(field: str, data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and offset of the values of an `.npy` member, from its first bytes.

    Raises:
        ValueError: Not the beginning of a plain C-ordered array; the message begins with `field`.
    """
    # 6 bytes magic, 2 version, then the length of the header in 2 bytes (version 1) or 4, then the header.
    wide = data[6:7] != b"\x01"
    length = int.from_bytes(data[8 : 12 if wide else 10], "little") + (12 if wide else 10)
    try:
        return _parse_header(data[:length])
    except ValueError as error:
        raise ValueError(f"{field}: not a plain .npy array ({error})") from error


@lru_cache(maxsize=4096)  # arrays of one length share a header, and parsing it costs more than reading the array
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("its values are not plain and C-ordered")
    return shape, dtype, file.tell()


def actions_shape(data: bytes) -> tuple[int, int]:
    """(T - 1, A) of `actions.npy`, from its first bytes.

    Raises:
        ValueError: Not the beginning of a two-dimensional array.
    """
    shape, _, _ = array_header("actions.npy", data)
    if len(shape) != 2:
        raise ValueError(f"actions.npy: shape {shape}, must be (T - 1, A)")
    return shape[0], shape[1]


def _encode_array(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
