"""Undamaged inputs, made once a run: tiny, by the command line and by what tests/ write of other people's formats."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from benchmarks.damage.running import run_command
from tests.commands.pace.chain import CONFIGS
from tests.commands.test_fit import POLICY
from tests.data.converters.foreign import write_lerobot, write_libero, write_trajectories
from tests.tasks.world_model.test_training import WORLD

ENV = ["--env", "tests.envs.point_env:PointEnv", "--suite", "spatial", "--num_envs", "2", "--workers", "1"]
ENV += ["--env_args.size", "16", "--env_args.action_dim", "4"]
DATA, OTHER = "data", "other"
WORLD_MODEL, CLASSIFIER, CLONE = "wm.ckpt", "reward.ckpt", "bc.ckpt"
FITS = {
    CLONE: (
        "bc.yaml",
        "data.training.demonstrations.DemonstrationData",
        "tasks.behaviour_cloning.BehaviourCloningTraining",
        {"policy": POLICY},
    ),
    CLASSIFIER: (
        "reward.yaml",
        "data.training.reward.RewardData",
        "tasks.reward.RewardTraining",
        {"network": CONFIGS["reward.yaml"]["model"]["init_args"]["network"]},
    ),
    WORLD_MODEL: (
        "wm.yaml",
        "data.training.world_model.WorldModelData",
        "tasks.world_model.training.WorldModelTraining",
        {"world_model": WORLD},
    ),
}
"""Checkpoint -> configuration, data and task below `wovr`, arguments of the task."""


def make_inputs(folder: Path) -> None:
    """Write everything that cases begin with.

    Raises:
        RuntimeError: A command that makes one of them failed.
    """
    for name, seed in ((DATA, 0), (OTHER, 2)):
        words = [*ENV, "--policy", "expert", "--episodes", "6", "--shard_episodes", "3", "--steps_after_success", "3"]
        _run("collect", *words, "--seed", str(seed), "--out", name)
    _run("collect", *ENV, "--policy", "random", "--episodes", "2", "--out", "random")
    for checkpoint, (config, data, task, arguments) in FITS.items():
        Path(config).write_text(yaml.safe_dump(_training(data, task, arguments), sort_keys=False))
        for name, source in ((checkpoint, DATA), (f"other_{checkpoint}", OTHER)):
            _run("fit", "--config", config, "--data.folder", source, "--out", f"runs/{name}")
            shutil.copy(f"runs/{name}/checkpoints/last.ckpt", name)
    write_lerobot(Path("lerobot"), "v3.0")
    write_lerobot(Path("lerobot2"), "v2.1")
    write_lerobot(Path("lerobot_pictures"), "v3.0", pictures=True)
    write_libero(Path("libero/demo.hdf5"), demos=3)
    write_trajectories(Path("trajectories"), count=3)
    Path("chain.yaml").write_text(yaml.safe_dump(chain(), sort_keys=False))


def chain() -> dict[str, Any]:
    """A chain of the point environment: demonstrations, a clone, its episodes, a classifier, its measurement."""
    act = {"env": ENV[1], "suite": "spatial", "num_envs": 2, "workers": 1, "env_args": {"size": 16, "action_dim": 4}}
    clone = "{stage:sft_fit}/checkpoints/last.ckpt"
    return {
        "suite": "spatial",
        "jobs": 2,
        "stages": [
            {
                "name": "demos",
                "command": "collect",
                "args": {"policy": "expert", "episodes": 4, "seed": "{seed}", **act},
            },
            {"name": "sft_fit", "command": "fit", "config": "bc.yaml", "args": {"data.folder": "{stage:demos}"}},
            {"name": "collect_base", "command": "collect", "args": {"policy": clone, "episodes": 4, **act}},
            {"name": "reward_fit", "command": "fit", "config": "reward.yaml", "args": {"data.folder": "{stage:demos}"}},
            {
                "name": "sr_base",
                "command": "evaluate",
                "title": "cloned policy",
                "args": {"policy": clone, "episodes": 1, "videos": 0, **act},
            },
        ],
    }


def _training(data: str, task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A training of two steps, validation included."""
    return {
        "save_every_n_steps": 1,
        "model": {"class_path": f"wovr.{task}", "init_args": {"warmup_steps": 1, **arguments}},
        "data": {"class_path": f"wovr.{data}", "init_args": {"batch_size": 4, "val_fraction": 0.34}},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
        },
    }


def _run(*words: str) -> None:
    ended = run_command(words)
    if ended["status"]:
        raise RuntimeError(f"wovr {' '.join(words)}: status {ended['status']} {ended['traceback']}")
