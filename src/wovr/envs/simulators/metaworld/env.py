"""Meta-World's 50 tasks of a Sawyer arm as a SimulatorEnv (extra `metaworld`): the proof that foreign simulators fit.

Done differently from the package: pictures come from a closer camera through a tuned renderer, layouts have numbers,
an episode ends with the first successful frame, and the state of the simulator can be stored and restored bit-exactly.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from wovr.envs.base import SimulatorEnv, find_task, image_observation_space
from wovr.envs.simulators.cameras import camera_of
from wovr.envs.simulators.metaworld.tasks import HORIZON, INSTRUCTIONS, SUITES
from wovr.envs.simulators.physics import read_physics, set_physics
from wovr.envs.simulators.rendering import choose_backend, close_renderer, explain_opengl, fast_renderer
from wovr.errors import UserError
from wovr.types import ActionAxis, StartState, TaskInfo

WORKSPACE = {"lookat": (0.0, 0.67, 0.13), "azimuth": 145.0, "elevation": -35.0, "distance": 1.05}
"""The camera `workspace`, in metres and degrees: `corner4`'s view from nearer; a 4 cm puck is 3 pixels at 64 x 64."""

UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
"""Cameras that the package mounts on their heads; their pictures are turned by 180 degrees."""

CAMERAS = ("workspace", *UPSIDE_DOWN, "topview", "behindGripper", "gripperPOV")

MESH_DETAIL = 1.28
"""Detail of meshes the renderer keeps, in metres times pixels: 2 cm at 64 x 64, a pixel and a half of `workspace`."""

_OBSERVATION = 39
"""Numbers of Meta-World's observation: the current 18, the 18 before, the goal's 3."""


