"""The one environment protocol: what a simulator offers, and what everything that acts in one relies on.

Two levels. `SimulatorEnv` is ONE simulator, a `gymnasium.Env` that lives in a worker process. `ChunkVectorEnv` is N
environments side by side, real or imagined, with `step_chunk`; collecting, evaluating and reinforcement learning see
only this one and cannot tell imagination from reality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from wovr.data.converters.action_range import ActionRange
from wovr.errors import UserError
from wovr.types import ActionAxis, ChunkStep, Observation, StartState, TaskInfo

INSTRUCTION_LENGTH = 512
"""Longest instruction in characters, for the observation space."""


CLONE_WITHOUT_PROPRIO = "clone a policy without it: --model.policy.init_args.proprio_dim 0"
"""What to do about a policy whose proprioception nobody can give."""


class SimulatorEnv(gymnasium.Env[dict[str, Any], np.ndarray], ABC):
    """One simulator: observes `{"image": uint8 (H, W, 3), "instruction": str}`, takes float32 (A,) in [-1, 1].

    `step` returns `(observation, reward, terminated, truncated, info)` with `info["success"]` a bool, reward 1.0 on a
    successful frame, `terminated` equal to success and `truncated` at the task's horizon. A subclass sets
    `action_space` and `observation_space` and implements the abstract methods.
    """

    fps: ClassVar[float] = 10.0
    action_range: ActionRange | None = None
    """What an action of -1 and 1 is in the robot's units; None where actions need no units, as in simulators."""
    action_axes: ClassVar[Sequence[ActionAxis]] = ()
    """What each dimension of an action does, for `wovr play`; empty where the class does not say."""
    repeatable: ClassVar[bool] = True
    """Whether `action_repeat` may execute an action several times, see `wovr.envs.action_repeat`."""
    action_repeat: int = 1
    """Steps of the simulator an action takes."""
    looks: bool = True
    """False while nobody looks at what `step` observes: a simulator may repeat its last picture, see `picture`."""
    _seen: np.ndarray

    @classmethod
    @abstractmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """Every suite with its tasks, known without making a simulator."""

    @abstractmethod
    def start(self, start: StartState) -> dict[str, Any]:
        """Put the simulator into a start state and return the observation there.

        Raises:
            UserError: Unknown suite, task or initial state, or a simulator state of another size.
        """

    @abstractmethod
    def sim_state(self) -> np.ndarray | None:
        """(S,) float64, all that `start(StartState(sim_state=...))` needs to go on bit-exactly; None if impossible."""

    def proprio(self) -> np.ndarray | None:
        """(P,) float32, what the robot knows of itself; None where it says nothing.

        First the position (x, y, z) of its hand, then whatever else says how it is going to move. All finite, and
        always the same P.
        """
        return None

    def camera_view(self) -> np.ndarray | None:
        """(3, 7) float32, intrinsics and pose of the camera now, see `wovr.functional.cameras`; None where unknown."""
        return None

    @abstractmethod
    def expert_action(self) -> np.ndarray:
        """(A,) float32, the scripted expert's action in the current state.

        Raises:
            UserError: This task has no scripted expert.
        """

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 for an observation: `render()`, or the picture before while `looks` is False."""
        if self.looks:
            self._seen = np.asarray(self.render())
        return self._seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Gymnasium's reset; `options["start"]` is a StartState, else one is drawn with the seeded generator."""
        super().reset(seed=seed)
        start = (options or {}).get("start")
        if start is None:
            tasks = [task for suite in self.suites().values() for task in suite]
            task = tasks[int(self.np_random.integers(len(tasks)))]
            start = StartState(task.suite, task.index, int(self.np_random.integers(task.num_init_states)))
        return self.start(start), {"success": False}


