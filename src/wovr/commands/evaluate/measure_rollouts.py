"""Imagined rollouts of held-out episodes, measured beside two yardsticks: the first frame copied, and real frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from wovr.commands.evaluate.held_out import HeldOutBatch, HeldOutEpisodes
from wovr.commands.evaluate.quality_report import draw_charts, score_values, write_scalars, write_side_by_side
from wovr.commands.terminal import progress_bar
from wovr.data.pictures import file_name
from wovr.data.store.dataset import check_replayed_repeat
from wovr.data.store.origin import Origin
from wovr.data.store.reader import EpisodeStore
from wovr.envs.action_repeat import ARGUMENT, check_times
from wovr.errors import UserError
from wovr.metrics.behaviour.action_following import ActionFollowing
from wovr.metrics.behaviour.state_error import StateError
from wovr.metrics.catalogue import Instruments, make_metric
from wovr.metrics.rollouts import RolloutMetric, Score, Swapped

FPS = "fps"
"""Name of the one metric that is measured by the clock."""

IMAGINED, COPIED, REAL = "world model", "first frame copied", "real frames"
"""Rows of the table."""


class RolloutMaker(Protocol):
    """Whatever imagines."""

    def __call__(
        self, reference: Tensor, signals: Mapping[str, Tensor], actions: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Imagine what follows.

        Args:
            reference: (N, H, W, 3) uint8, first frames.
            signals: What else is known there, by name: (N, P) float32 each.
            actions: (N, n, A) float32.
            seeds: One a rollout.

        Returns:
            (N, n, H, W, 3) uint8, the frame that each action produces.
        """


@dataclass(frozen=True)
class Measurement:
    """What is to be measured, and with what.

    Attributes:
        metrics: Names, see `wovr.metrics.catalogue`; and `fps`.
        horizons: Horizons to report.
        instruments: Weights and networks.
        batch_size: Rollouts side by side.
        seed: Of the noise of all rollouts.
        videos: Rollouts to show beside the real episode.
        workers: Simulator processes, for futures under swapped actions.
        device: Where everything happens.
        env: Environment in which swapped actions are replayed, as the user named it.
        env_args: Arguments of its class.
    """

    metrics: Sequence[str]
    horizons: Sequence[int]
    instruments: Instruments
    batch_size: int
    seed: int
    videos: int
    workers: int
    device: torch.device
    env: str = "tabletop"
    env_args: Mapping[str, Any] = field(default_factory=dict)


def measure_quality(
    maker: RolloutMaker, held_out: HeldOutEpisodes, measurement: Measurement, out: Path
) -> dict[str, Any]:
    """Imagine every episode and measure.

    Args:
        maker: What imagines.
        held_out: The episodes.
        measurement: What to measure.
        out: Charts, videos and scalars go below it.

    Returns:
        JSON values: `rows` -> row of the table -> score -> values; `frames` and `scores`, the rows and the scores in
        the order of the table; `episodes` at each horizon; `notes`; names of `plots` and `videos` relative to `out`;
        `seconds` of imagining and of everything.

    Raises:
        UserError: Missing weights or networks, damaged episodes, a disk that is full.
    """
    started = time.perf_counter()
    rows = make_rows(measurement, held_out.store)
    swapping = "action_following" in rows[IMAGINED]
    probes = [metric.probe for metric in rows[IMAGINED].values() if isinstance(metric, StateError)]
    looks = probes[0].looks if probes else None
    clock, album, notes = Clock(), Album(out, held_out, measurement.videos), []
    if held_out.left_out:
        notes.append(f"{held_out.left_out} episodes shorter than {min(measurement.horizons)} frames are left out")
    simulated = swapping
    if swapping:
        times = check_times(measurement.env, measurement.env_args.get(ARGUMENT, 1))
        check_replayed_repeat(held_out.store.action_repeat, times)
        different = Origin.of(held_out.store).differences(measurement.env, measurement.env_args)
        notes += [f"action_following: {difference}" for difference in different]
    with _progress() as progress:
        bar = progress.add_task("imagine and measure", total=len(held_out.episodes))
        for batch in held_out.batches(measurement.batch_size, looks, measurement.device):
            seeds = [rollout_seed(measurement.seed, episode) for episode in batch.episodes]
            reference, real = batch.rollouts.real[:, 0], batch.rollouts.real
            imagined = _with_first(reference, clock(maker, reference, batch.signals, batch.rollouts.actions, seeds))
            copied = reference[:, None].expand_as(real)
            futures: dict[str, Swapped | None] = dict.fromkeys(rows)
            if swapping and batch.other_actions is not None:
                other = _with_first(reference, maker(reference, batch.signals, batch.other_actions, seeds))
                truth, lengths = None, batch.other_lengths
                if simulated:
                    try:
                        truth, lengths = held_out.futures(
                            batch, measurement.env, measurement.env_args, measurement.workers
                        )
                    except UserError as error:
                        simulated = False
                        notes.append(f"action_following: no real futures under swapped actions: {error}")
                futures[IMAGINED] = Swapped(other, truth, batch.other_actions, lengths)
                futures[COPIED] = Swapped(copied, truth, batch.other_actions, lengths)
                futures[REAL] = None if truth is None else Swapped(truth, truth, batch.other_actions, lengths)
            for row, frames in ((IMAGINED, imagined), (COPIED, copied), (REAL, real)):
                compared = batch.rollouts.with_imagined(frames, futures[row])
                for metric in rows[row].values():
                    metric.update(compared)
            album.offer(batch, imagined)
            progress.advance(bar, len(batch.episodes))
    scores = {row: _compute(metrics) for row, metrics in rows.items()}
    if FPS in measurement.metrics:
        by_horizon = dict.fromkeys(sorted(measurement.horizons), clock.rate)
        scores[IMAGINED][FPS] = Score(by_horizon, better="higher", digits=1)
    for metric in rows[IMAGINED].values():
        notes += metric.notes
    scores = {row: of for row, of in scores.items() if of}
    write_scalars(scores, out / "tensorboard")
    return {
        "rows": {row: {name: score_values(score) for name, score in of.items()} for row, of in scores.items()},
        "frames": list(scores),
        "scores": list(scores[IMAGINED]),
        "episodes": {str(horizon): count for horizon, count in held_out.at_horizon.items()},
        "notes": notes,
        "plots": draw_charts(scores, out / "plots"),
        "videos": album.names,
        "device": str(measurement.device),
        "seconds": {"imagining": round(clock.seconds, 1), "all": round(time.perf_counter() - started, 1)},
    }


