"""The vector environment against a plain loop over the same simulators; ends, states, errors and deaths of workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from tests.envs.point_env import PointEnv
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import StartState

POINT = "tests.envs.point_env:PointEnv"


def starts(*init_states: int | None, suite: str = "spatial") -> list[StartState | None]:
    return [None if number is None else StartState(suite, number % 3, number) for number in init_states]


@pytest.fixture
def make_env() -> Iterator[Callable[..., WorkerVectorEnv]]:
    made = []

    def make(num_envs: int = 3, num_workers: int = 2, arguments: dict | None = None, **kwargs) -> WorkerVectorEnv:
        made.append(WorkerVectorEnv(POINT, num_envs, num_workers, arguments or {}, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def plain_loop(start: StartState, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, success and states of one simulator under `actions`, stopped where the episode ends."""
    env = PointEnv()
    frames, success, states = [env.start(start)["image"]], [False], [env.sim_state().copy()]
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        frames.append(observation["image"])
        success.append(info["success"])
        states.append(env.sim_state().copy())
        if terminated or truncated:
            break
    return np.stack(frames), np.array(success), np.stack(states)


def test_only_the_last_picture_of_a_chunk_where_no_other_is_looked_at(make_env) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 30, 2)).astype(np.float32)
    all_of_them, last_ones = make_env(3, 2), make_env(3, 2, every_frame=False)
    for env in (all_of_them, last_ones):
        env.reset(options={"start_states": starts(0, 1, 2)})
    before = last_ones.observe().image
    for first in range(0, 16, 8):
        whole, last = (env.step_chunk(actions[:, first : first + 8]) for env in (all_of_them, last_ones))
        assert (last.images[:, :-1] == before[:, None]).all()  # nothing was rendered
        assert (last.images[:, -1] == whole.images[:, -1]).all()
        assert (last.images[:, -1] != before).any()
        for name in ("success", "valid", "terminated", "truncated", "actions"):
            assert (getattr(last, name) == getattr(whole, name)).all()
        assert (last_ones.observe().image == all_of_them.observe().image).all()
        before = last.images[:, -1]
    last_ones.reset(options={"start_states": starts(5, 6, 7)})
    all_of_them.reset(options={"start_states": starts(5, 6, 7)})
    assert (last_ones.observe().image == all_of_them.observe().image).all()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_chunks_equal_a_plain_loop(make_env, num_workers: int) -> None:
    env = make_env(4, num_workers, record_states=True, max_chunk=4)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (4, 30, 2)).astype(np.float32)
    beginning = starts(0, 1, 2, 3)
    observation, info = env.reset(options={"start_states": beginning})
    assert observation["instruction"] == (
        "move the red dot",
        "move the green dot",
        "move the blue dot",
        "move the red dot",
    )
    assert not info["success"].any()
    first_states, first_proprio = env.sim_states(), env.proprios()
    # 7 steps take two messages of at most 4; 30 pass the horizon of 24.
    chunks = [env.step_chunk(actions[:, a:b]) for a, b in ((0, 7), (7, 15), (15, 30))]
    for row, start in enumerate(beginning):
        frames, success, states = plain_loop(start, actions[row])
        valid = np.concatenate([chunk.valid[row] for chunk in chunks])
        length = len(frames) - 1
        assert valid.tolist() == [True] * length + [False] * (30 - length)
        seen = np.concatenate([observation["image"][row, None], *(chunk.images[row] for chunk in chunks)])
        assert (seen[: length + 1] == frames).all()
        assert (seen[length:] == frames[-1]).all()  # the last frame is repeated after the end
        assert (np.concatenate([chunk.success[row] for chunk in chunks])[:length] == success[1:]).all()
        found = np.concatenate(
            [first_states[row][None], *(chunk.sim_state[row] for chunk in chunks if chunk.valid[row].any())]
        )
        assert (found[: length + 1] == states).all()
        felt = np.concatenate([first_proprio[row][None], *(c.proprio[row] for c in chunks if c.valid[row].any())])
        assert felt.dtype == np.float32
        assert (felt[: length + 1] == np.insert(states[:, :2], 2, 0.0, axis=1).astype(np.float32)).all()
        assert (np.concatenate([chunk.actions[row] for chunk in chunks])[:length] == actions[row, :length]).all()
        ends = np.concatenate([chunk.terminated[row] | chunk.truncated[row] for chunk in chunks])
        assert np.flatnonzero(ends).tolist() == [length - 1]
    assert all(chunk.done.all() for chunk in chunks[2:])


