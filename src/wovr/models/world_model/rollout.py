"""Autoregressive rollouts in the world model: chunk after chunk, for N rollouts side by side (paper, section 4.1).

Noise is a function of (seed of the rollout, number of the chunk) alone. So a rollout does not depend on which others
are beside it, and a state is nothing but tensors: dropping finished rollouts, saving and restoring are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.models.world_model.context import Context
from wovr.models.world_model.model import WorldModel

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class ImaginationState:
    """N rollouts at a moment. Its tensors are never written to, so holding on to it is a snapshot.

    Attributes:
        context: What their next chunks are imagined from.
        seeds: (N,) int64, one a rollout.
        chunks: (N,) int64, chunks imagined so far.
    """

    context: Context
    seeds: Tensor
    chunks: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.seeds)

    def select(self, rows: Array) -> ImaginationState:
        """Some of the rollouts: (n,) int64 indices, in the order wanted."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        here = rows.to(self.context.latents.device)
        return ImaginationState(self.context.map(lambda tensor: tensor[here]), self.seeds[rows], self.chunks[rows])

    @classmethod
    def join(cls, states: Sequence[ImaginationState]) -> ImaginationState:
        """Rollouts of one world model side by side: those of the first state, then those of the second, ..."""
        context = Context.join([state.context for state in states])
        seeds, chunks = ([getattr(state, name) for state in states] for name in ("seeds", "chunks"))
        return cls(context, torch.cat(seeds), torch.cat(chunks))


class Imagination:
    """N imagined rollouts. `start`, then `step` as often as wanted.

    Args:
        model: The world model; its device is where everything happens. Put into evaluation mode.
        sigmas: Noise levels at which the sampler asks the network, falling from 1; None for the model's own.
        precision: `fp32`, or `bf16` for matrix products in bfloat16 (autocast).
        compile: Let torch.compile make faster code of the model, in place, when it is first used.

    Attributes:
        predicted: What the world model's conditioning said of the last chunk, (N, K, ...) float32 each, by name.
    """

    def __init__(
        self, model: WorldModel, sigmas: Sequence[float] | None = None, precision: str = "fp32", compile: bool = False
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise UserError(f"precision is {precision}", "give fp32 or bf16")
        self.model = model.eval()
        if compile:
            model.compile_parts(self.device)
        self.sigmas = sigmas
        self.precision = precision
        self._state: ImaginationState | None = None
        self.predicted: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.neutral.device

    def __len__(self) -> int:
        """N."""
        return len(self.snapshot().seeds)

    def start(
        self,
        reference: Array,
        memory: Array | None = None,
        memory_actions: Array | None = None,
        *,
        age: Array | None = None,
        signals: Mapping[str, Array] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Begin N rollouts, at the first frame of an episode or (with a memory) at a keyframe.

        Args:
            reference: (N, H, W, 3) uint8, the first frame of each episode.
            memory: (N, P, H, W, 3) uint8, frames up to and including the start; None to start at the reference.
            memory_actions: (N, P, A) float, the action that produced each of them; None for neutral ones.
            age: (N,) frames from the reference to the start, which only a model with `reference_gap` looks at.
            signals: What else is known at the start, by name, (N, ...) float each; only a conditioning looks at it.
            seeds: One a rollout; rollouts of one seed get the same noise. None for 0 .. N - 1.

        Raises:
            UserError: Images whose sides the autoencoder cannot take, another number of seeds, or a signal that is
                needed is missing.
        """
        count = len(reference)
        seeds = range(count) if seeds is None else seeds
        if len(seeds) != count:
            raise UserError(f"{len(seeds)} seeds for {count} rollouts", "give one a rollout")
        with self._autocast():
            context = self.model.encode_context(
                self._tensor(reference),
                self._maybe(memory),
                self._maybe(memory_actions),
                self._maybe(age),
                {name: self._tensor(values) for name, values in (signals or {}).items()},
            )
        self._state = ImaginationState(
            context, torch.tensor(list(seeds), dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        )

    def step(self, actions: Array, noise: Tensor | None = None) -> Tensor:
        """Imagine one chunk.

        Args:
            actions: (N, K, A) float in [-1, 1].
            noise: As `noise` makes it, to use instead of the rollouts' own.

        Returns:
            (N, K, H, W, 3) uint8 on the model's device, the frame that each action produced.

        Raises:
            UserError: Actions of another shape.
        """
        state = self.snapshot()
        expected = (len(state.seeds), self.model.chunk, self.model.action_dim)
        if tuple(actions.shape) != expected:
            raise UserError(
                f"actions have shape {tuple(actions.shape)}, the world model takes {expected}",
                "give one chunk of actions a rollout",
            )
        act = self._tensor(actions).float()
        noise = self.noise() if noise is None else noise
        with self._autocast(), torch.no_grad():
            inputs = self.model.inputs(state.context, act)
            frames, context = self.model.imagine(state.context, act, noise.to(self.device), self.sigmas, inputs)
            self.predicted = self.model.conditioning.predicted(inputs)
        self._state = ImaginationState(context, state.seeds, state.chunks + 1)
        return frames

    def noise(self) -> Tensor:
        """(N, *model.noise_shape) float32 standard normal on the CPU, the noise of each rollout's next chunk."""
        state = self.snapshot()
        height, width = state.context.reference.shape[1:3]
        shape = self.model.noise_shape((height, width))
        pairs = zip(state.seeds.tolist(), state.chunks.tolist(), strict=True)
        return torch.stack([chunk_noise(seed, chunk, shape) for seed, chunk in pairs])

    def keep(self, mask: Array) -> None:
        """Go on with some of the rollouts only: (N,) bool, True for those that stay, in their order.

        Raises:
            UserError: A mask of another length.
        """
        state = self.snapshot()
        rows = torch.as_tensor(mask, dtype=torch.bool)
        if rows.shape != state.seeds.shape:
            raise UserError(f"a mask of shape {tuple(rows.shape)} for {len(self)} rollouts", "give one value a rollout")
        rows = rows.cpu()
        here = rows.to(self.device)
        self._state = ImaginationState(
            state.context.map(lambda tensor: tensor[here]), state.seeds[rows], state.chunks[rows]
        )

    def snapshot(self) -> ImaginationState:
        """The state, to come back to with `restore`; later steps leave it as it is.

        Raises:
            UserError: No rollout was started.
        """
        if self._state is None:
            raise UserError("no rollout was started", "call start first")
        return self._state

    def restore(self, state: ImaginationState) -> None:
        """Go back (or over) to a state of this world model: what follows is the same as it was the first time."""
        self._state = state

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _tensor(self, values: Array) -> Tensor:
        return torch.as_tensor(values).to(self.device)

    def _maybe(self, values: Array | None) -> Tensor | None:
        return None if values is None else self._tensor(values)


def chunk_noise(seed: int, chunk: int, shape: Sequence[int]) -> Tensor:
    """The noise of one rollout's chunk.

    Args:
        seed: Of the rollout, any integer.
        chunk: Number of the chunk in the rollout.
        shape: Of the result.

    Returns:
        Float32 standard normal numbers on the CPU.
    """
    entropy = np.random.SeedSequence((seed % 2**64, chunk)).generate_state(1, np.uint64)[0]
    return torch.randn(*shape, generator=torch.Generator().manual_seed(int(entropy >> np.uint64(1))))
