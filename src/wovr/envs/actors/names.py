"""Actors by what `--policy` says: `expert`, `random`, or a checkpoint, for which alone torch is imported."""

from __future__ import annotations

from pathlib import Path

from wovr.envs.actors.base import Actor, ExpertActor, RandomActor
from wovr.envs.base import ChunkVectorEnv

BUILTIN: dict[str, type[Actor]] = {"expert": ExpertActor, "random": RandomActor}
"""Actors that need no checkpoint."""


def policy_name(policy: str) -> str:
    """What names the actor behind `--policy` for good: the fingerprint of a checkpoint's policy, not its path.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    if policy in BUILTIN:
        return policy
    from wovr.models.policies.loading import policy_fingerprint

    return policy_fingerprint(Path(policy))


def make_actor(policy: str, env: ChunkVectorEnv, temperature: float = 1.0, device: str = "auto") -> Actor:
    """The actor behind `--policy`.

    Args:
        policy: `expert`, `random` or the path of a checkpoint.
        env: Where it is to act.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        device: Where a checkpoint computes: `auto`, `cpu`, `cuda`, ...

    Raises:
        UserError: The checkpoint cannot be loaded, or was made for other actions.
    """
    if policy in BUILTIN:
        return BUILTIN[policy]()
    from wovr.envs.actors.policy import PolicyActor

    return PolicyActor.from_checkpoint(policy, env, temperature, device)
