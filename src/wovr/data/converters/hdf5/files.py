"""HDF5 files of demonstrations as LIBERO, robosuite, RoboCasa, robomimic and Isaac Lab write them.

A file has a group `data/demo_N` an episode. Row t of a group holds the observation, the action taken at it, and reward
and `done` after that action. LIBERO stores its pictures as OpenGL gives them, last line first, and says so in the
attribute `macros_image_convention`; the others have turned them. `done` marks the end of a demo, successful or not
(robomimic's `--done_mode` 1 and 2), so it is never taken for success by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.hdf5 import reading as hdf5
from wovr.data.converters.hdf5.instruction import find_instruction, json_object
from wovr.data.converters.source import MAX_COLUMN, EpisodeSource, no_column, numbered, text_of
from wovr.errors import UserError

STATES = (
    ("ee_pos", "ee_ori", "gripper_states"),
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("eef_pos", "eef_quat", "gripper_pos"),
)
"""Observations that together are the proprioception, the hand's position first: LIBERO's, robosuite's, Isaac Lab's."""

OUTCOMES = ("success", "episode_success", "is_success")
"""Attributes of a demo that say whether it succeeded."""

SUCCESS = ("success", "is_success", "rewards")
"""Arrays that tell of success, the surest first."""

DONE = "dones"

_KNOWN_LAYOUTS = {
    ("observations", "action"): "ALOHA's layout",
    ("observation", "joint_action"): "RoboTwin's layout",
    ("traj_0",): "ManiSkill's layout",
}


class Hdf5Files(EpisodeSource):
    """Episodes in HDF5 files.

    Args:
        path: A file, or a folder with any number of them, at any depth.
        instruction: Field of the instruction, see `find_instruction`; empty for whichever is there.

    Raises:
        UserError: No file, not HDF5, no episodes, files that differ in control rate or in how pictures are stored, two
            instructions for one episode, or h5py is missing.
    """

    kind = "hdf5"
    hand_first = True

    def __init__(self, path: Path, instruction: str = "") -> None:
        super().__init__(path)
        found = [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in (".hdf5", ".h5")]
        self.files = sorted(found, key=lambda p: numbered(str(p)))
        if not self.files:
            raise UserError(f"{path}: no .hdf5 or .h5 file", "give a file or the folder that holds them")
        self._open: tuple[Path | None, Any] = (None, None)
        self.episodes: list[tuple[int, str]] = []
        self._texts: list[str] = []
        self._outcomes: dict[str, dict[int, bool]] = {}  # by the attribute's name, of each episode that has it
        self._filtered: dict[Path, set[str]] = {}  # names of the filter keys in each file
        self._damaged: dict[int, str] = {}
        self._observed: set[str] = set()
        self._with_states: set[int] = set()  # files
        self.action = "actions"
        origins: dict[str, str] = {}  # where instructions come from -> the last of them
        try:
            for number, file in enumerate(self.files):
                with hdf5.reading(str(file)):
                    self._index(number, file, instruction, origins)
        except UserError:
            self.close()
            raise
        self.instructions = list(dict.fromkeys(self._texts))
        self._choose_columns()
        self._tell_of(origins)

    def __len__(self) -> int:
        return len(self.episodes)

    def close(self) -> None:
        """Let go of the file that is open."""
        if self._open[1] is not None:
            self._open[1].close()
        self._open = (None, None)

    def where(self, index: int) -> str:
        """File and group."""
        number, key = self.episodes[index]
        return f"{self.files[number]}: {key}"

    def column(self, index: int, key: str) -> np.ndarray:
        """(T,) or (T, D), an array of the group or of its observations, or what an attribute says of the whole."""
        with hdf5.reading(f"{self.where(index)}: {key}"):
            array = self._array(index, key)
            if array is None and key in self._outcomes:
                return self._outcome_column(index, key)
            if array is None or not array.shape:
                raise no_column(self.where(index), key, self.columns)
            values = hdf5.read_column(array)
        self._check_rows(index, key, len(values))
        return values

    def frames(self, index: int, camera: str) -> Iterator[np.ndarray]:
        """T times (H, W, 3) uint8, as stored."""
        with hdf5.reading(f"{self.where(index)}: {camera}"):
            array = self._array(index, camera)
            if array is None:
                raise UserError(f"{self.where(index)}: no camera '{camera}'", f"give --skip {index}")
            if array.shape:
                self._check_rows(index, camera, array.shape[0])
            yield from hdf5.read_pictures(array)

    def task(self, index: int) -> tuple[int, str]:
        """The demo's instruction and its place among those of all files, in the order they occur."""
        text = self._texts[index]
        return self.instructions.index(text), text

    def source_files(self, camera: str) -> list[Path]:
        """The files of episodes, whatever else lies beside them."""
        return self.files

    def sim_state(self, index: int) -> np.ndarray | None:
        """(T, S) float64, MuJoCo's state at each row, where the file holds it; Isaac Lab's group of states is left."""
        if self.episodes[index][0] not in self._with_states:
            return None
        with hdf5.reading(f"{self.where(index)}: states"):
            array = self._array(index, "states")
            if array is None or not array.shape:
                raise hdf5.NotRead("missing, other demos of the file have it", f"give --skip {index}")
            values = hdf5.read_column(array)
        self._check_rows(index, "states", len(values))
        return np.asarray(values, np.float64).reshape(len(values), -1)

    def is_after(self, key: str) -> bool:
        """What is beside the observations is given for the action of its row."""
        return key not in self._observed

    def outcome(self, index: int) -> bool | None:
        """What an attribute of the demo says of it as a whole."""
        return next((told[index] for told in self._outcomes.values() if index in told), None)

    def _index(self, number: int, path: Path, instruction: str, origins: dict[str, str]) -> None:
        """Note a file's demos, and hold it against the first file."""
        data = self._data(path)
        keys = hdf5.names(data)
        first, text = None, ""
        for key in keys:
            try:
                with hdf5.reading(f"{path}: {key}"):
                    demo = hdf5.member(data, key)
                    if not hdf5.is_group(demo):
                        raise hdf5.NotRead("no group")
                    text, origin = find_instruction(demo, data, path, instruction)
                    self._note_outcome(demo, len(self.episodes))
                    self._note_arrays(demo, number)
                origins[origin] = text
                first = demo if first is None else first
            except UserError as error:  # raised when the episode is taken, so that it can be left out
                self._damaged[len(self.episodes)] = str(error)
            self._texts.append(text)
            self.episodes.append((number, key))
        if first is None:
            raise UserError(self._damaged[len(self.episodes) - len(keys)])
        self._note_filters(path, keys)
        fps = _control_rate(data)
        upside_down = _stored_upside_down(data, hdf5.member(first, "obs"))
        if number and fps != self.fps:
            raise UserError(
                f"{path}: {_rate_name(fps)}, {self.files[0]} has {_rate_name(self.fps)}",
                "convert files of different control rates into different folders",
            )
        if number and upside_down != self.upside_down:
            raise UserError(
                f"{path}: pictures the {'wrong' if upside_down else 'right'} way up, those of {self.files[0]} are not",
                "convert them into different folders",
            )
        self.fps, self.upside_down = fps, upside_down

    def _note_outcome(self, demo: Any, index: int) -> None:
        for name in OUTCOMES:
            value = hdf5.attribute(demo, name)
            if value is None:
                continue
            told = _truth(value)
            if told is None:
                raise hdf5.NotRead(f"attribute {name} is {value!r:.60}, neither true nor false")
            self._outcomes.setdefault(name, {})[index] = told

    def _note_filters(self, path: Path, keys: list[str]) -> None:
        """Keep filter keys as robomimic writes them: lists of demos, e.g. `mask/train` and `mask/valid`."""
        mask = hdf5.member(self._file(path), "mask")
        first = len(self.episodes) - len(keys)
        places = {key: first + place for place, key in enumerate(keys)}
        there = hdf5.names(mask)
        self._filtered[path] = set(there)
        for name in there:
            array = hdf5.member(mask, name)
            if not hdf5.is_array(array) or not hdf5.is_text(array) or len(array.shape) != 1:
                self.notes.append(f"{path}: mask/{name} is no list of demos")
                continue
            hdf5.check_array(array, MAX_COLUMN)
            for cell in array[()]:
                demo = text_of(cell)
                if demo not in places:
                    raise hdf5.NotRead(f"mask/{name} names '{demo[:60]}', which is no demo of the file")
                self.filters.setdefault(name, set()).add(places[demo])

    def _note_arrays(self, demo: Any, file: int) -> None:
        """What a demo holds. A name counts where any demo has it, so that one that lacks it is seen."""
        observations = hdf5.member(demo, "obs")
        for holder in (observations, demo):
            for key in hdf5.names(holder):
                array = hdf5.member(holder, key)
                if not hdf5.is_array(array) or not array.shape:
                    continue
                (self._observed.add if holder is observations else self._observed.discard)(key)
                if hdf5.is_colour(array):
                    self.cameras.append(key)
                elif hdf5.looks_like_pictures(array):
                    self.other_pictures.setdefault(key, hdf5.describe(array))
                if hdf5.is_column(array):
                    self.columns.append(key)
                    if key == "states" and len(array.shape) == 2:
                        self._with_states.add(file)
        self.cameras = list(dict.fromkeys(self.cameras))
        self.columns = list(dict.fromkeys(self.columns))

    def _choose_columns(self) -> None:
        """Which of the arrays are what."""
        for camera in self.cameras:
            self.other_pictures.pop(camera, None)
        self.state = next((list(keys) for keys in STATES if all(key in self.columns for key in keys)), [])
        self.columns += [name for name in self._outcomes if name not in self.columns]
        self.labels = [key for key in dict.fromkeys((*self._outcomes, *SUCCESS)) if key in self.columns]
        self.success = next(iter(self.labels), None)
        self.done = DONE if DONE in self.columns else None

    def _tell_of(self, origins: dict[str, str]) -> None:
        """What the command says about this source."""
        if text := origins.get("env_name"):
            self.notes.append(f"no instruction in the files; it is the environment's name, '{text}'")
        if text := origins.get("file name"):
            self.notes.append(f"no instruction in the files; it is the file's name, '{text}'")
        for name in self.filters:
            without = [file for file in self.files if name not in self._filtered[file]]
            if without:
                self.notes.append(
                    f"{without[0]}: no filter key {name}; --filter {name} takes nothing of {len(without)} files"
                )
        if not self.upside_down and any(camera.endswith("_rgb") for camera in self.cameras):
            self.notes.append("the files do not say how pictures are stored; they stay as they are (else: --flip true)")

    def _outcome_column(self, index: int, key: str) -> np.ndarray:
        """(T,) bool, what an attribute says at the last row."""
        told = self._outcomes[key]
        if index not in told:
            raise UserError(
                f"{self.where(index)}: no attribute {key}, other demos have it",
                f"give --skip {index}, or --success with another column, last or none",
            )
        labels = np.zeros(self._rows(index), bool)
        labels[-1:] = told[index]
        return labels

    def _check_rows(self, index: int, key: str, rows: int) -> None:
        """Refuse an array of another length than the actions, and actions of another than `num_samples`.

        Raises:
            UserError: It has more or fewer rows.
        """
        expected = self._rows(index)
        if rows != expected:
            raise UserError(
                f"{self.where(index)}: {key}: {rows} rows, {self.action} has {expected}",
                f"leave the episode out with --skip {index}",
            )

    def _rows(self, index: int) -> int:
        """Rows of an episode: as many as there are actions."""
        with hdf5.reading(self.where(index)):
            array = self._array(index, "actions")
            if array is None or not array.shape:
                raise no_column(self.where(index), "actions", self.columns)
            told = hdf5.attribute(self._group(index), "num_samples")
            if told is not None and int(text_of(told) or np.asarray(told).item()) != array.shape[0]:
                raise UserError(
                    f"{self.where(index)}: num_samples is {told!r:.20}, actions has {array.shape[0]} rows",
                    f"restore the file from a copy, or leave the episode out with --skip {index}",
                )
            return int(array.shape[0])

    def _array(self, index: int, key: str) -> Any:
        """An array of a demo, beside its observations or among them; None where there is none."""
        group = self._group(index)
        found = hdf5.member(group, key)
        if not hdf5.is_array(found):
            found = hdf5.member(hdf5.member(group, "obs"), key)
        return found if hdf5.is_array(found) else None

    def _group(self, index: int) -> Any:
        number, key = self.episodes[index]
        if index in self._damaged:
            raise UserError(self._damaged[index], f"or leave the episode out with --skip {index}")
        return hdf5.member(self._data(self.files[number]), key)

    def _data(self, path: Path) -> Any:
        """The group of a file's demos."""
        file = self._file(path)
        data = hdf5.member(file, "data")
        if hdf5.is_group(data) and len(data.keys()):
            return data
        there = set(hdf5.names(file))
        layout = next((name for keys, name in _KNOWN_LAYOUTS.items() if there >= set(keys)), "")
        raise UserError(
            f"{path}: no group data/demo_N" + (f": this is {layout}, which is not read" if layout else ""),
            "give files of LIBERO's, robomimic's or Isaac Lab's layout, or make a LeRobotDataset of them first",
        )

    def _file(self, path: Path) -> Any:
        if self._open[0] != path:
            self.close()
            self._open = (path, hdf5.open_file(path))
        return self._open[1]


