"""RL in a world model: a policy cloned from few demonstrations improves without touching its environment again.

    python examples/rl_in_imagination.py    # a minute

Demonstrations, cloning, episodes of the clone, a world model and a success classifier learned from those, GRPO inside
the two. The environment is that of own_environment.py; collecting and measuring are the command line's own verbs.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer, seed_everything

import wovr
from wovr.cli import main as verb
from wovr.data.keyframes.start_states import StartStates
from wovr.data.training.demonstrations import DemonstrationData
from wovr.data.training.reward import RewardData
from wovr.data.training.world_model import WorldModelData
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import DrawnStarts, RolloutCollector
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.models.reward import SuccessClassifier
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.model import WorldModel
from wovr.tasks.base import TrainingModule
from wovr.tasks.behaviour_cloning import BehaviourCloningTraining
from wovr.tasks.grpo.training import GRPOTraining
from wovr.tasks.reward import RewardTraining
from wovr.tasks.world_model.training import WorldModelTraining

ENV = ["--env", "own_environment:ReachEnv", "--suite", "reach", "--num_envs", "8", "--workers", "1"]
QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
QUIET |= {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}


def train(task: TrainingModule, data: LightningDataModule, steps: int, checkpoint: Path) -> Path:
    """Fit, and keep the result."""
    trainer = Trainer(max_steps=steps, gradient_clip_val=1.0, **QUIET)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(checkpoint)
    return checkpoint


def make_world_model() -> WorldModel:
    """Small pictures in squares of 4 pixels, one sampling step, actions told with their sums."""
    backbone = WanBackbone(patch=1, heads=4, head_dim=24, layers=2, ffn_dim=256, cumulative=True)
    how: dict[str, Any] = {"prediction": "data", "head": "copy", "context": "channels", "noisy_context": 0.0}
    return WorldModel(PatchAutoencoder(patch=4), backbone, action_dim=1, sigmas=[1.0], **how)


def improve(policy: Path, world_model: Path, reward: Path, episodes: Path, updates: int, checkpoint: Path) -> Path:
    """GRPO on imagined rollouts that start at first frames of the episodes, 16 groups of 8 an update."""
    starts = StartStates([episodes])
    with closing(wovr.make_env("imagined", 64, world_model=world_model, reward=reward, data=starts)) as env:
        actor = PolicyActor(wovr.load_policy(policy), "clone")
        source = DrawnStarts(starts, "reach", seed=0)
        collector = RolloutCollector(env, actor, source, groups=16, group_size=8, updates=updates, seed=0, real=False)
        task = GRPOTraining(actor.policy, lr=3e-4, warmup_steps=2, epochs=2)
        trainer = Trainer(max_epochs=1, **QUIET)
        trainer.fit(task, train_dataloaders=collector)
        trainer.save_checkpoint(checkpoint)
    return checkpoint


def success(policy: Path, episodes: int, out: Path) -> float:
    """Real success rate from initial states that nothing was collected from."""
    verb(["evaluate", "--policy", str(policy), *ENV, "--episodes", str(episodes), "--videos", "0", "--out", str(out)])
    return float(json.loads((out / "metrics.json").read_text())["sr"]["all"]["success_rate"])


def main(folder: Path = Path("runs/example_rl"), size: float = 1.0) -> tuple[float, float]:
    """Success rates before and after; `size` scales what imagination and RL cost."""
    seed_everything(0, verbose=False)
    demos, base = folder / "demos", folder / "base"
    verb(["collect", "--policy", "expert", *ENV, "--episodes", "20", "--out", str(demos)])
    small = TinyVLA(action_dim=1, bins=9, channels=(16, 16), width=32, layers=1)
    cloning = BehaviourCloningTraining(small, warmup_steps=10)
    clone = train(cloning, DemonstrationData(str(demos)), 60, folder / "clone.ckpt")
    verb(["collect", "--policy", str(clone), *ENV, "--episodes", "200", "--out", str(base)])
    learning = WorldModelTraining(make_world_model(), pure_noise_share=0.9, ema_decay=0.98, muon_lr=1.5e-2, lr=2e-3)
    data = WorldModelData(str(base), batch_size=16)
    world_model = train(learning, data, int(400 * size), folder / "world_model.ckpt")
    judging = RewardTraining(SuccessClassifier(channels=[16, 16], embedding=8, width=16, consecutive=1))
    reward = train(judging, RewardData(str(base)), int(300 * size), folder / "reward.ckpt")
    improved = improve(clone, world_model, reward, base, int(12 * size), folder / "improved.ckpt")
    before, after = (success(policy, 50, folder / policy.stem) for policy in (clone, improved))
    print(f"success in reality: cloned {before:.0%}, after RL in imagination {after:.0%}")
    return before, after


if __name__ == "__main__":
    main()
