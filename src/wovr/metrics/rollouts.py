"""What every metric of imagined rollouts shares: the batch, the scores by horizon, and means over frames.

A rollout starts at a real frame, which is given; the frames after it are imagined. Horizon h means the first h frames
of the episode, the given one among them, so frames 1 .. h - 1 are scored. An episode counts at every horizon that it is
long enough for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

_CHUNK_PIXELS = 2**20
"""Pixels of the pictures that a network looks at in one go: bounds memory."""


@dataclass
class Swapped:
    """The same start states under the actions of other episodes.

    Attributes:
        imagined: (B, T, H, W, 3) uint8, what the world model shows; frame 0 is the given one.
        real: (B, T, H, W, 3) uint8, what the simulator shows; None where there is none.
        actions: (B, T - 1, A) float32, the actions of the other episode.
        lengths: (B,) int64, valid frames.
    """

    imagined: Tensor
    real: Tensor | None
    actions: Tensor
    lengths: Tensor


@dataclass
class ImaginedBatch:
    """B rollouts beside the episodes they replay, filled up to the longest by repetition of the last frame.

    Attributes:
        imagined: (B, T, H, W, 3) uint8; frame 0 is the given one.
        real: (B, T, H, W, 3) uint8.
        actions: (B, T - 1, A) float32 in [-1, 1], replayed by both.
        lengths: (B,) int64, valid frames of each, the given one included.
        positions: (B, T, P, 3) float32, metres, where the points that the probe reads really are; NaN where there is no
            such point. None where it is not known.
        movable: (B, P) bool, the point is an object that can be moved.
        held: (B, T, P) bool, the gripper really holds it.
        swapped: The same starts under other actions, or None.
        instructions: B sentences, what the policy was told; None where that is not known.
        shared: What metrics have computed of the real frames, for the other rows of the table to use.
    """

    imagined: Tensor
    real: Tensor
    actions: Tensor
    lengths: Tensor
    positions: Tensor | None = None
    movable: Tensor | None = None
    held: Tensor | None = None
    swapped: Swapped | None = None
    instructions: Sequence[str] | None = None
    shared: dict[object, Any] = field(default_factory=dict)

    def with_imagined(self, imagined: Tensor, swapped: Swapped | None) -> ImaginedBatch:
        """The same episodes beside other rollouts; what is shared stays shared."""
        return replace(self, imagined=imagined, swapped=swapped)

    def of_real(self, key: object, compute: Callable[[Tensor], Any]) -> Any:
        """What `compute` makes of the real frames; computed once a batch and key."""
        if key not in self.shared:
            self.shared[key] = compute(self.real)
        return self.shared[key]

    def valid(self) -> Tensor:
        """(B, T - 1) bool: frame t + 1 belongs to the episode."""
        return torch.arange(1, self.real.shape[1], device=self.real.device) < self.lengths[:, None]


@dataclass
class Score:
    """One number a horizon, and perhaps a curve.

    Attributes:
        by_horizon: Horizon -> value; NaN where no episode is long enough.
        by_frame: Value of frames 0 .. F - 1 (NaN at the given frame and where no episode reaches); None for no curve.
        better: `higher` or `lower`.
        digits: Decimal places worth printing.
        shown: Whether it has a column of its own in the table.
    """

    by_horizon: dict[int, float]
    by_frame: list[float] | None = None
    better: str = "lower"
    digits: int = 4
    shown: bool = True


class RolloutMetric(Metric, ABC):
    """A torchmetrics.Metric over ImaginedBatches. `compute` returns scores by name.

    Args:
        horizons: Horizons to report, ascending, each at least 2.

    Attributes:
        real_row: The metric says something of real frames too, which stands in a row of its own.
        notes: What a reader has to know beside the numbers.
    """

    full_state_update = False
    real_row: bool = False

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__()
        if not horizons or min(horizons) < 2:
            raise ValueError(f"horizons are {list(horizons)}: each must be at least 2")
        self.horizons = sorted(set(horizons))
        self.notes: list[str] = []

    @property
    def num_frames(self) -> int:
        """The largest horizon, F."""
        return self.horizons[-1]

    @abstractmethod
    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in."""

    @abstractmethod
    def compute(self) -> dict[str, Score]:
        """Name -> score of everything counted so far."""


class FrameMetric(RolloutMetric):
    """A metric with a value for every imagined frame: means over episodes, by frame and by horizon.

    Args:
        name: Of its score.
        horizons: Horizons to report.
        better: `higher` or `lower`.
        digits: Decimal places worth printing.
    """

    values: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, name: str, horizons: Sequence[int], better: str = "lower", digits: int = 4) -> None:
        super().__init__(horizons)
        self.name = name
        self.better = better
        self.digits = digits
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """Values of some frames.

        Args:
            imagined: (N, H, W, 3) uint8, imagined frames.
            real: (N, H, W, 3) uint8, the real ones.
            before: The frames before them, imagined and real.

        Returns:
            (N,) float.
        """

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in."""
        stop = min(batch.real.shape[1], self.num_frames)
        valid = batch.valid()[:, : stop - 1]
        values = torch.full((len(valid), self.num_frames - 1), torch.nan, device=batch.real.device)
        now = batch.imagined[:, 1:stop][valid], batch.real[:, 1:stop][valid]
        before = batch.imagined[:, : stop - 1][valid], batch.real[:, : stop - 1][valid]
        measured = [
            self.measure(now[0][part], now[1][part], (before[0][part], before[1][part]))
            for part in parts(len(now[0]), batch.real.shape[2] * batch.real.shape[3])
        ]
        if measured:
            values[:, : stop - 1][valid] = torch.cat(measured).float()
        self.values.append(values)
        self.lengths.append(batch.lengths.clone())

    def compute(self) -> dict[str, Score]:
        """The score under the metric's name."""
        values, lengths = as_one(self.values), as_one(self.lengths)
        by_horizon = {h: self.average(values[lengths >= h, : h - 1].flatten()) for h in self.horizons}
        by_frame = [torch.nan, *(self.average(column[~column.isnan()]) for column in values.T)]
        return {self.name: Score(by_horizon, by_frame, self.better, self.digits)}

    def average(self, values: Tensor) -> float:
        """The mean of (N,) values; NaN of none."""
        return float(values.double().mean())


def parts(count: int, pixels: int) -> Iterator[slice]:
    """Slices that cut `count` pictures of so many pixels into pieces that fit in memory."""
    size = max(1, _CHUNK_PIXELS // max(1, pixels))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def until_end(values: Tensor, lengths: Tensor) -> Tensor:
    """(N, F, C) values of frames, NaN from frame `lengths` (N,) on."""
    reached = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
    return torch.where(reached[..., None], values, torch.nan)


def exceeds(values: Tensor, bound: float) -> Tensor:
    """1 where a value is larger than the bound, else 0; NaN where it is NaN."""
    return torch.where(values.isnan(), torch.nan, (values > bound).to(values.dtype))


def as_one(state: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor; torchmetrics hands it over joined already after a distributed reduction."""
    return torch.cat(state) if isinstance(state, list) else state
