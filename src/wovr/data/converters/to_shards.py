"""From a source of episodes to shards: actions into [-1, 1], frames, proprioception and success per frame.

Rows and frames: where row t's action is taken at frame t, the last row's action has no frame behind it; where it led to
frame t, the first has none before it. That one action is kept in `meta.extra["unused_action"]`, as the source has it.
Labels: see `success_labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wovr.data.converters.action_range import HAIR, ActionRange
from wovr.data.converters.calibration import read_cameras
from wovr.data.converters.pieces import pieces_of, told_of
from wovr.data.converters.proprioception import read_proprio
from wovr.data.converters.source import EpisodeSource
from wovr.data.converters.success_labels import success_of
from wovr.data.store.shards import complete_shards, finish_dataset, shard_path, write_shard
from wovr.errors import UserError
from wovr.types import MAX_FRAMES, Episode, EpisodeMeta

SHARD_EPISODES = 64
LONG = ("refuse", "split", "skip")
"""What becomes of episodes of more frames than a shard may hold."""


@dataclass(frozen=True)
class Choices:
    """What is taken from a source, and as what.

    Attributes:
        name: Of the suite, the shards and the keys.
        camera: Whose frames.
        success: Column of the labels, `last` (the last frame of every episode succeeds) or `none`.
        action: Column of the actions.
        taken: Row t's action is taken at frame t, not the one that led to it.
        state: Columns of the proprioception, side by side.
        widths: How many numbers each of them has.
        order: Which number of them comes where, the hand's x, y, z first; empty for as they are.
        fps: Control rate, Hz.
        size: Height and width of the stored frames after a centred square is cut out; 0 for as they are.
        flip: Turn frames upside down.
        long: One of LONG.
        changing: One of CHANGING.
        skip: Episodes that are left out.
        policy: Who acted, `EpisodeMeta.policy`.
        calibration: Columns of the camera, see `wovr.data.converters.calibration`.
    """

    name: str
    camera: str
    success: str
    action: str
    taken: bool
    state: tuple[str, ...]
    widths: tuple[int, ...]
    order: tuple[int, ...]
    fps: float
    size: int = 0
    flip: bool = False
    long: str = "refuse"
    changing: str = "refuse"
    skip: tuple[int, ...] = ()
    policy: str = "demonstration"
    calibration: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredActions:
    """All actions of a source, looked at.

    Attributes:
        range: How they are scaled.
        clipped: Actions of which a value lies outside the range and is clipped.
        still: Dimensions that stand still but for a tremble.
    """

    range: ActionRange
    clipped: int
    still: list[int]


@dataclass
class Converted:
    """What has been done.

    Attributes:
        dataset: What `dataset.json` says.
        left_out: Episodes left out because they are too long.
        split: Episodes that became several because they are too long.
        changing: Episodes that became several because their instruction changes.
    """

    dataset: dict[str, Any]
    left_out: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    changing: list[int] = field(default_factory=list)


def measure_actions(
    source: EpisodeSource, choices: Choices, kind: str, taken_over: ActionRange | None = None
) -> MeasuredActions:
    """Read all actions of a source, check them, and choose their range.

    Args:
        source: The source.
        choices: What is taken from it.
        kind: `auto` or one of `action_range.KINDS`.
        taken_over: Another data set's range, to be used instead of one measured here; None to measure.

    Raises:
        UserError: A value that is not finite, episodes of different dimensions, values outside [-1, 1] that are to stay
            as they are, or a range of other dimensions.
    """
    kept = [index for index in range(len(source)) if index not in choices.skip]
    if not kept:
        raise UserError(f"{source.path}: --skip leaves no episode", "skip fewer")
    rows = []
    for index in kept:
        rows.append(_action_rows(source, index, choices.action))
        _check_length(source, index, choices, len(rows[-1]))
        told_of(source, index, choices.changing)
    if len({actions.shape[1] for actions in rows}) != 1:
        other = next(number for number, actions in enumerate(rows) if actions.shape[1] != rows[0].shape[1])
        raise UserError(
            f"{source.where(kept[other])}: {choices.action}: {rows[other].shape[1]} dimensions, the first episode has "
            f"{rows[0].shape[1]}",
            f"leave it out with --skip {kept[other]}",
        )
    if taken_over is not None and len(taken_over.low) != rows[0].shape[1]:
        raise UserError(
            f"{source.path}: {choices.action} has {rows[0].shape[1]} dimensions, the range of --range_of "
            f"{len(taken_over.low)}",
            "take over the range of the same robot's actions, or give another --action",
        )
    found = ActionRange.of(kind, rows) if taken_over is None else taken_over
    for index, actions in zip(kept, rows, strict=True):
        outside = np.abs(actions) > 1.0 + HAIR
        if found.kind == "none" and outside.any():
            step, dimension = (int(number) for number in np.argwhere(outside)[0])
            raise UserError(
                f"{source.where(index)}: {choices.action}: row {step}, dimension {dimension}: "
                f"{actions[step, dimension]:g} is outside [-1, 1]",
                "give --normalise range or quantile"
                if taken_over is None
                else "convert both anew: first this data set, then the other with --range_of this one",
            )
    return MeasuredActions(found, sum(found.clipped(actions) for actions in rows), found.standing_still(rows))


def convert_to_shards(
    source: EpisodeSource,
    choices: Choices,
    action_range: ActionRange,
    out: Path,
    on_episode: Callable[[], None] = lambda: None,
) -> Converted:
    """Write a source's episodes as a data set; shards that are there already are kept.

    Each episode is encoded and written when it is read: what is held is one of them, at the stored size.

    Args:
        source: The source.
        choices: What is taken from it.
        action_range: How actions are scaled, from `measure_actions`; shards that are there were made with the same.
        out: Folder of the data set.
        on_episode: Called after each episode.

    Raises:
        UserError: An episode is damaged, too long or breaks the format, or the disk is full.
    """
    result = Converted({})
    there = complete_shards(out, choices.name)
    for shard, first in enumerate(range(0, len(source), SHARD_EPISODES)):
        chosen = []
        for index in range(first, min(first + SHARD_EPISODES, len(source))):
            long = index not in choices.skip and len(source.column(index, choices.action)) > MAX_FRAMES
            if index not in choices.skip and len(told_of(source, index, choices.changing)) > 1:
                result.changing.append(index)
            if long:
                (result.left_out if choices.long == "skip" else result.split).append(index)
            if index in choices.skip or (long and choices.long == "skip") or shard in there:
                on_episode()
            else:
                chosen.append(index)
        if chosen:
            episodes = _each_in_turn(source, chosen, choices, action_range, on_episode)
            write_shard(shard_path(out, choices.name, shard), episodes)
    convert = {
        "kind": source.kind,
        "source": source.name,
        "camera": choices.camera,
        "success": choices.success,
        "action": choices.action,
        "action_is_taken": choices.taken,
        "state": list(choices.state),
        "state_order": list(choices.order),
        "action_range": action_range.to_json(),
        "about": source.about,
    }
    result.dataset = finish_dataset(out, convert=convert)
    return result


def _each_in_turn(
    source: EpisodeSource,
    indices: Sequence[int],
    choices: Choices,
    action_range: ActionRange,
    on_episode: Callable[[], None],
) -> Iterator[Episode]:
    """The episodes of a shard, each made when it is taken.

    Raises:
        UserError: As `make_episodes`; or the source cannot be read.
    """
    for index in indices:
        try:
            yield from make_episodes(source, index, choices, action_range)
        except OSError as error:
            raise UserError(
                f"{source.where(index)}: cannot be read: {error.strerror or error}", "check the disk"
            ) from error
        on_episode()


def make_episodes(source: EpisodeSource, index: int, choices: Choices, action_range: ActionRange) -> Iterator[Episode]:
    """One episode of a source as one of ours, or piece by piece as several where it is too long or told several things.

    A piece begins with the last frame of the one before. Where the episode succeeds, those pieces in which no frame
    does share its outcome, see `EpisodeMeta.shares_success`.

    Raises:
        UserError: It is damaged, its parts do not fit together, or it is too long and must not be split.
    """
    rows = _action_rows(source, index, choices.action)
    length = len(rows)
    _check_length(source, index, choices, length)
    raw, unused = (rows[:-1], rows[-1]) if choices.taken else (rows[1:], rows[0])
    actions = action_range.apply(raw)
    success, extra = success_of(source, index, choices.success, length)
    pieces = pieces_of(told_of(source, index, choices.changing), length)
    sim_state = source.sim_state(index)
    proprio = read_proprio(source, index, choices.state, choices.widths, choices.order, length)
    seen = choices.calibration, length, choices.camera, choices.size, choices.flip
    cameras = read_cameras(source, index, *seen)
    unused_action = [float(value) for value in unused.astype(np.float32)]
    extra = {"episode": index, "unused_action": unused_action, **extra, **source.extra(index)}
    key = f"{choices.name}-{index:06d}"
    pictures = _pictures(source, index, choices, length)
    last: np.ndarray | None = None
    for number, (start, stop, task, instruction) in enumerate(pieces):
        frames = _stack(pictures, stop + 1 - start, last)
        last = frames[-1].copy() if stop < length - 1 else None
        here = slice(start, stop + 1)
        parts: dict[str, Any] = {} if len(pieces) == 1 else {"part": number, "parts": len(pieces)}
        if success.any() and not success[here].any():
            parts["shares_success"] = True
        yield Episode(
            key=key if len(pieces) == 1 else f"{key}-{number}",
            frames=frames,
            actions=actions[start:stop],
            success=success[here],
            meta=EpisodeMeta(
                instruction=instruction,
                suite=choices.name,
                task=task,
                seed=0,
                fps=choices.fps,
                policy=choices.policy,
                source=f"{source.kind}:{source.name}",
                extra={**extra, **parts},
            ),
            sim_state=None if sim_state is None else sim_state[here],
            proprio=None if proprio is None else proprio[here],
            camera=cameras if cameras is None or len(cameras) == 1 else cameras[here],
        )


def _action_rows(source: EpisodeSource, index: int, key: str) -> np.ndarray:
    """(T, A) finite."""
    rows = source.column(index, key)
    rows = rows[:, None] if rows.ndim == 1 else rows
    bad = ~np.isfinite(rows)
    if bad.any():
        step, dimension = (int(number) for number in np.argwhere(bad)[0])
        raise UserError(
            f"{source.where(index)}: {key}: row {step}, dimension {dimension}: {rows[step, dimension]} is not finite",
            f"mend the file, or leave the episode out with --skip {index}",
        )
    return rows


def _check_length(source: EpisodeSource, index: int, choices: Choices, length: int) -> None:
    """Refuse an episode that is too short or too long, before anything of it is decoded."""
    where = source.where(index)
    if length < 2:
        raise UserError(f"{where}: one frame only", f"leave it out with --skip {index}")
    if length > MAX_FRAMES and choices.long == "refuse":
        raise UserError(f"{where}: {length} frames, an episode has at most {MAX_FRAMES}", "give --long split or skip")


def _pictures(source: EpisodeSource, index: int, choices: Choices, length: int) -> Iterator[np.ndarray]:
    """`length` frames (H, W, 3) uint8, one by one, the right way up and of the size asked for.

    Raises:
        UserError: More or fewer of them (before the last is given), or one of another size or type than the first.
    """
    waiting: np.ndarray | None = None  # a frame is given when it is known whether one comes after it
    first: tuple[int, ...] = ()
    count = 0
    for frame in source.frames(index, choices.camera):
        first = first or frame.shape
        if frame.shape != first or frame.dtype != np.uint8:
            raise UserError(
                f"{source.where(index)}: {choices.camera}: frame {count} is {frame.dtype} {frame.shape}, the first is "
                f"{first}",
                f"leave it out with --skip {index}",
            )
        if waiting is not None:
            yield waiting
        waiting = _prepare(frame, choices)
        count += 1
        if count > length:
            break
    if waiting is None or count != length:
        more = "more" if count > length else f"{count}"
        raise UserError(
            f"{source.where(index)}: {more} frames of {choices.camera}, {length} rows of {choices.action}",
            f"leave it out with --skip {index}",
        )
    yield waiting


def _stack(pictures: Iterator[np.ndarray], length: int, first: np.ndarray | None) -> np.ndarray:
    """(length, H, W, 3) uint8: the next pictures, after `first` where it is given."""
    picture = next(pictures) if first is None else first
    out = np.empty((length, *picture.shape), np.uint8)
    out[0] = picture
    for place in range(1, length):
        out[place] = next(pictures)
    return out


def _prepare(frame: np.ndarray, choices: Choices) -> np.ndarray:
    """A frame the right way up and of the size asked for."""
    if choices.flip:
        frame = frame[::-1]
    if not choices.size:
        return frame
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    box = (left, top, left + side, top + side)
    target = (choices.size, choices.size)
    return np.asarray(Image.fromarray(frame).resize(target, Image.Resampling.BOX, box=box))
