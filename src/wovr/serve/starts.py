"""Where a game begins: any frame of any stored episode, or a keyframe; read when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.keyframes.start_states import TaskPool
from wovr.data.keyframes.store import load_keyframes
from wovr.data.store.origin import Origin
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError, choose_from
from wovr.types import MAX_FRAMES, StartState, TaskInfo

MOST_ACTIONS = MAX_FRAMES - 1
"""Actions of a game, so that what was played can be stored as an episode."""

MOST_LISTED = 100
"""Episodes of a task, and keyframes, that are offered; evenly spread over those there are."""


class StoredStarts(TaskPool):
    """The pool of an imagined environment (`wovr.envs.imagined.starts.StartPool`), of which nothing is read beforehand.

    Args:
        folders: Folders of episodes.
        keyframes: Folder written by `wovr data keyframes`; None for none.
        suites: Suites to keep; empty for all.

    Raises:
        UserError: A folder is missing or broken, no episode of a suite, keyframes of another size.
    """

    def __init__(self, folders: Sequence[Path | str], keyframes: Path | str | None = None, suites: Sequence[str] = ()):
        self.store = store = EpisodeStore(*folders)
        self.image_size, self.action_dim = store.image_size, store.action_dim
        self.fps = float(store.datasets[0]["fps"])
        self.action_repeat = store.action_repeat
        self.origin = Origin.of(store)
        there = sorted({entry.meta.suite for entry in store.entries})
        for suite in suites:
            if suite not in there:
                raise UserError(
                    f"{', '.join(map(str, folders))}: no episode of suite '{suite}'", choose_from(suite, there)
                )
        found: dict[tuple[str, int], list[int]] = {}
        for index, entry in enumerate(store.entries):
            if not suites or entry.meta.suite in suites:
                found.setdefault((entry.meta.suite, entry.meta.task), []).append(index)
        self.episodes = {task: _spread(indices) for task, indices in sorted(found.items())}
        self._infos = {
            (suite, task): TaskInfo(suite, task, f"task_{task}", self._sentence(indices), MOST_ACTIONS, len(indices))
            for (suite, task), indices in self.episodes.items()
        }
        self.keyframes = [] if keyframes is None else self._load(Path(keyframes))

    def draw(self, count: int, generator: np.random.Generator) -> list[StartState]:
        """First frames of episodes drawn at random."""
        tasks = list(self.episodes)
        drawn = [tasks[int(generator.integers(len(tasks)))] for _ in range(count)]
        return [self.start(*task, int(generator.integers(len(self.episodes[task]))), 0) for task in drawn]

    def start(self, suite: str, task: int, episode: int, frame: int, memory: int = 1) -> StartState:
        """A frame of a stored episode as a start state.

        Args:
            suite: Suite name.
            task: Index of the task.
            episode: Which of the task's episodes, as they are offered.
            frame: Frame of it; the episode's last one where it has fewer.
            memory: Frames up to and including that one which imagination is shown.

        Raises:
            UserError: No such task or episode, or it is damaged.
        """
        self._info(suite, task)
        indices = self.episodes[suite, task]
        if not 0 <= episode < len(indices):
            raise UserError(f"task {suite} {task} has no episode {episode}", f"choose 0 to {len(indices) - 1}")
        index = indices[episode]
        entry = self.store.entries[index]
        frame = max(0, min(frame, entry.num_frames - 1))
        states = self.store.sim_state(index)
        proprio = self.store.proprio(index) if self.store.proprio_dim else None
        start = StartState(
            suite,
            task,
            init_state=max(0, entry.meta.init_state),
            sim_state=None if states is None else states[frame],
            reference=self.store.frames(index, 0, 1)[0],
            proprio=None if proprio is None else proprio[frame],
        )
        if frame == 0:
            return start
        first = max(1, frame - memory + 1)  # frame 0 is the reference; no action produced it
        frames = self.store.frames(index, first, frame + 1)
        actions = self.store.actions(index)[first - 1 : frame]
        return replace(start, memory=frames, memory_actions=actions, horizon=MOST_ACTIONS - frame)

    def described(self) -> dict[str, Any]:
        """JSON values for the page: tasks with the lengths of their episodes, keyframes."""
        return {
            "tasks": [
                {
                    "suite": info.suite,
                    "task": info.index,
                    "instruction": info.instruction,
                    "episodes": [
                        {"key": entry.key, "frames": entry.num_frames, "succeeded": entry.succeeded}
                        for entry in (self.store.entries[index] for index in self.episodes[info.suite, info.index])
                    ],
                }
                for info in self.tasks
            ],
            "keyframes": [
                {"suite": one.suite, "task": one.task, "kind": one.kind, "episode": one.episode, "frame": one.frame}
                for one in self.keyframes
            ],
        }

    def keyframe(self, number: int) -> StartState:
        """A keyframe as a start state.

        Raises:
            UserError: There is none of that number.
        """
        if not 0 <= number < len(self.keyframes):
            raise UserError(f"there is no keyframe {number}", f"there are {len(self.keyframes)}")
        return self.keyframes[number].start_state(MOST_ACTIONS)

    def _load(self, folder: Path) -> list[Any]:
        found = load_keyframes(folder)
        for name, value, expected in (
            ("images", found.image_size, self.image_size),
            ("action dimensions", found.action_dim, self.action_dim),
        ):
            if value != expected:
                raise UserError(
                    f"{folder}: keyframes have {name} {value}, the episodes {expected}",
                    "use keyframes found in these episodes",
                )
        ours = [one for one in found.keyframes if (one.suite, one.task) in self._infos and one.frame < MOST_ACTIONS]
        return [ours[place] for place in _spread(list(range(len(ours))))]

    def _sentence(self, indices: Sequence[int]) -> str:
        said = [self.store.entries[index].meta.instruction for index in indices]
        return max(sorted(set(said)), key=said.count)


def _spread(indices: Sequence[int]) -> list[int]:
    """At most MOST_LISTED of them, evenly spread."""
    count = min(len(indices), MOST_LISTED)
    return [indices[place] for place in np.linspace(0, len(indices) - 1, count).round().astype(int)] if count else []
