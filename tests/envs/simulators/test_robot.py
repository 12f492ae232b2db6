"""A robot with a person at a pseudo-terminal: keys, limits, watchdog, and `wovr collect` by import path."""

from __future__ import annotations

import os
import pty
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.synthetic import write_dataset
from tests.envs.simulators.arm_robot import ArmRobot, Nameless
from wovr.cli import main
from wovr.data.converters.action_range import ActionRange
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset
from wovr.errors import UserError
from wovr.types import StartState

RIGHT = np.array([1.0, 0, 0, 1])


class Person:
    """Reads what the robot says and presses keys."""

    def __init__(self) -> None:
        self.mine, self.theirs = pty.openpty()
        self.path = os.ttyname(self.theirs)
        self.heard = b""

    def press(self, keys: bytes) -> None:
        os.write(self.mine, keys)

    def wait(self, text: bytes, count: int = 1) -> None:
        while self.heard.count(text) < count:
            self.heard += os.read(self.mine, 1024)

    def answer(self, keys: bytes, count: int = 1) -> None:
        """Press a key when asked for the `count`-th time; what is pressed before a question is forgotten."""
        self.wait(b"Enter begins", count)
        time.sleep(0.1)
        self.press(keys)

    def close(self) -> None:
        os.close(self.mine)
        os.close(self.theirs)


@pytest.fixture
def person() -> Iterator[Person]:
    found = Person()
    yield found
    found.close()


def begun(person: Person, **arguments: Any) -> ArmRobot:
    """An episode that has begun: Enter is pressed when the robot asks for it."""
    person.heard = b""
    env = ArmRobot(terminal=person.path, **arguments)
    thread = threading.Thread(target=person.answer, args=(b"\r",))
    thread.start()
    observation, _ = env.reset(options={"start": StartState("robot", 1, 7)})
    thread.join()
    assert observation["instruction"] == "pick the bread"
    assert b"[1] pick the bread (arrangement 7)" in person.heard
    return env


def test_an_action_reaches_the_robot_within_its_limits(person: Person) -> None:
    env = begun(person, smoothest=0.5, horizon=99)
    for _ in range(8):
        env.step(3 * RIGHT)
    np.testing.assert_allclose(env.motions[0], [0.05, 0, 0, 1])  # half a step more each time; the gripper at once
    np.testing.assert_allclose(env.motions[1], [0.1, 0, 0, 1])
    assert env.hand[0] == pytest.approx(1.0), "not out of the workspace"
    env.hand[0] = 1.2  # outside, as after a push: inwards only, and not in a jump
    assert env.limited(RIGHT)[0] == 0
    env.before[:] = -0.5
    assert env.limited(-RIGHT)[0] == pytest.approx(-0.1)
    env.before[:] = 1
    env.hand[0] = 0.98
    assert env.limited(RIGHT)[0] == pytest.approx(0.02)
    with pytest.raises(UserError, match="is not finite; check the policy's weights"):
        env.step(np.array([np.nan, 0, 0, 0]))
    assert env.halts == 1
    env.close()


def test_the_normalisation_of_converted_episodes_is_undone(person: Person, tmp_path: Path) -> None:
    write_dataset(tmp_path, shards=1, episodes=1, num_frames=4, size=(16, 16))
    with pytest.raises(UserError, match="holds no range of actions; give largest instead"):
        ArmRobot(terminal=person.path, dataset=str(tmp_path))
    stored = ActionRange("range", np.array([-0.2, 0, -0.1, 0]), np.array([0.2, 0.1, 0.1, 255.0]))
    finish_dataset(tmp_path, convert={"action_range": stored.to_json()})
    env = ArmRobot(terminal=person.path, dataset=str(tmp_path), smoothest=2.0, workspace=None)
    env.before = np.zeros(4)
    np.testing.assert_allclose(env.limited(np.array([0.5, -1, 0, 1])), [0.1, 0, 0, 255], atol=1e-6)
    env.close()
    for both in ({"dataset": str(tmp_path), "largest": [1.0]}, {"largest": None}):
        with pytest.raises(UserError, match="give either largest or dataset"):
            ArmRobot(terminal=person.path, **both)
    with pytest.raises(UserError, match="largest is"):
        ArmRobot(terminal=person.path, largest=[0.1, -0.1])


