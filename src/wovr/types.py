"""Named values that travel between rooms. Numpy only: simulator workers import this and must stay free of torch.

Shape legend, used in every docstring of the package:
    N  environments or rollouts side by side        T  frames of an episode
    K  actions of a chunk (8 unless said otherwise)  A  dimensions of an action
    H, W  image height and width in pixels          L  frames of a clip
    S  numbers in a simulator's state               G  rollouts of a group
    P  numbers of proprioception

Frame t + 1 is produced by action t, so `len(actions) == len(frames) - 1`.
Images are uint8 (H, W, 3) RGB at every boundary; actions are float32 in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Version of the episode format on disk; readers refuse any other."""

MAX_FRAMES = 512
"""Longest episode a shard may hold, in frames (the paper's trajectory length)."""

CHUNK = 8
"""Actions a policy executes open-loop, K (the paper's chunk)."""


@dataclass(frozen=True)
class TaskInfo:
    """One task of a suite.

    Attributes:
        suite: Suite name, e.g. `spatial`.
        index: Position in the suite, 0-based: what `--tasks` selects.
        name: Identifier in snake case, unique in the suite.
        instruction: The English sentence the policy is given.
        horizon: Actions after which an episode is cut; frames are one more.
        num_init_states: How many numbered initial states the task has.
    """

    suite: str
    index: int
    name: str
    instruction: str
    horizon: int
    num_init_states: int


@dataclass(frozen=True)
class ActionAxis:
    """What a dimension of an action does, for people who drive by hand.

    Attributes:
        name: Of the dimension, e.g. `x` or `grip`.
        low: What -1 does, a word: `left`, `towards`, `down`, `open`, ...
        high: What 1 does: `right`, `away`, `up`, `close`, ...
        holds: Its value stays when the control is released, as that of a gripper does; a velocity does not.
    """

    name: str
    low: str = "-"
    high: str = "+"
    holds: bool = False


@dataclass(frozen=True)
class StartState:
    """Where an episode or rollout begins: an initial state, a simulator state, or a keyframe.

    Attributes:
        suite: Suite name.
        task: Index of the task in its suite.
        init_state: Number of the initial state, in [0, TaskInfo.num_init_states).
        sim_state: (S,) float64, a simulator state that overrides `init_state`; None to start from `init_state`.
        reference: (H, W, 3) uint8, the episode's first frame, which imagination starts from; a simulator needs none.
        memory: (M, H, W, 3) uint8, the frames up to and including the start; only a keyframe has them.
        memory_actions: (M, A) float32, the action that produced each memory frame.
        horizon: Actions left to the end of the episode; None for the task's own horizon.
        proprio: (P,) float32, what the robot knows of itself at the start, see `SimulatorEnv.proprio`; or None.
        camera: (3, 7) float32, the camera at the start, see `wovr.functional.cameras`; or None.
    """

    suite: str
    task: int
    init_state: int = 0
    sim_state: np.ndarray | None = None
    reference: np.ndarray | None = None
    memory: np.ndarray | None = None
    memory_actions: np.ndarray | None = None
    horizon: int | None = None
    proprio: np.ndarray | None = None
    camera: np.ndarray | None = None

    @property
    def signals(self) -> dict[str, np.ndarray]:
        """What is known at the start beside frames and actions, by name: one row of numbers each."""
        found = {} if self.proprio is None else {"proprio": self.proprio}
        return found if self.camera is None else found | {"camera": self.camera.reshape(-1)}


@dataclass
class Observation:
    """What a policy sees of N environments.

    Attributes:
        image: (N, H, W, 3) uint8.
        instruction: N English sentences.
        proprio: (N, P) float32, what each robot knows of itself, see `SimulatorEnv.proprio`; None where nobody asks for
            it (`ChunkVectorEnv.show_proprio`).
    """

    image: np.ndarray
    instruction: Sequence[str]
    proprio: np.ndarray | None = None

    @classmethod
    def join(cls, parts: Sequence[Observation]) -> Observation:
        """Several, one after the other."""
        proprio = [part.proprio for part in parts if part.proprio is not None]
        return cls(
            np.concatenate([part.image for part in parts]),
            [sentence for part in parts for sentence in part.instruction],
            np.concatenate(proprio) if proprio else None,
        )


