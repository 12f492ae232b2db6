"""wovr: post-train a robot policy by reinforcement learning inside a learned video world model.

The interface for one's own programs; whatever else they need is imported from the room that it stands in. Names are
looked up when they are used, so `import wovr` costs nothing, and `EpisodeStore` or `make_env` no torch.

    import wovr

    env = wovr.make_env("tabletop", num_envs=8)
    episodes = wovr.plan_episodes(env.suites["spatial"], 20, "-10:", seed=0)
    actor = wovr.make_actor("runs/bc/checkpoints/last.ckpt", env)
    rollouts = list(wovr.roll_out(env, actor, episodes, seed=0))
    print(sum(rollout.succeeded for rollout in rollouts))

| name | what it is |
|---|---|
| `Episode`, `EpisodeMeta` | a trajectory: frames, actions, success; and what is known of it |
| `save_episodes` | episodes as a data set on disk |
| `EpisodeStore` | the episodes of data sets, by index |
| `SimulatorEnv`, `TaskInfo` | what one's own environment derives from, and says its tasks by |
| `make_env` | N environments side by side, simulated or imagined |
| `plan_episodes` | which episodes to run: tasks in turn, numbered initial states |
| `make_actor` | who acts: expert, random or the policy of a checkpoint |
| `roll_out` | runs episodes to their ends |
| `load_policy`, `load_world_model` | networks out of checkpoints |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wovr.data.store.reader import EpisodeStore
    from wovr.data.store.saving import save_episodes
    from wovr.envs.actors.names import make_actor
    from wovr.envs.base import SimulatorEnv
    from wovr.envs.episodes import plan_episodes
    from wovr.envs.making import make_env
    from wovr.envs.rollout import roll_out
    from wovr.models.policies.loading import load_policy
    from wovr.models.world_model.loading import load_world_model
    from wovr.types import Episode, EpisodeMeta, TaskInfo

__version__ = "0.1.0"

__all__ = [
    "Episode",
    "EpisodeMeta",
    "EpisodeStore",
    "SimulatorEnv",
    "TaskInfo",
    "load_policy",
    "load_world_model",
    "make_actor",
    "make_env",
    "plan_episodes",
    "roll_out",
    "save_episodes",
]

_MODULES = {
    "Episode": "wovr.types",
    "EpisodeMeta": "wovr.types",
    "EpisodeStore": "wovr.data.store.reader",
    "SimulatorEnv": "wovr.envs.base",
    "TaskInfo": "wovr.types",
    "load_policy": "wovr.models.policies.loading",
    "load_world_model": "wovr.models.world_model.loading",
    "make_actor": "wovr.envs.actors.names",
    "make_env": "wovr.envs.making",
    "plan_episodes": "wovr.envs.episodes",
    "roll_out": "wovr.envs.rollout",
    "save_episodes": "wovr.data.store.saving",
}
"""Name -> where it stands; the same as the imports above, which type checkers read (a test holds them together)."""


def __getattr__(name: str) -> Any:
    """Import a name of the interface when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'wovr' has no attribute '{name}'")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What there is, looked up or not."""
    return sorted({*globals(), *__all__})
