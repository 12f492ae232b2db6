"""Success of a tabletop task: predicates on the simulator's state, and the quantities they and the expert read.

A goal counts when it holds physically: the object rests where it belongs and the gripper has let go.
"""

from __future__ import annotations

import mujoco
import numpy as np

from wovr.envs.simulators.tabletop.scene import (
    BIN_HALF,
    BIN_WALL,
    CABINET_HALF,
    CABINET_HEIGHT,
    DRAWER_HALF,
    DRAWER_TRAVEL,
    EDGE_WIDTH,
    OBJECT_HALF,
    PAD_HALF,
    Thing,
    thing_half_height,
)
from wovr.envs.simulators.tabletop.tasks import Goal, Task

REST_TOLERANCE = 0.008
"""Metres the centre may be off its resting height."""

REST_SPEED = 0.08
"""Metres a second below which an object counts as resting."""

SIDE_BY_SIDE = 0.031
"""Metres off the centre at which two objects share a bin."""

OPEN_SHARE = 0.75
"""Share of its travel at which the drawer counts as open."""


class World:
    """Reads one simulator: positions in metres, contacts, goals.

    Args:
        model: The compiled scene.
        data: Its state, with kinematics and contacts up to date.
        task: The task being done.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, task: Task) -> None:
        self.model = model
        self.data = data
        self.task = task
        self.things: dict[str, Thing] = {placement.thing.name: placement.thing for placement in task.placements}
        self._fingers = [model.geom("left_finger").id, model.geom("right_finger").id]
        self._geom = {name: model.geom(name).id for name in self.things}

    @property
    def hand(self) -> np.ndarray:
        """(3,) position between the fingertips."""
        return self.data.qpos[:3]

    @property
    def opening(self) -> float:
        """Half the distance between the fingers, metres."""
        return float(self.data.qpos[3] + self.data.qpos[4]) / 2.0

    def position(self, body: str) -> np.ndarray:
        """(3,) position of a body's centre."""
        return self.data.xpos[self.model.body(body).id]

    def speed(self, thing: str) -> float:
        """Linear speed of an object, metres a second."""
        address = self.model.joint(thing).dofadr[0]
        return float(np.linalg.norm(self.data.qvel[address : address + 3]))

    def drawer_travel(self) -> float:
        """How far the drawer is out, metres."""
        return float(self.data.qpos[self.model.joint("drawer").qposadr[0]])

    def fingers_on(self, geom: str) -> int:
        """How many fingers touch a geom, 0 to 2."""
        other = self.model.geom(geom).id
        return sum(self._touching(finger, other) for finger in self._fingers)

    def _touching(self, first: int, second: int) -> bool:
        pairs = self.data.contact.geom
        return bool((((pairs == (first, second)) | (pairs == (second, first))).all(axis=1)).any())

    def rest_height(self, goal: Goal) -> float:
        """Height of the object's centre when the goal is met, metres."""
        half = thing_half_height(self.things[goal.thing])
        if goal.target == "cabinet":
            return CABINET_HEIGHT + half
        if goal.target in self.things:
            return float(self.position(goal.target)[2]) + OBJECT_HALF + half
        return half + (0.006 if goal.target == "drawer" else 0.002 if goal.target == "bin" else 0.0)

    def offset(self, goal: Goal) -> np.ndarray:
        """(2,) from the target's centre to the object's, metres."""
        return self.position(goal.thing)[:2] - self.position(goal.target)[:2]

    def aim(self, goal: Goal) -> np.ndarray:
        """(2,) from the target's centre to where the object is best put: side by side where two share a target."""
        sharing = [other.thing for other in self.task.goals if other.target == goal.target and other.thing]
        if len(sharing) < 2:
            return np.zeros(2)
        return np.array([SIDE_BY_SIDE * (2 * sharing.index(goal.thing) - 1), 0.0])

    def in_place(self, goal: Goal) -> bool:
        """The object is where the goal wants it, whether or not the gripper still holds it."""
        if goal.kind == "open":
            return self.drawer_travel() >= OPEN_SHARE * DRAWER_TRAVEL
        x, y = np.abs(self.offset(goal))
        z = self.position(goal.thing)[2]
        off = abs(z - self.rest_height(goal))
        if goal.kind == "edge":
            return bool(y <= EDGE_WIDTH / 2 and off <= REST_TOLERANCE)
        if goal.target == "bin":
            return bool(x <= BIN_HALF and y <= BIN_HALF and z <= BIN_WALL + OBJECT_HALF / 2)
        if goal.target == "drawer":
            return bool(x <= DRAWER_HALF[0] and y <= DRAWER_HALF[1] and z <= 0.05)
        half = {"cabinet": CABINET_HALF}.get(goal.target, (PAD_HALF, PAD_HALF))
        if goal.target in self.things:
            half = (OBJECT_HALF, OBJECT_HALF)
        return bool(x <= half[0] and y <= half[1] and off <= REST_TOLERANCE)

    def achieved(self, goal: Goal) -> bool:
        """In place, at rest, and let go."""
        if not self.in_place(goal):
            return False
        if goal.kind == "open":
            return True
        return self.fingers_on(goal.thing) == 0 and self.speed(goal.thing) <= REST_SPEED

    def success(self) -> bool:
        """Every goal of the task is achieved now."""
        return all(self.achieved(goal) for goal in self.task.goals)
