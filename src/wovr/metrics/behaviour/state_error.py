"""Where the gripper and the objects are in imagined frames, against where they really were: centimetres."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wovr.functional.matching import match_look_alikes
from wovr.metrics.rollouts import ImaginedBatch, RolloutMetric, Score, as_one, exceeds, parts, until_end
from wovr.models.probes.state_probe import StateProbe

ASTRAY = 5.0
"""Centimetres from where it should be at which an object counts as lost: the width of the tabletop's objects."""

GRIPPER = "gripper"
"""Name of the point that stands for the gripper."""


class StateError(RolloutMetric):
    """Distance between the positions that a probe reads in imagined frames and the simulator's, in the median rollout.

    Values at a horizon are those of its last frame.

    Scores:
        gripper_cm: Of the gripper.
        grasped_cm: Of the objects that the gripper has really held up to that frame; NaN where there was none.
        objects_cm: The mean over all objects.
        astray: Share of rollouts in which an object is farther than 5 cm from where it should be.

    The probe's own error, on real frames, is the yardstick: nothing below it can be told.

    Args:
        horizons: Horizons to report.
        probe: Reads positions.
    """

    real_row = True
    values: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, horizons: Sequence[int], probe: StateProbe) -> None:
        super().__init__(horizons)
        self.probe = probe
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in; it has to know where things are.

        Raises:
            ValueError: It does not.
        """
        if batch.positions is None or batch.movable is None or batch.held is None:
            raise ValueError("state_error needs the true positions of a batch")
        stop = min(batch.imagined.shape[1], self.num_frames)
        frames, true = batch.imagined[:, :stop].flatten(0, 1), batch.positions[:, :stop].flatten(0, 1)
        errors = []
        for part in parts(len(frames), frames.shape[1] * frames.shape[2]):
            read = match_look_alikes(self.probe.read(frames[part]), true[part], self.probe.looks)
            errors.append(100 * torch.linalg.vector_norm(read - true[part], dim=-1))
        error = torch.cat(errors).unflatten(0, (len(batch.imagined), stop))  # (B, F, P) cm, NaN where there is none
        movable = batch.movable[:, None].expand_as(error)
        grasped = movable & batch.held[:, :stop].cummax(1).values
        values = error.new_full((len(error), self.num_frames, 4), torch.nan)
        if GRIPPER in self.probe.looks:
            values[:, :stop, 0] = error[:, :, self.probe.looks.index(GRIPPER)]
        values[:, :stop, 1] = _mean_where(error, grasped)
        values[:, :stop, 2] = _mean_where(error, movable)
        values[:, :stop, 3] = torch.where(movable, error, 0.0).nan_to_num().amax(-1)
        self.values.append(until_end(values, batch.lengths))
        self.lengths.append(batch.lengths.clone())

    def compute(self) -> dict[str, Score]:
        """See the class."""
        values, lengths = as_one(self.values), as_one(self.lengths)  # (N, F, 4)
        scores = {}
        for column, name in enumerate(("gripper_cm", "grasped_cm", "objects_cm")):
            by_frame = values[..., column].nanmedian(0).values.tolist()
            by_horizon = {h: float(values[lengths >= h, h - 1, column].nanmedian()) for h in self.horizons}
            scores[name] = Score(by_horizon, by_frame, digits=2)
        astray = exceeds(values[..., 3], ASTRAY)  # (N, F)
        scores["astray"] = Score(
            {h: float(astray[lengths >= h, h - 1].mean()) for h in self.horizons}, astray.nanmean(0).tolist(), digits=2
        )
        return scores


def _mean_where(error: Tensor, where: Tensor) -> Tensor:
    """Mean over the last dimension of what is selected and known; NaN where nothing is."""
    where = where & error.isfinite()
    count = where.sum(-1)
    return torch.where(count > 0, torch.where(where, error, 0.0).sum(-1) / count.clamp(min=1), torch.nan)
