"""Where games begin: any frame of any episode, read when it is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands.point_world import write_point_dataset
from wovr.errors import UserError
from wovr.serve import starts as starts_module
from wovr.serve.starts import MOST_ACTIONS, StoredStarts


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> StoredStarts:
    return StoredStarts([write_point_dataset(tmp_path_factory.mktemp("data"), (30, 12, 9, 20))])


def test_tasks_and_their_episodes(starts: StoredStarts) -> None:
    assert [(task.suite, task.index, task.horizon) for task in starts.tasks] == [
        ("spatial", task, MOST_ACTIONS) for task in range(3)
    ]
    described = starts.described()
    assert [[one["frames"] for one in task["episodes"]] for task in described["tasks"]] == [[30, 20], [12], [9]]
    assert described["keyframes"] == []


def test_a_frame_within_an_episode(starts: StoredStarts) -> None:
    episode = starts.store.read(3)
    start = starts.start("spatial", 0, 1, 9, memory=4)
    assert start.reference is not None
    assert start.memory is not None
    assert start.memory_actions is not None
    np.testing.assert_array_equal(start.reference, episode.frames[0])
    np.testing.assert_array_equal(start.memory, episode.frames[6:10])
    np.testing.assert_array_equal(start.memory_actions, episode.actions[5:9])  # action t produced frame t + 1
    assert episode.sim_state is not None
    np.testing.assert_array_equal(start.sim_state, episode.sim_state[9])
    assert start.horizon == MOST_ACTIONS - 9
    early = starts.start("spatial", 0, 1, 2, memory=8)
    assert early.memory is not None
    np.testing.assert_array_equal(early.memory, episode.frames[1:3])
    first = starts.start("spatial", 0, 1, 0, memory=8)
    assert (first.memory, first.horizon) == (None, None)
    last = starts.start("spatial", 0, 1, 500)
    assert last.horizon == MOST_ACTIONS - 19


def test_what_there_is_none_of(starts: StoredStarts, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no start state of task spatial 7; there are: spatial 0, spatial 1"):
        starts.start("spatial", 7, 0, 0)
    with pytest.raises(UserError, match="has no episode 2; choose 0 to 1"):
        starts.start("spatial", 0, 2, 0)
    with pytest.raises(UserError, match="there is no keyframe 0"):
        starts.keyframe(0)
    with pytest.raises(UserError, match="no episode of suite 'goal'"):
        StoredStarts(starts.store.folders, suites=["goal"])


def test_many_episodes_are_offered_in_part(starts: StoredStarts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts_module, "MOST_LISTED", 1)
    assert [len(found) for found in StoredStarts(starts.store.folders).episodes.values()] == [1, 1, 1]
