"""At each validation of a world model: held-out episodes imagined from their first frame, below what was real.

Actions are replayed chunk by chunk and every chunk is imagined from the one before, as in a rollout (paper, section
4.1). The loss says nothing of whether an object that was there is still there after 32 frames; the picture does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from wovr.data.pictures import write_png
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.world_model import WorldModelData
from wovr.errors import UserError
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination

_GAP = 2  # pixels between pictures
_PAPER = 255


class ImaginationGrid(Callback):
    """Writes `OUT/samples/step-000500.png`, and the same picture to TensorBoard (or wandb) as `val/imagination`.

    Two rows an episode: real above imagined; columns from the first frame on. Of weights that are averaged, the average
    is shown. Nothing is drawn from torch's generators, so training goes as it would without.

    Args:
        episodes: Held-out episodes shown, of as many tasks as there are; 0 for no pictures.
        chunks: Chunks imagined of each.
        every: Frames from one column to the next.

    Raises:
        UserError: A number out of its range.
    """

    def __init__(self, episodes: int = 4, chunks: int = 4, every: int = 4) -> None:
        for name, value, least in (("episodes", episodes, 0), ("chunks", chunks, 1), ("every", every, 1)):
            if value < least:
                raise UserError(f"ImaginationGrid: {name} is {value}", f"give at least {least}")
        self.episodes = episodes
        self.chunks = chunks
        self.every = every
        self._drawn_at: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with what is trained.

        Raises:
            UserError: It is no world model, or its data are not its windows.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        world_model = getattr(pl_module, "world_model", None)
        if self.episodes and not (isinstance(world_model, WorldModel) and isinstance(data, WorldModelData)):
            raise UserError(
                f"trainer.callbacks: ImaginationGrid with {type(pl_module).__name__} and {type(data).__name__}",
                "use it with WorldModelTraining and WorldModelData, or leave it out",
            )

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw before the first batch: after the averaged weights were put in place, before they are taken out."""
        if batch_idx or not self.episodes or trainer.sanity_checking or self._drawn_at == trainer.global_step:
            return
        self._drawn_at = trainer.global_step
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = pl_module
        # Every process imagines, for with sharded weights none can without the others. What torch.compile made is left
        # aside: it would be made anew for this number of rollouts.
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            grid = imagination_grid(
                module.world_model, data.store, choose_episodes(data, self.episodes), self.chunks, self.every
            )
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "samples"
        write_png(Image.fromarray(grid), folder / f"step-{trainer.global_step:06d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/imagination", grid, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("val/imagination", [grid], step=trainer.global_step)


def choose_episodes(data: WorldModelData, count: int) -> list[int]:
    """Held-out episodes, one of each task in turn until there are `count` or no more."""
    by_task: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index in data.split()[1]:
        meta = data.store.entries[index].meta
        by_task[meta.suite, meta.task].append(index)
    queues = [by_task[task] for task in sorted(by_task)]
    rounds = range(max(map(len, queues), default=0))
    return [queue[turn] for turn in rounds for queue in queues if turn < len(queue)][:count]


def imagination_grid(
    model: WorldModel, store: EpisodeStore, episodes: Sequence[int], chunks: int, every: int
) -> np.ndarray:
    """Real above imagined frames of some episodes.

    Args:
        model: The world model; goes into evaluation mode.
        store: The episodes.
        episodes: Which, at least one.
        chunks: Chunks imagined of each, at most; what an episode is too short for stays blank.
        every: Frames from one column to the next, the first frame in the first.

    Returns:
        (height, width, 3) uint8.
    """
    length = chunks * model.chunk
    real = [store.frames(index, 0, min(store.entries[index].num_frames, length + 1)) for index in episodes]
    actions = np.zeros((len(episodes), length, model.action_dim), np.float32)  # no action beyond an episode's end
    for row, index in enumerate(episodes):
        known = store.actions(index)[:length]
        actions[row, : len(known)] = known
    imagined = _imagine(model, np.stack([frames[0] for frames in real]), actions, store.first_signals(episodes))
    columns = np.arange(0, length + 1, every)
    height, width = store.image_size
    cell = (height + _GAP, width + _GAP)
    grid = np.full((2 * len(real) * cell[0] - _GAP, len(columns) * cell[1] - _GAP, 3), _PAPER, np.uint8)
    for row, frames in enumerate(real):
        for column, t in enumerate(columns[columns < len(frames)]):
            for below, picture in enumerate((frames[t], imagined[row, t])):
                top, left = (2 * row + below) * cell[0], column * cell[1]
                grid[top : top + height, left : left + width] = picture
    return grid


@torch.no_grad()
def _imagine(
    model: WorldModel, first: np.ndarray, actions: np.ndarray, signals: Mapping[str, np.ndarray]
) -> np.ndarray:
    """First frames (N, H, W, 3) uint8, actions (N, T, A), signals (N, P) -> (N, 1 + T, H, W, 3) uint8."""
    imagination = Imagination(model)
    imagination.start(first, signals=signals)
    parts: list[Tensor] = []
    for start in range(0, actions.shape[1], model.chunk):
        parts.append(imagination.step(actions[:, start : start + model.chunk]).cpu())
    return np.concatenate([first[:, None], *(part.numpy() for part in parts)], axis=1)
