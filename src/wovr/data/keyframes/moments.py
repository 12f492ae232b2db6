"""Task-critical moments of one episode, from its actions, pictures and success labels (paper, section 4.2).

The paper names contacts, corrections and failures and leaves open how they are found. Here: where the gripper is told
to close or open for good, where a failed episode first looks like nothing a successful one of its task showed, and the
first success. Where a simulator's states are understood, also what they alone can tell: a missed approach, a dropped
object, a pushed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_COMMAND = 1 / 3
"""A gripper's command beyond this, of 1, is one to close or to open; between the two it keeps what it was told."""

_FEATURE_SIDE = 16
"""Rows and columns of the small picture by which frames are compared."""

_LASTING = 4
"""Frames for which a picture has to stay strange, or an object unheld, to count."""

_PUSHED = 0.01
"""Metres an object moves within _LASTING frames when it is pushed."""


@dataclass(frozen=True)
class Moment:
    """Something critical that happens in an episode.

    Attributes:
        kind: One of `keyframes.KINDS`.
        frame: Index of the frame from which it is done or seen.
        failure: It went wrong.
    """

    kind: str
    frame: int
    failure: bool


class Scene(Protocol):
    """What simulator states say of a scene, see `wovr.envs.scenes.ScenePositions`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the n points, `gripper` among them."""

    @property
    def positions(self) -> np.ndarray:
        """(T, n, 3) float, metres."""

    @property
    def movable(self) -> np.ndarray:
        """(n,) bool, an object."""

    @property
    def held(self) -> np.ndarray:
        """(T, n) bool."""


@dataclass(frozen=True)
class Hold:
    """The gripper is told to be closed.

    Attributes:
        close: Index of the action that closes it, which is the frame the policy saw.
        open: Index of the action that opens it again; None where none does.
    """

    close: int
    open: int | None


def find_holds(commands: np.ndarray, stay: int) -> list[Hold]:
    """When a gripper was told to be closed; a command given for fewer than `stay` actions is passed over.

    Args:
        commands: (T - 1,) float, the gripper's part of the actions: positive closes, negative opens.
        stay: Actions a command has to last.

    Returns:
        The holds in order. An episode that begins closed has its first hold after it was opened.
    """
    told = np.where(commands > _COMMAND, 1, np.where(commands < -_COMMAND, -1, 0))
    known = np.flatnonzero(told)
    if not len(known):
        return []
    # The last command that was one, before the first of them the first.
    latest = np.maximum.accumulate(np.where(told != 0, np.arange(len(told)), known[0]))
    closed = told[latest] > 0
    holds: list[Hold] = []
    state, begun = bool(closed[0]), None
    for t in range(1, len(closed)):
        lasting = t + stay <= len(closed) and bool((closed[t : t + stay] == closed[t]).all())
        if closed[t] == state or not lasting:
            continue
        state = bool(closed[t])
        if state:
            begun = t
        elif begun is not None:
            holds.append(Hold(begun, t))
            begun = None
    return holds if begun is None else [*holds, Hold(begun, None)]


def gripper_moments(holds: Sequence[Hold], end: int | None, least_hold: int, scene: Scene | None) -> list[Moment]:
    """Closings, and openings after a hold that was long enough to carry something.

    A closing is a failure when the gripper opens and closes again before the first success or there is none; with a
    scene, when nothing was held meanwhile. An opening is one when the episode fails.

    Args:
        holds: Of the episode.
        end: Frame of the first success, or None.
        least_hold: Actions of a hold that counts as carrying.
        scene: What the states say, or None.
    """
    before = [hold for hold in holds if end is None or hold.close < end]
    moments = []
    for number, hold in enumerate(before):
        failed = end is None or number < len(before) - 1
        if scene is not None:
            failed = not _held(scene, hold.close, hold.open)
        moments.append(Moment("grasp", hold.close, failed))
        if hold.open is None or hold.open - hold.close < least_hold or (end is not None and hold.open >= end):
            continue
        if scene is None or _held(scene, hold.open - 1, hold.open):
            moments.append(Moment("release", hold.open, end is None))
    return moments


