"""What there is to see of a chunk of imagined rollouts, for whoever says how far it may be believed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SeenChunk:
    """One chunk of each of R rollouts.

    Attributes:
        reference: (R, H, W, 3) uint8, each rollout's first frame.
        before: (R, H, W, 3) uint8, the frame that the chunk begins at.
        frames: (R, K, H, W, 3) uint8, the frames that its actions produced.
        actions: (R, K, A) float32 in [-1, 1].
        probability: (R, K) float32 in [0, 1], what a success classifier says of each frame; None where none was asked.
    """

    reference: Tensor
    before: Tensor
    frames: Tensor
    actions: Tensor
    probability: Tensor | None = None

    def __len__(self) -> int:
        """R."""
        return len(self.frames)