class MetaWorldEnv(SimulatorEnv):
    """One of Meta-World's tasks at a time. Action (dx, dy, dz, grip): the hand moves by 1 cm x (dx, dy, dz) at 80 Hz,
    the fingers close for grip = 1 and open for grip = -1.

    Args:
        size: Height and width of the picture, pixels.
        camera: `workspace`, or one of the package's own: corner, corner2, corner3, corner4, topview, behindGripper,
            gripperPOV.
        horizon: Actions after which an episode is cut, at most Meta-World's 500. Its scripted policies need 60 to 150
            for most tasks.
        kept: Simulators that stay ready in this process for tasks to come back, beside those in use. Each takes about
            100 MB, and half a second to make.
    """  # noqa: D205

    fps: ClassVar[float] = 80.0
    action_axes: ClassVar[Sequence[ActionAxis]] = (
        *(ActionAxis(name) for name in ("x", "y", "z")),
        ActionAxis("grip", "open", "close", holds=True),
    )
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 80}  # type: ignore[misc]

    def __init__(self, size: int = 64, camera: str = "workspace", horizon: int = HORIZON, kept: int = 8) -> None:
        if size < 16:
            raise UserError(f"metaworld: size {size} is too small", "choose at least 16 pixels")
        if camera not in CAMERAS:
            raise UserError(f"metaworld has no camera '{camera}'", f"choose one of {', '.join(CAMERAS)}")
        if not 1 <= horizon <= HORIZON:
            raise UserError(f"metaworld: horizon {horizon} is out of range", f"choose 1 to {HORIZON} actions")
        if kept < 0:
            raise UserError(f"metaworld: kept is {kept}", "keep 0 simulators or more")
        _require_metaworld()
        self.size = (size, size)
        self.camera = camera
        self.most = horizon
        self.kept = kept
        self.render_mode = "rgb_array"
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = image_observation_space(self.size)
        self.current: _TaskSimulator | None = None
        self.horizon = 0

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """`mt50` with all tasks, and the package's benchmarks: mt10, mt25, ml10/ml25/ml45 with `_train` and `_test`."""
        return SUITES

    def start(self, start: StartState) -> dict[str, Any]:
        """Put the simulator into an initial state, or into a stored state of the same task."""
        choices = ", ".join(f"{name} (0 to {len(tasks) - 1})" for name, tasks in SUITES.items())
        info = find_task("metaworld", SUITES, start, choices)
        simulator = self._simulator(info.name)
        if start.sim_state is None:
            simulator.reset(simulator.layout(start.init_state))
        else:
            simulator.restore(np.asarray(start.sim_state, dtype=np.float64))
        self.horizon = self.most if start.horizon is None else simulator.elapsed + start.horizon
        return self._observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action of 12.5 ms."""
        simulator = self._started()
        success = simulator.step(np.clip(np.asarray(action, dtype=np.float32), -1.0, 1.0))
        truncated = simulator.elapsed >= self.horizon
        return self._observation(), float(success), success, truncated, {"success": success}

    def sim_state(self) -> np.ndarray:
        """(S,) float64: task, steps elapsed, layout, Meta-World's last observations, MuJoCo's integration state."""
        return self._started().state()

    def proprio(self) -> np.ndarray:
        """(7,) float32: the hand (x, y, z) in metres, the gripper's opening (1 is open), the commanded hand."""
        return self._started().proprio()

    def camera_view(self) -> np.ndarray:
        """(3, 7) float32, the camera of the pictures."""
        return self._started().camera_view()

    def expert_action(self) -> np.ndarray:
        """(4,) float32, the package's own scripted policy."""
        return self._started().expert_action()

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the camera's picture."""
        return self._started().render()

    def close(self) -> None:
        """Free the simulator in use, and those kept."""
        kept = [simulator for idle in _KEPT.values() for simulator in idle]
        _KEPT.clear()
        for simulator in (*kept, self.current):
            if simulator is not None:
                simulator.close()
        self.current = None

    def _observation(self) -> dict[str, Any]:
        return {"image": self.picture(), "instruction": INSTRUCTIONS[self._started().name]}

    def _started(self) -> _TaskSimulator:
        if self.current is None:
            raise UserError("metaworld: used before reset", "call reset first")
        return self.current

    def _simulator(self, name: str) -> _TaskSimulator:
        """The task's simulator: the one in use, one that was kept, or a new one."""
        if self.current is not None and self.current.name == name:
            return self.current
        if self.current is not None:
            if sum(map(len, _KEPT.values())) < self.kept:
                _KEPT.setdefault((self.current.name, self.size, self.camera), []).append(self.current)
            else:
                # Tasks come in turn, so those kept are due earlier than the one that has just been.
                self.current.close()
            self.current = None  # not ours any more, even if the next one cannot be made
        idle = _KEPT.get((name, self.size, self.camera))
        self.current = idle.pop() if idle else _TaskSimulator(name, self.size, self.camera)
        return self.current


