"""A scripted expert for LIBERO's pick-and-place tasks: waypoints over OSC_POSE, for demonstrations with no download.

It keeps no memory: every action is a function of the simulator's state, so it can take over in any state, also in one
that a policy has led to. What it does follows from what is: held or not, over the target or not, lifted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wovr.envs.simulators.libero.scene import LiberoScene
from wovr.errors import UserError

OPEN, CLOSE = -1.0, 1.0

STEP, TURN = 0.05, 0.5
"""Metres and radians that an action of 1 moves the hand's goal by."""

GAIN = 2.0
"""How much farther than the target the goal is set: the controller is a spring, and the joints' friction stops it short
of a goal that is nearer than a centimetre."""

ALIGNED, LOW_ALIGNED = 0.01, 0.02
"""Metres the hand may be off its grasp when it begins to descend, and once it is low."""

RIM_OBJECTS = ("bowl", "ramekin", "mug")
"""Objects wider than the hand opens; they are taken by the rim, with one finger inside."""

FINGER_REACH = 0.012
"""Metres the fingertips reach below the point between them that the controller moves."""

SPREADS = (0.04, 0.025)
"""Metres from that point to a finger: of the open hand, and of a half-closed one where there is no room for it."""

PALM, PALM_HEIGHT = 0.1, 0.05
"""Metres the hand reaches to both sides along which the fingers close, and how far above their tips it begins."""

FINGER = 0.01
"""Metres from a finger's pad to its middle."""

DIRECTIONS = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)


@dataclass(frozen=True)
class Grasp:
    """Where the hand closes.

    Attributes:
        point: (3,) metres, where the point between the fingertips has to be.
        closing: (3,) unit vector, level, along which the fingers close.
        top: Metres, height of the object's highest point.
        spread: Metres, one of SPREADS, on the way down.
    """

    point: np.ndarray
    closing: np.ndarray
    top: float
    spread: float


@dataclass(frozen=True)
class Place:
    """Where an object is let go.

    Attributes:
        xy: (2,) metres, where the object's origin has to be.
        clear: Metres, the height its lowest point has to pass over on the way.
        drop: Metres, a height of the hand from which it may fall; None to set it down until it touches something.
        tolerance: Metres its origin may be off.
    """

    xy: np.ndarray
    clear: float
    drop: float | None
    tolerance: float


