"""A policy from a checkpoint as an actor. The one file of acting that needs torch: import it only for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from wovr.data.store.dataset import check_trained_range, check_trained_repeat
from wovr.envs.actors.base import Actor
from wovr.envs.base import ChunkVectorEnv
from wovr.errors import UserError
from wovr.functional.coherent import latent_nodes
from wovr.models.checkpoint import data_record
from wovr.models.policies.base import Policy
from wovr.models.policies.loading import load_policy, policy_fingerprint
from wovr.processes import launched_processes
from wovr.types import ChunkStep


class PolicyActor(Actor):
    """Has a policy act on all N rows at once, whatever their state, so that its batches are always of one size.

    What is random in a row comes from the generator of the row's episode: the Gumbel noise, and what the tokens of a
    chunk share. Keeps `tokens` and `log_probs`, (N, K, A) each, in the chunk's `info`, and `proprio` (N, K, P), what it
    saw of it at the chunk's start, if it looks at it.

    Args:
        policy: The policy; used as it is (device, training or evaluation mode).
        name: Its fingerprint.
        temperature: Sampling temperature; 0 takes the likeliest tokens.
        coherence: How far the tokens of a chunk are drawn alike, see `wovr.functional.coherent`.
    """

    def __init__(self, policy: Policy, name: str, temperature: float = 1.0, coherence: float = 0.0) -> None:
        self.policy = policy
        self.name = name
        self.temperature: float = temperature
        self.coherence = coherence
        self.chunk = policy.chunk

    @classmethod
    def from_checkpoint(cls, checkpoint: str, env: ChunkVectorEnv, temperature: float, device: str) -> Self:
        """Load a checkpoint for an environment.

        Args:
            checkpoint: Path of the checkpoint.
            env: Where the policy is to act.
            temperature: Sampling temperature.
            device: `auto` (the first CUDA device if there is one, else the CPU) or a torch device.

        Raises:
            UserError: The checkpoint cannot be loaded, was made for other actions, or there is no such device.
        """
        path = Path(checkpoint)
        policy = load_policy(path)
        check_fit(policy, env, checkpoint)
        check_trained_repeat(path, data_record(path), "the environment", env.action_repeat)
        if env.action_range is not None:
            check_trained_range(path, data_record(path), "the robot", env.action_range)
        if device == "auto":
            of_launched = f"cuda:{launched_processes().local}" if launched_processes().count > 1 else "cuda"
            device = of_launched if torch.cuda.is_available() else "cpu"
        try:
            policy = policy.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device '{device}' cannot be used: {error}", "use cpu, cuda or auto") from error
        return cls(policy, policy_fingerprint(path), temperature)

    @torch.inference_mode()
    def act(self, env: ChunkVectorEnv, generators: Sequence[np.random.Generator | None]) -> ChunkStep:
        """Execute one chunk of the policy's actions."""
        noise = None if self.temperature == 0 else torch.from_numpy(self._noise(generators))
        latent = self._latent(generators) if self.coherence and self.temperature else None
        if self.policy.proprio_dim:
            env.show_proprio(self.policy.proprio_dim)
        observation = env.observe()
        choice = self.policy.act(
            observation, temperature=self.temperature, noise=noise, coherence=self.coherence, latent=latent
        )
        running = [row for row, generator in enumerate(generators) if generator is not None]
        if not choice.log_probs[running].isfinite().all():  # a token picked by argmax hides a NaN
            raise UserError(
                f"policy {self.name}: its log-probabilities are not finite", "check its weights and train it again"
            )
        chunk = env.step_chunk(choice.actions.cpu().numpy())
        chunk.info["tokens"] = choice.tokens.cpu().numpy()
        chunk.info["log_probs"] = choice.log_probs.float().cpu().numpy()
        if observation.proprio is not None:
            chunk.info["proprio"] = np.repeat(observation.proprio[:, None], chunk.valid.shape[1], axis=1)
        return chunk

    def _noise(self, generators: Sequence[np.random.Generator | None]) -> np.ndarray:
        """(N, K, A, bins) float32 standard Gumbel noise; zero for rows that are not running."""
        one = (self.policy.chunk, self.policy.action_dim, self.policy.bins)
        noise = np.zeros((len(generators), *one), np.float32)
        for row, generator in enumerate(generators):
            if generator is not None:
                exponential = generator.standard_exponential(one, np.float32)
                noise[row] = -np.log(np.maximum(exponential, np.finfo(np.float32).tiny))
        return noise

    def _latent(self, generators: Sequence[np.random.Generator | None]) -> torch.Tensor:
        """(N, A) int64, which latent number each row and dimension has; 0 for rows that are not running."""
        _, log_weights = latent_nodes(self.coherence, torch.device("cpu"))
        weights = log_weights.double().exp().numpy()
        latent = np.zeros((len(generators), self.policy.action_dim), np.int64)
        for row, generator in enumerate(generators):
            if generator is not None:
                latent[row] = generator.choice(len(weights), self.policy.action_dim, p=weights / weights.sum())
        return torch.from_numpy(latent)


def check_fit(policy: Policy, env: ChunkVectorEnv, checkpoint: str) -> None:
    """Compare what a policy takes and gives with the environment it is to act in.

    Raises:
        UserError: Actions have other dimensions, or the policy takes proprioception that is not to be had.
    """
    if policy.proprio_dim:
        env.show_proprio(policy.proprio_dim)
    if policy.action_dim != env.action_dim:
        raise UserError(
            f"{checkpoint}: the policy's actions have {policy.action_dim} dimensions, the environment takes "
            f"{env.action_dim}",
            "use a policy trained for this environment",
        )
