"""What all games share: the networks, and the simulator beside them. It holds nothing of any game.

Every question names the moment to go on from, so what one tab plays cannot reach another, and a moment gives the same
bits whenever it is asked again: chunks are imagined one at a time and never in a batch with other tabs', whose size
would change the rounding. One thread asks; the simulator works in its own process meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wovr.envs.imagined.env import ImaginedSnapshot, ImaginedVectorEnv
from wovr.envs.imagined.parts import Judge
from wovr.errors import UserError
from wovr.models.policies.base import Policy
from wovr.serve.beside import RealFrames, Simulator
from wovr.serve.controls import Controls
from wovr.serve.starts import StoredStarts
from wovr.types import Observation, StartState

EXPERT = "expert"
"""Driver: the simulator's scripted expert, who sees the simulator's state."""


@dataclass(frozen=True)
class Stretch:
    """A chunk as it was imagined: up to K frames.

    Attributes:
        before: All of imagination at its beginning.
        actions: (K, A) float32.
        drivers: Who chose each action, K names.
        frames: (n, H, W, 3) uint8, n = K but at the end of a game.
        success: (n,) bool, whether a frame completes a success as the classifier judges.
        bars: Name -> (n,) float32, `success_probability` and whatever else is foreseen.
        after: All of imagination at its end.
        real: The simulator under the same actions; None where there is none.
        seconds: What imagining it took.
    """

    before: ImaginedSnapshot
    actions: np.ndarray
    drivers: tuple[str, ...]
    frames: np.ndarray
    success: np.ndarray
    bars: Mapping[str, np.ndarray]
    after: ImaginedSnapshot
    real: RealFrames | None
    seconds: float

    def __len__(self) -> int:
        """N."""
        return len(self.frames)


@dataclass(frozen=True)
class Beginning:
    """Where a game begins.

    Attributes:
        start: The start state.
        snapshot: Imagination there.
        frame: (H, W, 3) uint8, what it shows.
        real: The simulator there, one frame; None where there is none.
        note: Why there is no simulator; empty where there is one.
    """

    start: StartState
    snapshot: ImaginedSnapshot
    frame: np.ndarray
    real: RealFrames | None
    note: str


class Engine:
    """Imagines, judges, acts and simulates for whoever asks; not for several threads at once.

    Args:
        env: An imagined environment of one row, without a value function and without an end by success.
        starts: Where games begin; the pool of `env`.
        controls: What the dimensions of an action do.
        value: Says how likely a rollout is to succeed in the end; None for nobody.
        policies: Name -> policy.
        simulator: The real one; None for none.
        note: Why there is no simulator.
    """

    def __init__(
        self,
        env: ImaginedVectorEnv,
        starts: StoredStarts,
        controls: Controls,
        value: Judge | None = None,
        policies: Mapping[str, Policy] | None = None,
        simulator: Simulator | None = None,
        note: str = "",
    ) -> None:
        self.env, self.starts, self.controls = env, starts, controls
        self.value, self.policies, self.simulator = value, dict(policies or {}), simulator
        self.note = note
        self._beside = ThreadPoolExecutor(1, "simulator")

    @property
    def chunk(self) -> int:
        """Actions of a chunk, K."""
        return self.env.chunk

    @property
    def memory(self) -> int:
        """Frames up to a start that imagination and classifier look at."""
        return max(self.env.imagination.model.memory, self.env.classifier.window)

    @property
    def fps(self) -> float:
        """Control rate, Hz."""
        return self.starts.fps

    @property
    def drivers(self) -> list[str]:
        """Who can drive, beside the hand."""
        return [*self.policies, *([EXPERT] if self.simulator is not None else [])]

    def begin(self, start: StartState, seed: int) -> Beginning:
        """Begin a game.

        Args:
            start: Where.
            seed: Of its noise.

        Raises:
            UserError: A start state that imagination cannot take.
        """
        self.env.reset(seed=[seed], options={"start_states": [start]})
        frame = self.env.observe().image[0]
        real, note = None, self.note
        if self.simulator is not None:
            try:
                real = self.simulator.begin(start)
            except UserError as error:
                note = f"no simulator beside: {error}"
        return Beginning(start, self.env.snapshot(), frame, real, note)

    def imagine(
        self,
        start: StartState,
        before: ImaginedSnapshot,
        actions: np.ndarray,
        drivers: Sequence[str],
        state: np.ndarray | None = None,
        known: RealFrames | None = None,
    ) -> Stretch:
        """Imagine a chunk, and simulate it.

        Args:
            start: Where the game began.
            before: The moment.
            actions: (K, A) float32 in [-1, 1].
            drivers: Who chose each, K names.
            state: (S,) float64, the simulator's at that moment; None for no simulator.
            known: What the simulator showed after the first of the actions.
        """
        begun = time.perf_counter()
        beside = None
        if self.simulator is not None and state is not None:
            beside = self._beside.submit(self._simulate, self.simulator, start, state, actions, known)
        self.env.restore(before)
        step = self.env.step_chunk(actions[None])
        count = int(step.valid[0].sum())
        frames = step.images[0, :count]
        bars = {name: values[0, :count] for name, values in step.info.items()}
        if self.value is not None:
            bars["value"] = self._foresee(self.value, before, frames)
        try:
            real = None if beside is None else beside.result()
        except UserError:  # a simulator that died: the game goes on without it
            real = None
        return Stretch(
            before,
            actions.copy(),
            tuple(drivers),
            frames,
            step.success[0, :count],
            bars,
            self.env.snapshot(),
            real if real is None else real.first(count),
            time.perf_counter() - begun,
        )

    def act(
        self,
        driver: str,
        start: StartState,
        frame: np.ndarray,
        temperature: float,
        seed: Sequence[int],
        state: np.ndarray | None = None,
    ) -> np.ndarray:
        """(K, A) float32, what a policy or the expert does next.

        Args:
            driver: One of `drivers`.
            start: Where the game began.
            frame: (H, W, 3) uint8, what is seen.
            temperature: Of a policy's sampling; 0 takes the likeliest.
            seed: Of that sampling.
            state: The simulator's, for the expert.

        Raises:
            UserError: Nobody of that name, or who cannot act here.
        """
        if driver == EXPERT:
            if self.simulator is None or state is None:
                raise UserError("the expert needs the simulator", "choose another driver")
            return self._beside.submit(self.simulator.expert, start, state, self.chunk).result()
        if driver not in self.policies:
            raise UserError(f"nobody here is called '{driver[:40]}'", f"there are: {', '.join(self.drivers)}")
        policy = self.policies[driver]
        shape = (1, policy.chunk, policy.action_dim, policy.bins)
        exponential = np.random.default_rng(list(seed)).standard_exponential(shape, np.float32)
        noise = torch.from_numpy(-np.log(np.maximum(exponential, np.finfo(np.float32).tiny)))
        seen = Observation(frame[None], [self.starts.instruction(start.suite, start.task)])
        return policy.act(seen, temperature=temperature, noise=noise).actions[0].float().cpu().numpy()

    def described(self) -> dict[str, Any]:
        """JSON values for the page."""
        return {
            "fps": self.fps,
            "chunk": self.chunk,
            "size": list(self.starts.image_size),
            "drivers": self.drivers,
            "simulator": None if self.simulator is None else self.simulator.name,
            "note": self.note,
            "controls": self.controls.described(),
            "threshold": float(self.env.classifier.threshold),
            **self.starts.described(),
        }

    def close(self) -> None:
        """End the simulator."""
        self._beside.shutdown(cancel_futures=True)
        if self.simulator is not None:
            self.simulator.close()

    @staticmethod
    def _simulate(
        simulator: Simulator, start: StartState, state: np.ndarray, actions: np.ndarray, known: RealFrames | None
    ) -> RealFrames:
        """All frames of a chunk, of which the first may be known."""
        if known is None or not len(known.frames):
            return simulator.execute(start, state, actions)
        if len(known.frames) >= len(actions):
            return known
        return known.then(simulator.execute(start, known.states[-1], actions[len(known.frames) :]))

    @torch.no_grad()
    def _foresee(self, value: Judge, before: ImaginedSnapshot, frames: np.ndarray) -> np.ndarray:
        """(n,) float32, the value of each frame."""
        seen = before.before[:, before.before.shape[1] - (value.window - 1) :]
        clip = torch.cat([seen, torch.from_numpy(frames)[None].to(seen.device)], dim=1)
        return value.probability(clip, list(before.tasks))[0].float().cpu().numpy()
