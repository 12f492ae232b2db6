"""LIBERO: its tables without the package; with it and assets exact states, pictures, and an expert that succeeds."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator
from tests.extras import needs
from wovr.envs.base import INSTRUCTION_LENGTH, PRINTABLE
from wovr.envs.simulators.libero.install import ASSETS_VARIABLE, DOWNLOADED, init_states
from wovr.envs.simulators.libero.tasks import SUITES
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.types import StartState

needs_libero = needs("libero")
NO_ASSETS = f"needs LIBERO's meshes and textures: set {ASSETS_VARIABLE} to their folder, or download them once"
STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


def needs_assets(test):
    """Mark and skip where scenes cannot be made."""
    there = bool(os.environ.get(ASSETS_VARIABLE)) or DOWNLOADED.expanduser().is_dir()
    return needs_libero(pytest.mark.skipif(not there, reason=NO_ASSETS)(test))


def make(**arguments):
    from wovr.envs.simulators.libero.env import LiberoEnv

    return LiberoEnv(**{"size": 32, "tuned": True, **arguments})


def test_four_suites_of_ten_tasks() -> None:
    assert list(SUITES) == ["libero_spatial", "libero_object", "libero_goal", "libero_10"]
    for suite, tasks in SUITES.items():
        assert len({task.name for task in tasks}) == len({task.instruction for task in tasks}) == 10
        for index, task in enumerate(tasks):
            assert (task.suite, task.index) == (suite, index)
            assert PRINTABLE.issuperset(task.instruction)
            assert 10 < len(task.instruction) < INSTRUCTION_LENGTH
    assert SUITES["libero_10"][7].instruction == "put both the alphabet soup and the cream cheese box in the basket"
    assert SUITES["libero_goal"][7].instruction == "turn on the stove"


def test_tasks_are_known_without_the_package_or_mujoco() -> None:
    script = (
        "import sys; sys.modules['libero'] = None; sys.modules['mujoco'] = None\n"
        "from wovr.envs.registry import make_simulator, select_tasks\n"
        "from wovr.errors import UserError\n"
        "print([task.index for task in select_tasks('libero', 'libero_goal', 'turn_on_the_stove,3')])\n"
        "try:\n    make_simulator('libero', {})\nexcept UserError as error:\n    print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found, complaint, torch = result.stdout.splitlines()
    assert found == "[7, 3]"
    assert "pip install 'wovr[libero]'" in complaint
    assert torch == "False"


class Evil:
    """What a file from elsewhere might hold."""

    def __reduce__(self):
        return (print, ("unpickled",))


def archive(path: Path, content: object) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))


def test_only_arrays_are_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("wovr.envs.simulators.libero.install.package_folder", lambda: tmp_path)
    folder = tmp_path / "init_files" / "suite"
    folder.mkdir(parents=True)
    table = np.random.default_rng(0).normal(size=(50, 7))
    archive(folder / "good.pruned_init", table)
    archive(folder / "evil.pruned_init", Evil())
    archive(folder / "list.pruned_init", [1.0, 2.0])
    (folder / "cut.pruned_init").write_bytes((folder / "good.pruned_init").read_bytes()[:200])
    assert (init_states("suite", "good") == table).all()
    for name, problem in (
        ("evil", "print, which is not read"),
        ("list", "does not hold a table"),
        ("cut", "cannot be read"),
        ("absent", "cannot be read"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            init_states("suite", name)
        assert f"{name}.pruned_init" in str(caught.value)
    assert "unpickled" not in capsys.readouterr().out
    init_states.cache_clear()


@needs_libero
def test_the_tables_are_the_packages() -> None:
    from wovr.envs.simulators.libero.install import package_folder

    source = (package_folder() / "benchmark" / "libero_suite_task_map.py").read_text()
    tables: dict = {}
    exec(source, tables)  # a plain table; importing its package would bring torch
    for suite, tasks in SUITES.items():
        assert [task.name for task in tasks] == tables["libero_task_map"][suite]
        for task in tasks:
            assert init_states(suite, task.name).shape[0] == task.num_init_states


@needs_libero
def test_the_first_import_asks_nothing(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "LIBERO_CONFIG_PATH"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = (
        "import sys\nfrom wovr.envs.simulators.libero.install import import_libero, use_assets\n"
        "from wovr.errors import UserError\n"
        "import_libero()\nprint('torch' in sys.modules)\n"
        "try:\n    use_assets(sys.argv[1])\nexcept UserError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    torch, complaint = result.stdout.splitlines()
    assert torch == "False"
    assert "no LIBERO assets here" in complaint
    assert ASSETS_VARIABLE in complaint
    assert "private macro" not in result.stderr
    assert not (tmp_path / ".libero" / "config.yaml").exists()


def replay(suite: str, task: int) -> dict[str, bool]:
    """Random actions from a numbered state, gone on from their middle in another environment with another past."""
    with closing(make()) as env, closing(make()) as other:
        first = env.start(StartState(suite, task, 7))["image"]
        beginning = env.sim_state()
        actions = np.random.default_rng(task).uniform(-1, 1, (8, 7)).astype(np.float32)
        actions[4:, 3:6] = 0.0  # the controller then holds a goal of orientation that no other number tells
        images, states, felt, experts = [], [], [], []
        for action in actions:
            images.append(env.step(action)[0]["image"])
            states.append(env.sim_state())
            felt.append(env.proprio())
            experts.append(env.expert_action())
        other.start(StartState(suite, task, 3))  # takes the simulator that both share
        other.step(actions[0])
        result = {"shared": bool((env.sim_state() == states[-1]).all() and (env.render() == images[-1]).all())}
        again = other.start(StartState(suite, task, 7))["image"]
        result["numbered"] = bool((again == first).all() and (other.sim_state() == beginning).all())
        other.start(StartState(suite, task, 0, sim_state=states[4]))
        for step in range(5, 8):
            image = other.step(actions[step])[0]["image"]
            result[f"step {step}"] = bool(
                (image == images[step]).all()
                and (other.sim_state() == states[step]).all()
                and (other.proprio() == felt[step]).all()
                and (other.expert_action() == experts[step]).all()
            )
        result["moved"] = len({image.tobytes() for image in images}) > 5
        result["felt"] = felt[0].shape == (11,) and felt[0].dtype == np.float32
        hand = env._simulator().domain.sim.data.get_site_xpos("gripper0_grip_site")
        result["felt hand"] = bool(np.abs(env.proprio()[:3] - hand).max() < 1e-6)
    return result


@needs_assets
@pytest.mark.parametrize(("suite", "task"), [("libero_goal", 8), ("libero_object", 0)])
def test_a_stored_state_goes_on_bit_by_bit(suite: str, task: int) -> None:
    result = in_simulator(replay, suite, task)
    assert [what for what, right in result.items() if not right] == []


def first_state() -> bytes:
    with closing(make()) as env:
        env.start(StartState("libero_object", 0, 7))
        env.step(np.full(7, 0.3, np.float32))
        return env.sim_state().tobytes()


@needs_assets
def test_every_process_makes_the_same_scene() -> None:
    assert in_simulator(first_state) == in_simulator(first_state)


def evictions() -> list[bool]:
    from wovr.envs.simulators.libero import env as libero

    with closing(make(kept=1)) as one, closing(make(kept=1)) as other:
        one.start(StartState("libero_object", 0, 2))
        one.step(STILL)
        state, image = one.sim_state(), one.render()
        other.start(StartState("libero_object", 1, 2))  # no room for both: the first simulator goes, its state stays
        gone = [len(libero._SIMULATORS) == 1]
        other.step(STILL)
        seen = other.render()
        back = [bool((one.sim_state() == state).all()), bool((one.render() == image).all())]
        back += [bool((other.render() == seen).all()), len(libero._SIMULATORS) == 1]
    return gone + back + [not libero._SIMULATORS]


@needs_assets
def test_simulators_without_room_are_made_again() -> None:
    assert all(in_simulator(evictions))


def views() -> dict[str, np.ndarray]:
    start = StartState("libero_object", 0, 0)
    seen = {}
    for name, arguments in {
        "plain": {"tuned": False},
        "tuned": {},
        "mirrored": {"mirrored": True},
        "wrist": {"camera": "robot0_eye_in_hand"},
        "large": {"size": 96},
    }.items():
        with closing(make(**arguments)) as env:
            seen[name] = env.start(start)["image"]
    return seen


def project(simulator, point: np.ndarray) -> np.ndarray:
    """(2,) row and column, in a picture of 1 x 1, of a point of the world: a pinhole camera that looks along -z."""
    model, data = simulator.model, simulator.data
    camera = model.camera("agentview").id
    x, y, z = data.cam_xmat[camera].reshape(3, 3).T @ (point - data.cam_xpos[camera])
    focal = 0.5 / np.tan(np.radians(model.cam_fovy[camera]) / 2)
    return np.array([0.5 - focal * y / -z, 0.5 + focal * x / -z])


def motion() -> tuple[np.ndarray, np.ndarray]:
    """Where a picture changes while the hand moves, and where the hand was seen from the camera's place."""
    with closing(make(size=64)) as env:
        start = StartState("libero_object", 0, 0)
        before = env.start(start)["image"].astype(int)
        places = [project(env._simulator(), env.proprio()[:3])]
        for _ in range(12):
            after = env.step(np.array([0.0, -1.0, 0.0, 0, 0, 0, -1.0], np.float32))[0]["image"].astype(int)
        places.append(project(env._simulator(), env.proprio()[:3]))
    changed = np.abs(after - before).sum(axis=2) > 60
    return np.argwhere(changed).mean(axis=0) / 64, np.mean(places, axis=0)


