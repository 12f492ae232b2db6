"""The members of a sample: one file an array, encoded and decoded by a fixed list. Nothing is ever unpickled.

    KEY.meta.json     EpisodeMeta                      KEY.frames.mp4    (T, H, W, 3) uint8, H.264
    KEY.actions.npy   (T - 1, A) float32 in [-1, 1]    KEY.frames.npy    the same, lossless, instead of the video
    KEY.success.npy   (T,) bool                        KEY.sim_state.npy (T, S) float64, optional
    KEY.proprio.npy   (T, P) float32, optional         KEY.camera.npy    (T or 1, 3, 7) float32, optional

What is decoded is bounded first by what has been decoded before it: meta.json and success.npy by constants, the other
arrays by the length that success.npy gives, pictures by that length and the size that the data set's own file gives.
A piece of a demonstration that succeeded in another piece (`EpisodeMeta.shares_success`) is stored with its last frame
marked as successful and read without the mark.

Checks here raise ValueError with `FIELD: what is wrong`; who knows the file and the key adds them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wovr.data.store.arrays import array_header, decode_array, encode_array
from wovr.data.store.video import decode_pieces, encode_video
from wovr.errors import UserError
from wovr.functional.cameras import CAMERA_SHAPE, check_cameras
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

MAX_BYTES = {"meta.json": 1 << 20, "success.npy": MAX_FRAMES + 1024}
"""Largest size of the members that say how large the others may be."""

MIN_FPS, MAX_FPS = 1e-3, 1_000_000
"""Slowest and fastest control rate, Hz: what a video's header can hold."""

MAX_TEXT = 4096
"""Most characters of an instruction and of the names in `meta.json`."""

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
        members = {"meta.json": encode_meta(episode.meta), "actions.npy": encode_array(episode.actions)}
        members["success.npy"] = encode_array(_put_mark(episode.success, episode.meta))
        for name in OPTIONAL_ARRAYS:
            if getattr(episode, name) is not None:
                members[f"{name}.npy"] = encode_array(getattr(episode, name))
        if lossless:
            members["frames.npy"] = encode_array(episode.frames)
        else:
            members["frames.mp4"] = encode_video(episode.frames, episode.meta.fps)
    except ValueError as error:
        raise UserError(f"episode {episode.key}: {error}", "mend what makes this episode; it was not stored") from error
    return {f"{episode.key}.{field}": members[field] for field in FIELDS if field in members}


def decode_episode(key: str, members: Mapping[str, bytes], image_size: Sequence[int] | None = None) -> Episode:
    """Decode and check a whole sample.

    Args:
        key: The sample's key.
        members: Field (`actions.npy`) -> bytes.
        image_size: Height and width the frames must have, from `dataset.json`; None for any.

    Raises:
        ValueError: A field is missing, cannot be decoded or breaks the format; the message begins with the field.
    """
    check_fields(members)
    meta = decode_meta(members["meta.json"])
    success = decode_success(members["success.npy"])
    arrays = {
        name: decode_array(f"{name}.npy", members[f"{name}.npy"])
        for name in ("actions", *OPTIONAL_ARRAYS)
        if f"{name}.npy" in members
    }
    frames = decode_frames(members, len(success), image_size)
    episode = Episode(key=key, frames=frames, meta=meta, success=success, **arrays)
    check_episode(episode)
    episode.success = take_off_mark(episode.success, episode.meta)
    return episode


def _put_mark(success: np.ndarray, meta: EpisodeMeta) -> np.ndarray:
    """(T,) bool as it is stored: the last frame of a piece that shares its demonstration's success is marked.

    So `success.npy` tells the outcome to every reader of shards.
    """
    if not meta.shares_success:
        return success
    if success.any():
        raise ValueError("success: a piece that shares another one's success has successful frames of its own")
    marked = success.copy()
    marked[-1] = True
    return marked


def take_off_mark(success: np.ndarray, meta: EpisodeMeta) -> np.ndarray:
    """(T,) bool as it is stored -> the success predicate on each frame: such a piece satisfies it on none."""
    return np.zeros_like(success) if meta.shares_success else success


