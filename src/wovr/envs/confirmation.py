"""How much of imagined success is the world model's mood: the same actions imagined again, with other noise.

A success that the policy has earned happens again whatever the noise; one that the world model has made up need not. No
real episode is taken for it, so it bounds what is believed from above only: what every noise makes up is still believed
(`wovr evaluate --metrics hallucination` compares with what is real).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wovr.envs.base import ChunkVectorEnv
from wovr.envs.grpo_rollouts import RolloutBatch, Trajectory


def confirmed_successes(
    env: ChunkVectorEnv,
    batch: RolloutBatch,
    actions_of: Callable[[np.ndarray], np.ndarray],
    seed: int,
    most: int = 64,
) -> tuple[int, int]:
    """Imagine the successful rollouts of an update again, or some of them.

    Args:
        env: The imagined environment; whatever runs in it is stopped.
        batch: The rollouts.
        actions_of: (..., A) int64 tokens to (..., A) float32 actions.
        seed: Of the run; with the update and the rollout's place it decides the noise.
        most: Of more successes than these as many are drawn: a share to a few hundredths, not another set of rollouts.

    Returns:
        How many succeeded again, and how many were tried.
    """
    won = [(row, one) for row, one in enumerate(batch.trajectories) if one.succeeded]
    if len(won) > most:
        drawn = np.random.default_rng([seed, batch.update, 4]).permutation(len(won))[:most]
        won = [won[place] for place in sorted(drawn)]
    again = 0
    for begin in range(0, len(won), env.num_envs):
        part = won[begin : begin + env.num_envs]
        seeds = [int(np.random.SeedSequence([seed, batch.update, row, 3]).generate_state(1)[0]) for row, _ in part]
        again += int(_play(env, [one for _, one in part], seeds, actions_of).sum())
    return again, len(won)


def _play(
    env: ChunkVectorEnv,
    rollouts: list[Trajectory],
    seeds: list[int],
    actions_of: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Which of them succeed again: (R,) bool."""
    count, idle = len(rollouts), env.num_envs - len(rollouts)
    chunks, chunk, width = max(len(one.tokens) for one in rollouts), *rollouts[0].tokens.shape[1:]
    actions = np.zeros((env.num_envs, chunks * chunk, width), np.float32)  # neutral ones where a rollout had ended
    for row, one in enumerate(rollouts):
        actions[row, : one.length] = actions_of(one.tokens.reshape(-1, width)[: one.length])
    starts = [*(one.start for one in rollouts), *[None] * idle]
    mask = np.ones(env.num_envs, bool)
    env.reset(seed=[*seeds, *[None] * idle], options={"start_states": starts, "reset_mask": mask})  # type: ignore[arg-type]
    last = np.array([len(one.tokens) for one in rollouts])
    succeeded, running = np.zeros(count, bool), np.ones(count, bool)
    for number in range(chunks):
        step = env.step_chunk(actions[:, number * chunk : (number + 1) * chunk])
        succeeded |= running & (step.success & step.valid)[:count].any(axis=1)
        running &= ~step.done[:count] & (number + 1 < last)
        if not running.any():
            break
    return succeeded
