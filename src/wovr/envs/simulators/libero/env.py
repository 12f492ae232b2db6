"""LIBERO's four suites of a Panda arm as a SimulatorEnv (extra `libero`): the benchmark of the paper.

Done differently from the package: pictures are upright, an episode's length is counted here, and instead of a hard
reset for every episode the state just after one is put back whole (MuJoCo's state and the controller's memory). That is
as exact, takes milliseconds instead of a second, and lets any state be stored and gone on from bit by bit.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from wovr.envs.base import SimulatorEnv, find_task, image_observation_space
from wovr.envs.simulators.cameras import camera_of
from wovr.envs.simulators.libero.expert import LiberoExpert
from wovr.envs.simulators.libero.install import bddl_file, import_libero, init_states, use_assets
from wovr.envs.simulators.libero.tasks import SUITES
from wovr.envs.simulators.physics import read_physics, set_physics
from wovr.envs.simulators.rendering import close_renderer, fast_renderer
from wovr.errors import UserError
from wovr.functional.cameras import resized
from wovr.types import ActionAxis, StartState, TaskInfo

CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview", "birdview", "sideview", "galleryview")

SETTLE = 10
"""Actions without motion before an episode, in which objects come to rest, as OpenVLA evaluates."""

FIXTURE_SEED = 0
"""Seed of the places the package draws for fixtures (cabinet, stove, rack): always the same, a centimetre or so apart
from those in an initial state's making, of which the package keeps no record."""

MESH_DETAIL = 0.64
"""Detail of meshes a tuned renderer keeps, in metres times pixels: 1 cm at 64 x 64."""

_HEAD = 3
_CONTROLLER = 14
"""Numbers in front of MuJoCo's in a stored state: suite, task, steps elapsed; then what the controller remembers."""


class LiberoEnv(SimulatorEnv):
    """One of LIBERO's tasks at a time.

    Action (x, y, z, rx, ry, rz, grip) in [-1, 1] at 20 Hz, OSC_POSE: the hand's goal is where it is plus
    5 cm x (x, y, z), turned by 0.5 rad x (rx, ry, rz) about the robot base's axes; the fingers close for grip > 0 and
    open for grip < 0.

    Args:
        size: Height and width of the picture, pixels.
        camera: agentview (the paper's), robot0_eye_in_hand, frontview, birdview, sideview or galleryview.
        assets: Folder of LIBERO's meshes and textures; empty for that of WOVR_LIBERO_ASSETS, else the package's or the
            hub's.
        tuned: Render without shadows, multisampling and mesh detail below a pixel: faster, and no longer the
            benchmark's pictures.
        mirrored: Swap left and right: the package's pictures are upside-down, and those that released OpenVLA policies
            were trained on are these turned by 180 degrees.
        settle: Actions without motion before an episode's first frame.
        kept: Tasks whose simulator stays ready in this process; environments side by side share one a task. Each takes
            about 200 MB, and some seconds to make.
    """

    fps: ClassVar[float] = 20.0
    action_axes: ClassVar[Sequence[ActionAxis]] = (
        *(ActionAxis(name) for name in ("x", "y", "z", "turn about x", "turn about y", "turn about z")),
        ActionAxis("grip", "open", "close", holds=True),
    )
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    def __init__(
        self,
        size: int = 256,
        camera: str = "agentview",
        assets: str = "",
        tuned: bool = False,
        mirrored: bool = False,
        settle: int = SETTLE,
        kept: int = 10,
    ) -> None:
        if size < 16:
            raise UserError(f"libero: size {size} is too small", "choose at least 16 pixels")
        if camera not in CAMERAS:
            raise UserError(f"libero has no camera '{camera}'", f"choose one of {', '.join(CAMERAS)}")
        if settle < 0:
            raise UserError(f"libero: settle is {settle}", "wait 0 actions or more")
        if kept < 1:
            raise UserError(f"libero: kept is {kept}", "keep 1 simulator or more")
        import_libero()
        self.pictures = _Pictures(size, camera, str(use_assets(assets)), tuned)
        self.mirrored = mirrored
        self.settle = settle
        self.kept = kept
        self.render_mode = "rgb_array"
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = image_observation_space((size, size))
        self.task: TaskInfo | None = None
        self.horizon = 0
        self.set_aside: np.ndarray | None = None  # our state while another environment uses the simulator

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """`libero_spatial`, `libero_object`, `libero_goal` and `libero_10`, ten tasks each."""
        return SUITES

    def start(self, start: StartState) -> dict[str, Any]:
        """Put the simulator into one of the task's fixed initial states, or into a stored state of the same task."""
        info = find_task("libero", SUITES, start, f"{', '.join(SUITES)} with tasks 0 to 9")
        if self.task is not None:
            self._leave()
        simulator = _simulator(info, self.pictures, self.kept)
        simulator.hand_over(self)
        if start.sim_state is None:
            simulator.reset(init_states(info.suite, info.name)[start.init_state], self.settle)
        else:
            simulator.restore(np.array(start.sim_state, dtype=np.float64))
        self.task = info
        self.horizon = info.horizon if start.horizon is None else simulator.elapsed + start.horizon
        return self._observation(simulator)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action of 50 ms."""
        simulator = self._simulator()
        success = simulator.step(np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0))
        truncated = simulator.elapsed >= self.horizon
        return self._observation(simulator), float(success), success, truncated, {"success": success}

    def sim_state(self) -> np.ndarray:
        """(S,) float64: suite, task, steps elapsed, what the controller remembers, MuJoCo's state."""
        return self._simulator().state()

    def proprio(self) -> np.ndarray:
        """(11,) float32: the hand (x, y, z) in metres, the first two columns of its rotation, the fingers in metres.

        Two columns of a rotation matrix, because three or four numbers of a rotation jump, and do so just where a hand
        points down.
        """
        return self._simulator().proprio()

    def camera_view(self) -> np.ndarray:
        """(3, 7) float32, the camera of the pictures now."""
        view = self._simulator().camera_view()
        return resized(view[None], (self.pictures.size, 0), (-1, 1))[0] if self.mirrored else view

    def expert_action(self) -> np.ndarray:
        """(7,) float32, the scripted expert's action: a function of the simulator's state alone."""
        return self._simulator().expert.action()

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the camera's picture, upright."""
        image = self._simulator().render()
        return np.ascontiguousarray(image[:, ::-1]) if self.mirrored else image

    def close(self) -> None:
        """Leave the simulator in use, and free those that nobody uses."""
        if self.task is not None:
            self._leave()
        for key in [key for key, simulator in _SIMULATORS.items() if simulator.user is None]:
            _SIMULATORS.pop(key).close()

    def _leave(self) -> None:
        assert self.task is not None
        simulator = _SIMULATORS.get((self.task, self.pictures))
        if simulator is not None and simulator.user is self:
            simulator.user = None
        self.task, self.set_aside = None, None

    def _simulator(self) -> TaskSimulator:
        """The task's simulator, in this environment's state."""
        if self.task is None:
            raise UserError("libero: used before reset", "call reset first")
        simulator = _simulator(self.task, self.pictures, self.kept)
        if simulator.user is not self:
            assert self.set_aside is not None
            mine, self.set_aside = self.set_aside, None
            simulator.hand_over(self)
            simulator.restore(mine)
        return simulator

    def _observation(self, simulator: TaskSimulator) -> dict[str, Any]:
        return {"image": self.picture(), "instruction": simulator.info.instruction}