class _TaskSimulator:
    """One task: the package's environment and scripted policy, and a renderer."""

    def __init__(self, name: str, size: tuple[int, int], camera: str) -> None:
        import metaworld
        import mujoco
        from metaworld.policies import ENV_POLICY_MAP

        self.name, self.size = name, size
        self.env: Any = metaworld.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](seed=0)
        self.env.max_path_length = np.inf  # steps are counted here: a restored episode may go on past 500
        self.env.seeded_rand_vec = True
        self.expert = ENV_POLICY_MAP[name]()
        self.renderer = fast_renderer(self.env.model, size, MESH_DETAIL / size[0])
        self.upside_down = camera in UPSIDE_DOWN
        self.camera = _camera(self.env.model, camera)
        self.scene_option = mujoco.MjvOption()
        self.observation = np.zeros(_OBSERVATION)

    @property
    def elapsed(self) -> int:
        """Steps since the initial state."""
        return int(self.env.curr_path_length)

    def layout(self, number: int) -> np.ndarray:
        """(3,) or (6,) float64, where object and goal are in initial state `number`; drawn as the task draws them."""
        env = self.env
        env._freeze_rand_vec = False
        # Tasks draw again until object and goal are apart: only a reset knows what it ended with.
        env.np_random = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        env.reset()
        return np.array(env._last_rand_vec, dtype=np.float64)

    def reset(self, layout: np.ndarray) -> None:
        """Begin an episode with a layout. The same layout gives the same state bit by bit, whatever was before."""
        env = self.env
        env._freeze_rand_vec = True
        env._last_rand_vec = np.array(layout, dtype=np.float64)
        env.reset()
        # A reset moves some bodies and markers after its last forward pass.
        set_physics(env.model, env.data, read_physics(env.model, env.data))
        current = env._get_curr_obs_combined_no_goal()
        env._prev_obs = current
        self.observation = np.hstack((current, current, env._get_pos_goal()))

    def step(self, action: np.ndarray) -> bool:
        """Execute an action, (4,) in [-1, 1]; True when the frame it leads to is a success."""
        self.observation, _, _, _, info = self.env.step(action)
        return bool(info["success"])

    def state(self) -> np.ndarray:
        """(S,) float64, all that `restore` needs."""
        env = self.env
        task = list(INSTRUCTIONS).index(self.name)
        head = [float(task), float(self.elapsed)]
        return np.concatenate(
            [head, env._last_rand_vec, env._prev_obs, self.observation, read_physics(env.model, env.data)]
        )

    def restore(self, state: np.ndarray) -> None:
        """Go back to a state that `state` returned, from this process or another."""
        own = self.state()
        if state.shape != own.shape or state[0] != own[0]:
            raise UserError(
                f"metaworld: sim_state of shape {state.shape} is not one of task {self.name}, which has {own.shape}",
                "use a state stored from the same task with the same versions of metaworld and mujoco",
            )
        env = self.env
        layout, previous = env._last_rand_vec.size, env._prev_obs.size
        parts = np.split(state, np.cumsum([2, layout, previous, _OBSERVATION]))
        self.reset(parts[1])  # the task keeps its targets and fixtures outside MuJoCo's state
        env.curr_path_length = int(state[1])
        env._prev_obs = parts[2].copy()
        self.observation = parts[3].copy()
        set_physics(env.model, env.data, parts[4])

    def proprio(self) -> np.ndarray:
        """(7,) float32, see MetaWorldEnv."""
        # From the observation, which is stored with the state: MuJoCo's positions are a substep behind after a step.
        return np.concatenate([self.observation[:4], self.env.data.mocap_pos[0]]).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """(4,) float32 in [-1, 1]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the policies warn of every action that needs clipping
            return np.clip(self.expert.get_action(self.observation), -1.0, 1.0).astype(np.float32)

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        import mujoco

        every = mujoco.mjtCatBit.mjCAT_ALL.value
        # From the task's own model: the renderer's copy does not know where this layout has its fixtures.
        mujoco.mjv_updateScene(
            self.env.model, self.env.data, self.scene_option, None, self.camera, every, self.renderer.scene
        )
        image = self.renderer.render()
        return np.ascontiguousarray(image[::-1, ::-1]) if self.upside_down else image

    def camera_view(self) -> np.ndarray:
        """(3, 7) float32; of pictures that are turned over, the camera that has them so."""
        view = camera_of(self.env.model, self.env.data, self.camera, self.renderer.scene, self.size)
        if self.upside_down:
            view[:2, 3:] *= -1  # half a turn about its axis
        return view

    def close(self) -> None:
        """Free the renderer."""
        close_renderer(self.renderer)
        self.env.close()


_KEPT: dict[tuple[str, tuple[int, int], str], list[_TaskSimulator]] = {}
"""Simulators of this process that no MetaWorldEnv uses now, by task, size and camera: environments side by side pass
tasks on to one another."""


def _camera(model: Any, name: str) -> Any:
    """MuJoCo's description of a camera."""
    import mujoco

    camera = mujoco.MjvCamera()
    if name == "workspace":
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = WORKSPACE["lookat"]
        for key in ("azimuth", "elevation", "distance"):
            setattr(camera, key, WORKSPACE[key])
    else:
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = model.camera(name).id
    return camera


def _require_metaworld() -> None:
    """Import the package, or say how to get it."""
    choose_backend()  # before metaworld imports mujoco
    try:
        import metaworld.policies  # noqa: F401
    except ImportError as error:
        raise explain_opengl(error) or UserError(
            f"metaworld cannot be imported ({error})", "install it with: pip install 'wovr[metaworld]'"
        ) from error
