"""FID and FVD: Fréchet distances between the features of imagined and of real frames or clips, at every horizon."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.functional.frechet import frechet_distance, gaussian_of_sums
from wovr.metrics.networks.features import ClipFeatures, FeatureNetwork
from wovr.metrics.rollouts import ImaginedBatch, RolloutMetric, Score


class FrechetRolloutDistance(RolloutMetric):
    """Fréchet distance in float64 over the clips that lie within each horizon.

    Sums and outer products are kept for each horizon, so memory does not grow with the number of episodes, and several
    processes add up theirs.

    Args:
        name: Of its score: `fid`, `fvd`, or `fid[idm]`, `fvd[idm]` for stand-ins.
        horizons: Horizons to report.
        network: What looks at frames or clips.

    Raises:
        UserError: A horizon is shorter than a clip.
    """

    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, name: str, horizons: Sequence[int], network: FeatureNetwork) -> None:
        super().__init__(horizons)
        if self.horizons[0] < network.clip:
            raise UserError(
                f"horizon {self.horizons[0]}: {name} compares clips of {network.clip} frames",
                f"give --horizons from {network.clip} on, or leave out {name}",
            )
        self.name = name
        self.network = network
        size, dimensions = len(self.horizons), network.dimensions
        # For each horizon, of imagined and of real clips.
        self.add_state("count", torch.zeros(size, 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, 2, dimensions, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(size, 2, dimensions, dimensions, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in."""
        imagined: ClipFeatures = self.network(batch.imagined[:, : self.num_frames])
        real: ClipFeatures = batch.of_real(self.network, lambda frames: self.network(frames[:, : self.num_frames]))
        for row, horizon in enumerate(self.horizons):
            episodes = batch.lengths >= horizon
            for column, features in enumerate((imagined, real)):
                values = features.values[:, (features.ends <= horizon).to(features.values.device)]
                values = values[episodes].flatten(0, 1).double()  # (clips, D)
                self.count[row, column] += len(values)
                self.total[row, column] += values.sum(0)
                self.outer[row, column] += values.T @ values

    def compute(self) -> dict[str, Score]:
        """The distance at each horizon; NaN below two clips."""
        by_horizon = {}
        for row, horizon in enumerate(self.horizons):
            if self.count[row].min() < 2:
                by_horizon[horizon] = torch.nan
                continue
            one, other = (
                gaussian_of_sums(self.count[row, column], self.total[row, column], self.outer[row, column])
                for column in (0, 1)
            )
            by_horizon[horizon] = float(frechet_distance(one, other))
        clips = {horizon: int(self.count[row, 1]) for row, horizon in enumerate(self.horizons)}
        dimensions = self.network.dimensions
        few = [f"{count:,} at {horizon}" for horizon, count in clips.items() if count <= dimensions]
        if few:
            self.notes = [
                f"{self.name}: {', '.join(few)} clips for {dimensions} dimensions: compare it within this table only"
            ]
        return {self.name: Score(by_horizon, digits=3)}
