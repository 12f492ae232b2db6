"""A chain of every kind of stage, small enough for tests: 16 x 16 pixels, two tasks, a few episodes and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.commands.test_fit import POLICY
from tests.tasks.robot.test_world_model_robot import CHECKPOINT, following

TRAINER = {"accelerator": "cpu", "check_val_every_n_epoch": None, "val_check_interval": 4, "log_every_n_steps": 1}
EPISODES = {"suite": "{suite}", "tasks": "0,1", "num_envs": 4, "workers": 1, "seed": "{seed}", "env_args": {"size": 16}}
TRAINING = {"seed_everything": "{seed}"}
PROPRIO = 8
"""Numbers of the tabletop's proprioception."""

IMAGINED = {"horizon": 16, "suite": "{suite}"}


def training(model: str, arguments: dict[str, Any], data: str, data_arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "save_every_n_steps": 2,
        "model": {"class_path": model, "init_args": {"warmup_steps": 2, **arguments}},
        "data": {"class_path": data, "init_args": data_arguments},
        "trainer": {**TRAINER, "max_steps": 8},
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "bc.yaml": training(
        "wovr.tasks.behaviour_cloning.BehaviourCloningTraining",
        {"policy": POLICY, "shift": 2},
        "wovr.data.training.demonstrations.DemonstrationData",
        {"batch_size": 8, "val_fraction": 0.25},
    ),
    "robot.yaml": training(
        "wovr.tasks.robot.training.RobotModelTraining",
        {
            "network": {
                "class_path": "wovr.models.robot.model.RobotModel",
                "init_args": {"action_dim": 4, "proprio_dim": PROPRIO, "width": 8},
            }
        },
        "wovr.data.training.world_model.WorldModelData",
        {"batch_size": 4, "val_fraction": 0.25, "val_windows": 8},
    ),
    "wm.yaml": training(
        "wovr.tasks.world_model.training.WorldModelTraining",
        {"world_model": following()},
        "wovr.data.training.world_model.WorldModelData",
        {"batch_size": 4, "val_fraction": 0.25, "val_windows": 8},
    ),
    **{
        f"{name}.yaml": training(
            "wovr.tasks.reward.RewardTraining",
            {
                "network": {
                    "class_path": "wovr.models.reward.SuccessClassifier",
                    "init_args": {"channels": [8, 8], "embedding": 4, "width": 8, "max_tasks": 4, "judges": judges},
                }
            },
            "wovr.data.training.reward.RewardData",
            {"batch_size": 8, "val_fraction": 0.25, "judges": judges},
        )
        for name, judges in (("reward", "frame"), ("value", "outcome"))
    },
    "rl.yaml": {
        "model": {"lr": 1e-3, "warmup_steps": 0, "minibatches": 2},
        "groups": 2, "group_size": 2, "updates": 2, "num_envs": 4, "env_args": {"sigmas": [1.0]},
        "trainer": {"accelerator": "cpu"},
    },
}  # fmt: skip


def last(stage: str, kind: str = "stage") -> str:
    return f"{{{kind}:{stage}}}/checkpoints/last.ckpt"


def collect(name: str, policy: str, episodes: int, **more: Any) -> dict[str, Any]:
    args = {"policy": policy, "episodes": episodes, "init_states": ":-100", **EPISODES}
    return {"name": name, "command": "collect", "args": args, **more}


def success_rate(name: str, policy: str, **more: Any) -> dict[str, Any]:
    args = {"policy": policy, "episodes": 1, "init_states": "-50:", "videos": 1, **EPISODES}
    return {"name": name, "command": "evaluate", "args": args, **more}


def fit(name: str, config: str, folder: Any, **more: Any) -> dict[str, Any]:
    args = {"data.folder": folder, **TRAINING, **more.pop("args", {})}
    return {"name": name, "command": "fit", "config": config, "args": args, **more}


def rl(name: str, policy: str, world: str, reward: str, data: str, keyframes: str, **more: Any) -> dict[str, Any]:
    args = {"policy": policy, "world_model": world, "reward": reward, "data": data, "keyframes": keyframes}
    args |= {"keyframe_share": 0.5, "value": last("value_fit"), "cut_after": 8, **IMAGINED, **TRAINING}
    return {"name": name, "command": "rl", "config": "rl.yaml", "args": args, **more}


