"""A game: what was played, where it stands, and how single actions go together with a model of chunks.

The world model imagines K frames at once, given K actions. While an action is held, the chunk in play was imagined as
if it stayed held to the chunk's end, and its frames are shown one by one. When the action changes within a chunk, the
chunk is imagined again from its beginning: with the actions that were executed, then the new one held. So whatever the
hand does, a chunk that is finished was imagined under exactly the actions that were executed in it, as in training.
Frames already shown may come out a little different when their chunk is imagined again; what is remembered, rewound to
and saved is the last of it, which is what imagination itself goes on from.

Moments are kept chunk by chunk, so any frame can be gone back to. Whoever does something else there begins a branch;
whoever does the same sees the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wovr.errors import UserError
from wovr.serve.beside import RealFrames, pixels_apart
from wovr.serve.engine import Beginning, Engine, Stretch
from wovr.serve.starts import MOST_ACTIONS

HAND = "hand"
"""Driver: whoever sits at the page."""

MOST_BRANCHES = 8
"""Branches that are kept; the one that was left longest ago goes first."""


@dataclass
class Branch:
    """One course of a game.

    Attributes:
        number: Counts up over the game.
        parent: Number of the branch it left; -1 for the first one.
        left_at: Frame at which it left.
        stretches: Its chunks, shared with the branch it left where they are the same.
        length: Frames played, the first one not counted.
        used: When it was last played, a count.
    """

    number: int
    parent: int = -1
    left_at: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    length: int = 0
    used: int = 0


@dataclass(frozen=True)
class Seen:
    """A frame, as it is shown.

    Attributes:
        at: Its number in the game, 0 for the first.
        frame: (H, W, 3) uint8, imagined.
        real: (H, W, 3) uint8, the simulator's; None where there is none.
        values: Numbers about it: bars, `success`, `apart`, `real_success`.
        action: (A,) float32 that produced it; None for the first.
        driver: Who chose that; empty for the first.
    """

    at: int
    frame: np.ndarray
    real: np.ndarray | None
    values: dict[str, float]
    action: np.ndarray | None
    driver: str


class Game:
    """What one tab plays. Not for several threads at once.

    Args:
        engine: Imagines.
        beginning: Where it begins.
        seed: Of its noise.

    Attributes:
        at: The frame it stands at.
        branch: The branch it stands on.
        branches: All that are kept, by number.
    """

    def __init__(self, engine: Engine, beginning: Beginning, seed: int) -> None:
        self.engine, self.beginning, self.seed = engine, beginning, seed
        self.most = min(MOST_ACTIONS, int(beginning.snapshot.left[0]))
        self.branch = Branch(0)
        self.branches = {0: self.branch}
        self.at = 0
        self._count = self._draws = self._choices = 0
        self._anew = False

    @property
    def over(self) -> bool:
        """Whether there is no action left."""
        return self.at >= self.most

    @property
    def seconds(self) -> float:
        """What imagining the chunk in play took."""
        place = min(self.at // self.engine.chunk, len(self.branch.stretches) - 1)
        return self.branch.stretches[place].seconds if place >= 0 else 0.0

    def steer(self, action: np.ndarray) -> None:
        """Execute an action of the hand's.

        Args:
            action: (A,) float32 in [-1, 1].

        Raises:
            UserError: The game is over.
        """
        if not self.foresees(action):
            self.prepare(action)
        self.advance()

    def foresees(self, action: np.ndarray) -> bool:
        """Whether the next frame was imagined under this action already."""
        found, place = self._open()
        same = found is not None and np.array_equal(found.actions[place], action)
        return found is not None and same and (self.at < self.branch.length or found.drivers[place] == HAND)

    def prepare(self, action: np.ndarray) -> None:
        """Imagine the chunk in play as if an action of the hand's was held to its end."""
        self._imagine(np.tile(action, (self.engine.chunk, 1)), HAND)

    def decided(self, driver: str) -> bool:
        """Whether a driver has chosen the next action already: earlier in the chunk, or in what is played again."""
        found, place = self._open()
        return found is not None and found.drivers[place] == driver and not self._anew

    def decide(self, driver: str, temperature: float) -> None:
        """Let a driver choose the actions to the end of the chunk, and imagine them.

        Args:
            driver: A policy or the expert, see `Engine.drivers`.
            temperature: Of a policy's sampling.

        Raises:
            UserError: Nobody of that name, or who cannot act here.
        """
        now = self.seen()
        self._choices += 1
        state = self._state(self.at)
        seed = (self.seed, self._choices)
        actions = self.engine.act(driver, self.beginning.start, now.frame, temperature, seed, state)
        self._anew = False
        self._imagine(np.clip(actions, -1.0, 1.0), driver)

    def advance(self) -> None:
        """Go to the next frame, which has been imagined.

        Raises:
            UserError: The game is over.
        """
        found, place = self._open()
        if self.over or found is None or place >= len(found):
            raise UserError("the game has no action left", "rewind, or begin another one")
        self.at, self._anew = self.at + 1, False
        self.branch.length = max(self.branch.length, self.at)
        self._count += 1
        self.branch.used = self._count

    def rewind(self, at: int, branch: int | None = None) -> None:
        """Stand at another frame, of this branch or another one; nothing is forgotten.

        Raises:
            UserError: There is no such frame or branch.
        """
        if branch is not None and branch not in self.branches:
            raise UserError(f"there is no branch {branch}", f"there are: {', '.join(map(str, self.branches))}")
        there = self.branch if branch is None else self.branches[branch]
        if not 0 <= at <= there.length:
            raise UserError(f"branch {there.number} has no frame {at}", f"choose 0 to {there.length}")
        self.branch, self.at, self._anew = there, at, True

    def redraw(self) -> None:
        """Imagine the chunk that led here with other noise, under the same actions; a branch of its own.

        Raises:
            UserError: Nothing was imagined yet.
        """
        if self.at == 0:
            raise UserError("nothing was imagined yet", "drive first")
        place = (self.at - 1) // self.engine.chunk
        old = self.branch.stretches[place]
        self._draws += 1
        noise = np.random.default_rng([self.seed, self._draws]).integers(2**63)
        before = old.before.reseeded([int(noise)] * len(old.before.rows))
        state = self._state(place * self.engine.chunk)
        new = self.engine.imagine(self.beginning.start, before, old.actions, old.drivers, state, old.real)
        self._leave(self.at)
        self.branch.stretches = [*self.branch.stretches[:place], new]
        self.branch.length = self.at
        self._anew = True

    def seen(self, at: int | None = None) -> Seen:
        """A frame of this branch, the one it stands at unless given."""
        at = self.at if at is None else at
        begin = self.beginning
        if at == 0:
            real = None if begin.real is None else begin.real.frames[0]
            values = {} if real is None else {"apart": pixels_apart(begin.frame, real)}
            return Seen(0, begin.frame, real, values, None, "")
        stretch, place = self.branch.stretches[(at - 1) // self.engine.chunk], (at - 1) % self.engine.chunk
        values = {name: float(bar[place]) for name, bar in stretch.bars.items()}
        values["success"] = float(stretch.success[place])
        real = None
        if stretch.real is not None:
            real = stretch.real.frames[place]
            values |= {
                "apart": pixels_apart(stretch.frames[place], real),
                "real_success": float(stretch.real.success[place]),
            }
        return Seen(at, stretch.frames[place], real, values, stretch.actions[place], stretch.drivers[place])

    def course(self) -> dict[str, Any]:
        """JSON values: the branches, and the numbers of the one it stands on, frame by frame."""
        all_seen = [self.seen(at) for at in range(self.branch.length + 1)]
        names = sorted({name for one in all_seen for name in one.values})
        return {
            "at": self.at,
            "branch": self.branch.number,
            "most": self.most,
            "branches": [
                {"number": one.number, "parent": one.parent, "left_at": one.left_at, "length": one.length}
                for one in self.branches.values()
            ],
            "series": {name: [_rounded(one.values.get(name)) for one in all_seen] for name in names},
            "drivers": [one.driver for one in all_seen],
        }

    def actions(self) -> np.ndarray:
        """(length, A) float32, all actions of this branch."""
        found = [one.actions for one in self.branch.stretches]
        dims = self.engine.env.action_dim
        return np.concatenate([*found, np.zeros((0, dims), np.float32)])[: self.branch.length]

    def _open(self) -> tuple[Stretch | None, int]:
        """The chunk that the next frame is of, if it was imagined, and the frame's place in it."""
        index, place = divmod(self.at, self.engine.chunk)
        there = index < len(self.branch.stretches)
        return (self.branch.stretches[index] if there else None), place

    def _imagine(self, actions: np.ndarray, driver: str) -> None:
        """Imagine the chunk in play: what was executed, then the first of `actions` (K, A) that still fit."""
        if self.over:
            raise UserError("the game has no action left", "rewind, or begin another one")
        chunk = self.engine.chunk
        old, place = self._open()
        index, first = self.at // chunk, self.at - place
        done = actions[:0] if old is None else old.actions[:place]
        drivers: Sequence[str] = () if old is None else old.drivers[:place]
        before = self._before(index)
        known: RealFrames | None = None
        if old is not None and old.real is not None:
            known = old.real.first(place)
        new = self.engine.imagine(
            self.beginning.start,
            before,
            np.concatenate([done, actions[: chunk - place]]).astype(np.float32),
            [*drivers, *[driver] * (chunk - place)],
            self._state(first),
            known,
        )
        if self.at < self.branch.length:
            self._leave(self.at)
        self.branch.stretches = [*self.branch.stretches[:index], new]

    def _leave(self, at: int) -> None:
        """Begin a branch here."""
        while len(self.branches) >= MOST_BRANCHES:
            others = [one for one in self.branches.values() if one is not self.branch]
            del self.branches[min(others, key=lambda one: one.used).number]
        self._count += 1
        number = max(self.branches) + 1
        self.branch = Branch(number, self.branch.number, at, list(self.branch.stretches), at, self._count)
        self.branches[number] = self.branch

    def _before(self, index: int) -> Any:
        """Imagination at the beginning of a chunk."""
        stretches = self.branch.stretches
        if index < len(stretches):
            return stretches[index].before
        return stretches[index - 1].after if index else self.beginning.snapshot

    def _state(self, at: int) -> np.ndarray | None:
        """(S,) float64, the simulator's state at a frame; None without a simulator."""
        if self.beginning.real is None:
            return None
        if at == 0:
            return self.beginning.real.states[0]
        real = self.branch.stretches[(at - 1) // self.engine.chunk].real
        return None if real is None else real.states[(at - 1) % self.engine.chunk]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
