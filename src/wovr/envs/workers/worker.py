"""The worker's side of WorkerVectorEnv: a few simulators in a process of their own, which never imports torch.

MuJoCo's software renderers and torch's compiler each bring an LLVM; together in one process they crash, and torch costs
every worker seconds and hundreds of megabytes. So this module, and all that it imports, is free of torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from wovr.data.converters.action_range import ActionRange
from wovr.envs.base import SimulatorEnv
from wovr.envs.registry import make_simulator
from wovr.envs.simulators.rendering import choose_backend, explain_opengl
from wovr.envs.workers.shared_blocks import BlockShape, SharedBlocks
from wovr.errors import UserError
from wovr.functional.cameras import check_cameras
from wovr.importing import tell
from wovr.types import ActionAxis, StartState, TaskInfo


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is made of.

    Attributes:
        name: Environment, as in `wovr.envs.registry`.
        arguments: Arguments of its class, and `action_repeat`.
        rows: Rows of the vector environment this worker simulates.
        record_states: Whether chunks bring the simulator's state and proprioception after each step.
        steps_after_success: Steps an episode goes on after its first success.
        every_frame: Whether a chunk's pictures are all wanted; else its last, where the next is chosen.
    """

    name: str
    arguments: Mapping[str, Any]
    rows: Sequence[int]
    record_states: bool
    steps_after_success: int
    every_frame: bool = True


@dataclass(frozen=True)
class WorkerReport:
    """What a worker says of its simulators once they are made."""

    observation_space: gymnasium.spaces.Dict
    action_space: gymnasium.spaces.Box
    fps: float
    suites: dict[str, tuple[TaskInfo, ...]]
    action_range: ActionRange | None
    action_axes: tuple[ActionAxis, ...]
    action_repeat: int


@dataclass(frozen=True)
class StartOrder:
    """How to start one row: at `start`, or, when it is None, where the simulator's own seeded generator says."""

    start: StartState | None
    seed: int | None


class Recorded(NamedTuple):
    """What is recorded of a simulator beside pictures and flags; None where it is not recorded or not to be had.

    Attributes:
        sim_state: (S,) float64 at one moment, (K, S) after each step of a chunk.
        proprio: (P,) float32 at one moment, (K, P) after each step of a chunk.
        camera: (3, 7) float32 at one moment, (K, 3, 7) after each step of a chunk.
    """

    sim_state: np.ndarray | None = None
    proprio: np.ndarray | None = None
    camera: np.ndarray | None = None


@dataclass(frozen=True)
class WorkerFailure:
    """An exception on its way to the parent: as text, so that nothing needs to survive pickling.

    Attributes:
        problem: One line for the user.
        trace: The worker's traceback, shown under `--debug`.
    """

    problem: str
    trace: str


