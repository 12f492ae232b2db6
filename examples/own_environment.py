"""An environment of one's own: a dot that has to reach the left or the right edge, as the instruction says.

    python examples/own_environment.py

From then on every command takes it by its import path, in this folder or wherever Python finds it:

    cd examples
    wovr collect --env own_environment:ReachEnv --suite reach --policy expert --episodes 20 --out data/reach
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np

import wovr
from wovr.envs.base import image_observation_space
from wovr.types import StartState

SIZE = 16  # pixels


class ReachEnv(wovr.SimulatorEnv):
    """An action pushes to the right, by up to 1; success is the dot at the edge that it was told."""

    fps = 5.0

    def __init__(self) -> None:
        self.observation_space = image_observation_space((SIZE, SIZE))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    @classmethod
    def suites(cls) -> Mapping[str, Sequence[wovr.TaskInfo]]:
        """Known without making a simulator."""
        tasks = [
            wovr.TaskInfo("reach", index, side, f"go to the {side}", horizon=16, num_init_states=200)
            for index, side in enumerate(("left", "right"))
        ]
        return {"reach": tasks}

    def start(self, start: StartState) -> dict[str, Any]:
        """Go to a numbered initial state, or to a state that was saved."""
        self.task = self.suites()["reach"][start.task]
        if start.sim_state is not None:
            self.state = start.sim_state.copy()
        else:
            self.state = np.append(np.random.default_rng(start.init_state).uniform(0.3, 0.7, 2), 0.0)
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Push; the state is (x, y, actions so far), places in [0, 1]."""
        self.state[0] = np.clip(self.state[0] + 0.06 * action[0], 0.0, 1.0)
        self.state[2] += 1
        success = bool(self.state[0] <= 0.1 if self.task.index == 0 else self.state[0] >= 0.9)
        return self.observe(), float(success), success, self.state[2] >= self.task.horizon, {"success": success}

    def observe(self) -> dict[str, Any]:
        """A picture (SIZE, SIZE, 3) uint8 and the sentence."""
        return {"image": self.render(), "instruction": self.task.instruction}

    def render(self) -> np.ndarray:
        """A bright, soft dot on a dark ground."""
        y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
        light = np.exp(-((x - self.state[0]) ** 2 + (y - self.state[1]) ** 2) / 0.01)
        return (30 + 200 * light[..., None] * [1.0, 0.8, 0.3]).astype(np.uint8)

    def sim_state(self) -> np.ndarray:
        """All that `start` needs to go on from here."""
        return self.state.copy()

    def expert_action(self) -> np.ndarray:
        """Straight on; raise UserError where there is no scripted expert."""
        return np.array([-1.0 if self.task.index == 0 else 1.0], np.float32)


def main(episodes: int = 20) -> dict[str, float]:
    """Success rates of the expert and of random actions."""
    rates = {}
    with closing(wovr.make_env("own_environment:ReachEnv", num_envs=4, workers=1)) as env:
        plan = wovr.plan_episodes(env.suites["reach"], episodes, "-10:", seed=0)
        for name in ("expert", "random"):
            rollouts = list(wovr.roll_out(env, wovr.make_actor(name, env), plan, seed=0))
            rates[name] = sum(rollout.succeeded for rollout in rollouts) / len(rollouts)
            print(f"{name}: {rates[name]:.0%} of {len(rollouts)} episodes succeed")
    return rates


if __name__ == "__main__":
    main()
