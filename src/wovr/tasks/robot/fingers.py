"""Which numbers of the proprioception say how far the fingers are open.

Those that go one way when the hand is told to close, and the other way when it is told to open.
"""

from __future__ import annotations

import numpy as np

from wovr.data.store.reader import EpisodeStore

EPISODES = 60
"""How many episodes are looked at, evenly spread over the store."""

STEPS = 4
"""Actions after a change of the command by which fingers have moved."""

FEWEST = 10
"""Changes of the command of each kind without which nothing is said."""

APART = 3.0
"""Least distance of the two mean movements, in standard deviations. On the tabletop fingers are at 4.8 or more, even in
episodes of a policy whose actions are drawn at random, and nothing else is above 2.2."""


def find_fingers(store: EpisodeStore) -> list[int]:
    """Find the numbers, from the last dimension of the actions, which is the hand's.

    Args:
        store: Episodes with proprioception.

    Returns:
        Their places in the proprioception, rising, the first three (the hand's position) not among them; empty where
        episodes do not show any.
    """
    moved: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for index in np.unique(np.linspace(0, len(store) - 1, EPISODES).astype(int)).tolist():
        command, states = store.actions(index)[:, -1] > 0, store.signals(index)["proprio"]
        for change in np.flatnonzero(command[1:] != command[:-1]) + 1:
            end = min(int(change) + STEPS, len(command))
            if (command[change:end] == command[change]).all():
                moved[bool(command[change])].append(states[end] - states[change])
    if min(map(len, moved.values())) < FEWEST:
        return []
    one, other = (np.asarray(moved[kind], np.float64) for kind in (False, True))
    spread = np.sqrt((one.var(0) + other.var(0)) / 2)
    apart = np.abs(one.mean(0) - other.mean(0))
    return [int(place) for place in np.flatnonzero(apart > APART * np.maximum(spread, 1e-9)) if place >= 3]
