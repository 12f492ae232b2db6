"""Games small enough for tests: a tiny world model of the point environment, the environment itself beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.commands.point_world import POINT, write_checkpoint, write_point_dataset
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.envs.imagined.env import ImaginedVectorEnv, make_imagined_env
from wovr.envs.imagined.parts import load_value
from wovr.models.policies.loading import load_policy
from wovr.models.reward import SuccessClassifier
from wovr.serve.beside import Simulator
from wovr.serve.controls import describe_controls
from wovr.serve.engine import Engine
from wovr.serve.starts import StoredStarts

ENV_ARGS: dict[str, Any] = {"size": 16}


def write_parts(folder: Path) -> Path:
    """Episodes, and untrained networks that fit them; returns the folder."""
    write_point_dataset(folder / "data", (30, 12, 9, 20))
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=2))
    tasks = [("spatial", task) for task in range(3)]
    for name in ("reward", "value"):
        torch.manual_seed(0)
        judges = {"judges": "outcome"} if name == "value" else {}
        judge = SuccessClassifier(window=2, threshold=0.5, consecutive=1, channels=[8, 8], tasks=tasks, **judges)
        write_checkpoint(folder / f"{name}.ckpt", judge)
    save_policy(folder / "policy.ckpt", make_policy())
    return folder


@contextmanager
def engine_of(folder: Path, simulator: bool = True) -> Iterator[Engine]:
    """The engine of what `write_parts` wrote."""
    starts = StoredStarts([folder / "data"])
    env: ImaginedVectorEnv = make_imagined_env(
        folder / "wm.ckpt", folder / "reward.ckpt", starts, 1, stop_at_success=False, device="cpu"
    )
    controls = describe_controls((), starts.store.action_statistics, env.imagination.model.neutral.numpy(), POINT)
    engine = Engine(
        env,
        starts,
        controls,
        load_value(folder / "value.ckpt", starts),
        {"clone": load_policy(folder / "policy.ckpt")},
        Simulator(POINT, ENV_ARGS) if simulator else None,
    )
    try:
        yield engine
    finally:
        engine.close()