ROUND = {"each_round": True}
STAGES: list[dict[str, Any]] = [
    collect("demos", "expert", 8),
    fit("sft_fit", "bc.yaml", "{stage:demos}"),
    collect("collect_base", last("sft_fit"), 8),
    success_rate("sr_base", last("sft_fit"), title="cloned policy"),
    fit("robot_fit", "robot.yaml", "{stage:collect_base}"),
    fit("wm_fit", "wm.yaml", "{stage:collect_base}", args={CHECKPOINT: last("robot_fit")}),
    fit("reward_fit", "reward.yaml", ["{stage:demos}", "{stage:collect_base}"]),
    fit("value_fit", "value.yaml", ["{stage:demos}", "{stage:collect_base}"]),
    {"name": "keyframes", "command": "data keyframes {stage:demos} {stage:collect_base}", "args": {"seed": "{seed}"}},
    rl("rl_fit", last("sft_fit"), last("wm_fit"), last("reward_fit"), "{stage:demos},{stage:collect_base}",
       "{stage:keyframes}"),
    success_rate("sr_rl", last("rl_fit"), title="after RL"),
    collect("collect_evolved", last("rl_refit", "previous"), 4, **ROUND),
    fit("robot_refit", "robot.yaml", ["{stage:collect_base}", "{stage:collect_evolved}"], **ROUND,
        args={"init_from": last("robot_refit", "previous"), "trainer.max_steps": 4}),
    fit("wm_refit", "wm.yaml", ["{stage:collect_base}", "{stage:collect_evolved}"], **ROUND,
        args={CHECKPOINT: last("robot_refit"), "data.mix": [0.5, 0.5], "init_from": last("wm_refit", "previous"),
              "trainer.max_steps": 4}),
    fit("reward_refit", "reward.yaml", ["{stage:demos}", "{stage:collect_evolved}"], **ROUND,
        args={"init_from": last("reward_refit", "previous"), "trainer.max_steps": 4}),
    {"name": "keyframes_evolved", "command": "data keyframes {stage:demos} {stage:collect_evolved}", **ROUND},
    rl("rl_refit", last("rl_refit", "previous"), last("wm_refit"), last("reward_refit"),
       "{stage:demos},{stage:collect_evolved}", "{stage:keyframes_evolved}", **ROUND),
    success_rate("sr_pace", last("rl_refit"), title="after PACE", **ROUND),
    {"name": "quality_before", "command": "evaluate", "title": "before", **ROUND,
     "args": {"world_model": last("wm_refit", "previous"), "data": "{stage:collect_evolved}", "metrics": "psnr",
              "horizons": "8", "sigmas": "1.0", "videos": 1, "episodes": 2}},
    {"name": "quality_after", "command": "evaluate", "title": "after", **ROUND,
     "args": {"world_model": last("wm_refit"), "data": "{stage:collect_evolved}", "metrics": "psnr",
              "horizons": "8", "sigmas": "1.0", "videos": 1, "episodes": 2}},
    {"name": "reward_after", "command": "evaluate", "title": "classifier", **ROUND,
     "args": {"reward": last("reward_refit"), "data": "{stage:collect_evolved}"}},
    {"name": "hallucination_after", "command": "evaluate", "title": "final policy", **ROUND,
     "args": {"metrics": "hallucination", "policy": last("rl_refit"), "world_model": last("wm_refit"),
              "reward": last("reward_refit"), "data": "{stage:demos}", "episodes": 1, "uncertainty_seeds": 0,
              "sigmas": "1.0", "workers": 1, "num_envs": 2, "seed": "{seed}", "env_args": {"size": 16}, **IMAGINED}},
]  # fmt: skip

CHAIN: dict[str, Any] = {
    "suite": "spatial",
    "first_round": {
        "robot_refit": "robot_fit",
        "wm_refit": "wm_fit",
        "reward_refit": "reward_fit",
        "rl_refit": "rl_fit",
    },
    "budget": {"real_episodes": 20},
    "stages": STAGES,
}


def write_chain(folder: Path, **changes: Any) -> Path:
    """The chain and its configurations as files; `changes` are those of the chain."""
    for name, values in CONFIGS.items():
        (folder / name).write_text(yaml.safe_dump(values))
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(CHAIN | changes, sort_keys=False))
    return path
