"""A world model on episodes of one's own: arrays in, a data set, a training, imagined frames beside the real ones.

    python examples/world_model.py

What is made here by arithmetic is what a robot has recorded: frames, actions, when it succeeded, what it was told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

import wovr
from wovr.data.training.world_model import WorldModelData
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.tasks.world_model.training import WorldModelTraining

SIZE, LENGTH = 16, 25  # pixels; frames of an episode


def record(count: int, seed: int) -> Iterator[wovr.Episode]:
    """A block that is pushed about; frame t + 1 is what action t leads to."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for number in range(count):
        actions = random.uniform(-1, 1, (LENGTH - 1, 2)).repeat(4, axis=0)[: LENGTH - 1].astype(np.float32)
        places = np.clip(np.cumsum([random.uniform(4, 11, 2), *actions], axis=0), 2, SIZE - 3)  # (LENGTH, 2)
        inside = [np.maximum(abs(rows - place[0]), abs(columns - place[1])) for place in places]
        light = np.clip(2.5 - np.stack(inside), 0, 1)[..., None]  # (LENGTH, SIZE, SIZE, 1)
        yield wovr.Episode(
            key=f"push-{seed}-{number:04d}",
            frames=(light * [220, 60, 40] + (1 - light) * [40, 50, 60]).astype(np.uint8),
            actions=actions,
            success=places[:, 0] > SIZE - 4,
            meta=wovr.EpisodeMeta("push the block down", "push", task=0, seed=seed, fps=5.0, policy="me", source="me"),
        )


def train(data: Path, steps: int) -> WorldModelTraining:
    """Fit a small world model: predicts each chunk of 8 frames from the frames before it and the 8 actions."""
    backbone = WanBackbone(patch=1, heads=4, head_dim=24, layers=2, ffn_dim=256, cumulative=True)
    how: dict[str, Any] = {"prediction": "data", "head": "copy", "context": "channels", "noisy_context": 0.0}
    model = WorldModel(PatchAutoencoder(patch=4), backbone, action_dim=2, sigmas=[1.0], **how)
    task = WorldModelTraining(model, pure_noise_share=0.9, ema_decay=0.98, muon_lr=1.5e-2, lr=2e-3)
    trainer = Trainer(max_steps=steps, limit_val_batches=0, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(task, datamodule=WorldModelData(str(data), batch_size=16))
    return task


def imagine(model: WorldModel, store: wovr.EpisodeStore) -> np.ndarray:
    """(episodes, LENGTH, H, W, 3) uint8: from the first frame of each, three chunks under its actions."""
    episodes = range(len(store))
    first = torch.from_numpy(np.stack([store.frames(episode, 0, 1)[0] for episode in episodes]))
    actions = torch.from_numpy(np.stack([store.actions(episode) for episode in episodes]))
    imagination = Imagination(model)
    imagination.start(first, seeds=list(episodes))
    chunks = [imagination.step(part).cpu() for part in actions.split(model.chunk, dim=1)]
    return torch.cat([first[:, None], *chunks], dim=1).numpy()


def main(folder: Path = Path("runs/example_world_model"), episodes: int = 200, steps: int = 600) -> dict[str, float]:
    """PSNR of imagined frames, and of the first frame taken for all of them, on episodes that were not trained on."""
    seed_everything(0, verbose=False)
    wovr.save_episodes(folder / "episodes", record(episodes, seed=0))
    wovr.save_episodes(folder / "held_out", record(8, seed=1))
    task = train(folder / "episodes", steps)
    task.trainer.save_checkpoint(folder / "last.ckpt")
    store = wovr.EpisodeStore(folder / "held_out")
    real = np.stack([store.frames(episode) for episode in range(len(store))])
    imagined = imagine(wovr.load_world_model(folder / "last.ckpt"), store)
    shown = {"imagined": imagined, "first frame": real[:, :1].repeat(LENGTH, axis=1)}
    errors = {name: np.square((frames - real.astype(float))[:, 1:]).mean() for name, frames in shown.items()}
    scores = {name: float(10 * np.log10(255**2 / error)) for name, error in errors.items()}
    print(", ".join(f"{name}: {score:.1f} dB" for name, score in scores.items()))
    return scores


if __name__ == "__main__":
    main()
