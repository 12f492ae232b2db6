"""Which episodes a command runs: tasks in turn, numbered initial states without repetition, held-out ones by a slice.

Episode e belongs to task e mod (number of tasks). The j-th episode of a task starts from the j-th entry of a
permutation of the chosen initial states, seeded by (seed, task, round); when the permutation is used up, the next round
begins with another one. So no initial state comes back before all have been used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from wovr.envs.rollout import EpisodeStart
from wovr.errors import UserError, check_least
from wovr.types import MAX_FRAMES, StartState, TaskInfo


def choose_init_states(text: str, task: TaskInfo) -> range:
    """The initial states a slice selects.

    Args:
        text: `START:STOP` as in Python, either side may be missing or count from the end: `0:40`, `:-10`, `-10:`, `:`.
            Or it is a share of all, rounded down: `:60%`, `60%:80%`.
        task: The task whose states they are.

    Raises:
        UserError: Not such a slice, one that reaches beyond the task's states, or one that selects none.
    """
    remedy = (
        f"task {task.suite}/{task.name} has initial states 0 to {task.num_init_states - 1}, "
        "all of them are --init_states=:"
    )
    match = re.fullmatch(r"\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*", text)
    if match is None:
        raise UserError(f"--init_states '{text}' is no slice START:STOP", remedy)
    count = task.num_init_states
    bounds = [_bound(word, count) if word else None for word in match.groups()]
    if any(bound is not None and not -count <= bound <= count for bound in bounds):
        raise UserError(f"--init_states '{text}' reaches beyond the task", remedy)
    chosen = range(count)[slice(*bounds)]
    if not chosen:
        raise UserError(f"--init_states '{text}' selects no initial state", remedy)
    return chosen


def _bound(word: str, count: int) -> int:
    """One side of a slice of so many states."""
    if not word.endswith("%"):
        return int(word)
    share = int(word.removesuffix("%"))
    if abs(share) > 100:
        return count + 1 if share > 0 else -count - 1  # beyond, however few there are
    return count * abs(share) // 100 * (-1 if share < 0 else 1)


def plan_episodes(
    tasks: Sequence[TaskInfo], num_episodes: int, init_states: str, seed: int, first_number: int = 0
) -> list[EpisodeStart]:
    """The episodes of one suite, in order; see the head of this file for the rule.

    Args:
        tasks: The chosen tasks of a suite.
        num_episodes: Episodes of all tasks together.
        init_states: A slice, see `choose_init_states`.
        seed: Seed of the command.
        first_number: Number of the first episode.

    Raises:
        UserError: `num_episodes` is not positive, or a bad slice.
    """
    check_least("--episodes", num_episodes)
    chosen = [choose_init_states(init_states, task) for task in tasks]
    orders: dict[tuple[int, int], np.ndarray] = {}
    episodes = []
    for number in range(num_episodes):
        turn, position = divmod(number, len(tasks))
        task, states = tasks[position], chosen[position]
        round_, place = divmod(turn, len(states))
        if (position, round_) not in orders:
            generator = np.random.default_rng([seed, task.index, round_])
            orders[position, round_] = generator.permutation(np.array(states))
        horizon = MAX_FRAMES - 1 if task.horizon > MAX_FRAMES - 1 else None  # a shard's episodes are no longer
        start = StartState(task.suite, task.index, int(orders[position, round_][place]), horizon=horizon)
        episodes.append(EpisodeStart(first_number + number, start))
    return episodes
