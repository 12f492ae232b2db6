"""What GRPO could take for the return of a rollout after a few chunks: an outcome, a value, an imagined value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wovr.commands.terminal import episode_progress
from wovr.envs.continuations import Beginning
from wovr.envs.imagined.env import ImaginedVectorEnv
from wovr.envs.imagined.parts import Judge
from wovr.envs.rollout import environment_seed
from wovr.errors import UserError
from wovr.types import StartState

RECIPES = OUTCOME, REAL, IMAGINED = "outcome", "value, real", "value, imagined"
"""The recipes by their names in metrics.json, from what whole rollouts learn from to what `wovr rl` does."""


@dataclass(frozen=True)
class Returns:
    """Returns of R rollouts after n chunks.

    Attributes:
        returns: (R,) float64, or (R, C) with one for each continuation.
        lengths: (R,) int64, steps of those chunks that are learned from: up to the first success.
    """

    returns: np.ndarray
    lengths: np.ndarray

    @property
    def single(self) -> np.ndarray:
        """(R,) float64, what an update would see: of several continuations the first."""
        return self.returns if self.returns.ndim == 1 else self.returns[:, 0]


def outcome_returns(beginnings: Sequence[Beginning], outcomes: np.ndarray, steps: int) -> Returns:
    """How the whole rollout ends, which is what whole rollouts learn from.

    Args:
        beginnings: R rollouts.
        outcomes: (R, C) float, how each continuation ends.
        steps: Actions of the n chunks.
    """
    return Returns(outcomes.astype(np.float64), _lengths(beginnings, steps))


def value_returns(beginnings: Sequence[Beginning], value: Judge, chunks: int, steps: int) -> Returns:
    """The value function on the real frames; the outcome where a rollout has ended.

    Args:
        beginnings: R rollouts, with clips of the value function's window.
        value: The value function.
        chunks: Chunks that were executed.
        steps: Their actions.

    Raises:
        UserError: A value that is not finite.
    """
    known = [beginning.outcome(steps) for beginning in beginnings]
    goes_on = [row for row, outcome in enumerate(known) if outcome is None]
    found = np.array([0.0 if outcome is None else outcome for outcome in known])
    if goes_on:
        clips = np.stack([beginnings[row].clips[chunks] for row in goes_on])  # (n, window, H, W, 3)
        tasks = [(beginnings[row].start.suite, beginnings[row].start.task) for row in goes_on]
        with torch.no_grad():
            found[goes_on] = value.probability(torch.from_numpy(clips), tasks).float().cpu().numpy()[:, 0]
    if not np.isfinite(found).all():
        raise UserError("the value function's probabilities are not finite", "check its weights; train it again")
    return Returns(found, _lengths(beginnings, steps))


def imagined_returns(
    beginnings: Sequence[Beginning],
    env: ImaginedVectorEnv,
    chunks: int,
    seed: int,
    on_rollouts: Callable[[int], None] = lambda count: None,
) -> Returns:
    """The same actions in imagination, cut after them: 1 for imagined success, else the value of the last frame.

    A rollout's noise is that of its number, as where a policy acts in imagination; which actions it takes is given, so
    from the second chunk on they are those of a policy that saw real frames.

    Args:
        beginnings: R rollouts.
        env: Where to imagine, with a value function; its cut is set.
        chunks: Chunks to imagine.
        seed: Of the command.
        on_rollouts: Told how many rollouts have been imagined.

    Raises:
        UserError: Start states that cannot be imagined from, or probabilities that are not finite.
    """
    steps = env.cut_after = chunks * env.chunk
    returns, lengths = np.zeros(len(beginnings)), np.zeros(len(beginnings), np.int64)
    for first in range(0, len(beginnings), env.num_envs):
        rows = beginnings[first : first + env.num_envs]
        idle = env.num_envs - len(rows)
        starts: list[StartState | None] = [*(row.start for row in rows), *[None] * idle]
        seeds = [environment_seed(seed, first + row) for row in range(len(rows))]
        env.reset(seed=[*seeds, *[None] * idle], options={"start_states": starts})
        acted = np.zeros((env.num_envs, steps, env.action_dim), np.float32)
        for row, beginning in enumerate(rows):
            taken = beginning.actions[:steps]
            acted[row, : len(taken)] = taken
        success, foreseen = np.zeros(env.num_envs, bool), np.zeros(env.num_envs)
        executed = np.zeros(env.num_envs, np.int64)
        for begun in range(0, steps, env.chunk):
            step = env.step_chunk(acted[:, begun : begun + env.chunk])
            success |= step.success.any(axis=1)
            executed += step.valid.sum(axis=1)
            # Of the last frame of the last chunk; nothing where a rollout has ended.
            foreseen = np.where(step.valid.any(axis=1), step.info["value"].sum(axis=1), foreseen)
        here = slice(first, first + len(rows))
        returns[here] = np.where(success, 1.0, foreseen)[: len(rows)]
        lengths[here] = executed[: len(rows)]
        on_rollouts(len(rows))
    return Returns(returns, np.minimum(lengths, [len(beginning.actions) for beginning in beginnings]))


def find_returns(
    beginnings: Sequence[Beginning],
    outcomes: Mapping[int, np.ndarray],
    chunk: int,
    value: Judge | None,
    imagined: ImaginedVectorEnv | None,
    seed: int,
) -> dict[int, dict[str, Returns]]:
    """The returns of every recipe that there are networks for.

    Args:
        beginnings: R rollouts.
        outcomes: n -> (R, C) float, see `wovr.envs.continuations.play_continuations`.
        chunk: Actions of a chunk.
        value: The value function; None without.
        imagined: The imagined environment; None without.
        seed: Of the command.

    Returns:
        n -> recipe -> returns.

    Raises:
        UserError: See `value_returns` and `imagined_returns`.
    """
    found: dict[int, dict[str, Returns]] = {}
    total = 0 if imagined is None else len(beginnings) * len(outcomes)
    with episode_progress("imagine", total, "rollouts") as advance:
        for chunks, ends in outcomes.items():
            steps = chunks * chunk
            found[chunks] = {OUTCOME: outcome_returns(beginnings, ends, steps)}
            if value is not None:
                found[chunks][REAL] = value_returns(beginnings, value, chunks, steps)
            if imagined is not None:
                found[chunks][IMAGINED] = imagined_returns(beginnings, imagined, chunks, seed, advance)
    return found


def _lengths(beginnings: Sequence[Beginning], steps: int) -> np.ndarray:
    return np.array([beginning.valid(steps) for beginning in beginnings])
