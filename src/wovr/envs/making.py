"""Environments by name, simulated or imagined, in one call. Torch is imported only for an imagined one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from wovr.data.keyframes.start_states import StartStates
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import UserError

if TYPE_CHECKING:
    from wovr.envs.imagined.env import ImaginedVectorEnv

IMAGINED = "imagined"
"""The name of the environment that is a world model."""


@overload
def make_env(
    name: Literal["imagined"],
    num_envs: int = 16,
    *,
    world_model: Path | str,
    reward: Path | str,
    data: Path | str | Sequence[Path | str] | StartStates,
    **arguments: Any,
) -> ImaginedVectorEnv: ...


@overload
def make_env(name: str = "tabletop", num_envs: int = 16, *, workers: int = 0, **arguments: Any) -> WorkerVectorEnv: ...


def make_env(
    name: str = "tabletop",
    num_envs: int = 16,
    *,
    workers: int = 0,
    world_model: Path | str | None = None,
    reward: Path | str | None = None,
    data: Path | str | Sequence[Path | str] | StartStates | None = None,
    **arguments: Any,
) -> WorkerVectorEnv | ImaginedVectorEnv:
    """N environments side by side: simulators in worker processes, or rollouts of a world model.

    Whoever acts cannot tell them apart: see `wovr.envs.base.ChunkVectorEnv`. Close it at the end
    (`contextlib.closing`). A simulated one has `suites`, which `plan_episodes` takes tasks from; an imagined one has
    `starts`, which draws start states.

    Args:
        name: `tabletop`, `metaworld`, `libero`, `gym`, an import path like `my_robot:FrankaEnv`; or `imagined`.
        num_envs: Environments side by side, N.
        workers: Simulator processes; 0 for one a processor core.
        world_model: Checkpoint of a world model; for `imagined`.
        reward: Checkpoint of a success classifier; for `imagined`.
        data: Folder of episodes or several, or their `StartStates`: where imagined rollouts begin.
        arguments: Arguments of the simulator's class, or of `wovr.envs.imagined.env.ImaginedVectorEnv`.

    Raises:
        UserError: Unknown environment, arguments it does not take, checkpoints that cannot be loaded or do not fit each
            other, or options that are missing or have no effect here.
    """
    parts = {"world_model": world_model, "reward": reward, "data": data}
    if name != IMAGINED:
        for label, given in parts.items():
            if given is not None:
                raise UserError(f"{label} of environment '{name}'", f"leave it out, or make '{IMAGINED}'")
        return WorkerVectorEnv(name, num_envs, count_workers(workers), arguments)
    if world_model is None or reward is None or data is None:
        missing = next(label for label, given in parts.items() if given is None)
        raise UserError(f"environment '{IMAGINED}' without {missing}", f"give {missing}")
    from wovr.envs.imagined.env import make_imagined_env

    folders = [data] if isinstance(data, Path | str) else data
    starts = folders if isinstance(folders, StartStates) else StartStates(folders)
    return make_imagined_env(Path(world_model), Path(reward), starts, num_envs, **arguments)