class LiberoExpert:
    """The expert of one task.

    Args:
        domain: The package's environment.
    """

    def __init__(self, domain: Any) -> None:
        self.scene = LiberoScene(domain)
        self.goals: Sequence[Sequence[str]] = domain.parsed_problem["goal_state"]

    def action(self) -> np.ndarray:
        """(7,) float32 in [-1, 1].

        Raises:
            UserError: The task asks for more than to pick things up and place them.
        """
        for goal in self.goals:
            if not self.scene.achieved(goal):
                if not self._can(goal):
                    raise UserError(
                        f"libero: no scripted expert for '{' '.join(goal)}'",
                        "leave the task out with --tasks; the expert picks up and places",
                    )
                return self._pick_and_place(goal[1], goal[2])
        return self._move(self.scene.hand + np.array([0.0, 0.0, STEP]), self.scene.closing, OPEN)

    def _can(self, goal: Sequence[str]) -> bool:
        """Whether a goal is one of picking up and placing, where drawers and doors need not be opened first."""
        objects = self.scene.objects
        if goal[0] not in ("on", "in") or goal[1] not in objects or goal[1].startswith("plate"):
            return False
        return goal[0] == "on" or self.scene.parent(goal[2]) in objects

    def _move(self, target: np.ndarray, closing: np.ndarray, grip: float, speed: float = 1.0) -> np.ndarray:
        """Towards `target` (3,) in a straight line, the hand pointing down and its fingers along `closing`."""
        step = GAIN * (target - self.scene.hand) / STEP
        step *= min(1.0, speed / max(float(np.abs(step).max()), 1e-9))
        turn = np.clip(self.scene.turn_to(closing) / TURN, -1.0, 1.0)
        return np.array([*step, *turn, grip], dtype=np.float32)

    def _pick_and_place(self, thing: str, target: str) -> np.ndarray:
        place = self._place(target)
        if self.scene.held(thing):
            return self._carry(thing, place)
        return self._grasp(self._choose_grasp(thing, place))

    def _grasp(self, grasp: Grasp) -> np.ndarray:
        scene = self.scene
        hand = scene.hand
        across = float(np.linalg.norm(grasp.point[:2] - hand[:2]))
        turned = float(np.linalg.norm(scene.turn_to(grasp.closing)))
        above = grasp.top + 0.04
        low = hand[2] < above - 0.02
        if scene.opening < 0.006:  # closed on nothing: up, and again
            return self._move(hand + np.array([0.0, 0.0, STEP]), grasp.closing, OPEN)
        grip = self._spread_to(grasp.spread)
        if across > (LOW_ALIGNED if low else ALIGNED) or turned > (0.3 if low else 0.1):
            if low and across > 2 * LOW_ALIGNED:
                return self._move(np.array([hand[0], hand[1], above + 0.02]), grasp.closing, grip)
            return self._move(np.array([*grasp.point[:2], max(above, min(hand[2], above + 0.1))]), grasp.closing, grip)
        if hand[2] > grasp.point[2] + 0.006:
            return self._move(grasp.point, grasp.closing, grip)
        return self._move(grasp.point, grasp.closing, CLOSE)

    def _spread_to(self, spread: float) -> float:
        """The gripper's command that brings the fingers to a spread: they are driven while it is not 0."""
        if spread == SPREADS[0]:
            return OPEN
        off = (1.0 - self.scene.grip) / 2.0 * SPREADS[0] - spread
        return 0.0 if abs(off) < 0.003 else float(np.sign(off)) * CLOSE

    def _carry(self, thing: str, place: Place) -> np.ndarray:
        scene = self.scene
        hand, closing = scene.hand, scene.closing
        lowest = scene.extent(thing)[0][2]
        error = place.xy - scene.origin(thing)[:2]
        away = float(np.linalg.norm(error))
        if away < place.tolerance:
            if scene.rests(thing) or (place.drop is not None and hand[2] < place.drop):
                return self._move(hand, closing, OPEN)
            return self._move(np.array([*(hand[:2] + error), hand[2] - 0.03]), closing, CLOSE, speed=0.5)
        if scene.grip < 0.9:  # touched by both fingers, not yet pressed
            return self._move(hand, closing, CLOSE)
        rise = place.clear + 0.03 - lowest
        if rise > 0.015:
            return self._move(hand + np.array([0.0, 0.0, min(rise + 0.01, STEP)]), closing, CLOSE)
        return self._move(np.array([*(hand[:2] + error), hand[2] + rise]), closing, CLOSE)

    def _place(self, target: str) -> Place:
        scene = self.scene
        if target in scene.sites:
            point = scene.site(target)
            parent = scene.parent(target)
            if target.endswith("contain_region") and parent:
                rim = float(scene.extent(parent)[1][2])
                return Place(point[:2], rim, rim + 0.03, 0.02)
            return Place(point[:2], float(point[2]) + 0.02, None, 0.012)
        return Place(scene.origin(target)[:2], float(scene.extent(target)[1][2]), None, 0.018)

    def _choose_grasp(self, thing: str, place: Place) -> Grasp:
        """The grasp with room for fingers and hand, here and where the object goes, and with little turning.

        It is near the hand, too, and stays so while the hand goes there: the choice does not waver.
        """
        scene = self.scene
        low, high = scene.extent(thing)
        by_rim = any(word in thing for word in RIM_OBJECTS)
        height = max((low[2] + high[2]) / 2, high[2] - (0.012 if by_rim else 0.035), low[2] + FINGER_REACH)
        corners = scene.corners(thing)
        carried = np.array([*(place.xy - scene.origin(thing)[:2]), 0.0])
        found, best = None, np.inf
        for direction in DIRECTIONS if by_rim else DIRECTIONS[: len(DIRECTIONS) // 2]:
            out = np.array([np.cos(direction), np.sin(direction), 0.0])
            across = np.array([-out[1], out[0], 0.0])
            along, aside = corners @ out, corners @ across
            width = float(np.ptp(along))
            if not by_rim and width > 2 * SPREADS[0] - 0.006:
                continue
            # The middle, or of a rim half a wall in from the widest point.
            middle = along.max() - 0.004 if by_rim else (along.max() + along.min()) / 2
            center = out * middle + across * (aside.max() + aside.min()) / 2
            for spread in SPREADS if by_rim else SPREADS[:1]:
                reach = (spread + FINGER) * out
                fingers = [center + reach] if by_rim else [center + reach, center - reach]
                room = min(scene.room(finger[:2], height - FINGER_REACH, thing) for finger in fingers)
                palm = [center + side * PALM * out for side in (1.0, -1.0)]
                palm += [end + carried for end in palm]
                palm_room = min(scene.room(end[:2], height + PALM_HEIGHT, thing) for end in palm)
                cost = 4.0 * max(0.0, 0.02 - palm_room)
                cost += 4.0 * max(0.0, 0.02 - room) + 0.05 * abs(out[0]) + (0.0 if by_rim else 3.0 * width)
                cost += 0.3 * float(np.linalg.norm(center[:2] - scene.hand[:2])) + (SPREADS[0] - spread)
                if cost < best:
                    point, closing = np.array([center[0], center[1], height]), scene.nearest_turn(out)
                    found, best = Grasp(point, closing, float(high[2]), spread), cost
        if found is None:
            raise UserError(f"libero: {thing} is too wide for the hand", "leave the task out with --tasks")
        return found
