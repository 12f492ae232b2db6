"""The embedded simulator: exact states, a capable expert, physical success, clear errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator
from wovr.envs.simulators.tabletop.tasks import SUITES, TASKS
from wovr.errors import UserError
from wovr.types import StartState


def make(size: int = 64):
    from wovr.envs.simulators.tabletop.env import TabletopEnv

    return TabletopEnv(size)


def run_expert(env, start: StartState, limit: int = 10_000):
    """Frames, rewards and whether the episode ended in success."""
    observation = env.start(start)
    frames = [observation["image"]]
    for _ in range(limit):
        observation, _reward, success, truncated, _info = env.step(env.expert_action())
        frames.append(observation["image"])
        if success or truncated:
            return frames, success
    return frames, False


def test_suites_mirror_libero():
    assert list(SUITES) == ["spatial", "object", "goal", "long"]
    for tasks in SUITES.values():
        assert len(tasks) == 10
        assert len({task.instruction for task in tasks}) == 10
        assert all(task.num_init_states >= 50 for task in tasks)
    assert {task.horizon for task in SUITES["long"]} == {511}, "512 frames, the longest episode a shard holds"
    assert all(2 <= len(task.goals) <= 3 for task in TASKS["long"])


def expert_solves():
    env = make(16)
    return {
        (suite, task.index): run_expert(env, StartState(suite, task.index, 7), 120)[1]
        for suite, tasks in SUITES.items()
        for task in tasks
    }


def test_expert_solves_every_task():
    outcome = in_simulator(expert_solves)
    assert len(outcome) == 40
    assert [key for key, success in outcome.items() if not success] == []


def replay_from_saved_state():
    rng = np.random.default_rng(0)
    env, other = make(32), make(32)
    for suite, task in (("spatial", 4), ("object", 8), ("goal", 6), ("long", 2)):
        env.start(StartState(suite, task, 3))
        for _ in range(9):
            env.step(env.expert_action())
        saved = env.sim_state()
        first = other.start(StartState(suite, task, 0, sim_state=saved))
        assert (first["image"] == env.render()).all()
        for _ in range(12):
            action = np.clip(env.expert_action() + 0.3 * rng.normal(size=4), -1, 1).astype(np.float32)
            one, two = env.step(action), other.step(action)
            assert (one[0]["image"] == two[0]["image"]).all()
            assert (env.sim_state() == other.sim_state()).all()
            assert one[2:4] == two[2:4]


def test_a_saved_state_goes_on_bit_exactly():
    in_simulator(replay_from_saved_state)


def felt_and_known():
    """Proprioception along an episode, positions and controls then, and both after the last state was restored."""
    env, other = make(16), make(16)
    env.start(StartState("goal", 6, 1))
    felt, known = [env.proprio()], [np.concatenate([env.data.qpos[:5], env.data.ctrl[:3]])]
    for _ in range(12):
        env.step(env.expert_action())
        felt.append(env.proprio())
        known.append(np.concatenate([env.data.qpos[:5], env.data.ctrl[:3]]))
    other.start(StartState("goal", 6, 0, sim_state=env.sim_state()))
    return np.stack(felt), np.stack(known), other.proprio()


def test_proprioception_is_of_the_state():
    felt, known, restored = in_simulator(felt_and_known)
    assert (felt.shape, felt.dtype) == ((13, 8), np.float32)
    np.testing.assert_array_equal(felt, known.astype(np.float32))
    np.testing.assert_array_equal(felt[-1], restored)
    assert len(np.unique(felt, axis=0)) == 13


def initial_states():
    env = make(32)
    first = [env.start(StartState("spatial", 0, number))["image"] for number in (0, 1, 0)]
    state = env.sim_state()
    again = make(32)
    again.start(StartState("spatial", 0, 0))
    return first, (again.sim_state() == state).all()


def test_numbered_initial_states_are_distinct_and_reproducible():
    (zero, one, zero_again), same = in_simulator(initial_states)
    assert same
    assert (zero == zero_again).all()
    assert (zero != one).any()


def settled_offsets():
    """Largest distance of any object from where its task wants it, beyond the jitter."""
    env = make(16)
    worst = {}
    for suite in ("spatial", "object", "goal"):
        for index, task in enumerate(TASKS[suite]):
            for number in range(10):
                env.start(StartState(suite, index, number))
                for placement in task.placements:
                    off = np.abs(env.world.position(placement.thing.name)[:2] - (placement.x, placement.y)).max()
                    worst[suite, index] = max(worst.get((suite, index), 0.0), off - env.jitter)
                assert not env.world.success()
    return worst


def test_layouts_do_not_collide():
    worst = in_simulator(settled_offsets)
    assert {key: round(value, 4) for key, value in worst.items() if value > 0.004} == {}


def physical_failures():
    env = make(16)
    # A grasp beside the cube closes on nothing, and lifting leaves it on the table.
    env.start(StartState("spatial", 0, 0))
    for _ in range(6):
        env.step(env.expert_action())
    for _ in range(4):
        env.step(np.array([0.9, 0.0, 0.0, -1.0]))
    for action in ([0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]):
        env.step(np.array(action, dtype=float))
    missed = env.world.position("red_cube_1")[2]
    # A held cube that is let go over the table falls where it is: no success.
    env.start(StartState("spatial", 0, 0))
    while env.world.position("red_cube_1")[2] < 0.08:
        env.step(env.expert_action())
    dropped = [env.step(np.array([0.0, 0.0, 0.0, -1.0]))[2] for _ in range(6)]
    # Held over the pad at its resting height is no success either: the gripper has to let go.
    env.start(StartState("spatial", 0, 0))
    goal = env.task.goals[0]
    while not env.world.in_place(goal):
        env.step(env.expert_action())
    held = env.world.fingers_on(goal.thing), env.world.success()
    return missed, any(dropped), env.world.position("red_cube_2")[2], held


def test_failures_are_physical():
    missed, dropped, other, held = in_simulator(physical_failures)
    assert missed < 0.03
    assert not dropped
    assert other == pytest.approx(0.025, abs=0.003)
    assert held == (2, False)


def sizes_and_checks():
    from gymnasium.utils.env_checker import check_env

    for size in (16, 64, 100):
        env = make(size)
        assert env.start(StartState("goal", 0, 0))["image"].shape == (size, size, 3)
    check_env(make(32), skip_render_check=True)


def test_any_size_and_gymnasiums_own_checks():
    in_simulator(sizes_and_checks)


def start(start: StartState):
    make(16).start(start)


def wrong_state():
    env = make(16)
    env.start(StartState("spatial", 0, 0))
    make(16).start(StartState("goal", 0, 0, sim_state=env.sim_state()))


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        (start, (StartState("spatula", 0),), "no task 0 in suite 'spatula'"),
        (start, (StartState("spatial", 10),), "no task 10"),
        (start, (StartState("spatial", 0, 1000),), "initial state 1000 of spatial/next_to_cylinder does not exist"),
        (wrong_state, (), "use a state stored from the same task"),
        (make, (4,), "size 4 is too small"),
    ],
)
def test_bad_input_is_one_line(function, args, words):
    with pytest.raises(UserError, match=words):
        in_simulator(function, *args)