def test_expert_acts_in_the_worker_and_ends_episodes_in_success(make_env) -> None:
    env = make_env(3)
    env.reset(options={"start_states": starts(0, 4, 8)})
    chunk = env.step_expert(24)
    assert chunk.terminated.sum(axis=1).tolist() == [1, 1, 1]
    assert (chunk.success == chunk.terminated).all()
    assert (chunk.rewards.sum(axis=1) == 1).all()
    assert not chunk.truncated.any()
    frames, success, _ = plain_loop(StartState("spatial", 1, 4), chunk.actions[1])
    length = int(chunk.valid[1].sum())
    assert len(frames) == length + 1
    assert success[-1]
    assert (chunk.images[1, :length] == frames[1:]).all()
    assert (chunk.actions[1, length:] == 0).all()


def test_steps_after_success(make_env) -> None:
    lengths = {}
    for extra in (0, 5):
        env = make_env(2, steps_after_success=extra)
        env.reset(options={"start_states": starts(0, 4)})
        chunk = env.step_expert(24)
        lengths[extra] = chunk.valid.sum(axis=1)
        assert chunk.success.sum(axis=1).tolist() == [1 + extra] * 2  # the expert keeps the dot at the goal
        assert (chunk.terminated.argmax(axis=1) + 1 == lengths[extra]).all()
    assert (lengths[5] - lengths[0] == 5).all()


def test_horizon_and_start_from_a_recorded_state(make_env) -> None:
    env = make_env(2, record_states=True)
    env.reset(options={"start_states": starts(0, 1)})
    actions = np.random.default_rng(1).uniform(-0.3, 0.3, (2, 12, 2)).astype(np.float32)
    whole = env.step_chunk(actions)
    middle = [StartState("spatial", row, sim_state=whole.sim_state[row][4], horizon=6) for row in range(2)]
    observation, _ = env.reset(options={"start_states": middle})
    assert (observation["image"] == whole.images[:, 4]).all()
    rest = env.step_chunk(actions[:, 5:])
    assert (rest.images[:, :6] == whole.images[:, 5:11]).all()
    assert rest.truncated.tolist() == [[False] * 5 + [True, False]] * 2
    assert rest.valid.sum() == 12


def test_masked_reset_and_idle_rows(make_env) -> None:
    env = make_env(3)
    env.reset(options={"start_states": starts(0, None, 2)})
    observation = env.observe()
    assert not observation.image[1].any()
    assert observation.instruction[1] == ""
    chunk = env.step_expert(2)
    assert chunk.valid.tolist() == [[True] * 2, [False] * 2, [True] * 2]
    assert chunk.done.tolist() == [False, True, False]
    before = env.observe().image
    env.reset(options={"start_states": starts(None, 7, None), "reset_mask": np.array([False, True, False])})
    after = env.observe()
    assert (after.image[[0, 2]] == before[[0, 2]]).all()
    assert (after.image[1] == PointEnv().start(StartState("spatial", 1, 7))["image"]).all()
    assert env.step_expert(1).valid.all()
    env.reset(options={"start_states": starts(None, None, None)})
    idle = env.step_chunk(np.zeros((3, 8, 2)))
    assert not idle.valid.any()
    assert not idle.images.any()


def test_gymnasium_signature(make_env) -> None:
    env = make_env(3)
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert env.fps == 5.0
    assert set(env.suites) == {"spatial", "object", "unguided"}
    first, info = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    listed, _ = env.reset(seed=[3, 4, 5])
    other, _ = env.reset(seed=77)
    assert env.observation_space.contains(first)
    assert (first["image"] == again["image"]).all()
    assert (first["image"] == listed["image"]).all()
    assert (first["image"] != other["image"]).any()
    assert info["success"].shape == (3,)
    action = env.action_space.sample()
    assert action.shape == (3, 2)
    observation, reward, terminated, truncated, info = env.step(action)
    assert env.observation_space.contains(observation)
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
    assert {array.shape for array in (reward, terminated, truncated, *info.values())} == {(3,)}
    for _ in range(24):
        observation, _, terminated, truncated, info = env.step(action)
    assert not info["valid"].any()  # no autoreset
    assert env.observation_space.contains(observation)


def test_seeded_dynamics_do_not_depend_on_the_workers(make_env) -> None:
    images = []
    for num_workers in (1, 2):
        env = make_env(3, num_workers, {"wind": 0.02})
        env.reset(seed=[5, 6, 7], options={"start_states": starts(0, 1, 2)})
        images.append(env.step_expert(8).images)
    assert (images[0] == images[1]).all()


def test_workers_never_import_torch(make_env) -> None:
    import torch  # the parent has it

    assert torch is sys.modules["torch"]
    env = make_env(2, 2, {"forbid": "torch"})
    env.reset(options={"start_states": starts(0, 1)})
    assert env.step_expert(2).valid.all()
    broken = make_env(1, 1, {"forbid": "numpy"})  # the check itself works
    broken.reset(options={"start_states": starts(0)})
    with pytest.raises(UserError, match="numpy is imported here"):
        broken.step_expert(1)