class SimulatorRow:
    """One simulator and what its episode needs to know of its past.

    Args:
        env: The simulator.
        settings: See WorkerSettings.
    """

    def __init__(self, env: SimulatorEnv, settings: WorkerSettings) -> None:
        self.env = env
        self.settings = settings
        self.running = False
        self.image = np.zeros(env.observation_space["image"].shape, np.uint8)  # type: ignore[index]
        self._steps_left: int | None = None
        self._steps_after_success: int | None = None
        self._proprio_dim: int | None = None

    def start(self, order: StartOrder) -> str:
        """Start an episode; returns its instruction."""
        options = {"start": order.start} if order.start is not None else None
        self.env.looks = True
        observation, _ = self.env.reset(seed=order.seed, options=options)
        self._take_image(observation)
        self._steps_left = order.start.horizon if order.start is not None else None
        self._steps_after_success = None
        self.running = True
        return str(observation["instruction"])

    def step(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        """One step; returns (success, terminated, truncated)."""
        observation, _, _, truncated, info = self.env.step(action)
        if "success" not in info:
            raise UserError(
                f"environment '{self.settings.name}': step() gives no info['success']",
                "see wovr.envs.base.SimulatorEnv for what a simulator has to return",
            )
        self._take_image(observation)
        success = bool(info["success"])
        if self._steps_after_success is not None:
            self._steps_after_success -= 1
        elif success:
            self._steps_after_success = self.settings.steps_after_success
        if self._steps_left is not None:
            self._steps_left -= 1
        terminated = self._steps_after_success == 0
        truncated = bool(truncated) or self._steps_left == 0
        self.running = not (terminated or truncated)
        return success, terminated, truncated

    def expert_action(self) -> np.ndarray:
        """(A,) float32, the scripted expert's action, clipped to [-1, 1]."""
        action = np.asarray(self.env.expert_action(), np.float32)
        if not np.isfinite(action).all():
            raise UserError(f"environment '{self.settings.name}': its expert's action is not finite")
        return np.clip(action, -1.0, 1.0)

    def state(self) -> np.ndarray | None:
        """(S,) float64, the simulator's state; None where it has none."""
        state = self.env.sim_state()
        return None if state is None else np.array(state, np.float64)

    def proprio(self) -> np.ndarray | None:
        """(P,) float32, what the robot knows of itself, always the same P; None where it says nothing."""
        proprio = self.env.proprio()
        if proprio is not None:
            proprio = np.array(proprio, np.float32)
            if proprio.ndim != 1 or not proprio.size or not np.isfinite(proprio).all():
                raise UserError(
                    f"environment '{self.settings.name}': proprio() of shape {proprio.shape}, must be (P,) and finite",
                    "mend the environment",
                )
        dim = 0 if proprio is None else proprio.size
        if self._proprio_dim not in (None, dim):
            raise UserError(
                f"environment '{self.settings.name}': proprio() gives {dim} numbers, {self._proprio_dim} before",
                "mend the environment",
            )
        self._proprio_dim = dim
        return proprio

    def camera(self) -> np.ndarray | None:
        """(3, 7) float32, the camera now; None where it is not known."""
        view = self.env.camera_view()
        if view is None:
            return None
        view = np.array(view, np.float32)
        try:
            check_cameras(view[None])
        except ValueError as error:
            raise UserError(
                f"environment '{self.settings.name}': camera_view(): {error}", "mend the environment"
            ) from error
        return view

    def recorded(self) -> Recorded:
        """All that is recorded at this moment."""
        return Recorded(self.state(), self.proprio(), self.camera())

    def _take_image(self, observation: Mapping[str, Any]) -> None:
        image = np.asarray(observation["image"])
        if image.shape != self.image.shape or image.dtype != np.uint8:
            raise UserError(
                f"environment '{self.settings.name}': image is {image.dtype} {image.shape}, "
                f"its observation space says uint8 {self.image.shape}",
                "mend the environment",
            )
        self.image = image


class SimulationWorker:
    """Serves the requests of a WorkerVectorEnv, one reply each. Each public method is a request.

    Args:
        settings: What to simulate.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.rows: dict[int, SimulatorRow] = {}
        self.blocks: SharedBlocks

    def make(self) -> WorkerReport:
        """Make the simulators."""
        # Before MuJoCo is imported with the environment, which reads its backend only then. Where there is no OpenGL,
        # an environment that needs it says so itself.
        with suppress(UserError):
            choose_backend()
        for row in self.settings.rows:
            env = make_simulator(self.settings.name, self.settings.arguments)
            _check_spaces(self.settings.name, env)
            self.rows[row] = SimulatorRow(env, self.settings)
        suites = {suite: tuple(tasks) for suite, tasks in env.suites().items()}
        spaces = env.observation_space, env.action_space
        described = env.action_range, tuple(env.action_axes), env.action_repeat
        return WorkerReport(*spaces, float(env.fps), suites, *described)  # type: ignore[arg-type]

    def share(self, path: Path, shape: BlockShape) -> None:
        """Open the shared arrays."""
        self.blocks = SharedBlocks(path, shape)

    def start(self, orders: Mapping[int, StartOrder | None]) -> dict[int, str]:
        """Start the rows of `orders`, or make them idle where the order is None; returns their instructions."""
        for row in orders:
            self.rows[row].running = False
        instructions = {}
        for row, order in orders.items():
            simulator = self.rows[row]
            if order is None:
                self.blocks.current[row] = 0
                instructions[row] = ""
            else:
                instructions[row] = simulator.start(order)
                self.blocks.current[row] = simulator.image
        return instructions

    def chunk(self, rows: Sequence[int], num_steps: int, expert: bool) -> dict[int, Recorded]:
        """Execute up to `num_steps` shared actions, or the expert's, in each of `rows`.

        Returns:
            Row -> what was recorded after each of `num_steps` steps (the last repeated after the end).
        """
        return {row: self._row_chunk(row, num_steps, expert) for row in rows}

    def _row_chunk(self, row: int, num_steps: int, expert: bool) -> Recorded:
        simulator, blocks = self.rows[row], self.blocks
        moments: list[Recorded] = []
        for step in range(num_steps):
            valid = simulator.running
            success = terminated = truncated = False
            if valid:
                if expert:
                    blocks.actions[row, step] = simulator.expert_action()
                simulator.env.looks = self.settings.every_frame or step == num_steps - 1
                success, terminated, truncated = simulator.step(blocks.actions[row, step].copy())
                if self.settings.record_states:
                    moments.append(simulator.recorded())
            else:
                if expert:
                    blocks.actions[row, step] = 0.0
                if moments:
                    moments.append(moments[-1])
            blocks.images[row, step] = simulator.image
            blocks.success[row, step], blocks.valid[row, step] = success, valid
            blocks.terminated[row, step], blocks.truncated[row, step] = terminated, truncated
        blocks.current[row] = simulator.image
        return Recorded(*(_stack(values) for values in zip(*moments, strict=True)))

    def states(self, rows: Sequence[int]) -> dict[int, np.ndarray | None]:
        """Row -> (S,) float64, the simulator's current state; None where it cannot tell."""
        return {row: self.rows[row].state() for row in rows}

    def proprios(self, rows: Sequence[int]) -> dict[int, np.ndarray | None]:
        """Row -> (P,) float32, what the robot knows of itself now; None where it says nothing."""
        return {row: self.rows[row].proprio() for row in rows}

    def cameras(self, rows: Sequence[int]) -> dict[int, np.ndarray | None]:
        """Row -> (3, 7) float32, the camera now; None where it is not known."""
        return {row: self.rows[row].camera() for row in rows}

    def close(self) -> None:
        """Close the simulators."""
        for simulator in self.rows.values():
            simulator.env.close()


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """The worker process: answer `(method, arguments)` until told to close or the parent is gone.

    Every answer is a tuple of one: the method's result or a WorkerFailure.
    """
    worker = SimulationWorker(settings)
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            answer = getattr(worker, method)(*arguments)
        except UserError as error:
            answer = WorkerFailure(str(error), traceback.format_exc())
        except Exception as error:
            problem = f"environment '{settings.name}' failed in {method}: {tell(error)}"
            answer = WorkerFailure(str(explain_opengl(error) or problem), traceback.format_exc())
        try:
            connection.send((answer,))
        except OSError:
            return
        if method == "close":
            return


def _stack(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """(K, ...) of K vectors; None where one of them is missing."""
    known = [value for value in values if value is not None]
    return np.stack(known) if len(known) == len(values) else None


def _check_spaces(name: str, env: SimulatorEnv) -> None:
    """Refuse a simulator whose spaces are not those of the protocol."""
    spaces, action = env.observation_space, env.action_space
    image = spaces.spaces.get("image") if isinstance(spaces, gymnasium.spaces.Dict) else None
    if image is None or image.dtype != np.uint8 or len(image.shape or ()) != 3 or (image.shape or ())[-1] != 3:
        raise UserError(f"environment '{name}' does not observe an 'image' of uint8 (H, W, 3)", "mend or wrap it")
    if not isinstance(action, gymnasium.spaces.Box) or len(action.shape) != 1:
        raise UserError(f"environment '{name}' does not take a vector of numbers as action", "mend or wrap it")
