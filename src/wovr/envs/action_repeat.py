"""A control rate below the simulator's own: each action of a policy is executed several times, whatever the simulator.

At 80 Hz a chunk of eight actions is a tenth of a second, in which nothing happens that a policy could learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from wovr.envs.base import SimulatorEnv
from wovr.errors import UserError
from wovr.types import StartState, TaskInfo

ARGUMENT = "action_repeat"
"""The argument that every environment takes beside those of its class."""


class RepeatedActions(SimulatorEnv):
    """A simulator in which an action of the policy is `times` steps of the simulator's own.

    All outside counts the policy's actions: horizons of tasks and of start states, frames, `fps`. An episode may take
    as long as without repetition, so a task's horizon is divided, and rounded up; what the simulator's own arguments
    say is in steps of its own. A success in any of the steps is one of the action. Only the picture after the last of
    them is made, and only where it is looked at. Where the simulator cuts the episode, the rest is not executed.

    Args:
        env: The simulator.
        times: Steps an action, at least 1.

    Raises:
        UserError: The simulator's actions cannot be repeated.
    """

    def __init__(self, env: SimulatorEnv, times: int) -> None:
        if not env.repeatable:
            raise UserError(
                f"{type(env).__name__} does not repeat actions", f"leave {ARGUMENT} out, and set its control rate, fps"
            )
        self.env = env
        self.action_repeat = times
        self.render_mode = env.render_mode
        self.metadata = {**env.metadata, "render_fps": env.fps / times}
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.action_range = env.action_range
        self.fps = env.fps / times  # type: ignore[misc]
        tasks = {suite: tuple(self._task(task) for task in known) for suite, known in env.suites().items()}
        # As of GymEnv: how long a task takes is known of the instance only.
        self.suites = lambda: tasks  # type: ignore[method-assign]

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[TaskInfo]]:
        """Nothing: an instance has those of its simulator."""
        return {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """The simulator's own, which seeds its generator; see `SimulatorEnv.reset`."""
        self.env.looks = self.looks
        options = dict(options or {})
        if (start := options.get("start")) is not None:
            options["start"] = self._in_steps(start)
        return self.env.reset(seed=seed, options=options)

    def start(self, start: StartState) -> dict[str, Any]:
        """See `SimulatorEnv.start`."""
        self.env.looks = self.looks
        return self.env.start(self._in_steps(start))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action, `times` steps of the simulator."""
        succeeded = False
        for left in reversed(range(self.action_repeat)):
            self.env.looks = self.looks and left == 0
            observation, _, _, truncated, info = self.env.step(action)
            if "success" not in info:  # the worker says what is wrong with that
                return observation, 0.0, False, bool(truncated), info
            succeeded |= bool(info["success"])
            if truncated and left:
                observation = self._looked_at(observation)
            if truncated:
                break
        return observation, float(succeeded), succeeded, bool(truncated), {**info, "success": succeeded}

    def sim_state(self) -> np.ndarray | None:
        """(S,) float64, the simulator's."""
        return self.env.sim_state()

    def proprio(self) -> np.ndarray | None:
        """(P,) float32, the simulator's."""
        return self.env.proprio()

    def expert_action(self) -> np.ndarray:
        """(A,) float32, what the simulator's expert does in the current state."""
        return self.env.expert_action()

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, the simulator's."""
        self.env.looks = self.looks
        return self.env.picture()

    def render(self) -> Any:
        """(H, W, 3) uint8, the simulator's."""
        return self.env.render()

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

    def _looked_at(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation of a step that was to be passed over and became the last, with its picture if it counts."""
        if self.looks:
            # A simulator without render() makes a picture of every step.
            with suppress(NotImplementedError):
                return {**observation, "image": self.picture()}
        return observation

    def _task(self, task: TaskInfo) -> TaskInfo:
        return replace(task, horizon=-(-task.horizon // self.action_repeat))

    def _in_steps(self, start: StartState) -> StartState:
        return start if start.horizon is None else replace(start, horizon=start.horizon * self.action_repeat)


def check_times(name: str, times: Any) -> int:
    """The value of `action_repeat` among an environment's arguments.

    Raises:
        UserError: It is no whole number of at least 1.
    """
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        raise UserError(f"environment '{name}': {ARGUMENT} is {times!r}", "give a whole number, 1 or more")
    return times
