"""Whether imagined frames obey: actions read back from them, and futures under swapped actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.metrics.rollouts import ImaginedBatch, RolloutMetric, Score
from wovr.models.probes.inverse_dynamics import InverseDynamics


class ActionFollowing(RolloutMetric):
    """How well an inverse-dynamics network reads the commanded actions back from imagined frames.

    Scores:
        action_r2: Coefficient of determination, the mean over the dimensions of the action in which actions vary;
            `action_r2[i]` of each alone. 1 for frames that show every action exactly; 0 for frames that tell nothing
            but the mean.
        action_mae: Mean absolute error, by frame too; `action_mae[i]` of each dimension.
        swap_r2: The same as `action_r2` for futures of the same starts under the actions of other episodes.
        swap_difference: Mean absolute difference of the two futures, grey levels; by frame too.

    Real frames, for which all of this can be said too, are the yardstick.

    Args:
        horizons: Horizons to report.
        network: The inverse-dynamics network.

    Raises:
        UserError: A horizon is shorter than the network's window.
    """

    real_row = True
    own: Tensor
    swapped: Tensor
    error: Tensor
    difference: Tensor

    def __init__(self, horizons: Sequence[int], network: InverseDynamics) -> None:
        super().__init__(horizons)
        if self.horizons[0] < network.window:
            raise UserError(
                f"horizon {self.horizons[0]}: action_following reads windows of {network.window} frames",
                f"give --horizons from {network.window} on, or leave out action_following",
            )
        self.network = network
        # For each horizon and dimension: count, and the sums of y, y^2, |e| and e^2.
        moments = torch.zeros(len(self.horizons), network.action_dim, 5, dtype=torch.float64)
        self.add_state("own", moments.clone(), dist_reduce_fx="sum")
        self.add_state("swapped", moments.clone(), dist_reduce_fx="sum")
        # Of frame f, in row f - 1: how many there were, and the sum of their values.
        self.add_state("error", torch.zeros(self.num_frames - 1, 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("difference", torch.zeros(self.num_frames - 1, 2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in."""
        error = self._count(self.own, batch.imagined, batch.actions, batch.lengths)
        self._count_frames(self.error, error.abs().mean(-1), batch.lengths)
        if batch.swapped is None:
            return
        other = batch.swapped
        self._count(self.swapped, other.imagined, other.actions, other.lengths)
        lengths = torch.minimum(batch.lengths, other.lengths)
        stop = min(batch.imagined.shape[1], other.imagined.shape[1], self.num_frames)
        pairs = zip(batch.imagined[:, 1:stop], other.imagined[:, 1:stop], strict=True)
        difference = torch.stack([(one.float() - two.float()).abs().mean((1, 2, 3)) for one, two in pairs])
        self._count_frames(self.difference, difference, lengths)

    def compute(self) -> dict[str, Score]:
        """See the class."""
        scores = {}
        for name, moments in (("action", self.own), ("swap", self.swapped)):
            count, y, yy, absolute, square = moments.unbind(-1)  # each (horizons, A)
            spread = yy - y**2 / count.clamp(min=1)
            r2 = torch.where((count > 1) & (spread > 1e-6 * count), 1 - square / spread, torch.nan)
            scores[f"{name}_r2"] = self._score(r2.nanmean(-1), better="higher", digits=3)
            if name == "swap":
                continue
            mae = absolute / count
            scores["action_mae"] = self._score(mae.mean(-1), self.error)
            for dimension in range(self.network.action_dim):
                for label, values, better in (("r2", r2, "higher"), ("mae", mae, "lower")):
                    score = self._score(values[:, dimension], better=better)
                    score.shown = False
                    scores[f"action_{label}[{dimension}]"] = score
        total = self.difference.cumsum(0)
        means = torch.stack([total[horizon - 2, 1] / total[horizon - 2, 0] for horizon in self.horizons])
        scores["swap_difference"] = self._score(means, self.difference, better="higher", digits=2)
        return scores

    def _count(self, moments: Tensor, frames: Tensor, actions: Tensor, lengths: Tensor) -> Tensor:
        """Add the reading of some videos to moments; returns its error, (B, F - 1, A)."""
        taken = actions[:, : min(frames.shape[1], self.num_frames) - 1].double()
        error = self._read(frames, lengths).double() - taken
        ones = torch.ones_like(taken)
        terms = torch.stack([ones, taken, taken**2, error.abs(), error**2], dim=-1)  # (B, F - 1, A, 5)
        for row, horizon in enumerate(self.horizons):
            moments[row] += terms[lengths >= horizon, : horizon - 1].sum((0, 1))
        return error

    def _read(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Actions of videos, (B, F - 1, A), each read without what fills it up; zeros from its end on."""
        read = frames.new_zeros(
            len(frames), min(frames.shape[1], self.num_frames) - 1, self.network.action_dim, dtype=torch.float32
        )
        for length in lengths.unique().tolist():
            stop = min(length, self.num_frames)
            if stop >= self.network.window:
                rows = lengths == length
                read[rows, : stop - 1] = self.network.read(frames[rows, :stop])
        return read

    def _count_frames(self, curve: Tensor, values: Tensor, lengths: Tensor) -> None:
        """Add (B, n) values of frames 1 .. n to a curve, as far as the episodes reach."""
        there = torch.arange(1, values.shape[1] + 1, device=values.device) < lengths[:, None]
        curve[: values.shape[1], 0] += there.sum(0)
        curve[: values.shape[1], 1] += torch.where(there, values.double(), 0.0).sum(0)

    def _score(self, values: Tensor, curve: Tensor | None = None, better: str = "lower", digits: int = 4) -> Score:
        by_frame = None if curve is None else [torch.nan, *(curve[:, 1] / curve[:, 0]).tolist()]
        return Score(dict(zip(self.horizons, values.tolist(), strict=True)), by_frame, better, digits)
