"""The best checkpoint of a run of policy optimisation: by real evaluation, else by imagined success that lasts.

Imagined success alone never chooses: a policy that has learned to exploit the world model has the most of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from wovr.envs.actors.base import Actor
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.grpo_rollouts import RolloutBatch
from wovr.envs.rollout import EpisodeStart, roll_out
from wovr.runs import explain_os_error

Confirm = Callable[[RolloutBatch], tuple[int, int]]
"""An update's rollouts -> how many of the successful ones succeed again, and how many there are."""


class KeepBest(Callback):
    """Keeps the weights with the highest success rate of the rollouts that they made.

    The rollouts of an update were made by the weights before it, and those are what is kept. Imagined success is
    discounted: it is multiplied by the share of the successful rollouts that succeed when they are imagined again.

    Args:
        path: The checkpoint file; it holds the networks and nothing to resume from.
        patience: Stop after so many success rates in a row that are not the highest; 0 for never.
        confirm: Of imagined rollouts: given an update's, how many of the successful ones succeed again, and how many
            there are (see `wovr.envs.confirmation`). None for rollouts made in a simulator.

    Attributes:
        best: The highest success rate; None before the first.
        update: Number of updates the best weights had seen.
    """

    def __init__(self, path: Path, patience: int = 0, confirm: Confirm | None = None) -> None:
        self.path, self.patience, self.confirm = path, patience, confirm
        self.best: float | None = None
        self.update = 0
        self.since_best = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the weights that made the rollouts of this batch, before they change."""
        mine = sum(trajectory.outcome for trajectory in batch.trajectories) / len(batch.trajectories)
        rate = float(trainer.strategy.reduce(torch.tensor(mine, device=pl_module.device), reduce_op="mean"))
        # Lower than the best before it is discounted, it is not the best after.
        if self.confirm is not None and (self.best is None or rate > self.best):
            again, successes = _summed(self.confirm(batch), trainer, pl_module)
            rate *= again / max(successes, 1)
            for logger in trainer.loggers:
                logger.log_metrics({"train/success_rate_confirmed": rate}, step=batch.update)
        self.offer(trainer, rate, batch.update)

    @property
    def real(self) -> bool:
        """What is compared is real success."""
        return self.confirm is None

    def offer(self, trainer: Trainer, rate: float, update: int) -> None:
        """Keep the present weights if their success rate is the highest so far."""
        self.since_best += 1
        if self.best is None or rate > self.best:
            self.best, self.update, self.since_best = rate, update, 0
            try:
                trainer.save_checkpoint(self.path, weights_only=True)
            except OSError as error:
                raise explain_os_error(error, self.path) from error
        if self.patience and self.since_best >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "update": self.update, "since_best": self.since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing."""
        self.best, self.update = state_dict["best"], state_dict["update"]
        self.since_best = state_dict["since_best"]


class RealEvaluation(KeepBest):
    """Evaluates the policy in a real environment and keeps the best weights by that.

    The same episodes every time, before the first update, after every so many and after the last; processes share them
    out. The success rate goes into the module's `metrics` and to the loggers.

    Args:
        env: The real environment.
        actor: The policy in training.
        episodes: What to run.
        seed: Seed of all sampling.
        every: Updates between two evaluations.
        updates: Updates of the run.
        path: As KeepBest.
        patience: As KeepBest.
        phase: Makes a context that the episodes are run in, see `RolloutCollector`.

    Attributes:
        rollouts: Episodes run so far.
    """

    def __init__(
        self,
        env: ChunkVectorEnv,
        actor: Actor,
        episodes: Sequence[EpisodeStart],
        seed: int,
        every: int,
        updates: int,
        path: Path,
        patience: int = 0,
        phase: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(path, patience)
        self.phase = phase
        self.env, self.actor, self.episodes, self.seed = env, actor, list(episodes), seed
        self.every, self.updates = every, updates
        self.rollouts = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the policy that the run starts from."""
        if self.best is None:
            self._evaluate(trainer, pl_module, 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Nothing: imagined success does not choose here."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate when it is time."""
        done = batch.update + 1
        if done % self.every == 0 or done == self.updates:
            self._evaluate(trainer, pl_module, done)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, update: int) -> None:
        mine = self.episodes[trainer.global_rank :: trainer.world_size]
        with self.phase():
            succeeded = sum(rollout.succeeded for rollout in roll_out(self.env, self.actor, mine, self.seed))
        won, run = _summed((succeeded, len(mine)), trainer, pl_module)
        rate = won / run
        self.rollouts += len(self.episodes)
        module: Any = pl_module
        module.metrics["eval_success_rate_real"] = rate
        for logger in trainer.loggers:
            logger.log_metrics({"eval/success_rate_real": rate}, step=update)
        self.offer(trainer, rate, update)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return super().state_dict() | {"rollouts": self.rollouts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing and counting."""
        super().load_state_dict(state_dict)
        self.rollouts = state_dict["rollouts"]


def _summed(counts: tuple[int, int], trainer: Trainer, pl_module: LightningModule) -> tuple[int, int]:
    """The counts of all processes together."""
    mine = torch.tensor(counts, dtype=torch.float64, device=pl_module.device)
    first, second = trainer.strategy.reduce(mine, reduce_op="sum").tolist()
    return round(first), round(second)
