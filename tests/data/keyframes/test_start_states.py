"""The pool of start states: what is in it, how it is drawn, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.keyframes.episodes import FAILED, SUCCEEDED, episode, write, write_mixed
from wovr.data.keyframes.rules import KeyframeRules, find_keyframes
from wovr.data.keyframes.start_states import StartStates
from wovr.data.keyframes.store import load_keyframes, save_keyframes
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.types import StartState


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("start") / "mixed")


@pytest.fixture(scope="module")
def keyframes(mixed: Path) -> Path:
    folder = mixed.with_name("keyframes")
    save_keyframes(folder, find_keyframes(EpisodeStore(mixed), KeyframeRules()).found)
    return folder


def identity(start: StartState) -> tuple:
    """What tells the start states of these episodes apart."""
    assert start.sim_state is not None
    return (start.task, *start.sim_state.tolist())


def test_a_start_is_the_first_frame_of_an_episode(mixed: Path) -> None:
    pool = StartStates([mixed])
    store = EpisodeStore(mixed)
    assert len(pool.starts) == 12
    for index, start in enumerate(pool.starts):
        assert start.reference is not None
        np.testing.assert_array_equal(start.reference, store.frames(index, 0, 1)[0])
        assert identity(start) == (index % 2, index, 0)
        assert (start.suite, start.init_state) == ("spatial", 100 + index)
        assert start.memory is start.memory_actions is start.horizon is None
    assert (pool.image_size, pool.action_dim, pool.fps) == ((32, 32), 4, 10.0)
    assert pool.fingerprint == store.fingerprint


def test_what_is_known_of_the_tasks(mixed: Path) -> None:
    pool = StartStates([mixed])
    assert [(task.suite, task.index, task.name, task.num_init_states) for task in pool.tasks] == [
        ("spatial", 0, "task_0", 6),
        ("spatial", 1, "task_1", 6),
    ]
    assert pool.instruction("spatial", 1) == "task 1"
    assert pool.horizon("spatial", 1) == len(FAILED)
    assert StartStates([mixed], horizon=7).horizon("spatial", 0) == 7
    with pytest.raises(UserError, match="no start state of task goal 3; there are: spatial 0, spatial 1"):
        pool.instruction("goal", 3)


def test_episodes_without_states_or_initial_states_are_starts_too(tmp_path: Path) -> None:
    plain = episode(0, SUCCEEDED, 26, states=False)
    plain.meta.init_state = -1
    start = StartStates([write(tmp_path / "plain", [plain])]).starts[0]
    assert start.sim_state is None
    assert start.init_state == 0


def test_proprioception_is_that_of_the_start(mixed: Path, keyframes: Path, tmp_path: Path) -> None:
    assert StartStates([mixed], keyframes).proprio_dim == 0
    folder = write(tmp_path / "feeling", [episode(n, SUCCEEDED, 26, proprio=True) for n in range(3)])
    save_keyframes(tmp_path / "keyframes", find_keyframes(EpisodeStore(folder), KeyframeRules()).found)
    pool = StartStates([folder], tmp_path / "keyframes", 0.5)
    assert pool.proprio_dim == 3
    for start in (*pool.starts, *pool.keyframe_starts):
        assert start.proprio is not None
        assert start.proprio[:2].tolist() == list(identity(start)[1:])
    # Not all episodes have it: no start has.
    some = StartStates([folder, mixed])
    assert some.proprio_dim == 0
    assert all(start.proprio is None for start in some.starts)
    with pytest.raises(UserError, match="keyframes have proprioception dimensions 3, the episodes 0"):
        StartStates([folder, mixed], tmp_path / "keyframes", 0.5)


def test_draws_are_balanced_and_repeat_nothing_early(mixed: Path) -> None:
    pool = StartStates([mixed])
    drawn = pool.draw(9, np.random.default_rng(0))
    assert sorted(Counter(start.task for start in drawn).values()) == [4, 5]
    assert len({identity(start) for start in drawn}) == 9
    twice = Counter(identity(start) for start in pool.draw(24, np.random.default_rng(0)))
    assert set(twice.values()) == {2}
    assert pool.draw(0, np.random.default_rng(0)) == []


def test_every_state_is_as_likely_as_the_others_of_its_task(tmp_path: Path) -> None:
    uneven = [episode(n, SUCCEEDED, 26, task=0) for n in range(2)]
    uneven += [episode(n, SUCCEEDED, 26, task=1) for n in range(2, 8)]
    pool = StartStates([write(tmp_path / "uneven", uneven)])
    generator = np.random.default_rng(1)
    counts = Counter(identity(start) for _ in range(1200) for start in pool.draw(1, generator))
    for key, count in counts.items():
        assert count == pytest.approx(1200 / 2 / (2, 6)[key[0]], abs=60)


def test_a_draw_depends_on_the_generator_alone(mixed: Path, keyframes: Path) -> None:
    pool, again = (StartStates([mixed], keyframes, 0.4) for _ in range(2))
    one, two, other = (
        [identity(start) for start in found.draw(16, np.random.default_rng(seed))]
        for found, seed in ((pool, 3), (again, 3), (again, 4))
    )
    assert one == two != other


@pytest.mark.parametrize(("share", "count", "least", "most"), [(0.25, 8, 2, 2), (0.5, 5, 2, 3), (1.0, 6, 6, 6)])
def test_the_share_of_keyframes_is_kept(
    mixed: Path, keyframes: Path, share: float, count: int, least: int, most: int
) -> None:
    pool = StartStates([mixed], keyframes, share)
    generator = np.random.default_rng(0)
    numbers = []
    for _ in range(400):
        drawn = pool.draw(count, generator)
        assert len(drawn) == count
        numbers.append(sum(start.memory is not None for start in drawn))
    assert (min(numbers), max(numbers)) == (least, most)
    assert np.mean(numbers) == pytest.approx(share * count, abs=0.1)


def test_a_share_of_zero_draws_no_keyframe(mixed: Path, keyframes: Path) -> None:
    drawn = StartStates([mixed], keyframes).draw(40, np.random.default_rng(0))
    assert all(start.memory is None for start in drawn)


def test_a_keyframe_has_what_is_left_of_the_horizon(mixed: Path, keyframes: Path) -> None:
    stored = load_keyframes(keyframes).keyframes
    pool = StartStates([mixed], keyframes, 1.0)
    for start, keyframe in zip(pool.keyframe_starts, stored, strict=True):
        assert start.horizon == len(FAILED) - keyframe.frame == keyframe.horizon
        assert start.reference is not None
        assert start.memory is not None
        assert start.memory_actions is not None
        assert start.memory.shape == (4, 32, 32, 3)
        assert start.memory_actions.shape == (4, 4)
    shorter = StartStates([mixed], keyframes, 1.0, horizon=15)
    assert [s.horizon for s in shorter.keyframe_starts] == [15 - k.frame for k in stored if k.frame < 15]
    assert 0 < len(shorter.keyframe_starts) < len(stored)


def test_tasks_without_keyframes_are_made_up_for_by_first_frames(tmp_path: Path) -> None:
    episodes = [episode(n, SUCCEEDED, 26, task=0) for n in range(3)]
    episodes += [episode(n, "o" * 30, None, task=1) for n in range(3, 6)]
    folder = write(tmp_path / "half", episodes)
    save_keyframes(tmp_path / "keyframes", find_keyframes(EpisodeStore(folder), KeyframeRules()).found)
    pool = StartStates([folder], tmp_path / "keyframes", 0.5)
    assert {start.task for start in pool.keyframe_starts} == {0}
    drawn = pool.draw(8, np.random.default_rng(0))
    assert Counter((start.task, start.memory is not None) for start in drawn) == {(0, True): 4, (1, False): 4}


def test_suites_and_tasks_are_filters(mixed: Path, keyframes: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "goal", [episode(n, SUCCEEDED, 26, suite="goal", task=5) for n in range(2)], "goal")
    both = StartStates([mixed, other], keyframes, 0.5)  # keyframes of one of the folders
    assert [(task.suite, task.index) for task in both.tasks] == [("goal", 5), ("spatial", 0), ("spatial", 1)]
    one = StartStates([mixed, other], keyframes, 0.5, suites=["spatial"], tasks=[1])
    assert {(start.suite, start.task) for start in one.starts + one.keyframe_starts} == {("spatial", 1)}


def other_episodes(mixed: Path, tmp_path: Path) -> dict:
    return {"folders": [write(tmp_path / "other", [episode(90, SUCCEEDED, 26)])]}


def other_size(mixed: Path, tmp_path: Path) -> dict:
    return {"folders": [write(tmp_path / "other", [episode(90, SUCCEEDED, 26, size=48)])]}


def other_actions(mixed: Path, tmp_path: Path) -> dict:
    one = episode(90, SUCCEEDED, 26)
    one.actions = one.actions[:, 1:]
    return {"folders": [write(tmp_path / "other", [one])]}


def without_keyframes(mixed: Path, tmp_path: Path) -> dict:
    (tmp_path / "nothing").mkdir()
    return {"keyframes": tmp_path / "nothing"}


def keyframes_of_another_suite(mixed: Path, tmp_path: Path) -> dict:
    goal = write(tmp_path / "goal", [episode(90, SUCCEEDED, 26, suite="goal")], "goal")
    return {"folders": [mixed, goal], "suites": ["goal"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda *_: {"keyframe_share": 1.5}, "keyframe_share is 1.5; give a number from 0 to 1"),
        (lambda *_: {"keyframe_share": float("nan")}, "keyframe_share is nan"),
        (lambda *_: {"keyframes": None}, "keyframe_share is 0.5 but no folder of keyframes is given"),
        (lambda *_: {"horizon": 0}, "a horizon of 0 actions"),
        (lambda *_: {"horizon": 2}, "none of its .* keyframes .* that begins before frame 2"),
        (lambda *_: {"suites": ["goal"]}, r"mixed: no episode of suite 'goal'; choose from: spatial"),
        (lambda *_: {"tasks": [1, 7]}, "mixed: no episode of task 7; the tasks there are 0, 1"),
        (lambda *_: {"folders": []}, "no data folder given"),
        (lambda mixed, _: {"folders": [mixed / "nowhere"]}, "nowhere"),
        (without_keyframes, "nothing: holds no keyframes.json"),
        (other_episodes, r"keyframes of other episodes \(spatial\) than those in .*other"),
        (other_size, r"keyframes have images \(32, 32\), the episodes \(48, 48\)"),
        (other_actions, "keyframes have action dimensions 4, the episodes 3"),
        (keyframes_of_another_suite, r"none of its .* keyframes \(of spatial\) is of the chosen tasks \(goal 0\)"),
    ],
)
def test_what_cannot_be_used_is_named(
    mixed: Path, keyframes: Path, tmp_path: Path, change: Callable[[Path, Path], dict], message: str
) -> None:
    arguments = {"folders": [mixed], "keyframes": keyframes, "keyframe_share": 0.5} | change(mixed, tmp_path)
    with pytest.raises(UserError, match=message):
        StartStates(**arguments)
