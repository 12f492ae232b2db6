"""How differently a policy acts on imagined frames: what reinforcement learning in imagination has to fear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.metrics.rollouts import FrameMetric, ImaginedBatch
from wovr.models.policies.base import Policy, image_tensor


class PolicyShift(FrameMetric):
    """KL divergence of a policy's action tokens on an imagined frame from those on the real frame of the same moment.

    The mean over the K x A tokens of a chunk, in nats: 0 where the policy cannot tell imagination from reality. Blur,
    noise and brightness count as little as the policy minds them, a hand in the wrong place counts as much.

    Args:
        horizons: Horizons to report.
        policy: The policy.
    """

    def __init__(self, horizons: Sequence[int], policy: Policy) -> None:
        super().__init__("policy_shift", horizons, better="lower", digits=3)
        self.policy = policy
        self._instructions: list[str] = []

    def update(self, batch: ImaginedBatch) -> None:
        """Count a batch in.

        Raises:
            UserError: The batch does not say what the policy was told.
        """
        if batch.instructions is None:
            raise UserError("policy_shift needs the episodes' instructions", "leave it out")
        stop = min(batch.real.shape[1], self.num_frames)
        frames = batch.valid()[:, : stop - 1].sum(1).tolist()
        # In the order in which FrameMetric asks for frames: episode after episode.
        self._instructions = [
            sentence for sentence, count in zip(batch.instructions, frames, strict=True) for _ in range(count)
        ]
        super().update(batch)

    def measure(self, imagined: Tensor, real: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
        """See `FrameMetric.measure`."""
        told, self._instructions = self._instructions[: len(real)], self._instructions[len(real) :]
        shown, true = (self._log_probabilities(frames, told) for frames in (imagined, real))
        return (true.exp() * (true - shown)).sum(-1).mean((1, 2))

    def _log_probabilities(self, frames: Tensor, told: Sequence[str]) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, K, A, bins) float32."""
        with torch.no_grad():
            logits = self.policy.logits(image_tensor(frames.cpu().numpy(), frames.device), told)
        return logits.float().log_softmax(-1)
