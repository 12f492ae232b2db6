"""What the controls move: as the environment says, else as the stored actions tell."""

from __future__ import annotations

import numpy as np

from wovr.data.store.statistics import ActionStatistics
from wovr.envs.simulators.tabletop.env import TabletopEnv
from wovr.serve.controls import describe_controls
from wovr.types import ActionAxis, StartState


def statistics(actions: np.ndarray) -> ActionStatistics:
    return ActionStatistics.of([actions.astype(np.float32)])


def test_a_dimension_at_its_ends_holds() -> None:
    rng = np.random.default_rng(0)
    actions = np.stack(
        [rng.uniform(-1, 1, 500), rng.choice([-1.0, 1.0], 500, p=[0.9, 0.1]), 0.3 * rng.normal(size=500)]
    )
    neutral = np.array([0, -1, 0], np.float32)
    controls = describe_controls((), statistics(actions.T.clip(-1, 1)), neutral, "line")
    assert [axis.holds for axis in controls.axes] == [False, True, False]
    assert [axis.name for axis in controls.axes] == ["action 1", "action 2", "action 3"]
    assert controls.described()["rest"] == [0.0, -1.0, 0.0]
    assert controls.source == "the statistics of the stored actions"


def test_the_environment_says_it_better_where_it_fits() -> None:
    axes, neutral = (ActionAxis("x", "left", "right"),), np.zeros(1, np.float32)
    found = describe_controls(axes, statistics(np.ones((4, 1))), neutral, "line")
    assert (found.axes, found.source) == (axes, "line")
    two = describe_controls(axes, statistics(np.zeros((4, 2))), np.zeros(2, np.float32), "line")
    assert len(two.axes) == 2


def test_the_tabletop_moves_as_it_says() -> None:
    """`right`, `away` and `up` are x, y and z of the hand; `close` brings the fingers together."""
    env = TabletopEnv(size=16)
    assert [axis.high for axis in env.action_axes] == ["right", "away", "up", "close"]
    for index in range(3):
        env.start(StartState("spatial", 0, 0))
        before = env.proprio()[:3].copy()
        action = np.array([0, 0, 0, -1], np.float32)
        action[index] = 1
        for _ in range(3):
            env.step(action)
        moved = env.proprio()[:3] - before
        assert int(np.abs(moved).argmax()) == index
        assert moved[index] > 0.02
    env.start(StartState("spatial", 0, 0))
    before = env.proprio()[3:5].copy()
    for _ in range(5):
        env.step(np.array([0, 0, 0, 1], np.float32))
    assert (env.proprio()[3:5] < before).all()