class ChunkVectorEnv(VectorEnv[dict[str, Any], np.ndarray, np.ndarray], ABC):
    """N environments side by side that execute chunks of actions.

    An environment that has ended stays ended (autoreset is off): its further steps are not simulated and come back with
    `valid` False, until `reset` with `options={"reset_mask": bool (N,), "start_states": [StartState or None, ...]}`
    starts it again. An environment whose start state is None becomes inactive.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]
    fps: float
    action_range: ActionRange | None = None
    action_repeat: int | None = None
    """Steps of the simulator an action takes; of an imagined one, that it learned from. None for unknown."""
    proprio_dim: int = 0
    """Numbers of proprioception that observations hold, P; see `show_proprio`."""

    @property
    def action_dim(self) -> int:
        """Dimensions of an action, A."""
        shape = self.single_action_space.shape
        assert shape is not None
        return int(shape[0])

    @abstractmethod
    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """Execute K actions in every environment that has not ended.

        Args:
            actions: (N, K, A) float32 in [-1, 1].

        Returns:
            What K calls of `step` would have returned.

        Raises:
            UserError: Wrong shape, or an action that is not finite.
        """

    @abstractmethod
    def observe(self) -> Observation:
        """The current observation of all N environments."""

    def show_proprio(self, dim: int) -> None:
        """From now on observations hold proprioception; for a policy that takes it.

        Args:
            dim: How many numbers, P.

        Raises:
            UserError: There is none here, or of another size. Where only a state tells, `observe` says so.
        """
        raise UserError(
            f"this environment gives no proprioception, the policy takes {dim} numbers of it", CLONE_WITHOUT_PROPRIO
        )

    def _add_proprio(self, dim: int) -> None:
        """Put it in the observation spaces."""
        self.proprio_dim = dim
        space = self.single_observation_space
        assert isinstance(space, gymnasium.spaces.Dict)
        numbers = gymnasium.spaces.Box(-np.inf, np.inf, (dim,), np.float32)
        self.single_observation_space = gymnasium.spaces.Dict({**space.spaces, "proprio": numbers})
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def step(self, actions: np.ndarray) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Gymnasium's step: a chunk of one action. `actions` is (N, A)."""
        chunk = self.step_chunk(np.asarray(actions, dtype=np.float32)[:, None])
        info = {"success": chunk.success[:, 0], "valid": chunk.valid[:, 0]}
        info |= {name: value[:, 0] for name, value in chunk.info.items()}
        return self.observation_dict(), chunk.rewards[:, 0], chunk.terminated[:, 0], chunk.truncated[:, 0], info

    def observation_dict(self) -> dict[str, Any]:
        """The current observation as Gymnasium's dictionary."""
        observation = self.observe()
        found = {"image": observation.image, "instruction": tuple(observation.instruction)}
        return found if observation.proprio is None else found | {"proprio": observation.proprio}

    def check_actions(self, actions: np.ndarray) -> np.ndarray:
        """Check a chunk of actions and clip it to [-1, 1].

        Args:
            actions: (N, K, A), any float type.

        Returns:
            (N, K, A) float32.

        Raises:
            UserError: Wrong shape, or an action that is not finite.
        """
        actions = np.asarray(actions, dtype=np.float32)
        if actions.ndim != 3 or actions.shape[0] != self.num_envs or actions.shape[2] != self.action_dim:
            raise UserError(
                f"actions have shape {actions.shape}, this environment takes ({self.num_envs}, K, {self.action_dim})",
                "use a policy trained for this environment's actions",
            )
        if not np.isfinite(actions).all():
            row = int(np.argwhere(~np.isfinite(actions))[0, 0])
            raise UserError(f"action of environment {row} is not finite", "check the policy's weights")
        return np.clip(actions, -1.0, 1.0)


def image_observation_space(size: tuple[int, int]) -> gymnasium.spaces.Dict:
    """The observation space of one environment with images of `size` = (H, W)."""
    return gymnasium.spaces.Dict(
        image=gymnasium.spaces.Box(0, 255, (*size, 3), np.uint8),
        instruction=gymnasium.spaces.Text(INSTRUCTION_LENGTH, min_length=0, charset=PRINTABLE),
    )


PRINTABLE = frozenset(chr(code) for code in range(32, 127))
"""Characters an instruction may hold, for the observation space."""


def find_task(environment: str, suites: Mapping[str, Sequence[TaskInfo]], start: StartState, choices: str) -> TaskInfo:
    """The task of a start state.

    Args:
        environment: Its name, for messages.
        suites: Every suite with its tasks.
        start: Names suite, task and initial state.
        choices: Suites and tasks there are, for messages.

    Raises:
        UserError: Unknown suite, task or initial state.
    """
    if start.suite not in suites or not 0 <= start.task < len(suites[start.suite]):
        raise UserError(f"{environment} has no task {start.task} in suite '{start.suite}'", f"suites are {choices}")
    info = suites[start.suite][start.task]
    if not 0 <= start.init_state < info.num_init_states:
        raise UserError(
            f"{environment}: initial state {start.init_state} of {info.name} does not exist",
            f"choose 0 to {info.num_init_states - 1}",
        )
    return info
