"""Actions that are executed several times: against a plain loop, at horizons, in success, pictures and records."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.envs.dot_env import DotEnv
from tests.envs.point_env import SPEED, PointEnv
from tests.envs.test_rollout import make_policy
from wovr.cli import main
from wovr.data.keyframes.start_states import StartStates
from wovr.data.store.dataset import check_replayed_repeat, stored_repeat
from wovr.data.store.reader import EpisodeStore
from wovr.envs.registry import make_simulator
from wovr.envs.simulators.gym import GymEnv
from wovr.envs.simulators.robot import RobotEnv
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.models.checkpoint import record
from wovr.types import StartState

POINT = "tests.envs.point_env:PointEnv"
START = StartState("spatial", 0, 0)


class CountingEnv(PointEnv):
    """Counts its pictures."""

    pictures = 0

    def render(self) -> np.ndarray:
        self.pictures += 1
        return super().render()


class FixedEnv(PointEnv):
    """Has a control rate of its own."""

    repeatable = False


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (count, 2)).astype(np.float32)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_equals_a_plain_loop_to_the_horizon(times: int) -> None:
    plain, repeated = PointEnv(), make_simulator(POINT, {"action_repeat": times})
    assert repeated.fps == pytest.approx(PointEnv.fps / times)
    assert [task.horizon for task in repeated.suites()["object"]] == [-(-24 // times)] * 3
    np.testing.assert_array_equal(plain.start(START)["image"], repeated.reset(options={"start": START})[0]["image"])
    taken = 0
    for action in actions(30):
        taken += 1
        for _ in range(times):
            expected, _, _, over, _ = plain.step(action)
            if over:
                break
        found, reward, terminated, truncated, info = repeated.step(action)
        np.testing.assert_array_equal(found["image"], expected["image"])
        np.testing.assert_array_equal(repeated.sim_state(), plain.sim_state())
        np.testing.assert_array_equal(repeated.proprio(), plain.proprio())
        np.testing.assert_array_equal(repeated.expert_action(), plain.expert_action())
        assert reward == float(terminated) == float(info["success"])
        assert truncated == over
        if over:
            break
    assert taken == -(-24 // times)


def test_once_is_the_simulator_itself() -> None:
    assert type(make_simulator(POINT, {"action_repeat": 1})) is type(make_simulator(POINT, {})) is PointEnv


def test_success_on_the_way_is_success() -> None:
    repeated = make_simulator(POINT, {"action_repeat": 5})
    place = np.array([0.0, 0.0, 2 * SPEED, 0.0, 0.0])  # the goal is passed with the second of five steps
    repeated.start(StartState("spatial", 0, sim_state=place))
    _, reward, terminated, _, info = repeated.step(np.array([1, 0], np.float32))
    assert info["success"]
    assert terminated
    assert reward == 1.0
    assert repeated.sim_state()[0] == pytest.approx(5 * SPEED)  # and the action is executed to its end
    _, _, _, _, info = repeated.step(np.array([1, 0], np.float32))
    assert not info["success"]


def test_a_start_states_horizon_counts_actions_of_the_policy() -> None:
    with closing(WorkerVectorEnv(POINT, 2, 1, {"action_repeat": 3}, record_states=True)) as env:
        assert (env.action_repeat, env.fps) == (3, pytest.approx(5 / 3))
        env.reset(options={"start_states": [StartState("spatial", 0, 0, horizon=2), START]})
        chunk = env.step_chunk(np.zeros((2, 8, 2), np.float32))
    assert chunk.valid.sum(axis=1).tolist() == [2, 8]
    assert chunk.truncated[:, [1, 7]].tolist() == [[True, False], [False, True]]
    assert chunk.sim_state is not None
    assert chunk.sim_state[1][:, 4].tolist() == [3, 6, 9, 12, 15, 18, 21, 24]


def test_only_pictures_that_are_looked_at_are_made() -> None:
    repeated = make_simulator("tests.envs.test_action_repeat:CountingEnv", {"action_repeat": 4})
    repeated.start(START)
    counting = repeated.env
    before = counting.pictures
    for action in actions(2):
        repeated.step(action)
    assert counting.pictures == before + 2
    repeated.looks = False
    repeated.step(actions(1)[0])
    assert counting.pictures == before + 2
    # The horizon of 24 comes in the second of four steps: its picture is that of the state.
    repeated.looks = True
    repeated.start(StartState("spatial", 0, sim_state=np.array([0.0, 0.0, 0.9, 0.9, 22.0])))
    found, _, _, truncated, _ = repeated.step(np.array([1, 0], np.float32))
    assert truncated
    np.testing.assert_array_equal(found["image"], PointEnv.render(counting))


def test_an_environment_that_has_ended_is_not_stepped() -> None:
    env = make_simulator("gym", {"env": "tests.envs.dot_env:DotEnv", "action_repeat": 7})
    assert isinstance(env.env, GymEnv)  # type: ignore[attr-defined]
    assert isinstance(env.env.env.unwrapped, DotEnv)  # type: ignore[attr-defined]
    env.start(StartState("gym", 0, 0))
    for _ in range(20):  # it asserts that nothing comes after its end
        _, _, terminated, truncated, _ = env.step(np.array([1.0, 0.0], np.float32))
        if truncated:
            break
    assert truncated
    assert not terminated
    assert env.suites()["gym"][0].horizon == 73  # 511 steps


@pytest.mark.parametrize("times", [0, -1, True, 1.5, "3", None])
def test_refuses_what_is_no_number_of_times(times: object) -> None:
    with pytest.raises(UserError, match=r"action_repeat is .*; give a whole number, 1 or more"):
        make_simulator(POINT, {"action_repeat": times})


def test_refuses_an_environment_with_a_rate_of_its_own() -> None:
    assert not RobotEnv.repeatable
    with pytest.raises(UserError, match="FixedEnv does not repeat actions; leave action_repeat out"):
        make_simulator("tests.envs.test_action_repeat:FixedEnv", {"action_repeat": 2})


def collect(out: Path, *extra: str, policy: str = "expert") -> int:
    common = ("--env", POINT, "--suite", "spatial", "--episodes", "3", "--num_envs", "3", "--workers", "1")
    return main(["collect", "--policy", policy, *common, "--out", str(out), *extra])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_episodes_say_how_often_and_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once, thrice = tmp_path / "once", tmp_path / "thrice"
    assert collect(once) == 0
    assert collect(thrice, "--env_args.action_repeat", "3") == 0
    store = EpisodeStore(thrice)
    assert (store.action_repeat, EpisodeStore(once).action_repeat) == (3, 1)
    assert store.entries[0].meta.fps == pytest.approx(5 / 3)
    assert store.entries[0].num_frames < EpisodeStore(once).entries[0].num_frames
    assert StartStates([thrice]).action_repeat == 3
    with pytest.raises(UserError, match=r"thrice: was collected with action_repeat 3, .*once with 1"):
        EpisodeStore(once, thrice)

    policy = make_policy()
    checkpoint = tmp_path / "policy.ckpt"
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"state_dict": state, "wovr": record({"policy": policy}, data={"action_repeat": 3})}, checkpoint)
    capsys.readouterr()
    assert collect(tmp_path / "a", policy=str(checkpoint)) == 2
    assert "was trained with action_repeat 3, the environment has 1" in refused(capsys)
    assert collect(tmp_path / "b", "--env_args.action_repeat", "3", policy=str(checkpoint)) == 0
    rl = ["rl", "--config", "rl_online", "--policy", str(checkpoint), "--env", POINT, "--suite", "spatial"]
    rl += ["--eval_env", "null", "--num_envs", "2", "--workers", "1", "--updates", "1", "--out", str(tmp_path / "rl")]
    capsys.readouterr()
    assert main(rl) == 2
    assert "was trained with action_repeat 3, the environment has 1" in refused(capsys)


def test_a_replay_of_another_rate_is_refused() -> None:
    check_replayed_repeat(3, 3)
    check_replayed_repeat(None, 3)
    with pytest.raises(UserError, match=r"action_repeat 3, the simulator has 1; give --env_args.action_repeat 3"):
        check_replayed_repeat(3, 1)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"action_repeat": 3}, 3),
        ({}, 1),
        ({"action_repeat": "x"}, None),
        ({"action_repeat": True}, None),
        ([], None),
    ],
)
def test_what_data_say_is_a_number_or_nothing(said: object, found: int | None) -> None:
    assert stored_repeat(json.loads(json.dumps({"extra": {"collect": {"env_args": said}}}))) == found
    assert stored_repeat({"extra": []}) is None
