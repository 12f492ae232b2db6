"""What the scripted expert reads of a LIBERO scene: where things are, how they lie, what the fingers touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)

HOME_CLOSING = np.array([0.0, 1.0, 0.0])
"""Direction in which the fingers close while the arm is at rest."""


class LiberoScene:
    """The scene of one of the package's environments. Heights and lengths in metres, directions in the world's axes.

    Args:
        domain: The package's environment, after a reset.
    """

    def __init__(self, domain: Any) -> None:
        self.domain = domain
        self.model: Any = domain.sim.model._model
        self.data: Any = domain.sim.data._data
        self.robot = domain.robots[0]
        self.objects = frozenset(domain.objects_dict)
        self.sites = frozenset(domain.object_sites_dict)
        model = self.model
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        roots = {body: name for name, body in domain.obj_body_id.items()}
        owner = ["" for _ in range(model.nbody)]
        for body in range(1, model.nbody):
            owner[body] = roots.get(body, owner[model.body_parentid[body]])
        owners = np.array([owner[body] for body in model.geom_bodyid])
        self._geoms = {name: np.flatnonzero((owners == name) & solid) for name in domain.obj_body_id}
        self._things = np.flatnonzero((owners != "") & solid)
        self._owners = owners
        names = self.robot.gripper.important_geoms
        self._fingers = [
            {model.geom(name).id for name in names[side] + names[f"{side}pad"]}
            for side in ("left_finger", "right_finger")
        ]
        robot = [body for body in range(model.nbody) if model.body(body).name.startswith(("robot0", "gripper0"))]
        self._robot_geoms = np.isin(model.geom_bodyid, robot)

    @property
    def hand(self) -> np.ndarray:
        """(3,) the point between the fingertips."""
        return self.data.site_xpos[self.robot.eef_site_id].copy()

    @property
    def closing(self) -> np.ndarray:
        """(3,) unit vector, level, in which the fingers close."""
        axis = self.data.site_xmat[self.robot.eef_site_id].reshape(3, 3)[:, 0] * [1.0, 1.0, 0.0]
        return axis / np.linalg.norm(axis)

    @property
    def opening(self) -> float:
        """Metres between the fingers, 0 to 0.08."""
        left, right = self.data.qpos[self.robot._ref_gripper_joint_pos_indexes]
        return float(left - right)

    @property
    def grip(self) -> float:
        """What the fingers are told: -1 open to 1 closed; they are driven there within 8 actions."""
        return -float(self.robot.gripper.current_action[0])

    def achieved(self, goal: Sequence[str]) -> bool:
        """Whether the benchmark's predicate holds."""
        return bool(self.domain._eval_predicate(goal))

    def origin(self, thing: str) -> np.ndarray:
        """(3,) the origin of an object, which the benchmark's predicates look at."""
        return self.data.xpos[self.domain.obj_body_id[thing]].copy()

    def site(self, name: str) -> np.ndarray:
        """(3,) the centre of a region."""
        return self.data.site_xpos[self.model.site(name).id].copy()

    def parent(self, site: str) -> str:
        """The object a region belongs to; empty for a region of the table."""
        return str(getattr(self.domain.object_sites_dict[site], "parent_name", None) or "")

    def corners(self, thing: str) -> np.ndarray:
        """(n, 3) corners of the boxes around an object's collision shapes."""
        return self._corners(self._geoms[thing]).reshape(-1, 3)

    def extent(self, thing: str) -> tuple[np.ndarray, np.ndarray]:
        """(3,) and (3,) the least and the greatest of its coordinates."""
        corners = self.corners(thing)
        return corners.min(axis=0), corners.max(axis=0)

    def held(self, thing: str) -> bool:
        """Whether both fingers touch it."""
        own = set(self._geoms[thing].tolist())
        touched = [False, False]
        for pair in self._contacts():
            for side, finger in enumerate(self._fingers):
                touched[side] |= bool(pair & own) and bool(pair & finger)
        return all(touched)

    def rests(self, thing: str) -> bool:
        """Whether it touches anything but the robot."""
        own = set(self._geoms[thing].tolist())
        return any(pair & own and not any(self._robot_geoms[geom] for geom in pair - own) for pair in self._contacts())

    def room(self, place: np.ndarray, height: float, thing: str) -> float:
        """Metres from a place (2,) to the nearest other object that reaches above a height."""
        others = self._things[self._owners[self._things] != thing]
        corners = self._corners(others)  # (n, 8, 3)
        low, high = corners.min(axis=1), corners.max(axis=1)
        tall = high[:, 2] > height
        if not tall.any():
            return float(np.inf)
        gap = np.maximum(0.0, np.maximum(low[tall, :2] - place, place - high[tall, :2]))
        return float(np.linalg.norm(gap, axis=1).min())

    def nearest_turn(self, axis: np.ndarray) -> np.ndarray:
        """`axis` or its opposite: the fingers close alike, and the wrist turns less, also over many turns."""
        return axis if axis @ (self.closing + 0.5 * HOME_CLOSING) >= 0.0 else -axis

    def turn_to(self, closing: np.ndarray) -> np.ndarray:
        """(3,) rotation vector in radians, from the hand as it is to one pointing down and closing along `closing`."""
        down = np.array([0.0, 0.0, -1.0])
        wanted = np.stack([closing, np.cross(down, closing), down], axis=1)
        error = wanted @ self.data.site_xmat[self.robot.eef_site_id].reshape(3, 3).T
        axis = np.array([error[2, 1] - error[1, 2], error[0, 2] - error[2, 0], error[1, 0] - error[0, 1]])
        length = float(np.linalg.norm(axis))  # twice the sine of the angle
        angle = float(np.arctan2(length, np.trace(error) - 1.0))
        if length < 1e-9:
            return np.zeros(3) if angle < 1.0 else np.array([0.0, 0.0, np.pi])
        return axis / length * angle

    def _contacts(self) -> list[set[int]]:
        return [{int(one), int(other)} for one, other in self.data.contact.geom[: self.data.ncon]]

    def _corners(self, geoms: np.ndarray) -> np.ndarray:
        """(n, 8, 3) corners of the boxes around geoms, in the world."""
        boxes = self.model.geom_aabb[geoms]  # (n, 6) centre and half size in the geom's frame
        local = boxes[:, None, :3] + _SIGNS * boxes[:, None, 3:]  # (n, 8, 3)
        turns = self.data.geom_xmat[geoms].reshape(-1, 3, 3)
        return np.einsum("nij,nkj->nki", turns, local) + self.data.geom_xpos[geoms][:, None]
