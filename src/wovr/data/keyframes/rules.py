"""Which moments of stored episodes become keyframes, and what is kept of them (paper, section 4.2).

The paper starts "a portion of rollouts" near critical states, "especially failure states encountered by the current
policy", and leaves the rest open. Here an episode gives a few starts, each a random lead before a moment (see
`moments`), of as many kinds as it has; failures are a given share of all; what is left of the horizon must be
long enough to succeed in.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from wovr.data.keyframes.moments import (
    Familiar,
    Hold,
    Moment,
    Scene,
    find_holds,
    gripper_moments,
    scene_moments,
    small_pictures,
)
from wovr.data.keyframes.store import Keyframe, KeyframeSet
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.runs import fingerprint
from wovr.types import EpisodeMeta

SceneReader = Callable[[EpisodeMeta, np.ndarray, str], Scene]
"""(meta data, sim_state (T, S), shard and key) -> what the states say; `wovr.envs.scenes.scene_positions`."""


@dataclass(frozen=True)
class KeyframeRules:
    """How keyframes are chosen.

    Attributes:
        memory: Frames of memory of a keyframe, M; those the world model is given.
        lead: Fewest and most frames between a start and its moment; drawn for each.
        per_episode: Most keyframes of one episode.
        failure_share: Share of the keyframes that are failures, in [0, 1]; met where there are enough of both.
        gripper: Which dimension of an action is the gripper's command.
        closes: Sign of the command that closes it, 1 or -1.
        stay: Actions a gripper's command has to last.
        parting_quantile: Share of the successful frames that count as familiar, see `Familiar`.
        least_horizon: Fewest actions from a failure to the horizon; None for what the median successful episode takes
            from its last closing to success.
        seed: Of what is drawn.

    Raises:
        UserError: A number out of its range.
    """

    memory: int = 4
    lead: tuple[int, int] = (4, 12)
    per_episode: int = 4
    failure_share: float = 0.7
    gripper: int = -1
    closes: int = 1
    stay: int = 2
    parting_quantile: float = 0.95
    least_horizon: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.lead
        for wrong, what, remedy in (
            (self.memory < 1, f"memory is {self.memory}", "give at least 1 frame"),
            (not 1 <= low <= high, f"lead is {low},{high}", "give two numbers of frames, the first at least 1"),
            (self.per_episode < 1, f"per_episode is {self.per_episode}", "give at least 1"),
            (not 0 <= self.failure_share <= 1, f"failure_share is {self.failure_share}", "give a number from 0 to 1"),
            (self.closes not in (-1, 1), f"closes is {self.closes}", "give 1 or -1"),
            (self.stay < 1, f"stay is {self.stay}", "give at least 1 action"),
            (
                not 0 < self.parting_quantile < 1,
                f"parting_quantile is {self.parting_quantile}",
                "give a number between 0 and 1",
            ),
            (
                self.least_horizon is not None and self.least_horizon < 0,
                f"least_horizon is {self.least_horizon}",
                "give at least 0 actions",
            ),
        ):
            if wrong:
                raise UserError(what, remedy)


@dataclass(frozen=True)
class Finding:
    """Keyframes and what was passed over.

    Attributes:
        found: The keyframes.
        index: Index in the store of each keyframe's episode.
        too_short: Episodes with fewer frames than memory and lead need.
        candidates: Kind -> moments that could have become keyframes.
    """

    found: KeyframeSet
    index: list[int]
    too_short: int
    candidates: dict[str, int]


@dataclass(frozen=True)
class _Start:
    """A start that was chosen: `moment.frame - frame` is its lead."""

    episode: int
    frame: int
    moment: Moment


def find_keyframes(
    store: EpisodeStore,
    rules: KeyframeRules,
    read_scene: SceneReader | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> Finding:
    """Find keyframes in episodes of the current policy. The same episodes and rules give the same keyframes.

    Args:
        store: The episodes.
        rules: How to choose.
        read_scene: Understands simulator states; None to use frames, actions and success labels only.
        on_episode: Called after each episode has been looked at.

    Raises:
        UserError: No keyframe in them, no episode as long as a keyframe needs, or no such dimension of an action.
    """
    where = ", ".join(map(str, store.folders))
    if not -store.action_dim <= rules.gripper < store.action_dim:
        raise UserError(
            f"{where}: gripper is dimension {rules.gripper}, actions have {store.action_dim}",
            "give the dimension of the gripper's command, -1 for the last",
        )
    needed = rules.memory + rules.lead[0] + 1  # the first frame that counts as memory was produced by an action
    long_enough = [index for index, entry in enumerate(store.entries) if entry.num_frames >= needed]
    if not long_enough:
        longest = max(entry.num_frames for entry in store.entries)
        raise UserError(
            f"{where}: a keyframe with {rules.memory} frames of memory and a lead of {rules.lead[0]} takes episodes of "
            f"{needed} frames, the longest has {longest}",
            "set --memory or --lead lower, or use longer episodes",
        )
    moments = _Moments(store, rules, read_scene)
    by_task: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index in range(len(store)):
        meta = store.entries[index].meta
        by_task[meta.suite, meta.task].append(index)
    starts: list[_Start] = []
    candidates: Counter[str] = Counter()
    for _, episodes in sorted(by_task.items()):
        horizon = max(store.entries[index].num_actions for index in episodes)
        for index, found in moments.of_task(episodes, on_episode).items():
            fits = [moment for moment in found if _fits(moment, horizon, moments.least_horizon, rules)]
            candidates.update(moment.kind for moment in fits)
            starts += _choose(store, index, fits, rules)
    starts = _share(starts, rules)
    if not starts:
        raise UserError(
            f"{where}: no keyframe in {len(store)} episodes: no gripper command, parting or success at frame "
            f"{rules.memory + rules.lead[0]} or later",
            "set --lead or --memory lower, --gripper and --closes as the robot's, or use other episodes",
        )
    horizons = {task: max(store.entries[i].num_actions for i in episodes) for task, episodes in by_task.items()}
    keyframes = [_cut(store, start, horizons, rules.memory) for start in starts]
    options = asdict(rules) | {"lead": list(rules.lead), "use_sim_state": read_scene is not None}
    datasets = [fingerprint(dataset) for dataset in store.datasets]
    return Finding(
        KeyframeSet(keyframes, datasets, options),
        [start.episode for start in starts],
        len(store) - len(long_enough),
        dict(candidates),
    )


class _Moments:
    """Moments of episodes, task by task; what is usual is learned from all successful ones first."""

    def __init__(self, store: EpisodeStore, rules: KeyframeRules, read_scene: SceneReader | None) -> None:
        self.store = store
        self.rules = rules
        self.read_scene = read_scene
        self.ends: list[int | None] = []  # frame of the first success; behind the last where it comes in a later piece
        self.holds: list[list[Hold]] = []
        carried, until_success = [], []  # of the hold that ended in success: its length, and to the success
        for index in range(len(store)):
            success = store.success(index)
            end = int(success.argmax()) if success.any() else None
            if end is None and store.entries[index].succeeded:
                end = len(success)
            holds = find_holds(rules.closes * store.actions(index)[:, rules.gripper], rules.stay)
            self.ends.append(end)
            self.holds.append(holds)
            before = [hold for hold in holds if end is not None and hold.close < end]
            if end is not None and success.any() and before:
                last = before[-1]
                carried.append(min(end, end if last.open is None else last.open) - last.close)
                until_success.append(end - last.close)
        # Nine of ten holds that carried something to success were at least that long.
        self.least_hold = max(rules.stay, int(np.quantile(carried, 0.1)) if carried else 0)
        typical = int(np.median(until_success)) if until_success else 0
        self.least_horizon = typical if rules.least_horizon is None else rules.least_horizon

    def of_task(self, episodes: Sequence[int], on_episode: Callable[[], None]) -> dict[int, list[Moment]]:
        """Episode -> its moments in order of time."""
        features = {}
        for index in episodes:
            features[index] = small_pictures(self.store.frames(index))
            on_episode()
        successes = [features[index] for index in episodes if self.ends[index] is not None]
        familiar = Familiar(successes, self.rules.parting_quantile) if len(successes) > 1 else None
        found = {}
        for index in episodes:
            end, holds = self.ends[index], self.holds[index]
            scene = self._scene(index)
            moments = gripper_moments(holds, end, self.least_hold, scene)
            if scene is not None:
                moments += scene_moments(scene, holds, end)
            if end is not None and end < self.store.entries[index].num_frames:
                moments.append(Moment("near_success", end, False))
            elif familiar is not None and (parting := familiar.parting(features[index])) is not None:
                moments.append(Moment("parting", parting, True))
            found[index] = sorted(moments, key=lambda moment: (moment.frame, moment.kind))
        return found

    def _scene(self, index: int) -> Scene | None:
        if self.read_scene is None:
            return None
        entry = self.store.entries[index]
        where = f"{entry.shard}: episode {entry.key}"
        states = self.store.sim_state(index)
        if states is None:
            raise UserError(f"{where}: holds no sim_state", "set use_sim_state to false")
        return self.read_scene(entry.meta, states, where)


def _fits(moment: Moment, horizon: int, least_horizon: int, rules: KeyframeRules) -> bool:
    """There is room for memory and lead before it, and after a failure for doing better."""
    left = least_horizon if moment.failure else 0
    return moment.frame >= rules.memory + rules.lead[0] and horizon - moment.frame >= left


def _choose(store: EpisodeStore, index: int, moments: Sequence[Moment], rules: KeyframeRules) -> list[_Start]:
    """Starts of one episode: the first of each kind, then the second of each, no two within the same memory.

    In time order, because a policy's first attempt is nearest to what it should do: of 231 failed episodes of a cloned
    policy the first closing was at 4.6 cm from the nearest object in the median, the fifth at 6.6 cm.
    """
    entry = store.entries[index]
    random = np.random.default_rng([rules.seed, zlib.crc32(entry.key.encode())])
    waiting: dict[str, deque[Moment]] = defaultdict(deque)
    for moment in moments:  # in order of time
        waiting[moment.kind].append(moment)
    chosen: list[_Start] = []
    while any(waiting.values()) and len(chosen) < rules.per_episode:
        for queue in waiting.values():
            if not queue or len(chosen) == rules.per_episode:
                continue
            moment = queue.popleft()
            longest = min(rules.lead[1], moment.frame - rules.memory)
            frame = moment.frame - int(random.integers(rules.lead[0], longest + 1))
            if all(abs(frame - other.frame) >= rules.memory for other in chosen):
                chosen.append(_Start(index, frame, moment))
    return sorted(chosen, key=lambda start: start.frame)


def _share(starts: list[_Start], rules: KeyframeRules) -> list[_Start]:
    """Leave out, at random, of failures or others whatever there is too much of; all stay where one kind is missing."""
    failures = [i for i, start in enumerate(starts) if start.moment.failure]
    others = [i for i, start in enumerate(starts) if not start.moment.failure]
    share = rules.failure_share
    if not failures or not others:
        return starts
    random = np.random.default_rng([rules.seed, 1])
    if share < 1 and len(failures) * (1 - share) > len(others) * share:
        failures = random.permutation(failures)[: round(len(others) * share / (1 - share))].tolist()
    elif share > 0:
        others = random.permutation(others)[: round(len(failures) * (1 - share) / share)].tolist()
    return [starts[i] for i in sorted(failures + others)]


def _cut(store: EpisodeStore, start: _Start, horizons: dict[tuple[str, int], int], memory: int) -> Keyframe:
    """What is kept of a start."""
    entry = store.entries[start.episode]
    meta = entry.meta
    clip = store.clip(start.episode, start.frame - memory + 1, memory)
    states = store.sim_state(start.episode)
    proprio = store.proprio(start.episode) if store.proprio_dim else None  # all keyframes of a set have it, or none
    camera = store.camera(start.episode) if store.has_cameras else None
    return Keyframe(
        kind=start.moment.kind,
        episode=entry.key,
        frame=start.frame,
        event=start.moment.frame,
        failure=start.moment.failure,
        succeeded=entry.succeeded,
        suite=meta.suite,
        task=meta.task,
        instruction=meta.instruction,
        init_state=max(0, meta.init_state),
        horizon=horizons[meta.suite, meta.task] - start.frame,
        reference=clip.reference,
        memory=clip.frames,
        memory_actions=store.actions(start.episode)[start.frame - memory : start.frame],
        sim_state=None if states is None else states[start.frame],
        proprio=None if proprio is None else proprio[start.frame],
        camera=None if camera is None else camera[min(start.frame, len(camera) - 1)],
    )
