"""What was played, kept: as an episode in the store's format, or as a film."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.pictures import write_preview
from wovr.data.store.saving import save_episodes
from wovr.errors import UserError
from wovr.serve.game import Game
from wovr.types import Episode, EpisodeMeta

MOST_KEPT = 200
"""Things that one server keeps, so that no page fills the disk."""


class Keeper:
    """Writes games into a folder, each under a name of its own; the pages have no say in names.

    Args:
        folder: Where they go; made with the first.
        world_model: Fingerprint of what imagined them.
    """

    def __init__(self, folder: Path, world_model: str) -> None:
        self.folder, self.world_model = folder, world_model
        self.films: dict[str, Path] = {}
        self._count = 0

    def keep(self, game: Game, what: str) -> Path:
        """Keep the branch that a game stands on, all of it.

        Args:
            game: The game.
            what: `imagined`, `real` (the simulator's frames and states, as a collected episode) or `mp4`.

        Returns:
            Where it is.

        Raises:
            UserError: Nothing was played, there is no simulator, too much was kept, or the disk is full.
        """
        if game.branch.length == 0:
            raise UserError("nothing was played yet", "drive first")
        if what == "real" and game.beginning.real is None:
            raise UserError("there is no simulator beside this game", "save what was imagined")
        if self._count >= MOST_KEPT:
            raise UserError(f"{self.folder}: {MOST_KEPT} things were kept since the start", "start the server again")
        self._count += 1
        place = self._place(what)
        if what == "mp4":
            write_preview(place, film(game), game.engine.fps)
            self.films[place.name] = place
        else:
            save_episodes(place, [self._episode(game, what)])
        return place

    def _place(self, what: str) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        ending = ".mp4" if what == "mp4" else ""
        number = self._count
        while (place := self.folder / f"{stamp}-{what}-{number}{ending}").exists():
            number += 1
        return place

    def _episode(self, game: Game, what: str) -> Episode:
        start, engine = game.beginning.start, game.engine
        seen = [game.seen(at) for at in range(game.branch.length + 1)]
        drivers = sorted({one.driver for one in seen if one.driver})
        source = f"imagined by {self.world_model}"
        states: dict[str, Any] = {}
        frames, success = [one.frame for one in seen], [one.values.get("success", 0.0) for one in seen]
        if what == "real":
            assert engine.simulator is not None
            source = engine.simulator.name
            frames = [one.real for one in seen if one.real is not None]
            success = [one.values.get("real_success", 0.0) for one in seen]
            states = _states(game)
        if len(frames) < len(seen):
            raise UserError("the simulator did not follow the whole game", "save what was imagined")
        meta = EpisodeMeta(
            instruction=engine.starts.instruction(start.suite, start.task),
            suite=start.suite,
            task=start.task,
            seed=game.seed,
            fps=engine.fps,
            policy="+".join(drivers),
            source=source,
            init_state=start.init_state if start.memory is None else -1,
        )
        key = f"{re.sub(r'[^A-Za-z0-9_-]', '-', start.suite)}-{self._count:06d}"
        return Episode(key, np.stack(frames), game.actions(), np.array(success) > 0, meta, **states)


def film(game: Game) -> np.ndarray:
    """(T, H, W or 2 W and a gap, 3) uint8, the branch a game stands on: real on the left where there is one."""
    frames = []
    for at in range(game.branch.length + 1):
        seen = game.seen(at)
        gap = np.full((len(seen.frame), 2, 3), 255, np.uint8)
        frames.append(seen.frame if seen.real is None else np.concatenate([seen.real, gap, seen.frame], axis=1))
    return np.stack(frames)


def _states(game: Game) -> dict[str, np.ndarray]:
    """(T, S) float64 and (T, P) float32 of the simulator."""
    begin = game.beginning.real
    parts = [begin, *(one.real for one in game.branch.stretches)]
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("states", "proprio")}
    length = game.branch.length + 1
    found = {"sim_state": whole["states"][:length]}
    if whole["proprio"].shape[1]:
        found["proprio"] = whole["proprio"][:length]
    return found
