"""Meta-World: its tables without the package; with it exact states, experts and pictures that are the right way up."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator
from tests.extras import needs
from wovr.envs.base import INSTRUCTION_LENGTH, PRINTABLE
from wovr.envs.simulators.metaworld.tasks import INSTRUCTIONS, SUITES
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, StartState

needs_metaworld = needs("metaworld")


def number(name: str) -> int:
    return list(INSTRUCTIONS).index(name)


def make(**arguments):
    from wovr.envs.simulators.metaworld.env import MetaWorldEnv

    return MetaWorldEnv(**arguments)


def test_all_50_tasks_have_an_instruction_of_their_own() -> None:
    tasks = SUITES["mt50"]
    assert len(tasks) == len({task.instruction for task in tasks}) == 50
    for task in tasks:
        assert PRINTABLE.issuperset(task.instruction)
        assert 10 < len(task.instruction) < INSTRUCTION_LENGTH
        assert task.horizon + 1 <= MAX_FRAMES
        assert task.num_init_states >= 50


def test_tasks_are_known_without_the_package_or_mujoco() -> None:
    script = (
        "import sys; sys.modules['metaworld'] = None; sys.modules['mujoco'] = None\n"
        "from wovr.envs.registry import make_simulator, select_tasks\n"
        "from wovr.errors import UserError\n"
        "print([task.index for task in select_tasks('metaworld', 'mt50', 'reach-v3,7')])\n"
        "try:\n    make_simulator('metaworld', {})\nexcept UserError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found, complaint = result.stdout.splitlines()
    assert found == str([number("reach-v3"), 7])
    assert "pip install 'wovr[metaworld]'" in complaint


def package_tables() -> dict[str, list[str]]:
    make()
    from metaworld import env_dict

    tables = {"mt10": env_dict.MT10_V3, "mt25": env_dict.MT25_V3, "mt50": env_dict.MT50_V3}
    for name in ("ml10", "ml25", "ml45"):
        split = getattr(env_dict, f"{name.upper()}_V3")
        tables |= {f"{name}_train": split["train"], f"{name}_test": split["test"]}
    return {suite: list(tasks) for suite, tasks in tables.items()}


@needs_metaworld
def test_the_tables_are_the_packages() -> None:
    package = in_simulator(package_tables)
    own = {suite: [task.name for task in tasks] for suite, tasks in SUITES.items()}
    assert own["mt50"] == package["mt50"]
    assert {suite: sorted(names) for suite, names in own.items()} == {
        suite: sorted(names) for suite, names in package.items()
    }


def replay(name: str) -> dict[str, bool]:
    """An expert's episode, gone on from its middle in another simulator with another past."""
    with closing(make()) as env, closing(make()) as other:
        task = number(name)
        first = env.start(StartState("mt50", task, 7))["image"]
        beginning = env.sim_state()
        images, states, actions, ends, felt = [], [], [], [], []
        for _ in range(40):
            actions.append(env.expert_action())
            observation, _, terminated, _, _ = env.step(actions[-1])
            images.append(observation["image"])
            states.append(env.sim_state())
            felt.append(env.proprio())
            ends.append(terminated)
        other.start(StartState("mt50", task, 3))
        for _ in range(10):
            other.step(np.ones(4, np.float32))
        again = other.start(StartState("mt50", task, 7))["image"]
        result = {"numbered": (again == first).all() and (other.sim_state() == beginning).all()}
        there = other.start(StartState("mt50", task, 0, sim_state=states[14]))["image"]
        result["there"] = (there == images[14]).all() and (other.sim_state() == states[14]).all()
        for step in range(15, 40):
            expert = other.expert_action()
            observation, _, terminated, _, _ = other.step(actions[step])
            result[f"step {step}"] = bool(
                (expert == actions[step]).all()
                and (observation["image"] == images[step]).all()
                and (other.sim_state() == states[step]).all()
                and (other.proprio() == felt[step]).all()
                and terminated == ends[step]
            )
        result["moved"] = len({image.tobytes() for image in images}) > 30
        result["felt there"] = felt[0].shape == (7,) and felt[0].dtype == np.float32
        # The hand, and ahead of it where it is told to be.
        result["felt hand"] = np.abs(felt[-1][:3] - env.current.env.get_endeff_pos()).max() < 0.01
        result["felt target"] = np.abs(felt[-1][4:] - felt[-1][:3]).max() < 0.15
    return result


@needs_metaworld
@pytest.mark.parametrize("name", ["door-open-v3", "pick-place-v3", "stick-pull-v3"])
def test_a_stored_state_goes_on_bit_by_bit(name: str) -> None:
    result = in_simulator(replay, name)
    assert [what for what, right in result.items() if not right] == []


def layouts() -> tuple[int, np.ndarray, np.ndarray]:
    with closing(make()) as env:
        env.start(StartState("mt50", number("push-v3"), 0))
        drawn = np.stack([env.current.layout(index) for index in range(50)])
        again = np.stack([env.current.layout(index) for index in (31, 4)])
    return len({layout.tobytes() for layout in drawn}), drawn, again


@needs_metaworld
def test_50_layouts_differ_and_each_number_has_its_own() -> None:
    different, drawn, again = in_simulator(layouts)
    assert different == 50
    assert (again == drawn[[31, 4]]).all()
    assert np.linalg.norm(drawn[:, :2] - drawn[:, 3:5], axis=1).min() >= 0.15  # as the task itself demands


