"""Keyframes: which moments are found, what is kept of them, and what is read back."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.keyframes.episodes import FAILED, SUCCEEDED, commands, episode, write, write_mixed
from wovr.data.keyframes.moments import (
    Familiar,
    Hold,
    Moment,
    find_holds,
    gripper_moments,
    scene_moments,
    small_pictures,
)
from wovr.data.keyframes.rules import KeyframeRules, find_keyframes
from wovr.data.keyframes.store import Keyframe, KeyframeSet, load_keyframes, save_keyframes
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.types import EpisodeMeta


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return EpisodeStore(write_mixed(tmp_path_factory.mktemp("mixed")))


class PointScene:
    """One gripper and one object, both moving along x: 0.2 m apart, or where they are told."""

    names = ("gripper", "cube")
    movable = np.array([False, True])

    def __init__(self, gripper: list[float], cube: list[float], held: str) -> None:
        self.positions = np.zeros((len(gripper), 2, 3), np.float32)
        self.positions[:, 0, 0], self.positions[:, 1, 0] = gripper, cube
        self.held = np.stack([np.zeros(len(held), bool), np.array([letter == "h" for letter in held])], axis=1)


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        (SUCCEEDED, [(10, 25)]),
        (FAILED, [(10, 13), (21, 31)]),
        ("oooo", []),
        ("cccc", []),  # it was never told to close
        ("ccoooccc", [(5, None)]),
        ("oocoooo", []),  # one action is a flicker
        ("oocco", [(2, None)]),  # and so is the opening at the very end
        ("oocoocc", [(5, None)]),
        ("oo--cc--oo", [(4, 8)]),  # in between, the last command holds
        ("----", []),
        ("--cc", []),
    ],
)
def test_holds(letters: str, expected: list[tuple[int, int | None]]) -> None:
    assert find_holds(commands(letters), stay=2) == [Hold(*pair) for pair in expected]


def test_a_hold_of_one_action_counts_when_commands_need_not_last() -> None:
    assert find_holds(commands("oocoooo"), stay=1) == [Hold(2, 3)]


def test_gripper_moments_of_a_success_after_a_retry() -> None:
    holds = [Hold(5, 9), Hold(14, 24), Hold(30, None)]
    assert gripper_moments(holds, end=25, least_hold=6, scene=None) == [
        Moment("grasp", 5, True),  # opened and closed again
        Moment("grasp", 14, False),
        Moment("release", 24, False),  # the hold of 4 carried nothing, and after the success nothing counts
    ]


def test_gripper_moments_of_a_failure() -> None:
    assert gripper_moments([Hold(5, 9), Hold(14, 24), Hold(30, None)], None, 6, None) == [
        Moment("grasp", 5, True),
        Moment("grasp", 14, True),
        Moment("release", 24, True),
        Moment("grasp", 30, True),
    ]


def test_a_scene_tells_a_grasp_from_a_miss() -> None:
    scene = PointScene([0.0] * 30, [0.0] * 30, "." * 16 + "h" * 9 + "." * 5)
    assert gripper_moments([Hold(5, 12), Hold(14, 24)], None, 6, scene) == [
        Moment("grasp", 5, True),
        Moment("grasp", 14, False),
        Moment("release", 24, True),  # the hold of 7 held nothing, so there was nothing to release
    ]


def test_scene_moments() -> None:
    never = PointScene([0.3, 0.2, 0.05, 0.1] + [0.3] * 16, [0.0] * 20, "." * 20)
    assert scene_moments(never, [], None) == [Moment("approach", 2, True)]
    held = "." * 8 + "h" * 6 + "." * 26
    dropped = PointScene([0.0] * 40, [0.0] * 40, held)
    assert scene_moments(dropped, [Hold(6, None)], None) == [Moment("drop", 13, True)]
    assert scene_moments(dropped, [Hold(6, 13)], None) == []  # opened on purpose
    pushed = PointScene([0.0] * 40, [0.0] * 20 + [0.02] * 20, held)
    assert scene_moments(pushed, [Hold(6, 13)], 39) == []  # falls and rolls after it was held
    pushed = PointScene([0.0] * 40, [0.0] * 30 + [0.02] * 10, held)
    assert scene_moments(pushed, [Hold(6, 13)], 39) == [Moment("push", 26, False)]
    assert scene_moments(pushed, [Hold(6, 13)], 29) == []  # after the success


def test_small_pictures_are_block_means_less_the_first() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    blocks = frames.reshape(3, 16, 2, 16, 3, 3).astype(np.float64).mean(axis=(2, 4))
    expected = (blocks - blocks[:1]).reshape(3, -1) / np.sqrt(16 * 16 * 3)
    np.testing.assert_allclose(small_pictures(frames), expected, atol=1e-3)


def test_parting_is_the_last_familiar_frame() -> None:
    rng = np.random.default_rng(3)
    successes = [rng.normal(size=(15, 6)).astype(np.float32) for _ in range(4)]
    familiar = Familiar(successes, 0.9)
    distances = [
        min(np.linalg.norm(frame - other) for j, others in enumerate(successes) if j != i for other in others)
        for i, features in enumerate(successes)
        for frame in features
    ]
    assert familiar.threshold == pytest.approx(np.quantile(distances, 0.9), rel=1e-4)
    failed = np.concatenate([successes[0][:5], successes[1][:1] + 30, successes[2][:3], successes[3][:6] + 30])
    assert familiar.parting(failed) == 8  # the single strange frame 5 is passed over
    assert familiar.parting(failed[:12]) is None  # too few strange frames to tell
    assert familiar.parting(successes[0]) is None


def test_a_keyframe_is_what_the_episode_holds_there(store: EpisodeStore) -> None:
    finding = find_keyframes(store, KeyframeRules(memory=4, lead=(3, 9), failure_share=0.5))
    assert len(finding.found.keyframes) > 12
    for keyframe, index in zip(finding.found.keyframes, finding.index, strict=True):
        whole = store.read(index)
        start = keyframe.frame
        assert keyframe.episode == whole.key
        assert start >= 4
        assert 3 <= keyframe.event - start <= 9
        np.testing.assert_array_equal(keyframe.reference, whole.frames[0])
        np.testing.assert_array_equal(keyframe.memory, whole.frames[start - 3 : start + 1])
        np.testing.assert_array_equal(keyframe.memory_actions, whole.actions[start - 4 : start])
        assert keyframe.sim_state is not None
        np.testing.assert_array_equal(keyframe.sim_state, [index, start])
        assert keyframe.horizon == len(FAILED) - start  # the longest episode of both tasks
        assert (keyframe.suite, keyframe.task, keyframe.instruction) == ("spatial", index % 2, f"task {index % 2}")
        assert (keyframe.init_state, keyframe.succeeded) == (100 + index, index < 6)


def test_the_moments_are_found(store: EpisodeStore) -> None:
    finding = find_keyframes(store, KeyframeRules(lead=(4, 4), per_episode=9))
    found = {
        (index < 6, k.kind, k.failure, k.event) for k, index in zip(finding.found.keyframes, finding.index, strict=True)
    }
    failures = {(False, "grasp", True, 10), (False, "grasp", True, 21)}
    others = {(True, "grasp", False, 10), (True, "release", False, 25)}
    assert failures | others < found
    partings = [event for _, kind, _, event in found if kind == "parting"]
    assert partings
    assert all(26 <= event <= 28 for event in partings)
    # Success follows the opening by one frame, within the memory: one of the two starts is enough.
    assert finding.candidates["near_success"] == 6
    # 16 actions lead from a closing to success: what fails after frame 33 has no time left.
    assert not any(k.failure and k.event > 49 - 16 for k in finding.found.keyframes)
    late = find_keyframes(store, KeyframeRules(lead=(4, 4), per_episode=9, least_horizon=29))
    assert {k.event for k in late.found.keyframes if k.failure and k.kind == "grasp"} == {10}


def test_the_same_rules_give_the_same_keyframes_whatever_lies_beside(store: EpisodeStore, tmp_path: Path) -> None:
    rules = KeyframeRules(failure_share=1.0, seed=5)
    one, again, other = (find_keyframes(store, replace(rules, seed=seed)) for seed in (5, 5, 6))
    places = [[(k.episode, k.kind, k.frame) for k in finding.found.keyframes] for finding in (one, again, other)]
    assert places[0] == places[1] != places[2]
    more = write(tmp_path / "more", [episode(number, FAILED, None, task=7) for number in range(20, 24)])
    both = find_keyframes(EpisodeStore(more, *store.folders), rules).found.keyframes
    assert places[0] == [(k.episode, k.kind, k.frame) for k in both if k.task != 7]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_share_of_failures_and_number_of_an_episode(store: EpisodeStore, share: float) -> None:
    finding = find_keyframes(store, KeyframeRules(per_episode=2, failure_share=share))
    failures = sum(keyframe.failure for keyframe in finding.found.keyframes)
    assert abs(failures - share * len(finding.found.keyframes)) <= 0.5
    assert max(finding.index.count(index) for index in finding.index) <= 2


def test_failures_alone_are_kept_where_nothing_succeeds(tmp_path: Path) -> None:
    folder = write(tmp_path / "failed", [episode(number, FAILED, None, states=False) for number in range(3)])
    found = find_keyframes(EpisodeStore(folder), KeyframeRules(failure_share=0.2)).found
    assert {keyframe.kind for keyframe in found.keyframes} == {"grasp", "release"}  # parting needs two successes
    assert all(keyframe.sim_state is None for keyframe in found.keyframes)


def test_states_are_asked_for_only_when_they_may_be_used(store: EpisodeStore) -> None:
    asked = []

    def read_scene(meta: EpisodeMeta, states: np.ndarray, where: str) -> PointScene:
        asked.append(where)
        return PointScene(np.linspace(0.3, 0.1, len(states)).tolist(), [0.0] * len(states), "." * len(states))

    finding = find_keyframes(store, KeyframeRules(least_horizon=0), read_scene)
    assert len(asked) == 12
    assert "spatial-000000" in asked[0]
    assert {k.event for k in finding.found.keyframes if k.kind == "approach"} == {49}  # the nearest is the last
    assert not any(k.kind == "release" for k in finding.found.keyframes)  # nothing was held


def test_a_robot_without_gripper_and_an_open_hand_that_is_plus_one(tmp_path: Path) -> None:
    turned = []
    for number in range(4):
        one = episode(number, SUCCEEDED, 26)
        one.actions[:, 0], one.actions[:, -1] = -one.actions[:, -1], 0
        turned.append(one)
    store = EpisodeStore(write(tmp_path / "turned", turned))
    kinds = lambda rules: {keyframe.kind for keyframe in find_keyframes(store, rules).found.keyframes}  # noqa: E731
    assert kinds(KeyframeRules()) == {"near_success"}
    assert kinds(KeyframeRules(gripper=0, closes=-1)) == {"grasp", "release", "near_success"}


def test_short_episodes_are_passed_over_and_counted(tmp_path: Path) -> None:
    store = EpisodeStore(write(tmp_path / "data", [episode(0, "ooo", 2), episode(1, SUCCEEDED, 26)]))
    finding = find_keyframes(store, KeyframeRules())
    assert finding.too_short == 1
    assert set(finding.index) == {1}
    with pytest.raises(UserError, match=r"takes episodes of 45 frames, the longest has 31; set --memory or --lead"):
        find_keyframes(store, KeyframeRules(memory=40))


def test_no_keyframe_is_an_error(tmp_path: Path) -> None:
    store = EpisodeStore(write(tmp_path / "data", [episode(0, "o" * 30, None)]))
    with pytest.raises(UserError, match="no keyframe in 1 episodes"):
        find_keyframes(store, KeyframeRules())
    with pytest.raises(UserError, match="gripper is dimension 4, actions have 4"):
        find_keyframes(store, KeyframeRules(gripper=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": 0},
        {"lead": (5, 4)},
        {"lead": (0, 4)},
        {"per_episode": 0},
        {"failure_share": 1.5},
        {"closes": 2},
        {"stay": 0},
        {"parting_quantile": 1.0},
        {"least_horizon": -1},
    ],
)
def test_rules_out_of_range(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        KeyframeRules(**wrong)


def assert_equal(one: Keyframe, other: Keyframe) -> None:
    for name in (field.name for field in fields(Keyframe)):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_is_saved_is_read_back(store: EpisodeStore, tmp_path: Path) -> None:
    found = find_keyframes(store, KeyframeRules()).found
    mixed = [replace(found.keyframes[0], sim_state=np.arange(5.0)), replace(found.keyframes[1], sim_state=None)]
    found = replace(found, keyframes=[*mixed, *found.keyframes[2:]])
    for folder in ("one", "two"):
        save_keyframes(tmp_path / folder, found)
    for name in ("keyframes.json", "keyframes.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    back = load_keyframes(tmp_path / "one")
    assert (back.datasets, back.options) == (found.datasets, found.options)
    assert (back.image_size, back.memory, back.action_dim, back.suites) == ((32, 32), 4, 4, ["spatial"])
    for one, other in zip(found.keyframes, back.keyframes, strict=True):
        assert_equal(one, other)
    start = back.keyframes[0].start_state()
    assert (start.horizon, start.init_state) == (found.keyframes[0].horizon, found.keyframes[0].init_state)
    assert start.memory is back.keyframes[0].memory


def test_proprioception_goes_with_a_keyframe(store: EpisodeStore, tmp_path: Path) -> None:
    assert find_keyframes(store, KeyframeRules()).found.proprio_dim == 0
    folder = write(tmp_path / "feeling", [episode(n, SUCCEEDED, 26, proprio=True) for n in range(3)])
    finding = find_keyframes(EpisodeStore(folder), KeyframeRules())
    save_keyframes(tmp_path / "keyframes", finding.found)
    back = load_keyframes(tmp_path / "keyframes")
    assert back.proprio_dim == 3
    for keyframe, index in zip(back.keyframes, finding.index, strict=True):
        assert keyframe.proprio is not None
        assert keyframe.proprio.dtype == np.float32
        assert keyframe.proprio.tolist() == [index, keyframe.frame, 0]
        assert keyframe.start_state().proprio is keyframe.proprio
    some = write(tmp_path / "some", [episode(n, SUCCEEDED, 26, proprio=n > 0) for n in range(3)])
    assert find_keyframes(EpisodeStore(some), KeyframeRules()).found.proprio_dim == 0
    mixed = [*back.keyframes[1:], replace(back.keyframes[0], proprio=None)]
    with pytest.raises(UserError, match=r"keyframes of several sizes: proprio \[\(0,\), \(3,\)\]"):
        save_keyframes(tmp_path / "mixed", replace(back, keyframes=mixed))


def test_keyframes_of_two_sizes_or_none_are_not_written(store: EpisodeStore, tmp_path: Path) -> None:
    one = find_keyframes(store, KeyframeRules()).found.keyframes[0]
    small = replace(one, reference=one.reference[:16], memory=one.memory[:, :16])
    with pytest.raises(UserError, match="keyframes of several sizes"):
        save_keyframes(tmp_path, KeyframeSet([one, small], ["x"]))
    with pytest.raises(UserError, match="no keyframe to write"):
        save_keyframes(tmp_path, KeyframeSet([], ["x"]))
    assert list(tmp_path.iterdir()) == []
