"""Keyframes on disk: starts near task-critical moments, for Keyframe-Initialized Rollouts (paper, section 4.2).

A folder of two files. `keyframes.json` says what each keyframe is and of which episodes the set was made;
`keyframes.npz` holds the arrays, sealed by its SHA-256 in the former. How moments are found is in
`wovr.data.keyframes.rules`; the paper does not say.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.store.arrays import array_header, decode_array
from wovr.data.store.video import MAX_SIDE
from wovr.errors import UserError
from wovr.functional.cameras import CAMERA_SHAPE
from wovr.runs import atomic_write, file_sha256, fingerprint, read_json, write_json
from wovr.types import SCHEMA_VERSION, StartState

KINDS = ("grasp", "release", "parting", "near_success", "approach", "drop", "push")
"""What happens soon after a keyframe: the gripper is closed; it is opened after a hold; a failed episode goes where no
successful one went; the episode succeeds. From simulator states only: a gripper that never holds anything is nearest to
an object; a held object is lost from the closed gripper; an object is moved without being held."""

LIST_FILE = "keyframes.json"
ARRAYS_FILE = "keyframes.npz"

_UNPACKED = 1 << 28  # bytes that are unpacked from any file
_MOST_PACKED = 100  # and beyond that, times the file's size: pictures and states are packed by far less
_HEADER = 1024  # bytes of an array's header, at most

_AGAIN = "find keyframes again with: wovr data keyframes DIR --out OUT"
_ARRAYS = {
    "reference": "uint8",
    "memory": "uint8",
    "memory_actions": "float32",
    "proprio": "float32",  # (n, P), P = 0 where there is none
    "camera": "float32",  # (n, 21), or (n, 0) where there is none
    "sim_state": "float64",
}
_LATER = frozenset({"camera"})  # what folders of before lack
_NONE = np.zeros(0)
_FIELDS = {
    "kind": str,
    "episode": str,
    "frame": int,
    "event": int,
    "failure": bool,
    "succeeded": bool,
    "suite": str,
    "task": int,
    "instruction": str,
    "init_state": int,
    "horizon": int,
    "sim_state_size": int,
}


@dataclass(frozen=True)
class Keyframe:
    """A start near a task-critical moment of a stored episode.

    Attributes:
        kind: One of KINDS, what happens soon after it.
        episode: Key of the episode.
        frame: Index of the start in the episode, the last memory frame.
        event: Index of the moment that made it a keyframe, > frame.
        failure: What happened there went wrong.
        succeeded: The episode succeeded in the end.
        suite: Suite name.
        task: Index of the task in its suite.
        instruction: What the policy was told.
        init_state: Number of the initial state the episode began from, 0 where there is none.
        horizon: Actions left from the start to the task's horizon, > 0.
        reference: (H, W, 3) uint8, the episode's first frame.
        memory: (M, H, W, 3) uint8, the frames up to and including the start.
        memory_actions: (M, A) float32, the action that produced each memory frame.
        sim_state: (S,) float64, the simulator's state at the start, or None.
        proprio: (P,) float32, what the robot knew of itself at the start, or None.
        camera: (3, 7) float32, the camera at the start, see `wovr.functional.cameras`; or None.
    """

    kind: str
    episode: str
    frame: int
    event: int
    failure: bool
    succeeded: bool
    suite: str
    task: int
    instruction: str
    init_state: int
    horizon: int
    reference: np.ndarray
    memory: np.ndarray
    memory_actions: np.ndarray
    sim_state: np.ndarray | None = None
    proprio: np.ndarray | None = None
    camera: np.ndarray | None = None

    def start_state(self, horizon: int | None = None) -> StartState:
        """Where a rollout begins.

        Args:
            horizon: Actions of a rollout from the episode's first frame, > `frame`; None for the stored rest.
        """
        return StartState(
            suite=self.suite,
            task=self.task,
            init_state=self.init_state,
            sim_state=self.sim_state,
            proprio=self.proprio,
            camera=self.camera,
            reference=self.reference,
            memory=self.memory,
            memory_actions=self.memory_actions,
            horizon=self.horizon if horizon is None else horizon - self.frame,
        )


@dataclass(frozen=True)
class KeyframeSet:
    """The keyframes of one folder.

    Attributes:
        keyframes: At least one; all of one image size, memory, action space and proprioception.
        datasets: Fingerprint of each data set they were taken from.
        options: How they were chosen; JSON values.
    """

    keyframes: Sequence[Keyframe]
    datasets: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.keyframes[0].reference.shape[:2]
        return height, width

    @property
    def memory(self) -> int:
        """Frames of memory, M."""
        return len(self.keyframes[0].memory)

    @property
    def action_dim(self) -> int:
        """A."""
        return int(self.keyframes[0].memory_actions.shape[1])

    @property
    def proprio_dim(self) -> int:
        """P; 0 where there is no proprioception."""
        proprio = self.keyframes[0].proprio
        return 0 if proprio is None else len(proprio)

    @property
    def suites(self) -> list[str]:
        """Names of the suites, sorted."""
        return sorted({keyframe.suite for keyframe in self.keyframes})


def save_keyframes(folder: Path, found: KeyframeSet) -> None:
    """Write a folder of keyframes; the same set gives the same bytes.

    Raises:
        UserError: There is no keyframe, they differ in size, or the folder cannot be written.
    """
    frames = found.keyframes
    if not frames:
        raise UserError(f"{folder}: no keyframe to write", "choose other episodes or rules")
    arrays = {name: [getattr(keyframe, name) for keyframe in frames] for name in ("reference", "memory")}
    arrays["memory_actions"] = [keyframe.memory_actions for keyframe in frames]
    arrays["proprio"] = [np.zeros(0) if keyframe.proprio is None else keyframe.proprio for keyframe in frames]
    arrays["camera"] = [np.zeros(0) if keyframe.camera is None else keyframe.camera.ravel() for keyframe in frames]
    for name, values in arrays.items():
        shapes = sorted({value.shape for value in values})
        if len(shapes) > 1:
            raise UserError(f"{folder}: keyframes of several sizes: {name} {shapes}", "use episodes of one size")
    states = [np.zeros(0) if keyframe.sim_state is None else keyframe.sim_state for keyframe in frames]
    stacked = {name: np.stack(values) for name, values in arrays.items()}
    stacked["sim_state"] = np.concatenate(states)  # tasks differ in the size of their states
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: stacked[name].astype(dtype) for name, dtype in _ARRAYS.items()})  # type: ignore[arg-type]
    # The list is written last: where a writer was killed in between, an older list does not fit the arrays' SHA-256.
    with atomic_write(folder / ARRAYS_FILE) as file:
        file.write(buffer.getvalue())
    rows = [
        {name: getattr(keyframe, name) for name in _FIELDS if name != "sim_state_size"} | {"sim_state_size": len(state)}
        for keyframe, state in zip(frames, states, strict=True)
    ]
    header = {
        "schema_version": SCHEMA_VERSION,
        "arrays_sha256": file_sha256(folder / ARRAYS_FILE),
        "datasets": list(found.datasets),
        "fingerprint": fingerprint(list(found.datasets)),
        "options": found.options,
        "image_size": list(found.image_size),
        "memory": found.memory,
        "action_dim": found.action_dim,
        "counts": dict(Counter(keyframe.kind for keyframe in frames)),
    }
    write_json(folder / LIST_FILE, header | {"keyframes": rows})


def load_keyframes(folder: Path) -> KeyframeSet:
    """Read a folder of keyframes, all of it checked.

    Raises:
        UserError: No such folder, no keyframe in it, or something in it is broken.
    """
    path = folder / LIST_FILE
    if not path.exists():
        raise UserError(f"{folder}: holds no {LIST_FILE}", "make it with: wovr data keyframes DIR --out OUT")
    header = read_json(path)
    rows = header.get("keyframes") if isinstance(header, dict) else None
    if not isinstance(rows, list) or header.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: not a list of keyframes of schema version {SCHEMA_VERSION}", _AGAIN)
    if not rows:
        raise UserError(f"{path}: no keyframe in it", _AGAIN)
    _check_rows(path, rows)
    sizes = [row["sim_state_size"] for row in rows]
    arrays = _load_arrays(folder / ARRAYS_FILE, header.get("arrays_sha256"), _shapes(path, header, sum(sizes)))
    states = np.split(arrays["sim_state"], np.cumsum(sizes)[:-1])
    keyframes = [
        Keyframe(
            **{name: row[name] for name in _FIELDS if name != "sim_state_size"},
            reference=arrays["reference"][i],
            memory=arrays["memory"][i],
            memory_actions=arrays["memory_actions"][i],
            sim_state=states[i] if sizes[i] else None,
            proprio=arrays["proprio"][i] if arrays["proprio"].size else None,
            camera=arrays["camera"][i].reshape(CAMERA_SHAPE) if arrays.get("camera", _NONE).size else None,
        )
        for i, row in enumerate(rows)
    ]
    datasets, options = header.get("datasets"), header.get("options")
    if not isinstance(datasets, list) or not isinstance(options, dict):
        raise UserError(f"{path}: does not say of which episodes it was made", _AGAIN)
    return KeyframeSet(keyframes, datasets, options)


def _check_rows(path: Path, rows: list[Any]) -> None:
    for number, row in enumerate(rows):
        for name, kind in _FIELDS.items():
            value = row.get(name) if isinstance(row, dict) else None
            if type(value) is not kind:
                raise UserError(f"{path}: keyframe {number}: {name} is {value!r:.80}, no {kind.__name__}", _AGAIN)
        small = all(abs(row[name]) < 2**31 for name, kind in _FIELDS.items() if kind is int)
        possible = row["frame"] >= 1 and row["horizon"] >= 1 and row["sim_state_size"] >= 0
        if row["kind"] not in KINDS or not small or not possible:
            told = ", ".join(f"{name} {str(row[name])[:20]}" for name in ("kind", "frame", "horizon"))
            raise UserError(f"{path}: keyframe {number}: {told}", _AGAIN)


def _shapes(path: Path, header: dict[str, Any], state_numbers: int) -> dict[str, tuple[int | None, ...]]:
    """Shapes that the arrays must have by what the list says; None where it does not say."""
    count, size = len(header["keyframes"]), header.get("image_size")
    numbers = [*size, header.get("memory"), header.get("action_dim")] if isinstance(size, list) else [None]
    if len(numbers) != 4 or not all(type(number) is int and 0 < number <= MAX_SIDE for number in numbers):
        raise UserError(f"{path}: image_size, memory or action_dim is no number of pixels, frames, dimensions", _AGAIN)
    height, width, memory, action_dim = numbers
    return {
        "reference": (count, height, width, 3),
        "memory": (count, memory, height, width, 3),
        "memory_actions": (count, memory, action_dim),
        "proprio": (count, None),
        "camera": (count, None),
        "sim_state": (state_numbers,),
    }


def _load_arrays(path: Path, sha256: Any, shapes: dict[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """The arrays; of each the header is compared before its values are unpacked, and so is how much that makes."""
    if not path.exists():
        raise UserError(f"{path}: no such file", _AGAIN)
    if file_sha256(path) != sha256:
        raise UserError(f"{path}: not the arrays {LIST_FILE} was written for", _AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            there = [name for name in _ARRAYS if name not in _LATER or f"{name}.npy" in archive.namelist()]
            promised = sum(archive.getinfo(f"{name}.npy").file_size for name in there)
            if promised > max(_UNPACKED, _MOST_PACKED * path.stat().st_size):
                raise ValueError(f"{path.stat().st_size} bytes that unpack to {promised}")
            return {name: _load_array(archive, name, shapes[name]) for name in there}
    # A damaged archive fails in every way that zip, its compressions and the arrays' headers can.
    except Exception as error:
        raise UserError(f"{path}: broken ({str(error)[:200]})", _AGAIN) from error


def _load_array(archive: zipfile.ZipFile, name: str, expected: tuple[int | None, ...]) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        shape, dtype, _ = array_header(name, file.read(_HEADER))
    fits = len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))
    if dtype != _ARRAYS[name] or not fits:
        raise ValueError(f"{name}: {dtype} {shape}, {LIST_FILE} makes it {_ARRAYS[name]} {expected}")
    return decode_array(name, archive.read(f"{name}.npy"))
