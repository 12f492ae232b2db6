"""Who acts, behind one contract: the scripted expert and chance here, a policy in `policy`, which needs torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from wovr.envs.base import ChunkVectorEnv
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import CHUNK, ChunkStep


class Actor(ABC):
    """Who acts: has every row of a vector environment take one chunk.

    Attributes:
        name: `expert`, `random` or the fingerprint of a checkpoint: what `EpisodeMeta.policy` says.
        chunk: Actions executed open-loop, K.
        temperature: Sampling temperature of a policy; None of an actor without one.
    """

    name: str
    chunk: int = CHUNK
    temperature: float | None = None

    @abstractmethod
    def act(self, env: ChunkVectorEnv, generators: Sequence[np.random.Generator | None]) -> ChunkStep:
        """Execute one chunk.

        Args:
            env: The environment; its N rows are all seen, ended and idle ones too.
            generators: The random generator of each row's episode; None for a row that is not running.

        Returns:
            The chunk, with what the actor wants kept in `info`.
        """


class ExpertActor(Actor):
    """The environment's scripted expert, which acts in the worker from the simulator's state."""

    name = "expert"

    def act(self, env: ChunkVectorEnv, generators: Sequence[np.random.Generator | None]) -> ChunkStep:
        """Execute one chunk of the expert's actions."""
        if not isinstance(env, WorkerVectorEnv):
            raise UserError("this environment has no scripted expert", "use --policy random or a checkpoint")
        return env.step_expert(self.chunk)


class RandomActor(Actor):
    """Uniformly random actions."""

    name = "random"

    def act(self, env: ChunkVectorEnv, generators: Sequence[np.random.Generator | None]) -> ChunkStep:
        """Execute one chunk of actions drawn from [-1, 1]."""
        actions = np.zeros((env.num_envs, self.chunk, env.action_dim), np.float32)
        for row, generator in enumerate(generators):
            if generator is not None:
                actions[row] = generator.uniform(-1.0, 1.0, actions.shape[1:])
        return env.step_chunk(actions)
