"""Whether things stay what they are: ghosts of what has left, and loss of what has stayed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wovr.metrics.rollouts import ImaginedBatch, RolloutMetric, Score, as_one, exceeds, until_end

STILL = (1, 2, 4, 8)
"""A pixel is at rest when it looks as it did this many frames ago, each: so the robot, which moves, is left out."""

SAME, OTHER = 0.06, 0.25
"""Largest difference, in any colour, of pixels that look the same, smallest of those that do not; values in [0, 1]."""

PIXELS = 8
"""Fewest pixels that say something: an eighth of an object of 8 x 8 pixels."""

GHOSTED = 0.2
"""Share of what has left, still shown, from which on a person sees a ghost."""


class Permanence(RolloutMetric):
    """Compares pixels that are at rest in the real episode with what is imagined there; needs nothing but frames.

    Values at a horizon h are those of frame h - 1, R_t in the real episode, I_t in imagination.

    Scores:
        ghosts: Where the real episode looks different from its first frame F, because something has left (or come to
            lie there): how much of F is still shown, sum (F - R_t)(I_t - R_t) / sum (F - R_t)^2. 0 for none of it, 1
            where what has left is shown as if nothing had happened. The mean over rollouts that have such places.
        ghosted: Share of those rollouts in which it is more than 0.2.
        lost: Where the real episode looks as in its first frame: share of pixels that imagination shows otherwise.

    Args:
        horizons: Horizons to report; of those below 10 there is nothing to say, because no pixel has rested.
    """

    values: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__(horizons)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in."""
        stop = min(batch.real.shape[1], self.num_frames)
        values = torch.full((len(batch.real), self.num_frames, 2), torch.nan, device=batch.real.device)
        first = batch.real[:, 0].float() / 255
        for t in range(max(STILL) + 1, stop):
            real, imagined = batch.real[:, t].float() / 255, batch.imagined[:, t].float() / 255
            before = batch.real[:, [t - gap for gap in STILL]].float() / 255
            still = (real[:, None] - before).abs().amax(dim=(1, -1)) < SAME  # (B, H, W)
            gone, error = first - real, imagined - real
            change = gone.abs().amax(-1)
            changed, same = still & (change > OTHER), still & (change < SAME)
            ghosts = _sum((gone * error).sum(-1), changed) / _sum((gone**2).sum(-1), changed)
            wrong = same & (error.abs().amax(-1) > OTHER)
            values[:, t, 0] = torch.where(changed.sum((1, 2)) >= PIXELS, ghosts, torch.nan)
            values[:, t, 1] = wrong.sum((1, 2)) / same.sum((1, 2))
        self.values.append(until_end(values, batch.lengths))
        self.lengths.append(batch.lengths.clone())

    def compute(self) -> dict[str, Score]:
        """See the class."""
        values, lengths = as_one(self.values), as_one(self.lengths)  # (N, F, 2)
        ghosts, lost = values.unbind(-1)
        return {
            name: Score(
                {h: float(column[lengths >= h, h - 1].nanmean()) for h in self.horizons},
                column.nanmean(0).tolist(),
                digits=digits,
            )
            for name, column, digits in (
                ("ghosts", ghosts, 3),
                ("ghosted", exceeds(ghosts, GHOSTED), 2),
                ("lost", lost, 4),
            )
        }


def _sum(values: Tensor, where: Tensor) -> Tensor:
    """(B,) sum over the pixels selected; (B, H, W) both."""
    return torch.where(where, values, 0.0).flatten(1).sum(1)
