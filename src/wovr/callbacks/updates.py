"""What is kept of a run of policy optimisation: a row of numbers an update, and the checkpoints."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from wovr.callbacks.progress import TrainingProgress, clock
from wovr.callbacks.saving import SaveLast

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("success_rate_imagined", "imagined SR", ".3f"),
    ("success_rate_real", "SR", ".3f"),
    ("groups_without_signal", "no signal", ".2f"),
    ("valid_length", "length", ".1f"),
    ("approx_kl", "kl", ".4f"),
    ("clip_fraction", "clipped", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("gradient_norm", "grad", ".3f"),
    ("seconds_rollouts", "rollouts s", ".1f"),
    ("seconds_optimisation", "optim s", ".1f"),
    ("eval_success_rate_real", "real SR", ".3f"),
)
"""Metric -> heading and format of a column of the table; metrics a run does not have get none."""

OFTEN_ABSENT = ("approx_kl", "clip_fraction", "entropy", "gradient_norm")
"""Metrics that an update without any signal does not have."""


class KeepCurve(Callback):
    """Keeps the metrics of every update, over interruptions too.

    Attributes:
        rows: A dictionary of numbers an update, with its number under `update`. The rollouts of a row were made before
            its optimisation, its evaluation after it; row 0 is an evaluation before the first update.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was measured before the first update."""
        if not self.rows and metrics_of(pl_module):
            self.rows.append({"update": 0, **metrics_of(pl_module)})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a row."""
        self.rows.append({"update": batch.update + 1, **metrics_of(pl_module)})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curve."""
        self.rows = list(state_dict["rows"])


class UpdateTable(TrainingProgress):
    """Prints a row of a table an update, with the time that is left.

    Args:
        updates: Updates of the run.
        evaluated: Whether there are real evaluations, which get a column.
    """

    def __init__(self, updates: int, evaluated: bool) -> None:
        super().__init__()
        self.updates = updates
        self.evaluated = evaluated
        self._first: int | None = None
        self._columns: list[tuple[str, str, str]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        before = metrics_of(pl_module).get("eval_success_rate_real")
        if self.enabled and before is not None:
            print(f"before: real SR {before:.3f}", file=sys.stderr, flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the row, below the headings if it is the first."""
        if not self.enabled:
            return
        metrics = metrics_of(pl_module)
        if self._first is None:
            self._first = batch.update
            wanted = {*metrics, *OFTEN_ABSENT} | ({"eval_success_rate_real"} if self.evaluated else set())
            self._columns = [column for column in COLUMNS if column[0] in wanted]
            headings = "  ".join(f"{heading:>{_width(heading)}}" for _, heading, _ in self._columns)
            print(f"{'update':>9}  {headings}  {'left':>8}", file=sys.stderr)
        done = batch.update + 1
        left = (self.updates - done) * (time.monotonic() - self._started) / (done - self._first)
        cells = "  ".join(
            f"{format(metrics[name], form) if name in metrics else '-':>{_width(heading)}}"
            for name, heading, form in self._columns
        )
        print(f"{f'{done}/{self.updates}':>9}  {cells}  {clock(left):>8}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing to close: every row was printed when it was known."""


class SaveUpdates(SaveLast):
    """Keeps `last.ckpt`, written every so many updates and at the end.

    Args:
        path: The checkpoint file.
        every: Updates between two writes.
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(path, every)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write after every `every`-th update; an update may have taken no optimiser step at all."""
        if (batch.update + 1) % self.every_n_steps == 0:
            self.save(trainer)


def metrics_of(pl_module: LightningModule) -> Mapping[str, float]:
    """The numbers of the last update, `GRPOTraining.metrics`."""
    module: Any = pl_module
    return dict(module.metrics)


def _width(heading: str) -> int:
    return max(7, len(heading))
