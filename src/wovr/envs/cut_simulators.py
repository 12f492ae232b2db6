"""Simulators whose rollouts are foreseen by a value function, and cut where wanted, as imagined ones are.

What imagination would be without a flaw: the same start states, the same cut, the same value function, but true frames
and true success. So GRPO here is the upper bound of GRPO in a world model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wovr.envs.base import ChunkVectorEnv
from wovr.envs.imagined.parts import Judge
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError, check_least
from wovr.functional.windows import last_frames
from wovr.types import ChunkStep, Observation, StartState

NEVER = np.iinfo(np.int64).max
"""Actions until a cut that never comes."""


class CutSimulators(ChunkVectorEnv):
    """Wraps simulators: every rollout is cut (`truncated`) after `cut_after` actions.

    `ChunkStep.info` holds the `value` (N, K) float32 of the last frame of a chunk, 0 elsewhere: the probability that
    the rollout is going to succeed, 0 where it has ended by success or by its horizon, as from
    `wovr.envs.imagined.env.ImaginedVectorEnv`.

    Args:
        simulators: The simulators, with the last `value.window` pictures of a chunk at least; closed with this.
        value: The value function.
        cut_after: Actions; None for no cut.

    Raises:
        UserError: A cut before the first action.
    """

    def __init__(self, simulators: WorkerVectorEnv, value: Judge, cut_after: int | None) -> None:
        check_least("cut_after", cut_after)
        self.simulators, self.value = simulators, value
        self.cut_after = NEVER if cut_after is None else cut_after
        self.suites, self.fps, self.image_size = simulators.suites, simulators.fps, simulators.image_size
        self.action_repeat = simulators.action_repeat
        self.num_envs = simulators.num_envs
        self.single_observation_space = simulators.single_observation_space
        self.single_action_space = simulators.single_action_space
        self.observation_space, self.action_space = simulators.observation_space, simulators.action_space
        self._left = np.zeros(self.num_envs, np.int64)  # until the cut
        self._tasks = [("", 0)] * self.num_envs
        self._before = np.zeros((self.num_envs, value.window - 1, *self.image_size, 3), np.uint8)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start rollouts; see WorkerVectorEnv.reset.

        Raises:
            UserError: No start states, one without a simulator state at a keyframe, or one of a task that the value
                function does not know.
        """
        starts: Sequence[StartState | None] | None = (options or {}).get("start_states")
        if starts is None:
            raise UserError("rollouts that are cut begin at start states", "give options={'start_states': [...]}")
        for start in starts:
            if start is not None and start.memory is not None and start.sim_state is None:
                raise UserError(
                    f"a keyframe of {start.suite}/{start.task} holds no simulator state",
                    "use keyframes of episodes that a simulator made, or first frames only: --keyframe_share 0",
                )
            if start is not None and (start.suite, start.task) not in self.value.tasks:
                raise UserError(
                    f"the value function was not trained for task {start.suite}/{start.task}",
                    "train one on episodes of this task",
                )
        found = self.simulators.reset(seed=seed, options=options)
        images = self.simulators.observe().image
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), bool)
        for row in np.flatnonzero(mask).tolist():
            begun = starts[row]
            self._left[row] = 0 if begun is None else self.cut_after
            if begun is not None:
                self._tasks[row] = begun.suite, begun.task
                recent = images[row][None] if begun.memory is None else begun.memory
                self._before[row] = last_frames(recent, self._before.shape[1])
        return found

    def observe(self) -> Observation:
        """The current observation of all N rows."""
        return self.simulators.observe()

    def show_proprio(self, dim: int) -> None:
        """See WorkerVectorEnv.show_proprio."""
        self.simulators.show_proprio(dim)
        self._add_proprio(dim)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """Execute K actions in every row that has not ended; those beyond a cut are not executed.

        Raises:
            UserError: See ChunkVectorEnv.step_chunk; or a value that is not finite.
        """
        actions = self.check_actions(actions)
        left, count = self._left, actions.shape[1]
        # All rows that go on have as many actions left as the least of them, or the whole chunk.
        most = int(min(count, left[left > 0].min(initial=count)))
        step = self.simulators.step_chunk(actions[:, :most])
        over = (step.terminated | step.truncated).any(axis=1)
        running = step.valid[:, -1] & ~over
        left[left > 0] -= most
        left[over] = 0
        cut = np.flatnonzero(running & (left == 0))
        window = self.value.window
        clip = np.concatenate([self._before, step.images], axis=1)[:, -window:]
        self._before = clip[:, 1:]
        step.info["value"] = np.zeros(step.valid.shape, np.float32)
        seen = np.flatnonzero(running)
        if len(seen):
            step.info["value"][seen, -1] = self._foresee(clip[seen], [self._tasks[row] for row in seen])
        if len(cut):
            step.truncated[cut, -1] = True
            mask = np.zeros(self.num_envs, bool)
            mask[cut] = True
            idle: list[StartState | None] = [None] * self.num_envs
            self.simulators.reset(options={"start_states": idle, "reset_mask": mask})
        return step if most == count else self._join(step, actions[:, most:])

    def close_extras(self, **kwargs: Any) -> None:
        """End the simulators."""
        self.simulators.close()

    def _foresee(self, clip: np.ndarray, tasks: Sequence[tuple[str, int]]) -> np.ndarray:
        """(R, window, H, W, 3) uint8 -> (R,) float32."""
        with torch.no_grad():
            foreseen = self.value.probability(torch.from_numpy(clip), tasks).float().cpu().numpy()[:, 0]
        if not np.isfinite(foreseen).all():
            raise UserError("the value function's probabilities are not finite", "check its weights; train it again")
        return foreseen

    def _join(self, step: ChunkStep, rest: np.ndarray) -> ChunkStep:
        """A chunk that a row's cut has broken in two."""
        more = self.step_chunk(rest)
        more.images[~more.valid[:, 0]] = step.images[~more.valid[:, 0], -1:]
        step.info["value"][more.valid[:, 0]] = 0.0  # of those that go on the chunk has not ended here
        names = ("images", "success", "terminated", "truncated", "valid", "actions")
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(step, name), getattr(more, name)], axis=1) for name in names
        }
        joined["info"] = {"value": np.concatenate([step.info["value"], more.info["value"]], axis=1)}
        return replace(step, **joined)
