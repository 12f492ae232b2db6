"""Imagined rollouts of a policy, and what really happens when their actions are executed from the same state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wovr.commands.evaluate.quality_report import write_side_by_side
from wovr.data.pictures import file_name
from wovr.data.store.dataset import check_replayed_repeat
from wovr.envs.actors.base import Actor
from wovr.envs.futures import Future, PlayedFuture, future_simulators, play_futures
from wovr.envs.imagined.env import ImaginedVectorEnv
from wovr.envs.imagined.starts import StartPool
from wovr.envs.progress import ActingProgress
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import UserError
from wovr.functional.intervals import wilson_interval
from wovr.metrics.behaviour.hallucination import Hallucination
from wovr.types import StartState, TaskInfo

_BATCHES = 4
"""Times `num_envs` rollouts are imagined before they are replayed: bounds the memory."""


@dataclass(frozen=True)
class Pair:
    """A rollout imagined, and what really happened.

    Attributes:
        imagined: The rollout.
        real: (1 + m) frames and success; after an imagined success it goes on for a moment.
    """

    imagined: Rollout
    real: PlayedFuture

    @property
    def really_succeeded(self) -> bool:
        """True when any real frame satisfies the success predicate."""
        return bool(self.real.success.any())

    @property
    def outcome(self) -> str:
        """`true-success`, `false-success`, `false-failure` or `true-failure`."""
        imagined, real = self.imagined.succeeded, self.really_succeeded
        return f"{'true' if imagined == real else 'false'}-{'success' if imagined else 'failure'}"

    @property
    def parting(self) -> int | None:
        """The first frame by which one has succeeded and the other has not; None where there is none."""
        length = max(len(self.real.success), len(self.imagined.success))
        one, other = (
            np.pad(np.logical_or.accumulate(flags), (0, length - len(flags)), mode="edge")
            for flags in (self.imagined.success, self.real.success)
        )
        return int((one != other).argmax()) if (one != other).any() else None

    @property
    def confidence(self) -> float:
        """The largest probability of success in the imagined rollout."""
        return float(self.imagined.info["success_probability"].max())

    @property
    def spread(self) -> float:
        """How far that probability scatters over several noises; NaN where there is one only."""
        if "uncertainty" not in self.imagined.info:
            return float("nan")
        return float(self.imagined.info["uncertainty"][self.imagined.info["success_probability"].argmax()])

    def psnr(self) -> np.ndarray:
        """(n,) float64 dB, of every frame that both have but the first, which is given; no higher than 99."""
        count = min(len(self.imagined.frames), len(self.real.frames))
        difference = self.imagined.frames[1:count].astype(np.float64) - self.real.frames[1:count]
        error = np.maximum((difference**2).mean(axis=(1, 2, 3)), 1e-12)
        return np.minimum(10 * np.log10(255.0**2 / error), 99.0)


def check_replay(pool: StartPool, simulators: WorkerVectorEnv, starts: Sequence[StartState]) -> None:
    """Check that rollouts from start states of stored episodes can be made in these simulators too.

    Args:
        pool: Where the start states come from.
        simulators: The simulators.
        starts: The start states.

    Raises:
        UserError: A start state without a simulator state, or pictures, actions or a control rate unlike the
            simulator's.
    """
    check_replayed_repeat(pool.action_repeat, simulators.action_repeat)
    for start in starts:
        if start.sim_state is None:
            raise UserError(
                f"a start state of {start.suite}/{start.task} holds no sim_state, so it cannot be replayed",
                "give episodes collected with wovr collect in an environment that can save its state",
            )
    if simulators.image_size != pool.image_size:
        raise UserError(
            f"the simulator shows pictures of {simulators.image_size[0]} x {simulators.image_size[1]}, the episodes "
            f"have {pool.image_size[0]} x {pool.image_size[1]}",
            f"give the arguments they were collected with, e.g. --env_args.size {pool.image_size[0]}",
        )
    if simulators.action_dim != pool.action_dim:
        raise UserError(
            f"the simulator takes actions of {simulators.action_dim} dimensions, the episodes' have {pool.action_dim}",
            "give the environment that the episodes come from with --env",
        )


@dataclass(frozen=True)
class Replaying:
    """How imagined rollouts are replayed.

    Attributes:
        env: Environment to replay in.
        env_args: Arguments of its class.
        workers: Simulator processes; 0 for one a processor core.
        grace: Frames that reality goes on after an imagined success.
        seed: Of all sampling.
    """

    env: str
    env_args: Mapping[str, Any]
    workers: int
    grace: int
    seed: int


def replayed_pairs(
    env: ImaginedVectorEnv, actor: Actor, starts: Sequence[StartState], replaying: Replaying, begin: Callable[[], None]
) -> Iterator[Pair]:
    """`imagine_and_replay` in simulators made for it, with progress, and a line about it at the end.

    Args:
        env: Where to imagine.
        actor: Who acts.
        starts: Where rollouts begin.
        replaying: Where and how to replay.
        begin: Called when everything that can be refused has been looked at.

    Raises:
        UserError: See `check_replay` and `imagine_and_replay`.
    """
    rows = min(env.num_envs, len(starts))
    workers = count_workers(replaying.workers)
    with closing(future_simulators(replaying.env, replaying.env_args, rows, workers)) as simulators:
        check_replay(env.starts, simulators, starts)
        begin()
        with ActingProgress("imagine and replay", len(starts)) as progress:
            yield from imagine_and_replay(env, actor, simulators, starts, replaying.seed, replaying.grace, progress)
    print(f"{len(starts)} rollouts, {progress.seconds:.1f} s, {env.imagined_frames:,} frames imagined")


def imagine_and_replay(
    env: ImaginedVectorEnv,
    actor: Actor,
    simulators: WorkerVectorEnv,
    starts: Sequence[StartState],
    seed: int,
    grace: int,
    progress: ActingProgress,
) -> Iterator[Pair]:
    """Imagine rollouts, then execute their actions in the simulator from the same states.

    Args:
        env: Where to imagine.
        actor: Who acts.
        simulators: Of `future_simulators`.
        starts: Where rollouts begin.
        seed: Of all sampling.
        grace: Frames that reality goes on after an imagined success, holding still with the gripper as it was.
        progress: Told of every rollout.

    Raises:
        UserError: An actor that cannot act here, or states that are not the simulator's.
    """
    plan = [EpisodeStart(number, start) for number, start in enumerate(starts)]
    size = _BATCHES * env.num_envs
    for first in range(0, len(plan), size):
        rollouts = list(roll_out(env, actor, plan[first : first + size], seed, progress.steps))
        played = play_futures(simulators, [_future(rollout, grace) for rollout in rollouts])
        for rollout, real in zip(rollouts, played, strict=True):
            pair = Pair(rollout, real)
            progress.episode(pair.really_succeeded)
            yield pair


def count_pairs(pairs: Sequence[tuple[int, bool, bool]]) -> dict[str, Any]:
    """Success rates of some rollouts, imagined and real, with 95 % Wilson intervals.

    Args:
        pairs: (task, imagined success, real success) of each, one or more.
    """
    values: dict[str, Any] = {"rollouts": len(pairs)}
    for name, column in (("imagined", 1), ("real", 2)):
        successes = sum(bool(pair[column]) for pair in pairs)
        interval = wilson_interval(successes, len(pairs))
        values[name] = {
            "successes": successes,
            "success_rate": successes / len(pairs),
            "low": interval.low,
            "high": interval.high,
        }
    return values


class PairReport:
    """What is kept of pairs: scores, parting frames, PSNR by frame, success rates, some videos.

    Args:
        out: The evaluation's folder; videos go to `out/videos`.
        tasks: The tasks.
        videos: False successes, and false failures, to show.
        fps: Frames per second.
    """

    def __init__(self, out: Path, tasks: Sequence[TaskInfo], videos: int, fps: float) -> None:
        self.out, self.videos, self.fps = out, videos, fps
        self.tasks = list(tasks)
        self.metric = Hallucination()
        self.outcomes: list[tuple[str, int, bool, bool]] = []
        self.partings: dict[str, list[int]] = {"false-success": [], "false-failure": [], "same outcome": []}
        self.names: dict[str, list[str]] = {"false-success": [], "false-failure": []}
        self._psnr: list[np.ndarray] = []

    def add(self, pair: Pair) -> None:
        """Count a pair in."""
        rollout, start = pair.imagined, pair.imagined.start
        self.metric.update(
            torch.tensor([rollout.succeeded]),
            torch.tensor([pair.really_succeeded]),
            torch.tensor([pair.confidence]),
            torch.tensor([pair.spread]),
        )
        self.outcomes.append((start.suite, start.task, rollout.succeeded, pair.really_succeeded))
        self._psnr.append(pair.psnr())
        if (parting := pair.parting) is not None:
            self.partings[pair.outcome if pair.outcome in self.partings else "same outcome"].append(parting)
        names = self.names.get(pair.outcome)
        if names is not None and len(names) < self.videos:
            # The suite's name is the episodes': as a file's name it is letters and digits only.
            suite = file_name(start.suite)
            name = f"videos/{pair.outcome}-{suite}-{start.task:02d}-{rollout.number:04d}.mp4"
            length = max(len(rollout.frames), len(pair.real.frames))
            real, imagined = (
                np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
                for frames in (pair.real.frames, rollout.frames)
            )
            write_side_by_side(self.out / name, real, imagined, self.fps)
            names.append(name)

    def values(self) -> dict[str, Any]:
        """JSON values.

        Returns:
            `scores` of HallucinationScores; `imagined` and `real` success rates and the number of `rollouts`; the same
            of each of `tasks`; `parting`, the median first frame by which the outcomes differ and the number of
            rollouts where they do, by kind; `psnr_by_frame`, the median dB of frames 1, 2, ...; `videos`.
        """
        longest = max(len(values) for values in self._psnr)
        by_frame = np.full((len(self._psnr), longest), np.nan)
        for row, values in enumerate(self._psnr):
            by_frame[row, : len(values)] = values
        of_tasks = []
        for task in self.tasks:
            own = [(t, a, b) for suite, t, a, b in self.outcomes if (suite, t) == (task.suite, task.index)]
            if own:
                named = {"suite": task.suite, "index": task.index, "instruction": task.instruction}
                of_tasks.append(named | count_pairs(own))
        return {
            "scores": self.metric.compute().as_json(),
            **count_pairs([(task, imagined, real) for _, task, imagined, real in self.outcomes]),
            "tasks": of_tasks,
            "parting": {
                kind: {"rollouts": len(frames), "median_frame": float(np.median(frames)) if frames else None}
                for kind, frames in self.partings.items()
            },
            "psnr_by_frame": np.nanmedian(by_frame, axis=0).round(2).tolist(),
            "videos": [name for names in self.names.values() for name in names],
        }


def _future(rollout: Rollout, grace: int) -> Future:
    """What is to be executed in reality."""
    actions = rollout.actions
    if rollout.succeeded and grace:
        still = np.zeros((grace, actions.shape[1]), np.float32)
        still[:, -1] = actions[-1, -1]
        actions = np.concatenate([actions, still])
    return Future(replace(rollout.start, horizon=None), actions)
