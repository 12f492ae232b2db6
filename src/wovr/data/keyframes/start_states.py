"""A pool of start states to imagine (or simulate) from: first frames of episodes and keyframes (paper, section 4.2).

The share of keyframe starts is a number, not a count of files: a draw holds that share whatever the two pools hold.
Torch-free.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wovr.data.keyframes.store import Keyframe, KeyframeSet, load_keyframes
from wovr.data.store.origin import Origin
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError, choose_from
from wovr.runs import fingerprint
from wovr.types import StartState, TaskInfo

TaskKey = tuple[str, int]
"""(suite, index)."""


class TaskPool:
    """The tasks that start states are of, as an imagined environment asks for them."""

    _infos: dict[TaskKey, TaskInfo]

    @property
    def tasks(self) -> list[TaskInfo]:
        """The tasks, by suite and index; `num_init_states` counts the stored first frames."""
        return list(self._infos.values())

    def instruction(self, suite: str, task: int) -> str:
        """The sentence most episodes of a task were given.

        Raises:
            UserError: No episode of that task.
        """
        return self._info(suite, task).instruction

    def horizon(self, suite: str, task: int) -> int:
        """Actions of a rollout that starts at a first frame of a task.

        Raises:
            UserError: No episode of that task.
        """
        return self._info(suite, task).horizon

    def _info(self, suite: str, task: int) -> TaskInfo:
        if (suite, task) not in self._infos:
            known = ", ".join(f"{name} {index}" for name, index in self._infos)
            raise UserError(f"no start state of task {suite} {task}", f"there are: {known}")
        return self._infos[suite, task]


class StartStates(TaskPool):
    """Start states of stored episodes, drawn in balance over their tasks.

    Args:
        folders: Folders of episodes; their first frames are the starts of whole rollouts.
        keyframes: Folder written by `wovr data keyframes` from some or all of these episodes; None for none.
        keyframe_share: Share of a draw that starts at keyframes, in [0, 1].
        suites: Suites to keep; empty for all.
        tasks: Task indices to keep; empty for all.
        horizon: Actions of a rollout from a first frame, whatever the task; None for the longest stored episode of
            the task. A keyframe's rollout has what is left of it.

    Attributes:
        starts: The first frames, in the order of the episodes.
        keyframe_starts: The keyframes, in the order of their folder.
        keyframe_share: As given.
        image_size: (H, W).
        action_dim: A.
        proprio_dim: P of every start; 0 where the episodes do not all have the same proprioception, and no start any.
        fps: Control rate, Hz.
        action_repeat: Steps of the simulator an action takes; None where the episodes do not say.
        fingerprint: 16 hexadecimal digits that stand for the episodes.
        origin: Where the episodes say they come from.

    Raises:
        UserError: A folder is missing or broken; no episode of a suite or task; a keyframe folder that is empty, of
            other episodes, or without a keyframe of these tasks; a share out of its range or without keyframes.
    """

    def __init__(
        self,
        folders: Sequence[Path | str],
        keyframes: Path | str | None = None,
        keyframe_share: float = 0.0,
        *,
        suites: Sequence[str] = (),
        tasks: Sequence[int] = (),
        horizon: int | None = None,
    ) -> None:
        if not 0 <= keyframe_share <= 1:
            raise UserError(f"keyframe_share is {keyframe_share}", "give a number from 0 to 1")
        if keyframe_share > 0 and keyframes is None:
            raise UserError(
                f"keyframe_share is {keyframe_share} but no folder of keyframes is given",
                "make one with: wovr data keyframes DIR --out OUT, and name it, or set keyframe_share to 0",
            )
        if horizon is not None and horizon < 1:
            raise UserError(f"a horizon of {horizon} actions", "give at least 1")
        store = EpisodeStore(*folders)
        self.keyframe_share = float(keyframe_share)
        self.image_size = store.image_size
        self.action_dim = store.action_dim
        self.proprio_dim = store.proprio_dim
        self.fps = float(store.datasets[0]["fps"])
        self.action_repeat = store.action_repeat
        self.fingerprint = store.fingerprint
        self.origin = Origin.of(store)
        chosen = _choose_episodes(store, suites, tasks)
        self.starts: list[StartState] = []
        self._infos = {}
        by_task: dict[TaskKey, list[int]] = {}
        for index in chosen:
            meta = store.entries[index].meta
            by_task.setdefault((meta.suite, meta.task), []).append(index)
            states = store.sim_state(index)
            proprio = store.proprio(index) if self.proprio_dim else None
            camera = store.camera(index) if store.has_cameras else None
            self.starts.append(
                StartState(
                    suite=meta.suite,
                    task=meta.task,
                    init_state=max(0, meta.init_state),
                    sim_state=None if states is None else states[0],
                    reference=store.frames(index, 0, 1)[0],
                    proprio=None if proprio is None else proprio[0],
                    camera=None if camera is None else camera[0],
                )
            )
        for (suite, task), indices in sorted(by_task.items()):
            said = Counter(store.entries[index].meta.instruction for index in indices)
            instruction = max(sorted(said), key=lambda sentence: said[sentence])
            longest = max(store.entries[index].num_actions for index in indices)
            name = re.sub(r"\W+", "_", instruction.lower()).strip("_") or f"task_{task}"
            self._infos[suite, task] = TaskInfo(
                suite, task, name, instruction, longest if horizon is None else horizon, len(indices)
            )
        self._by_task = _group(self.starts)
        self.keyframe_starts: list[StartState] = []
        if keyframes is not None:
            self.keyframe_starts = self._load(Path(keyframes), store, horizon)
        self._keyframes_by_task = _group(self.keyframe_starts)

    def draw(self, count: int, generator: np.random.Generator) -> list[StartState]:
        """Draw start states, as evenly over the tasks as their number allows.

        Within a task every state comes once before any comes twice. The number of keyframes is `count *
        keyframe_share`, rounded up or down at random so that the share is met on average.

        Args:
            count: How many, >= 0.
            generator: Where the choice comes from; the same state of it gives the same starts.

        Returns:
            `count` start states in random order; each has a `reference`, a keyframe also `memory`, `memory_actions`
            and `horizon`.
        """
        exact = count * self.keyframe_share
        num_keyframes = int(exact) + int(generator.random() < exact - int(exact))
        dealt: Counter[TaskKey] = Counter()
        # Keyframes first: tasks that have none are made up for by first frames.
        drawn = _deal(self.keyframe_starts, self._keyframes_by_task, num_keyframes, dealt, generator)
        drawn += _deal(self.starts, self._by_task, count - num_keyframes, dealt, generator)
        return [drawn[i] for i in generator.permutation(count)]

    def keep(self, starts: np.ndarray, keyframes: np.ndarray) -> None:
        """Draw from some start states only; of a task without one among the first frames, from all of these.

        Args:
            starts: (len(starts),) bool, the first frames to keep.
            keyframes: (len(keyframe_starts),) bool, the keyframes to keep.
        """
        for indices in self._by_task.values():
            kept = [index for index in indices if starts[index]]
            indices[:] = kept or indices
        by_task = {task: [i for i in indices if keyframes[i]] for task, indices in self._keyframes_by_task.items()}
        self._keyframes_by_task = {task: indices for task, indices in by_task.items() if indices}

    def _load(self, folder: Path, store: EpisodeStore, horizon: int | None) -> list[StartState]:
        found = load_keyframes(folder)
        _check_origin(folder, found, store)

        def fits(keyframe: Keyframe) -> bool:
            return (keyframe.suite, keyframe.task) in self._infos and (horizon is None or horizon > keyframe.frame)

        kept = [keyframe.start_state(horizon) for keyframe in found.keyframes if fits(keyframe)]
        if not kept:
            least = "" if horizon is None else f" that begins before frame {horizon}"
            raise UserError(
                f"{folder}: none of its {len(found.keyframes)} keyframes (of {', '.join(found.suites)}) is of the "
                f"chosen tasks ({', '.join(f'{suite} {task}' for suite, task in self._infos)}){least}",
                "choose other suites or tasks, or find keyframes of these",
            )
        return kept


def _choose_episodes(store: EpisodeStore, suites: Sequence[str], tasks: Sequence[int]) -> list[int]:
    """Indices of the episodes of these suites and tasks; every one that is asked for must be there."""
    names = ", ".join(map(str, store.folders))
    there = sorted({entry.meta.suite for entry in store.entries})
    for suite in suites:
        if suite not in there:
            raise UserError(f"{names}: no episode of suite '{suite}'", choose_from(suite, there))
    chosen = [
        index
        for index, entry in enumerate(store.entries)
        if (not suites or entry.meta.suite in suites) and (not tasks or entry.meta.task in tasks)
    ]
    missing = sorted(set(tasks) - {store.entries[index].meta.task for index in chosen})
    if missing:
        known = sorted({entry.meta.task for entry in store.entries if not suites or entry.meta.suite in suites})
        raise UserError(
            f"{names}: no episode of task {', '.join(map(str, missing))}",
            f"the tasks there are {', '.join(map(str, known))}",
        )
    return chosen


def _check_origin(folder: Path, found: KeyframeSet, store: EpisodeStore) -> None:
    """The keyframes are of these episodes, or of some of their folders."""
    for name, value, expected in (
        ("images", found.image_size, store.image_size),
        ("action dimensions", found.action_dim, store.action_dim),
        ("proprioception dimensions", found.proprio_dim, store.proprio_dim),
    ):
        if value != expected:
            raise UserError(
                f"{folder}: keyframes have {name} {value}, the episodes {expected}",
                "use keyframes found in these episodes",
            )
    if not set(found.datasets) <= {fingerprint(dataset) for dataset in store.datasets}:
        raise UserError(
            f"{folder}: keyframes of other episodes ({', '.join(found.suites)}) than those in "
            f"{', '.join(map(str, store.folders))}",
            "name the folders they were found in, or find them again with: wovr data keyframes DIR --out OUT",
        )


def _group(starts: Sequence[StartState]) -> dict[TaskKey, list[int]]:
    groups: dict[TaskKey, list[int]] = {}
    for index, start in enumerate(starts):
        groups.setdefault((start.suite, start.task), []).append(index)
    return dict(sorted(groups.items()))


def _deal(
    starts: Sequence[StartState],
    by_task: dict[TaskKey, list[int]],
    count: int,
    dealt: Counter[TaskKey],
    generator: np.random.Generator,
) -> list[StartState]:
    """Draw `count` states, each of a task that so far has the fewest; `dealt` is counted on."""
    wanted: Counter[TaskKey] = Counter()
    for _ in range(count):
        least = min(dealt[task] for task in by_task)
        candidates = [task for task in by_task if dealt[task] == least]
        task = candidates[int(generator.integers(len(candidates)))]
        dealt[task] += 1
        wanted[task] += 1
    drawn = []
    for task, indices in by_task.items():
        rounds = -(-wanted[task] // len(indices))
        order = [i for _ in range(rounds) for i in generator.permutation(len(indices)).tolist()]
        drawn += [starts[indices[i]] for i in order[: wanted[task]]]
    return drawn