@needs_assets
def test_pictures_are_upright() -> None:
    seen = in_simulator(views)
    assert seen["large"].shape == (96, 96, 3)
    assert seen["plain"].std() > 10
    assert seen["wrist"].std() > 10
    assert (seen["wrist"] != seen["tuned"]).any()
    assert (seen["mirrored"] == seen["tuned"][:, ::-1]).all()
    difference = np.abs(seen["plain"].astype(int) - seen["tuned"])
    assert 0 < difference.mean() < 25
    changed, hand = in_simulator(motion)
    off = np.linalg.norm(changed - hand)
    assert off < 0.2  # the arm above the hand moves, too
    for wrong in ([1 - hand[0], hand[1]], [hand[0], 1 - hand[1]]):
        assert off < np.linalg.norm(changed - wrong)


@needs_assets
def test_the_expert_succeeds_in_a_worker() -> None:
    with closing(WorkerVectorEnv("libero", 1, 1, {"size": 16, "tuned": True}, record_states=True)) as env:
        assert env.fps == 20.0
        observation, _ = env.reset(options={"start_states": [StartState("libero_object", 0, 0)]})
        chunk = env.step_expert(160)
    assert observation["instruction"] == ("pick up the alphabet soup and place it in the basket",)
    assert chunk.terminated.sum() == 1
    assert chunk.sim_state is not None
    assert chunk.proprio is not None
    assert len(chunk.sim_state[0]) == len(chunk.proprio[0]) == 160