def _control_rate(data: Any) -> float | None:
    """Control rate in Hz as robosuite stores it, a number or one as text; None where there is none."""
    arguments = json_object(hdf5.attribute(data, "env_args")).get("env_kwargs")
    value = arguments.get("control_freq") if isinstance(arguments, dict) else None
    try:
        rate = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return None
    return rate if 0 < rate < math.inf else None


def _rate_name(rate: float | None) -> str:
    return "an unknown rate" if rate is None else f"{rate:g} Hz"


def _stored_upside_down(data: Any, observations: Any) -> bool:
    """Whether a file's pictures have their last line first: it says so, or it is one of LIBERO's.

    LIBERO's cleaned files have no attributes; they are known by the names of their observations.
    """
    convention = text_of(hdf5.attribute(data, "macros_image_convention"))
    if convention in ("opengl", "opencv"):
        return convention == "opengl"
    there = hdf5.names(observations)
    if not any(name.endswith("_rgb") for name in there):
        return False
    known = any(hdf5.attribute(data, name) is not None for name in ("problem_info", "bddl_file_name"))
    return known or {"agentview_rgb", "gripper_states"} <= set(there)


def _truth(value: Any) -> bool | None:
    """What an attribute means: a boolean, 0 or 1, or these as text; None where it is none of them."""
    text = text_of(value).strip().lower()
    if not text:
        numbers = np.asarray(value).reshape(-1)
        text = f"{numbers[0]:g}" if numbers.size == 1 and numbers.dtype.kind in "biuf" else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(text)