def test_the_space_bar_is_success_and_escape_halts(person: Person) -> None:
    env = begun(person)
    assert env.step(RIGHT)[2:4] == (False, False)
    person.press(b" ")
    _, reward, terminated, truncated, info = env.step(RIGHT)
    assert (reward, terminated, truncated, info["success"], env.halts) == (1.0, True, False, True, 1)
    env.close()
    env = begun(person)
    person.press(b"\x1b ")
    assert env.step(RIGHT)[1:4] == (0.0, False, True), "who halts means no success"
    assert env.halts == 1
    env.close()


def test_the_horizon_cuts_and_the_rate_is_kept(person: Person) -> None:
    env = begun(person)
    began = time.monotonic()
    ends = [env.step(RIGHT)[3] for _ in range(6)]
    assert ends == [False] * 5 + [True]
    assert time.monotonic() - began > 5 / env.fps
    env.close()


def test_a_camera_that_hangs_halts_the_robot(person: Person) -> None:
    env = begun(person, slow=0.5)
    _, _, terminated, truncated, _ = env.step(RIGHT)
    assert (terminated, truncated) == (False, True)
    assert env.halts == 2, "once when it hung, once at the end"
    env.close()


def test_it_is_collected_from_by_import_path(person: Person, tmp_path: Path) -> None:
    def act() -> None:
        for count in range(1, 4):
            person.answer(b"\r", count)
            if count == 2:
                time.sleep(0.05)
                person.press(b" ")

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    words = ["collect", "--env", "tests.envs.simulators.arm_robot:ArmRobot", "--suite", "robot", "--policy", "random"]
    words += ["--episodes", "3", "--num_envs", "1", "--workers", "1", "--shard_episodes", "1"]
    words += ["--steps_after_success", "0", "--env_args.terminal", person.path, "--env_args.horizon", "60"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    store = EpisodeStore(tmp_path / "out")
    assert [bool(store.success(index).any()) for index in range(3)] == [False, True, False]
    assert store.proprio_dim == 4
    assert store.action_range is not None, "what -1 and 1 were goes with the episodes"
    np.testing.assert_allclose(store.action_range.high, [0.1, 0.1, 0.1, 1.0])
    assert {entry.meta.instruction for entry in store.entries} == {"pick the banana", "pick the bread"}


def test_what_does_not_fit_is_said(person: Person, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"horizon": 0}, "ArmRobot: horizon is 0; give 1 to 511"),
        ({"horizon": 512}, "ArmRobot: horizon is 512; give 1 to 511"),
        ({"workspace": ((0, 0, 1), (1, 1, 1))}, "is empty; give the lower corner first"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"terminal": str(tmp_path / "none")}, "a robot needs a person at one; start the command from a terminal"),
    ]
    for arguments, line in cases:
        with pytest.raises(UserError, match=line):
            ArmRobot(**({"terminal": person.path} | arguments))
    with pytest.raises(UserError, match="Nameless has no tasks; set its `instructions`"):
        Nameless.suites()
    env = ArmRobot(terminal=person.path)
    with pytest.raises(UserError, match="a robot cannot be put into a stored state"):
        env.start(StartState("robot", 0, 0, sim_state=np.zeros(3)))
    with pytest.raises(UserError, match="has no scripted expert"):
        env.expert_action()
    thread = threading.Thread(target=person.answer, args=(b"q",))
    thread.start()
    with pytest.raises(UserError, match="ended the session; give the same command to go on"):
        env.start(StartState("robot", 0, 0))
    thread.join()
    env.close()