class _Pictures(NamedTuple):
    """What a simulator's pictures are made with."""

    size: int
    camera: str
    assets: str
    tuned: bool


class TaskSimulator:
    """The package's environment of one task, and a renderer. Several LiberoEnvs of a process use it in turns.

    Args:
        info: The task.
        pictures: See _Pictures.
    """

    def __init__(self, info: TaskInfo, pictures: _Pictures) -> None:
        import mujoco

        self.info = info
        self.user: LiberoEnv | None = None
        self.elapsed = 0
        self.domain = _make_domain(info, pictures)
        self.model: Any = self.domain.sim.model._model
        self.data: Any = self.domain.sim.data._data
        self.robot = self.domain.robots[0]
        self.expert = LiberoExpert(self.domain)
        self._home = self.state()
        self._scene_option = mujoco.MjvOption()
        self._scene_option.geomgroup[0] = 0  # collision shapes
        self._camera, self._size = pictures.camera, pictures.size
        self.renderer = _renderer(self.model, pictures)

    def hand_over(self, user: LiberoEnv) -> None:
        """Make `user` the one whose state this is; the state of the one before is set aside for it."""
        if self.user is not None and self.user is not user:
            self.user.set_aside = self.state()
        self.user = user

    def reset(self, init_state: np.ndarray, settle: int) -> None:
        """Begin an episode. The same initial state gives the same state bit by bit, whatever was before.

        Args:
            init_state: (1 + nq + nv,) float64, time, positions and velocities.
            settle: Actions without motion to let objects come to rest.
        """
        if init_state.size != 1 + self.model.nq + self.model.nv:
            raise UserError(
                f"libero: an initial state of {self.info.name} has {init_state.size} numbers, "
                f"its scene needs {1 + self.model.nq + self.model.nv}",
                "use the versions of hf-libero, robosuite and assets that belong together",
            )
        self.restore(self._home)
        self.data.time = init_state[0]
        self.data.qpos[:], self.data.qvel[:] = np.split(init_state[1:], [self.model.nq])
        self._derive()
        for _ in range(settle):
            self.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))
        self.elapsed = 0

    def step(self, action: np.ndarray) -> bool:
        """Execute an action, (7,) in [-1, 1]; True when the frame it leads to is a success."""
        self.domain.step(action)
        self._derive()
        self.elapsed += 1
        return bool(self.domain._check_success())

    def state(self) -> np.ndarray:
        """(S,) float64, all that `restore` needs."""
        controller = self.robot.controller
        head = [float(list(SUITES).index(self.info.suite)), float(self.info.index), float(self.elapsed)]
        fingers = np.broadcast_to(self.robot.gripper.current_action, 2)  # one number before the first action
        memory = (controller.goal_pos, controller.goal_ori.ravel(), fingers)
        return np.concatenate([head, *memory, read_physics(self.model, self.data, _signature())])

    def restore(self, state: np.ndarray) -> None:
        """Go back to a state that `state` returned, from this process or another."""
        own = self.state()
        if state.shape != own.shape or (state[:2] != own[:2]).any():
            raise UserError(
                f"libero: sim_state of shape {state.shape} is not one of task {self.info.name}, which has {own.shape}",
                "use a state stored from the same task with the same versions of hf-libero and mujoco",
            )
        head, memory, physics = np.split(state, [_HEAD, _HEAD + _CONTROLLER])
        self.elapsed = int(head[2])
        controller = self.robot.controller
        controller.goal_pos, controller.goal_ori = memory[:3].copy(), memory[3:12].reshape(3, 3).copy()
        self.robot.gripper.current_action = memory[12:].copy()
        controller.new_update = True  # what it read of the robot before is of another state
        set_physics(self.model, self.data, physics, _signature())
        self._derive()

    def proprio(self) -> np.ndarray:
        """(11,) float32, see LiberoEnv."""
        site = self.robot.eef_site_id
        rotation = self.data.site_xmat[site].reshape(3, 3)
        fingers = self.data.qpos[self.robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([self.data.site_xpos[site], rotation[:, :2].T.ravel(), fingers]).astype(np.float32)

    def _view(self) -> Any:
        """MuJoCo's description of the camera."""
        import mujoco

        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = self.model.camera(self._camera).id
        return camera

    def camera_view(self) -> np.ndarray:
        """(3, 7) float32."""
        return camera_of(self.model, self.data, self._view(), self.renderer.scene, (self._size,) * 2)

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, upright."""
        import mujoco

        camera = self._view()
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        # From the task's own model, which knows whether the stove glows; the renderer's copy does not.
        mujoco.mjv_updateScene(self.model, self.data, self._scene_option, None, camera, every, self.renderer.scene)
        return self.renderer.render()

    def close(self) -> None:
        """Free the renderer and the simulator."""
        if self.user is not None:
            self.user.set_aside = self.state()
        close_renderer(self.renderer)
        self.domain.close()

    def _derive(self) -> None:
        """Positions and contacts of the current state, for pictures and predicates.

        The solver's warm start is put back, so that looking does not change what follows.
        """
        set_physics(self.model, self.data, read_physics(self.model, self.data, _signature()), _signature())
        self.domain._post_process()


@cache
def _signature() -> int:
    """What of MuJoCo's state is stored: all that integration needs but forces from outside, of which there are none."""
    import mujoco

    kinds = mujoco.mjtState
    return int(kinds.mjSTATE_FULLPHYSICS | kinds.mjSTATE_WARMSTART | kinds.mjSTATE_CTRL)


_SIMULATORS: OrderedDict[tuple[TaskInfo, _Pictures], TaskSimulator] = OrderedDict()
"""Simulators of this process, the one used last at the end."""


def _simulator(info: TaskInfo, pictures: _Pictures, kept: int) -> TaskSimulator:
    """The simulator of a task: one that is there, else a new one, for which those unused for longest make room."""
    key = (info, pictures)
    if key not in _SIMULATORS:
        while len(_SIMULATORS) >= kept:
            _SIMULATORS.popitem(last=False)[1].close()
        _SIMULATORS[key] = TaskSimulator(info, pictures)
    _SIMULATORS.move_to_end(key)
    return _SIMULATORS[key]


def _make_domain(info: TaskInfo, pictures: _Pictures) -> Any:
    """The package's environment of a task, just after a hard reset, without cameras and observations of its own."""
    control_env = import_libero()
    use_assets(pictures.assets)
    before = np.random.get_state()  # noqa: NPY002 - the package draws from numpy's shared generator
    np.random.seed(FIXTURE_SEED)  # noqa: NPY002
    try:
        domain = control_env(
            bddl_file_name=str(bddl_file(info.suite, info.name)),
            use_camera_obs=False,
            has_offscreen_renderer=False,
            ignore_done=True,  # steps are counted by LiberoEnv
        ).env
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"libero: the scene of {info.suite}/{info.name} cannot be made: {reason}",
            f"the folder of assets may be incomplete: {pictures.assets}",
        ) from error
    finally:
        np.random.set_state(before)  # noqa: NPY002
    domain._observables.clear()  # computed 25 times a step, and nobody looks at them
    domain.visualize(vis_settings=dict.fromkeys(domain._visualizations, False))  # the gripper's green markers
    domain.sim.forward()
    return domain


def _renderer(model: Any, pictures: _Pictures) -> Any:
    """A renderer of a copy of the model: as LIBERO's pictures are, or a faster one."""
    import mujoco

    size = (pictures.size, pictures.size)
    if pictures.tuned:
        return fast_renderer(model, size, MESH_DETAIL / pictures.size)
    model = copy.copy(model)
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    return mujoco.Renderer(model, *size)