def decode_success(data: bytes) -> np.ndarray:
    """(T,) bool, what gives the length of an episode.

    Raises:
        ValueError: No such array, or an episode that is too short or too long.
    """
    if len(data) > MAX_BYTES["success.npy"]:
        raise ValueError(f"success.npy: {len(data)} bytes, an episode has at most {MAX_FRAMES} frames")
    success = decode_array("success.npy", data)
    check_num_frames(len(success) if success.ndim else 0)
    check_success(success, len(success))
    return success


def decode_frames(members: Mapping[str, bytes], num_frames: int, image_size: Sequence[int] | None) -> np.ndarray:
    """(T, H, W, 3) uint8, from whichever of the two fields there is.

    Args:
        members: Field -> bytes.
        num_frames: T, which the field must have.
        image_size: H and W, likewise; None for any.

    Raises:
        ValueError: The field cannot be decoded, or has another shape.
    """
    if "frames.npy" in members:
        shape, _, _ = array_header("frames.npy", members["frames.npy"])
        if shape[:1] != (num_frames,):
            raise ValueError(f"frames.npy: shape {shape}, success.npy has {num_frames} frames")
        return decode_array("frames.npy", members["frames.npy"])
    try:
        return decode_pieces(members["frames.mp4"], [(0, None)], image_size, num_frames)[0]
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
        ValueError: Wrong type or shape, proprioception that is not finite, or cameras that are none.
    """
    _check_rows(name, array.dtype, array.shape, num_frames)
    if name == "proprio" and not np.isfinite(array).all():
        raise ValueError("proprio: not finite")
    if name == "camera":
        try:
            check_cameras(array)
        except ValueError as error:
            raise ValueError(f"camera: {error}") from error


def check_optional_header(name: str, head: bytes, size: int, num_frames: int) -> None:
    """Check what a stored one of OPTIONAL_ARRAYS says of itself, whether or not its values are ever read.

    Args:
        name: Which of them.
        head: The first bytes of its member.
        size: Bytes of its member.
        num_frames: Frames of the episode.

    Raises:
        ValueError: No plain array, of the wrong type or shape, or of more or fewer bytes than it says.
    """
    shape, dtype, offset = array_header(f"{name}.npy", head)
    _check_rows(name, dtype, shape, num_frames)
    if offset + dtype.itemsize * math.prod(shape) != size:
        raise ValueError(f"{name}: {dtype} {shape} in {size} bytes")


def _check_rows(name: str, dtype: np.dtype, shape: tuple[int, ...], num_frames: int) -> None:
    rows = (num_frames, 1) if name == "camera" else (num_frames,)  # one where the camera stands still
    shape_ok = shape[1:] == CAMERA_SHAPE if name == "camera" else len(shape) == 2
    if dtype != OPTIONAL_ARRAYS[name] or not shape_ok or shape[0] not in rows:
        raise ValueError(
            f"{name}: {dtype} {shape}, must be {OPTIONAL_ARRAYS[name]} with one row for each of {num_frames} frames"
            + (", or one for all, of 3 x 7 numbers" if name == "camera" else "")
        )


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
            raise ValueError(f"meta: {name} is {_short(getattr(meta, name))}, must be text")
        if len(getattr(meta, name)) > MAX_TEXT:
            raise ValueError(f"meta: {name} has {len(getattr(meta, name))} characters, at most {MAX_TEXT} are read")
    for name in ("task", "seed", "init_state"):
        if not isinstance(getattr(meta, name), int) or isinstance(getattr(meta, name), bool):
            raise ValueError(f"meta: {name} is {_short(getattr(meta, name))}, must be an integer")
        if abs(getattr(meta, name)) >= 2**63:
            raise ValueError(f"meta: {name} does not fit in 64 bits")
    # Compared, not converted: JSON has integers that no float can hold.
    if not isinstance(meta.fps, (int, float)) or isinstance(meta.fps, bool) or not MIN_FPS <= meta.fps <= MAX_FPS:
        raise ValueError(f"meta: fps is {_short(meta.fps)}, must be a number from {MIN_FPS} to {MAX_FPS}")
    if not isinstance(meta.extra, dict):
        raise ValueError(f"meta: extra is {_short(meta.extra)}, must be a dictionary of JSON values")


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
    if len(data) > MAX_BYTES["meta.json"]:
        raise ValueError(f"meta.json: {len(data)} bytes, at most {MAX_BYTES['meta.json']} are read")
    try:
        fields = json.loads(data, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
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


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two values under one name nobody can say which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _short(value: Any) -> str:
    """A value of somebody's for a message."""
    text = str(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
