"""The scripted expert: looks at the simulator's state and moves towards the first goal not yet achieved.

It has no memory. Every action is a function of the state alone, so demonstrations are noise-free and can be cloned, and
the expert recovers from whatever state it is put in (a dropped object is picked up again).
"""

from __future__ import annotations

import numpy as np

from wovr.envs.simulators.tabletop.goals import World
from wovr.envs.simulators.tabletop.scene import OBJECT_HALF, OPEN_HALF
from wovr.envs.simulators.tabletop.tasks import Goal

STEP = 0.025
"""Metres an action of 1 moves the fingertips, as in the environment."""

OPEN, CLOSE = -1.0, 1.0
CRADLE = 0.2
"""Grip for pushing: fingers 4 cm apart cradle a cylinder. Closed ones would be wedged apart by it and hold it."""

ALIGNED = 0.007
"""Metres of horizontal error below which the gripper goes down or lets go."""

TRAVEL_HEIGHT = 0.105
"""Height of the fingertips on the way from one place to another, metres: an object held clears everything but the
cabinet."""

CABINET_TRAVEL_HEIGHT = 0.15
"""The same where the cabinet's top is the destination or the origin."""


class Expert:
    """The expert for one episode.

    Args:
        world: Reads the simulator the expert acts in.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def action(self) -> np.ndarray:
        """(4,) float32 in [-1, 1]."""
        for goal in self.world.task.goals:
            if not self.world.achieved(goal):
                skill = {"open": self._open_drawer, "edge": self._push_to_edge}.get(goal.kind, self._pick_and_place)
                return skill(goal)
        return self._retreat()

    def _move(self, target: np.ndarray, grip: float, speed: float = 1.0) -> np.ndarray:
        """Towards `target` (3,) in a straight line, at most `speed`."""
        step = (target - self.world.hand) / STEP
        step *= min(1.0, speed / max(float(np.abs(step).max()), 1e-9))
        return np.array([*step, grip], dtype=np.float32)

    def _retreat(self) -> np.ndarray:
        """Let go and go up."""
        hand = self.world.hand
        lift = 0.0 if self.world.opening < 0.7 * OPEN_HALF else 1.0
        return self._move(np.array([hand[0], hand[1], max(hand[2] + STEP * lift, hand[2])]), OPEN)

    def _travel(self, place: np.ndarray, height: float, grip: float) -> np.ndarray:
        """Towards a place (2,) at a height; first up where the gripper is low, so that nothing is pushed."""
        hand = self.world.hand
        if hand[2] < height - 0.03:
            return self._move(np.array([hand[0], hand[1], height]), grip)
        return self._move(np.array([place[0], place[1], height]), grip)

    def _pick_and_place(self, goal: Goal) -> np.ndarray:
        world = self.world
        thing, hand = world.position(goal.thing), world.hand
        held = world.fingers_on(goal.thing) == 2
        if world.in_place(goal) and (not held or self._over(goal)):
            return self._retreat()
        height = CABINET_TRAVEL_HEIGHT if goal.target == "cabinet" else TRAVEL_HEIGHT
        if held:
            return self._carry(goal, height)
        return self._grasp(thing, hand, height)

    def _over(self, goal: Goal) -> bool:
        """The object is close enough to its target's centre to be let go."""
        tolerance = {"bin": 0.02, "drawer": 0.02, "green_pad": 0.015, "yellow_pad": 0.015}.get(goal.target, ALIGNED)
        return bool(np.abs(self._error(goal)).max() <= tolerance)

    def _error(self, goal: Goal) -> np.ndarray:
        """(2,) from where the object should be let go to where it is."""
        return self.world.offset(goal) - self.world.aim(goal)

    def _grasp(self, thing: np.ndarray, hand: np.ndarray, height: float) -> np.ndarray:
        grasp_height = max(thing[2] - 0.006, 0.013)
        if np.abs(thing[:2] - hand[:2]).max() > ALIGNED:
            # Low beside the object: go up before going across.
            above = thing[2] + OBJECT_HALF + 0.03
            if hand[2] < above - 0.015 and np.abs(thing[:2] - hand[:2]).max() > 2 * ALIGNED:
                return self._move(np.array([hand[0], hand[1], above]), OPEN)
            return self._move(np.array([thing[0], thing[1], max(above, min(hand[2], height))]), OPEN)
        if hand[2] > grasp_height + 0.006:
            grip = OPEN
            return self._move(np.array([thing[0], thing[1], grasp_height]), grip)
        return np.array([0.0, 0.0, 0.0, CLOSE], dtype=np.float32)

    def _carry(self, goal: Goal, height: float) -> np.ndarray:
        world = self.world
        thing, hand = world.position(goal.thing), world.hand
        place = hand[:2] - self._error(goal)  # moves the object's centre, not the gripper's, onto the target's
        if not self._over(goal):
            return self._travel(place, height, CLOSE)
        drop = {"bin": 0.045, "drawer": 0.045}.get(goal.target, 0.004)
        lower = thing[2] - world.rest_height(goal) - drop
        if lower > 0.004:
            return self._move(np.array([place[0], place[1], hand[2] - lower]), CLOSE, speed=0.8)
        return np.array([0.0, 0.0, 0.0, OPEN], dtype=np.float32)

    def _open_drawer(self, goal: Goal) -> np.ndarray:
        world = self.world
        hand = world.hand
        knob = world.data.geom_xpos[world.model.geom("knob").id]
        if world.fingers_on("knob") == 2:
            return self._move(hand + np.array([0.0, -STEP, 0.0]), CLOSE, speed=0.8)
        return self._grasp(np.array([knob[0], knob[1], 0.032]), hand, TRAVEL_HEIGHT)

    def _push_to_edge(self, goal: Goal) -> np.ndarray:
        world = self.world
        thing, hand = world.position(goal.thing), world.hand
        if world.in_place(goal) and abs(self._error(goal)[1]) < 0.012:
            # Done pushing: let go and back off along +y before going up.
            return np.array([0.0, 1.0, 0.3, OPEN], dtype=np.float32)
        behind = thing + np.array([0.0, OBJECT_HALF + 0.022, 0.0])
        low = 0.022
        if abs(hand[0] - thing[0]) > 0.012 or hand[1] < thing[1] + OBJECT_HALF:
            if hand[2] < 0.085 and (abs(hand[0] - thing[0]) > 0.012 or hand[1] < behind[1] - 0.02):
                return self._move(np.array([hand[0], hand[1], 0.1]), CRADLE)
            return self._move(np.array([behind[0], behind[1], 0.1]), CRADLE)
        if hand[2] > low + 0.01:
            if hand[2] > 0.07 and hand[1] < behind[1] - 0.006:
                return self._move(np.array([behind[0], behind[1], hand[2]]), CRADLE)
            return self._move(np.array([behind[0], max(hand[1], behind[1]), low]), CRADLE)
        return self._move(np.array([thing[0], hand[1] - STEP, low]), CRADLE, speed=0.5)
