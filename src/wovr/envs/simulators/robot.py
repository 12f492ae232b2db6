"""A real robot behind the environment protocol: reset by a person, stop key, limits of motion, a watchdog.

Derive a class from `RobotEnv`, implement its five methods, and name it by import path:

    wovr collect --env franka:FrankaEnv --suite robot --policy runs/bc/checkpoints/last.ckpt --episodes 50
      --num_envs 1 --shard_episodes 1 --steps_after_success 0 --out data/franka

The robot acts in a worker process without standard input, so the person is asked and heard over the terminal itself.
"""

from __future__ import annotations

import os
import select
import termios
import threading
import time
import tty
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from wovr.data.converters.action_range import ActionRange
from wovr.data.store.dataset import read_dataset, stored_range
from wovr.envs.base import SimulatorEnv, find_task, image_observation_space
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, StartState, TaskInfo

SUITE = "robot"
"""The suite of a robot's tasks."""

ARRANGEMENTS = 10_000
"""Numbered initial states a task is said to have: a person arranges each."""

SUCCESS_KEYS, STOP_KEYS = b" ", b"\x1bq"
"""Space; Esc and q."""


class Terminal:
    """The person at the robot: sees lines, presses keys.

    Args:
        path: The terminal's device.

    Raises:
        UserError: There is no such terminal.
    """

    def __init__(self, path: str = "/dev/tty") -> None:
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
            self._before = termios.tcgetattr(self.descriptor)
        except (OSError, termios.error) as error:
            raise UserError(
                f"{path}: no terminal ({error}), and a robot needs a person at one", "start the command from a terminal"
            ) from error

    def say(self, text: str) -> None:
        """Print a line."""
        os.write(self.descriptor, f"{text}\r\n".encode())

    def listen(self) -> None:
        """From now on keys are heard one by one, without Enter, and not shown; those pressed before are forgotten."""
        tty.setcbreak(self.descriptor, termios.TCSAFLUSH)

    def rest(self) -> None:
        """The terminal is as it was before `listen`."""
        termios.tcsetattr(self.descriptor, termios.TCSAFLUSH, self._before)

    def pressed(self, seconds: float | None = 0.0) -> bytes:
        """The keys pressed since the last call; waits up to so long for the first one (None: as long as it takes)."""
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        return os.read(self.descriptor, 64) if ready else b""

    def close(self) -> None:
        """Give the terminal back."""
        self.rest()
        os.close(self.descriptor)


