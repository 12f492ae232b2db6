"""The tabletop as a SimulatorEnv: state in and out, pictures, success."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np

from wovr.envs.base import SimulatorEnv, image_observation_space
from wovr.envs.simulators.cameras import camera_of
from wovr.envs.simulators.rendering import choose_backend, fast_renderer

choose_backend()  # before mujoco is imported

import mujoco  # noqa: E402

from wovr.envs.simulators.tabletop.expert import Expert  # noqa: E402
from wovr.envs.simulators.tabletop.goals import World  # noqa: E402
from wovr.envs.simulators.tabletop.scene import (  # noqa: E402
    OPEN_HALF,
    TABLE_HALF,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    scene_xml,
    thing_half_height,
)
from wovr.envs.simulators.tabletop.tasks import SUITES, TASKS, Task  # noqa: E402
from wovr.errors import UserError  # noqa: E402
from wovr.types import ActionAxis, StartState, TaskInfo  # noqa: E402

STEP = 0.025
"""Metres the fingertips' target moves for an action of 1: at most 25 cm/s."""

SUBSTEPS = 25
"""Physics steps of 4 ms an action: 10 Hz."""

LEAD = 0.04
"""Metres the target may run ahead of the fingertips, so that a blocked gripper does not wind up."""

JITTER = 0.015
"""Half width of the objects' jitter in an initial state, metres."""

HAND_START = ((-0.04, 0.04), (-0.06, 0.02), (0.14, 0.18))
"""Ranges of the fingertips' position in an initial state, metres."""


