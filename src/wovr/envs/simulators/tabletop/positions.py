"""Where the gripper and the objects are in stored simulator states, without MuJoCo.

A state is `TabletopEnv.sim_state`: the steps elapsed, then MuJoCo's integration state, which begins with the time and
the generalised positions in the order of the model's bodies: carriage, fingers, drawer, objects. No simulator is made,
so this can run beside torch.
"""

from __future__ import annotations

import numpy as np

from wovr.envs.scenes import ScenePositions
from wovr.envs.simulators.tabletop.scene import OBJECT_HALF, OPEN_HALF, Fixture, Thing
from wovr.envs.simulators.tabletop.tasks import TASKS, Task
from wovr.errors import UserError

_BEFORE = 2
"""Numbers of a state before the generalised positions: steps elapsed, time."""

_GRIPPER_JOINTS = 5
"""x, y, z of the point between the fingertips, and how far each finger is from it."""

_DRAWER_AT = (0.0, -0.004, 0.004)
"""Position of the closed drawer relative to its cabinet, metres; it opens along -y."""

_GRASP_BOX = np.array([0.012, 0.035, 0.032])
"""Farthest the centre of a held object is from the point between the fingers, metres."""


def object_positions(suite: str, task: int, sim_state: np.ndarray) -> ScenePositions:
    """Positions of the gripper, the fingers, the drawer and every object.

    Args:
        suite: Suite name.
        task: Index of the task in its suite.
        sim_state: (T, S) float64, stored states of one episode.

    Returns:
        The points `gripper`, `left_finger`, `right_finger`, `drawer` (where there is one) and the objects by body name.

    Raises:
        UserError: No such task, or states of another size.
    """
    if suite not in TASKS or not 0 <= task < len(TASKS[suite]):
        raise UserError(f"tabletop has no task {task} in suite '{suite}'", f"suites are {', '.join(TASKS)}")
    chosen = TASKS[suite][task]
    things = [placement.thing for placement in chosen.placements]
    cabinet = _cabinet(chosen)
    joints = _GRIPPER_JOINTS + (cabinet is not None) + 7 * len(things)
    if sim_state.ndim != 2 or sim_state.shape[1] < _BEFORE + joints:
        raise UserError(
            f"tabletop: sim_state has shape {sim_state.shape}, task {suite}/{chosen.name} takes at least "
            f"(T, {_BEFORE + joints})",
            "use states stored from the same task",
        )
    qpos = sim_state[:, _BEFORE : _BEFORE + joints]
    hand, left, right = qpos[:, :3], qpos[:, 3], qpos[:, 4]
    points = {"gripper": hand, "left_finger": _along(hand, 0, -left), "right_finger": _along(hand, 0, right)}
    looks = {name: name for name in points}
    if cabinet is not None:
        base = np.array([*cabinet.position, 0.0]) + _DRAWER_AT
        points["drawer"] = _along(np.broadcast_to(base, hand.shape), 1, -qpos[:, _GRIPPER_JOINTS])
        looks["drawer"] = "drawer"
    first = len(points)
    for index, thing in enumerate(things):
        start = joints - 7 * (len(things) - index)
        points[thing.name] = qpos[:, start : start + 3]
        looks[thing.name] = f"{thing.colour}_{thing.shape}"
    held = np.zeros((len(qpos), len(points)), bool)
    for index, thing in enumerate(things):
        held[:, first + index] = _held(points[thing.name], hand, left, right, thing)
    return ScenePositions(
        names=tuple(points),
        looks=tuple(looks.values()),
        positions=np.stack(list(points.values()), axis=1).astype(np.float32),
        movable=np.arange(len(points)) >= first,
        held=held,
    )


def _cabinet(task: Task) -> Fixture | None:
    return next((fixture for fixture in task.fixtures if fixture.kind == "cabinet"), None)


def _along(position: np.ndarray, axis: int, distance: np.ndarray) -> np.ndarray:
    """(T, 3) positions moved along one axis."""
    moved = position.copy()
    moved[:, axis] += distance
    return moved


def _held(position: np.ndarray, hand: np.ndarray, left: np.ndarray, right: np.ndarray, thing: Thing) -> np.ndarray:
    """(T,) bool: the object is between fingers that are closed about as far as its width lets them."""
    between = _along(hand, 0, (right - left) / 2)
    width = 2 * (0.042 if thing.shape == "block" else OBJECT_HALF)
    closed = left + right <= min(1.25 * width, 2 * OPEN_HALF - 0.006)
    return closed & (np.abs(position - between) <= _GRASP_BOX).all(axis=1)