class RobotEnv(SimulatorEnv):
    """One robot.

    Action 1 in a dimension moves it by `largest` there, in the robot's units; or actions are those of converted
    episodes, whose normalisation is undone.

    An episode begins when the person has arranged the scene and presses Enter, and is cut at the horizon. The person
    ends it earlier: with the space bar when the task is done, the only way in which an episode succeeds (unless a
    subclass overrides `success`); with Esc or q when something is going wrong, which halts the robot.

    Before it reaches the robot an action is clipped to [-1, 1], changes by `smoothest` at most from one step to the
    next in each dimension but the gripper's, and its first three numbers cannot take the hand out of the workspace. If
    a step takes longer than `timeout` seconds, because a camera or a driver hangs, the robot is halted from another
    thread and the episode ends.

    Args:
        image_size: (H, W) of the pictures.
        largest: (A,) what an action of 1 is in the robot's units, per step; metres first if `workspace` is given. None
            with `dataset`.
        dataset: Folder of the episodes (`wovr data convert`) that the policy was cloned from: its range of actions says
            what -1 and 1 are. None with `largest`.
        horizon: Actions of an episode, 511 at most.
        smoothest: Largest change of an action's number from one step to the next, of 2; the last one, the gripper's, is
            free.
        workspace: Lowest and highest (x, y, z) of the hand, or None for no limit.
        timeout: Seconds.
        terminal: Device of the person's terminal.

    Attributes:
        instructions: The tasks, English sentences: what the policy is told. A subclass sets them, and `fps`.

    Raises:
        UserError: No terminal, or numbers that do not fit each other.
    """

    fps: ClassVar[float] = 10.0
    repeatable: ClassVar[bool] = False  # a step waits for the person's keys, and `fps` is what one sets
    instructions: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        image_size: tuple[int, int],
        largest: Sequence[float] | None = None,
        *,
        dataset: str | None = None,
        horizon: int = 300,
        smoothest: float = 0.5,
        workspace: tuple[Sequence[float], Sequence[float]] | None = None,
        timeout: float = 1.0,
        terminal: str = "/dev/tty",
    ) -> None:
        self.action_range: ActionRange = self._range(largest, dataset)
        low, high = ((-np.inf,) * 3, (np.inf,) * 3) if workspace is None else workspace
        self.low, self.high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        for wrong, what, remedy in (
            (not 1 <= horizon < MAX_FRAMES, f"horizon is {horizon}", f"give 1 to {MAX_FRAMES - 1}"),
            (not smoothest > 0, f"smoothest is {smoothest}", "give a number above 0"),
            (not timeout > 0, f"timeout is {timeout}", "give seconds above 0"),
            (not (self.low < self.high).all(), f"workspace {low} to {high} is empty", "give the lower corner first"),
        ):
            if wrong:
                raise UserError(f"{type(self).__name__}: {what}", remedy)
        self.size, self.horizon, self.smoothest, self.timeout = image_size, horizon, smoothest, timeout
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, self.action_range.low.shape, np.float32)
        self.observation_space = image_observation_space(image_size)
        self.person = Terminal(terminal)
        self.instruction = ""
        self.elapsed = 0
        self.hung = threading.Event()

    # --- what a subclass implements ----------------------------------------------------------------------------------

    @abstractmethod
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, what the camera sees now."""

    @abstractmethod
    def measure(self) -> np.ndarray:
        """(P,) float32, what the robot knows of itself: first the hand's position (x, y, z), in metres."""

    @abstractmethod
    def command(self, motion: np.ndarray) -> None:
        """Begin a motion of (A,) float64 in the robot's units, within the limits; return at once."""

    @abstractmethod
    def halt(self) -> None:
        """Stop at once and hold. Called from another thread when a step hangs."""

    @abstractmethod
    def home(self) -> None:
        """Open the gripper and go to where episodes begin; return when there."""

    def success(self, image: np.ndarray) -> bool:
        """Whether the task is done, where something else than the person can tell."""
        return False

    # --- the protocol ------------------------------------------------------------------------------------------------

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """The suite `robot`: the class's `instructions`. Its horizon is the longest possible; `horizon` decides."""
        if not cls.instructions:
            raise UserError(f"{cls.__name__} has no tasks", "set its `instructions`, a list of sentences")
        names = [f"task_{index}" for index in range(len(cls.instructions))]
        return {
            SUITE: [
                TaskInfo(SUITE, index, name, sentence, MAX_FRAMES - 1, ARRANGEMENTS)
                for index, (name, sentence) in enumerate(zip(names, cls.instructions, strict=True))
            ]
        }

    def start(self, start: StartState) -> dict[str, Any]:
        """Go home, have the person arrange the scene, begin."""
        task = find_task(type(self).__name__, self.suites(), start, f"{SUITE}, tasks 0 to {len(self.instructions) - 1}")
        if start.sim_state is not None:
            raise UserError("a robot cannot be put into a stored state", "start it from numbered initial states")
        self.home()
        self.instruction, self.elapsed = task.instruction, 0
        self.before = self.action_range.apply(np.zeros((1, len(self.action_range.low))))[0].astype(
            np.float64
        )  # no motion
        self.person.say(f"[{task.index}] {task.instruction} (arrangement {start.init_state})")
        self.person.say("    Enter begins, q ends the session. Then: space = done, Esc or q = halt")
        self.person.listen()  # to the end of the episode: a key must not be lost between two steps
        key = b""
        while key not in (b"\n", b"\r"):
            key = self.person.pressed(None)[-1:]
            if key == b"q":
                self.person.rest()
                raise UserError("the person at the robot ended the session", "give the same command to go on")
        self.tick = time.monotonic()
        return self._observe(self.picture())

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Command one action and observe at the end of its period."""
        self.hung.clear()
        watchdog = threading.Timer(self.timeout + 1 / self.fps, self._watch)
        watchdog.daemon = True
        watchdog.start()
        try:
            self.command(self.limited(np.asarray(action, np.float64)))
            self.elapsed += 1
            self.tick = max(self.tick + 1 / self.fps, time.monotonic())
            keys = self.person.pressed()
            while (left := self.tick - time.monotonic()) > 0:
                keys += self.person.pressed(left)
            image = self.picture()
        finally:
            watchdog.cancel()
        stopped = self.hung.is_set() or any(key in STOP_KEYS for key in keys)
        success = not stopped and (any(key in SUCCESS_KEYS for key in keys) or self.success(image))
        over = stopped or success or self.elapsed >= self.horizon
        if over:
            self.halt()
            self.person.rest()
            self.person.say("    done" if success else "    halted" if stopped else "    time is up")
        return self._observe(image), float(success), success, over and not success, {"success": success}

    def limited(self, action: np.ndarray) -> np.ndarray:
        """(A,) in [-1, 1] -> the motion (A,) in the robot's units that is safe to command.

        Raises:
            UserError: A number that is not finite; the robot is halted.
        """
        if not np.isfinite(action).all():
            self.halt()
            raise UserError(f"{type(self).__name__}: action {action} is not finite", "check the policy's weights")
        change = np.clip(np.clip(action, -1, 1) - self.before, -self.smoothest, self.smoothest)
        change[-1] = np.clip(action[-1], -1, 1) - self.before[-1]
        self.before = self.before + change
        motion = self.action_range.invert(self.before).astype(np.float64)
        hand = np.asarray(self.measure()[:3], np.float64)
        # From outside, as after a reset by hand, it may move inwards only.
        motion[:3] = np.clip(motion[:3], np.minimum(self.low - hand, 0), np.maximum(self.high - hand, 0))
        return motion

    def sim_state(self) -> np.ndarray | None:
        """None: a robot cannot be put back."""
        return None

    def proprio(self) -> np.ndarray | None:
        """`measure`."""
        return np.asarray(self.measure(), np.float32)

    def expert_action(self) -> np.ndarray:
        """There is none."""
        raise UserError(f"{type(self).__name__} has no scripted expert", "use --policy random or a checkpoint")

    def close(self) -> None:
        """Halt, and give the terminal back."""
        with suppress(OSError, termios.error):
            self.halt()
            self.person.close()

    def _range(self, largest: Sequence[float] | None, dataset: str | None) -> ActionRange:
        name = type(self).__name__
        if (largest is None) == (dataset is None):
            raise UserError(f"{name}: give either largest or dataset", "one of them says what an action of 1 is")
        if dataset is None:
            high = np.asarray(largest, np.float64)
            if high.ndim != 1 or not (high > 0).all():
                raise UserError(f"{name}: largest is {largest}", "give numbers above 0")
            return ActionRange("range", -high, high)
        stored = stored_range(read_dataset(Path(dataset)), Path(dataset))
        if stored is None:
            raise UserError(f"{dataset}: its dataset.json holds no range of actions", "give largest instead")
        return stored

    def _watch(self) -> None:
        self.hung.set()
        self.halt()

    def _observe(self, image: np.ndarray) -> dict[str, Any]:
        return {"image": np.asarray(image), "instruction": self.instruction}