def test_errors_travel_and_the_environment_goes_on(make_env) -> None:
    env = make_env(2, 2)
    with pytest.raises(UserError, match="initial state 20 does not exist; choose 0 to 19"):
        env.reset(options={"start_states": starts(0, 20)})
    with pytest.raises(UserError, match="no task elsewhere/0"):
        env.reset(options={"start_states": [StartState("elsewhere", 0), None]})
    env.reset(options={"start_states": starts(0, 1, suite="unguided")})
    with pytest.raises(UserError, match="no scripted expert"):
        env.step_expert(1)
    for bad, message in ((np.nan, "environment 1 is not finite"), (np.inf, "not finite")):
        actions = np.zeros((2, 8, 2))
        actions[1, 3, 0] = bad
        with pytest.raises(UserError, match=message):
            env.step_chunk(actions)
    with pytest.raises(UserError, match=r"shape \(2, 8, 3\).*\(2, K, 2\)"):
        env.step_chunk(np.zeros((2, 8, 3)))
    with pytest.raises(UserError, match="start_states has 1 entries for 2"):
        env.reset(options={"start_states": starts(0)})
    env.reset(options={"start_states": starts(3, 4)})
    assert env.step_expert(1).valid.all()


def test_proprioception_is_there_only_where_it_is_recorded_and_to_be_had(make_env) -> None:
    silent = make_env(2, record_states=True, arguments={"proprio": "none"})
    silent.reset(options={"start_states": starts(0, 1)})
    assert silent.proprios([1]) == [None]
    assert [values.shape for values in silent.step_expert(4).proprio] == [(4, 0)] * 2
    env = make_env(2)
    env.reset(options={"start_states": starts(0, 1)})
    assert env.step_expert(4).proprio is None


@pytest.mark.parametrize(
    ("proprio", "message"),
    [
        ("nan", r"proprio\(\) of shape \(3,\), must be \(P,\) and finite; mend the environment"),
        ("table", r"proprio\(\) of shape \(1, 3\), must be \(P,\) and finite"),
        ("grows", r"proprio\(\) gives 5 numbers, 4 before"),
    ],
)
def test_bad_proprioception_is_named(make_env, proprio: str, message: str) -> None:
    env = make_env(1, record_states=True, arguments={"proprio": proprio})
    env.reset(options={"start_states": starts(0)})
    with pytest.raises(UserError, match=f"environment '{POINT}': {message}"):
        env.step_expert(4)


def test_out_of_range_actions_are_clipped(make_env) -> None:
    env = make_env(1, 1)
    env.reset(options={"start_states": starts(0)})
    chunk = env.step_chunk(np.full((1, 2, 2), 7.0))
    assert (chunk.actions == 1.0).all()


def test_an_exception_in_a_simulator_is_one_line_with_its_traceback_behind(make_env) -> None:
    env = make_env(2, 2, {"raise_at": 2})
    env.reset(options={"start_states": starts(0, 1)})
    with pytest.raises(
        UserError, match=r"in chunk: .*point_env\.py, line \d+: ValueError: the motor is on fire"
    ) as caught:
        env.step_expert(8)
    assert "point_env.py" in str(caught.value.__cause__)
    assert not env.step_expert(8).valid.any()  # only a reset makes sense of a half-executed chunk
    env.reset(options={"start_states": starts(0, 1)})
    assert env.step_expert(2).valid.all()


@pytest.mark.parametrize("from_outside", [True, False])
def test_a_dead_worker_is_an_error_not_a_hang(make_env, from_outside: bool) -> None:
    env = make_env(3, 3, {"delay": 0.05} if from_outside else {"crash_at": 3})
    env.reset(options={"start_states": starts(0, 1, 2)})
    pids = env.worker_pids
    if from_outside:
        os.kill(pids[1], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"simulator worker \d+ was killed by SIGKILL"):
        env.step_expert(8)
    assert time.monotonic() - began < 5
    assert env.closed
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(UserError, match="closed"):
        env.observe()
    env.close()


def test_bad_arguments() -> None:
    for arguments, message in (({"colour": 1}, "unexpected keyword"), ({"size": -3}, "failed in make: ")):
        with pytest.raises(UserError, match=message):
            WorkerVectorEnv(POINT, 1, 1, arguments)
    for num_envs, num_workers in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="give 1 or more"):
            WorkerVectorEnv(POINT, num_envs, num_workers, {})
    with pytest.raises(UserError, match="unknown environment 'nowhere'"):
        WorkerVectorEnv("nowhere", 1, 1, {})


def test_close_leaves_nothing_behind() -> None:
    def shared_files() -> set[Path]:
        return set(Path("/dev/shm").glob("wovr-*")) if Path("/dev/shm").is_dir() else set()

    before = shared_files()
    with closing(WorkerVectorEnv(POINT, 2, 8, {})) as env:
        pids = env.worker_pids
        assert len(pids) == 2  # no worker without a simulator
        assert shared_files() == before  # the memory has lost its name already
        assert "OMP_NUM_THREADS=1" in Path(f"/proc/{pids[0]}/environ").read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    env.close()