@dataclass
class ChunkStep:
    """What K single steps of N environments return. Steps after an environment's end are not simulated.

    Attributes:
        images: (N, K, H, W, 3) uint8, the frame each action produced; the last valid frame is repeated after the end.
        success: (N, K) bool, the success predicate on each of those frames.
        terminated: (N, K) bool, the episode ended by success at that step.
        truncated: (N, K) bool, the episode ended by its horizon at that step.
        valid: (N, K) bool, the step was simulated. False from the step after the end, and for a row not active.
        actions: (N, K, A) float32, the actions executed (clipped to [-1, 1]; the scripted expert's own under
            `step_expert`).
        sim_state: One (K, S) float64 array an environment when states are recorded, else None.
        proprio: One (K, P) float32 array an environment when states are recorded, else None.
        camera: One (K, 3, 7) float32 array an environment when states are recorded, else None.
        info: Further arrays with leading dimensions (N, K), e.g. `success_probability` in imagination.
    """

    images: np.ndarray
    success: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    actions: np.ndarray
    sim_state: list[np.ndarray] | None = None
    proprio: list[np.ndarray] | None = None
    camera: list[np.ndarray] | None = None
    info: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def rewards(self) -> np.ndarray:
        """(N, K) float32: 1 on a valid successful step, else 0."""
        return (self.success & self.valid).astype(np.float32)

    @property
    def done(self) -> np.ndarray:
        """(N,) bool: the environment ended inside this chunk, or was not active."""
        return (self.terminated | self.truncated | ~self.valid).any(axis=1)


@dataclass
class EpisodeMeta:
    """What is known of an episode beside its arrays; `KEY.meta.json` in a shard.

    Attributes:
        instruction: The English sentence the policy was given.
        suite: Suite name.
        task: Index of the task in its suite.
        seed: Seed of the collection the episode belongs to.
        fps: Control rate, Hz.
        policy: `expert`, `random` or the fingerprint of the checkpoint that acted.
        source: Where the episode comes from: the environment's name, or the data set it was converted from.
        init_state: Number of the initial state it started from; -1 where there is none.
        schema_version: Version of the format, see SCHEMA_VERSION.
        extra: Whatever else a converter or robot wants to keep (JSON values only).
    """

    instruction: str
    suite: str
    task: int
    seed: int
    fps: float
    policy: str
    source: str
    init_state: int = -1
    schema_version: int = SCHEMA_VERSION
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shares_success(self) -> bool:
        """True for a piece of a demonstration that was cut up and succeeded in another piece: `extra.shares_success`.

        The pieces of one demonstration share its outcome: each counts as a success where outcomes count (success rates,
        `judges: outcome`, keyframes, `only_success`), though no frame of this one satisfies the success predicate.
        """
        return self.extra.get("shares_success") is True


@dataclass
class Episode:
    """A real trajectory, one sample of a shard.

    Attributes:
        key: Name of the sample in its shard, unique in the data set.
        frames: (T, H, W, 3) uint8, T <= 512.
        actions: (T - 1, A) float32 in [-1, 1].
        success: (T,) bool, the success predicate on each frame.
        meta: Instruction, task and provenance.
        sim_state: (T, S) float64, or None where no simulator can be restored.
        proprio: (T, P) float32, what the robot knows of itself, see `SimulatorEnv.proprio`; or None.
        camera: (T, 3, 7) float32, intrinsics and pose of the camera at each frame, or (1, 3, 7) where it stands still,
            see `wovr.functional.cameras`; or None.
    """

    key: str
    frames: np.ndarray
    actions: np.ndarray
    success: np.ndarray
    meta: EpisodeMeta
    sim_state: np.ndarray | None = None
    proprio: np.ndarray | None = None
    camera: np.ndarray | None = None

    @property
    def signals(self) -> dict[str, np.ndarray]:
        """(T, P) float32 each, what is known at each frame beside frames and actions, by name."""
        found = {} if self.proprio is None else {"proprio": self.proprio}
        if self.camera is not None:
            found["camera"] = np.broadcast_to(self.camera.reshape(len(self.camera), -1), (len(self.frames), 21))
        return found

    @property
    def succeeded(self) -> bool:
        """True when any frame satisfies the success predicate, or it is a piece of a demonstration that succeeded."""
        return bool(self.success.any()) or self.meta.shares_success


@dataclass
class Clip:
    """A training window of one episode.

    Attributes:
        frames: (L, H, W, 3) uint8, frames start .. start + L - 1.
        actions: (L - 1, A) float32, the actions between them.
        success: (L,) bool.
        reference: (H, W, 3) uint8, the episode's first frame.
        key: Key of the episode.
        start: Index of the first frame in the episode.
        meta: The episode's meta data.
    """

    frames: np.ndarray
    actions: np.ndarray
    success: np.ndarray
    reference: np.ndarray
    key: str
    start: int
    meta: EpisodeMeta
