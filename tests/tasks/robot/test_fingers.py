from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.hands import hand_episode, write_hands
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.tasks.robot.fingers import find_fingers


def test_the_number_that_follows_the_command_is_found(tmp_path: Path) -> None:
    assert find_fingers(EpisodeStore(write_hands(tmp_path, episodes=24))) == [3]


@pytest.mark.parametrize("mirrored", [False, True])
def test_among_others(tmp_path: Path, mirrored: bool) -> None:
    """Two fingers, of which one may count the other way round, between numbers that say something else."""
    episodes = [hand_episode(number) for number in range(24)]
    for number, episode in enumerate(episodes):
        rng = np.random.default_rng(number)
        assert episode.proprio is not None
        hand, grip = episode.proprio[:, :3], episode.proprio[:, 3:]
        turned = rng.normal(0, 0.1, (len(hand), 2)).cumsum(0)
        other = -grip if mirrored else grip
        episode.proprio = np.concatenate([hand, turned, grip, hand**2, other], axis=1).astype(np.float32)
    write_shard(shard_path(tmp_path, "spatial", 0), episodes)
    finish_dataset(tmp_path)
    assert find_fingers(EpisodeStore(tmp_path)) == [5, 9]


def test_too_few_commands_show_nothing(tmp_path: Path) -> None:
    assert find_fingers(EpisodeStore(write_hands(tmp_path, episodes=2))) == []