def _held(scene: Scene, first: int, last: int | None) -> bool:
    """Anything is held in one of the frames first .. last."""
    return bool(scene.held[first : None if last is None else last + 1].any())


def scene_moments(scene: Scene, holds: Sequence[Hold], end: int | None) -> list[Moment]:
    """What only states tell: a missed approach, drops from the closed gripper, pushes.

    Args:
        scene: What the states say.
        holds: Of the episode.
        end: Frame of the first success, or None.
    """
    stop = len(scene.positions) if end is None else end
    objects = scene.positions[:stop, scene.movable]  # (T, objects, 3)
    held = scene.held[:stop, scene.movable]
    moments = []
    if end is None and objects.shape[1] and not held.any():
        gripper = scene.positions[:stop, [scene.names.index("gripper")]]
        moments.append(Moment("approach", int(np.linalg.norm(objects - gripper, axis=2).min(axis=1).argmin()), True))
    closed = [range(hold.close, stop if hold.open is None else hold.open - 1) for hold in holds]
    for column in range(objects.shape[1]):
        has = held[:, column]
        for t in np.flatnonzero(has[:-1] & ~has[1:]).tolist():
            if not has[t + 1 : t + 1 + _LASTING].any() and any(t in hold for hold in closed):
                moments.append(Moment("drop", t, True))
        moved = np.linalg.norm(objects[_LASTING:, column] - objects[:-_LASTING, column], axis=1) > _PUSHED
        for t in np.flatnonzero(moved).tolist():
            # An object that is about to be held, is held, or falls and rolls after it was, is not pushed.
            if not has[max(0, t - 2 * _LASTING) : t + 2 * _LASTING].any():
                moments.append(Moment("push", t, end is None))
                break
    return moments


def small_pictures(frames: np.ndarray) -> np.ndarray:
    """Frames made small and compared with the first, so that what stands differently at the start counts little.

    Args:
        frames: (T, H, W, 3) uint8, of a whole episode.

    Returns:
        (T, features) float32; the distance of two is the root mean square difference in grey levels.
    """
    small: np.ndarray = frames.astype(np.float32)
    for axis in (1, 2):
        size = small.shape[axis]
        edges = np.linspace(0, size, min(_FEATURE_SIDE, size) + 1).round().astype(int)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        small = np.add.reduceat(small, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    features = (small - small[:1]).reshape(len(frames), -1)
    return features / np.float32(np.sqrt(features.shape[1]))


class Familiar:
    """The looks of a task's successful episodes, and how near to them a frame usually is.

    Args:
        successes: (T, features) of each successful episode, from `small_pictures`; at least two.
        quantile: Share of the successful frames that count as near each other, in (0, 1).

    Attributes:
        threshold: Distance beyond which a frame is strange: that quantile of the distances of every successful frame to
            the nearest frame of the other successful episodes.
    """

    def __init__(self, successes: Sequence[np.ndarray], quantile: float) -> None:
        self._successes = successes
        usual = [
            self._nearest(features, [other for j, other in enumerate(successes) if j != i])
            for i, features in enumerate(successes)
        ]
        self.threshold = float(np.quantile(np.concatenate(usual), quantile))

    def parting(self, features: np.ndarray) -> int | None:
        """The last familiar frame before a lasting strangeness of a failed episode; None where there is none.

        Args:
            features: (T, features) float32 of that episode.
        """
        strange = self._nearest(features, self._successes) > self.threshold
        for t in range(1, len(strange)):
            if strange[t : t + _LASTING].all() and len(strange) - t >= _LASTING:
                return t - 1
        return None

    @staticmethod
    def _nearest(features: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
        """(T,) distance of each frame to the nearest of the others' frames."""
        stacked = np.concatenate(others)
        square = (features**2).sum(1)[:, None] + (stacked**2).sum(1) - 2 * features @ stacked.T  # (T, all)
        return np.sqrt(np.maximum(square.min(axis=1), 0))