def complaints() -> list[str]:
    said = []
    with closing(make()) as env:
        env.start(StartState("libero_object", 0, 0))
        state = env.sim_state()
        for attempt in (
            lambda: env.start(StartState("libero_90", 0, 0)),
            lambda: env.start(StartState("libero_goal", 10, 0)),
            lambda: env.start(StartState("libero_goal", 0, 50)),
            lambda: env.start(StartState("libero_object", 0, 0, sim_state=state[:-1])),
            lambda: env.start(StartState("libero_object", 1, 0, sim_state=state)),
            lambda: make(camera="nose"),
            lambda: make(size=8),
            lambda: make(kept=0),
            lambda: make(settle=-1),
            lambda: make(assets="/nowhere"),
            lambda: make().step(STILL),
            lambda: (env.start(StartState("libero_goal", 7, 0)), env.expert_action()),
            lambda: (env.start(StartState("libero_goal", 3, 0)), env.expert_action()),
        ):
            try:
                attempt()
                said.append("nothing")
            except UserError as error:
                said.append(str(error))
    return said


@needs_assets
def test_bad_requests_end_in_one_clear_line() -> None:
    expected = (
        "no task 0 in suite 'libero_90'; suites are libero_spatial",
        "no task 10 in suite 'libero_goal'",
        "initial state 50 of open_the_middle_drawer",
        "not one of task pick_up_the_alphabet_soup",
        "not one of task pick_up_the_cream_cheese",
        "no camera 'nose'; choose one of agentview",
        "size 8 is too small",
        "kept is 0",
        "settle is -1",
        "/nowhere: no LIBERO assets here",
        "used before reset",
        "no scripted expert for 'turnon flat_stove_1'",
        "no scripted expert for 'in akita_black_bowl_1 wooden_cabinet_1_top_region'",
    )
    for said, part in zip(in_simulator(complaints), expected, strict=True):
        assert part in said
        assert "\n" not in said


def horizons() -> list[list[bool]]:
    with closing(make(size=16)) as env:
        env.start(StartState("libero_object", 0, 0, horizon=2))
        short = [env.step(STILL)[3] for _ in range(2)]
        env.start(StartState("libero_object", 0, 0))
        env._simulator().elapsed = 278
        late = [env.step(STILL)[3] for _ in range(2)]
        env.start(StartState("libero_object", 0, 0, sim_state=env.sim_state(), horizon=1))
        beyond = [env.step(STILL)[3]]
    return [short, late, beyond]


@needs_assets
def test_horizons() -> None:
    assert in_simulator(horizons) == [[False, True], [False, True], [True]]