class TabletopEnv(SimulatorEnv):
    """A Cartesian gripper over a table.

    Action (dx, dy, dz, grip): the fingertips' target moves by 2.5 cm x (dx, dy, dz); the fingers close for grip = 1 and
    open for grip = -1, values between command a width between.

    Args:
        size: Height and width of the picture, pixels.
        jitter: Half width of the objects' jitter in an initial state, metres.
    """

    fps: ClassVar[float] = 10.0
    action_axes: ClassVar[Sequence[ActionAxis]] = (
        ActionAxis("x", "left", "right"),
        ActionAxis("y", "towards", "away"),
        ActionAxis("z", "down", "up"),
        ActionAxis("grip", "open", "close", holds=True),
    )
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(self, size: int = 64, jitter: float = JITTER) -> None:
        if size < 16:
            raise UserError(f"tabletop: size {size} is too small", "choose at least 16 pixels")
        self.size = (size, size)
        self.jitter = jitter
        self.render_mode = "rgb_array"
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = image_observation_space(self.size)
        self.task: Task | None = None
        self.world: World
        self.horizon = 0
        self.elapsed = 0

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """`spatial`, `object`, `goal` and `long`, ten tasks each."""
        return SUITES

    def start(self, start: StartState) -> dict[str, Any]:
        """Put the simulator into an initial state, or into a stored state of the same task."""
        if start.suite not in TASKS or not 0 <= start.task < len(TASKS[start.suite]):
            raise UserError(
                f"tabletop has no task {start.task} in suite '{start.suite}'",
                f"suites are {', '.join(TASKS)} with tasks 0 to 9",
            )
        info = SUITES[start.suite][start.task]
        if not 0 <= start.init_state < info.num_init_states:
            raise UserError(
                f"tabletop: initial state {start.init_state} of {info.suite}/{info.name} does not exist",
                f"choose 0 to {info.num_init_states - 1}",
            )
        self.task = TASKS[start.suite][start.task]
        self.model = _model(start.suite, start.task)
        self.data = mujoco.MjData(self.model)
        self.world = World(self.model, self.data, self.task)
        self.expert = Expert(self.world)
        self.horizon = info.horizon
        self.elapsed = 0
        if start.sim_state is None:
            self._initial_state(zlib.crc32(f"{info.suite}/{info.name}".encode()), start.init_state)
        else:
            self._restore(np.asarray(start.sim_state, dtype=np.float64))
        if start.horizon is not None:
            self.horizon = self.elapsed + start.horizon
        self._derive()
        return self._observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action of 0.1 s."""
        if self.task is None:
            raise UserError("tabletop: step before reset", "call reset first")
        action = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        hand = self.data.qpos[:3]
        target = np.clip(self.data.ctrl[:3] + STEP * action[:3], hand - LEAD, hand + LEAD)
        self.data.ctrl[:3] = np.clip(target, WORKSPACE_LOW, WORKSPACE_HIGH)
        self.data.ctrl[3:5] = OPEN_HALF * (1.0 - action[3]) / 2.0
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        self.elapsed += 1
        self._derive()
        success = self.world.success()
        return self._observation(), float(success), success, self.elapsed >= self.horizon, {"success": success}

    def sim_state(self) -> np.ndarray:
        """(S,) float64: steps elapsed, then MuJoCo's integration state (the control targets are part of it)."""
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        state = np.empty(size + 1)
        state[0] = self.elapsed
        mujoco.mj_getState(self.model, self.data, state[1:], mujoco.mjtState.mjSTATE_INTEGRATION)
        return state

    def proprio(self) -> np.ndarray:
        """(8,) float32, metres: the hand (x, y, z), how far each finger is open, the commanded hand (x, y, z)."""
        # The commanded position is what the controller pursues; real controllers report it too.
        return np.concatenate([self.data.qpos[:5], self.data.ctrl[:3]]).astype(np.float32)

    def camera_view(self) -> np.ndarray:
        """(3, 7) float32, the camera, which stands still."""
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = self.model.camera("front").id
        return camera_of(self.model, self.data, camera, _renderer(self.model, self.size).scene, self.size)

    def expert_action(self) -> np.ndarray:
        """(4,) float32, the scripted expert's action: a function of the simulator's state alone."""
        return self.expert.action()

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the camera's picture."""
        assert self.task is not None
        renderer = _renderer(self.model, self.size)
        renderer.update_scene(self.data, camera="front")
        return renderer.render()

    def _observation(self) -> dict[str, Any]:
        assert self.task is not None
        return {"image": self.picture(), "instruction": self.task.instruction}

    def _derive(self) -> None:
        """Positions and contacts of the current state, for pictures and predicates.

        Unlike mj_forward this leaves the solver's warm start alone, so that looking does not change what follows and a
        restored state goes on bit-exactly.
        """
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)

    def _initial_state(self, task_code: int, number: int) -> None:
        assert self.task is not None
        rng = np.random.default_rng([task_code, number])
        hand = [rng.uniform(low, high) for low, high in HAND_START]
        self.data.qpos[:3] = hand
        self.data.ctrl[:3] = hand
        self.data.qpos[3:5] = self.data.ctrl[3:5] = OPEN_HALF
        # Objects on one another (a cube on a block) move together, hence one offset a spot.
        offsets: dict[tuple[float, float], np.ndarray] = {}
        for placement in self.task.placements:
            spot = (placement.x, placement.y)
            if spot not in offsets:
                offsets[spot] = rng.uniform(-self.jitter, self.jitter, size=2)
            yaw = rng.uniform(-0.15, 0.15)
            joint = self.model.joint(placement.thing.name).qposadr[0]
            height = placement.support + thing_half_height(placement.thing) + 0.0005
            room = np.array(TABLE_HALF) - 0.03
            position = np.clip(np.array(spot) + offsets[spot], -room, room)
            self.data.qpos[joint : joint + 7] = [*position, height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        mujoco.mj_step(self.model, self.data, SUBSTEPS)  # objects settle before the first picture
        self.data.time = 0.0

    def _restore(self, state: np.ndarray) -> None:
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION) + 1
        if state.shape != (size,):
            assert self.task is not None
            raise UserError(
                f"tabletop: sim_state has shape {state.shape}, task {self.task.name} takes ({size},)",
                "use a state stored from the same task",
            )
        self.elapsed = int(state[0])
        mujoco.mj_setState(self.model, self.data, state[1:], mujoco.mjtState.mjSTATE_INTEGRATION)


@cache
def _model(suite: str, task: int) -> mujoco.MjModel:
    """The compiled scene of a task, shared by all environments of a process (data is each environment's own)."""
    chosen = TASKS[suite][task]
    return mujoco.MjModel.from_xml_string(scene_xml([p.thing for p in chosen.placements], chosen.fixtures))


@cache
def _renderer(model: mujoco.MjModel, size: tuple[int, int]) -> mujoco.Renderer:
    """One renderer a model and process: rendering is synchronous, and a context takes 50 ms to make."""
    return fast_renderer(model, size)