@needs_metaworld
def test_experts_succeed_in_workers() -> None:
    names = [task.name for task in SUITES["mt10"]]
    tasks = [names.index(name) for name in ("drawer-close-v3", "reach-v3")]
    with closing(WorkerVectorEnv("metaworld", 2, 1, {"size": 32}, record_states=True)) as env:
        starts = [StartState("mt10", task, 1) for task in tasks]
        observation, _ = env.reset(options={"start_states": starts})
        chunk = env.step_expert(100)
    assert env.fps == 80.0
    assert observation["instruction"] == tuple(SUITES["mt10"][task].instruction for task in tasks)
    assert observation["image"].shape == (2, 32, 32, 3)
    assert chunk.terminated.sum(axis=1).tolist() == [1, 1]
    assert (chunk.success == chunk.terminated).all()
    assert [len(states) for states in chunk.sim_state] == [100, 100]


def views() -> dict[str, np.ndarray]:
    seen = {}
    for camera in ("workspace", "corner", "corner2", "topview"):
        with closing(make(camera=camera, size=32)) as env:
            seen[camera] = env.start(StartState("mt50", number("door-open-v3"), 0))["image"]
    return seen


@needs_metaworld
def test_pictures_are_the_right_way_up() -> None:
    seen = in_simulator(views)
    assert len({image.tobytes() for image in seen.values()}) == len(seen)
    for camera in ("workspace", "corner", "corner2"):
        # The grey background is above the horizon: a picture turned over would show it below.
        top, bottom = seen[camera][0, [0, -1]].astype(int), seen[camera][-1, [0, -1]].astype(int)
        sky = np.array([128, 126, 122])
        assert np.abs(top - sky).max(axis=1).min() < 12, camera
        assert np.abs(bottom - sky).max(axis=1).min() > 12, camera


def pass_tasks_on() -> list[bool]:
    from wovr.envs.simulators.metaworld import env as metaworld

    reach, drawer = (StartState("mt50", number(name), 5) for name in ("reach-v3", "drawer-open-v3"))
    with closing(make(kept=1, size=32)) as one, closing(make(kept=1, size=32)) as other:
        first = one.start(reach)["image"]
        used = one.current
        second = one.start(drawer)["image"]
        same = [(other.start(reach)["image"] == first).all(), other.current is used]
        same += [(other.start(drawer)["image"] == second).all(), other.current is not one.current]
        again = one.start(reach)["image"]  # takes what `other` left; its own drawer has no room beside it and is freed
        same += [one.current is used, not any(metaworld._KEPT.values()), (again == first).all()]
        same += [(other.render() == second).all(), second.std() > 10]
    return [bool(value) for value in same]


@needs_metaworld
def test_environments_pass_tasks_on() -> None:
    assert all(in_simulator(pass_tasks_on))


def horizons() -> list[list[bool]]:
    with closing(make(size=16)) as env:
        reach, still = number("reach-v3"), np.zeros(4, np.float32)
        env.start(StartState("mt50", reach, 0, horizon=3))
        short = [env.step(still)[3] for _ in range(3)]
        env.start(StartState("mt50", reach, 0))
        env.current.env.curr_path_length = 498
        late = [env.step(still)[3] for _ in range(2)]
        env.start(StartState("mt50", reach, 0, sim_state=env.sim_state(), horizon=2))
        beyond = [env.step(still)[3] for _ in range(2)]
    with closing(make(size=16, horizon=2)) as env:
        env.start(StartState("mt50", reach, 0))
        own = [env.step(still)[3] for _ in range(2)]
    return [short, late, beyond, own]


@needs_metaworld
def test_horizons() -> None:
    assert in_simulator(horizons) == [[False, False, True], [False, True], [False, True], [False, True]]


def complaints() -> list[str]:
    said = []
    with closing(make(size=16)) as env:
        env.start(StartState("mt50", number("push-v3"), 0))
        state = env.sim_state()
        for attempt in (
            lambda: env.start(StartState("mt51", 0, 0)),
            lambda: env.start(StartState("mt10", 10, 0)),
            lambda: env.start(StartState("mt50", 0, 1000)),
            lambda: env.start(StartState("mt50", number("push-v3"), 0, sim_state=state[:-1])),
            lambda: env.start(StartState("mt50", number("reach-v3"), 0, sim_state=state)),
            lambda: make(camera="nose"),
            lambda: make(size=8),
            lambda: make(kept=-1),
            lambda: make(horizon=501),
            lambda: make().step(np.zeros(4)),
        ):
            try:
                attempt()
                said.append("nothing")
            except UserError as error:
                said.append(str(error))
    return said


@needs_metaworld
def test_bad_requests_end_in_one_clear_line() -> None:
    expected = (
        "no task 0 in suite 'mt51'; suites are mt50",
        "no task 10 in suite 'mt10'",
        "initial state 1000 of assembly-v3",
        "not one of task push-v3",
        "not one of task reach-v3",
        "no camera 'nose'; choose one of workspace, corner",
        "size 8 is too small",
        "kept is -1",
        "horizon 501 is out of range; choose 1 to 500 actions",
        "used before reset",
    )
    for said, part in zip(in_simulator(complaints), expected, strict=True):
        assert part in said