def make_rows(measurement: Measurement, store: EpisodeStore) -> dict[str, dict[str, RolloutMetric]]:
    """The metrics of each row of the table, by name.

    Raises:
        UserError: Missing weights or networks, a horizon that cannot be measured, or a network for other actions.
    """
    rows = {
        row: {
            name: make_metric(name, measurement.horizons, measurement.instruments).to(measurement.device)
            for name in measurement.metrics
            if name != FPS
        }
        for row in (IMAGINED, COPIED, REAL)
    }
    for metric in rows[IMAGINED].values():
        if isinstance(metric, ActionFollowing) and metric.network.action_dim != store.action_dim:
            raise UserError(
                f"{measurement.instruments.idm}: reads actions of {metric.network.action_dim} dimensions, those of "
                f"{store.folders[0]} have {store.action_dim}",
                "give --idm CKPT of the same robot",
            )
    rows[REAL] = {name: metric for name, metric in rows[REAL].items() if metric.real_row}
    return rows


class Clock:
    """Times the imagining of frames. The first call, which warms up, does not count where there are others."""

    def __init__(self) -> None:
        self.times: list[tuple[int, float]] = []

    def __call__(
        self,
        maker: RolloutMaker,
        reference: Tensor,
        signals: Mapping[str, Tensor],
        actions: Tensor,
        seeds: Sequence[int],
    ) -> Tensor:
        """Imagine, and note how long it took."""
        started = time.perf_counter()
        frames = maker(reference, signals, actions, seeds)
        if frames.is_cuda:
            torch.cuda.synchronize(frames.device)
        self.times.append((frames.shape[0] * frames.shape[1], time.perf_counter() - started))
        return frames

    @property
    def seconds(self) -> float:
        """Seconds of all calls."""
        return sum(seconds for _, seconds in self.times)

    @property
    def rate(self) -> float:
        """Frames a second."""
        counted = self.times[1:] or self.times
        return sum(count for count, _ in counted) / sum(seconds for _, seconds in counted)


class Album:
    """Keeps some rollouts as side-by-side videos, spread evenly over the episodes.

    Args:
        out: The evaluation's folder; videos go to `out/videos`.
        held_out: The episodes.
        size: Videos to keep.
    """

    def __init__(self, out: Path, held_out: HeldOutEpisodes, size: int) -> None:
        self.out = out
        self.store = held_out.store
        places = np.linspace(0, len(held_out.episodes) - 1, min(size, len(held_out.episodes))).round().astype(int)
        self.wanted = {held_out.episodes[place] for place in places}
        self.names: list[str] = []

    def offer(self, batch: HeldOutBatch, imagined: Tensor) -> None:
        """Write the videos of those in a batch that are wanted."""
        for row, episode in enumerate(batch.episodes):
            if episode not in self.wanted:
                continue
            entry, length = self.store.entries[episode], int(batch.rollouts.lengths[row])
            name = f"videos/{file_name(entry.key)}.mp4"
            real, mine = (frames[row, :length].cpu().numpy() for frames in (batch.rollouts.real, imagined))
            write_side_by_side(self.out / name, real, mine, entry.meta.fps)
            self.names.append(name)


def rollout_seed(seed: int, episode: int) -> int:
    """The seed of one episode's rollout: it does not depend on the others of its batch."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def _compute(metrics: Mapping[str, RolloutMetric]) -> dict[str, Score]:
    return {name: score for metric in metrics.values() for name, score in metric.compute().items()}


def _with_first(reference: Tensor, frames: Tensor) -> Tensor:
    """Rollouts with the given frame in front: (N, H, W, 3) and (N, n, H, W, 3) -> (N, 1 + n, H, W, 3)."""
    return torch.cat([reference[:, None], frames.to(reference.device)], dim=1)


def _progress() -> Progress:
    return progress_bar(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
