"""Training on memories that the world model imagined itself, as it will have them in rollouts (self-forcing).

In training the memory is real, in a rollout it is what the model made before, blurred and displaced a little: errors
that it has never seen, and adds to. Here a window that goes on where one of the batch before ended gets as memory what
the model predicted there. That costs nothing but looking it up: at noise level 1 the prediction of a training step is
what a sampler of one step imagines.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wovr.data.world_model_data import WorldModelBatch
from wovr.models.context import Context, EncodedWindow
from wovr.models.world_model import WorldModel


class OwnMemory:
    """What a batch of training windows ended with in imagination, for the batch that goes on from there.

    Args:
        model: The world model in training.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        self._ended: list[tuple[str, int]] = []
        self._context: Context | None = None

    def forget(self) -> None:
        """Let the next batch begin from real frames throughout."""
        self._ended, self._context = [], None

    def put_in(self, batch: WorldModelBatch, window: EncodedWindow) -> tuple[EncodedWindow, float]:
        """Replace the memory of windows that go on from the batch before.

        Args:
            batch: Of the windows.
            window: The same, encoded.

        Returns:
            The window with memories replaced; the share of windows that this was done to.
        """
        if self._context is None or len(self._ended) != len(batch):
            return window, 0.0
        begun = zip(batch.keys, batch.start.tolist(), strict=True)
        goes_on = torch.tensor([here == before for here, before in zip(begun, self._ended, strict=True)])
        where = goes_on.to(window.new.device)
        real = vars(window.context)
        mixed = {
            name: torch.where(where.view(-1, *[1] * (own.ndim - 1)), own.to(real[name].dtype), real[name])
            for name, own in vars(self._context).items()
        }
        return replace(window, context=Context(**mixed)), goes_on.float().mean().item()

    @torch.no_grad()
    def keep(self, batch: WorldModelBatch, window: EncodedWindow, clean: torch.Tensor) -> None:
        """Remember what was imagined.

        Args:
            batch: Of the windows.
            window: What `put_in` made of it.
            clean: (B, C, n, h, w) float, the new latents as the network predicts them.
        """
        frames = self.model.decode_chunk(window.context, clean)
        self._context = self.model.advance(window.context, window.actions, clean, frames)
        chunk = self.model.chunk
        self._ended = [(key, start + chunk) for key, start in zip(batch.keys, batch.start.tolist(), strict=True)]
