"""`wovr data convert`: episodes of other formats in and out."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from wovr.commands.arguments import numbers, words
from wovr.commands.terminal import episode_progress
from wovr.data.converters.action_range import KINDS, ActionRange
from wovr.data.converters.formats import open_source
from wovr.data.converters.lerobot.writer import LeRobotWriter
from wovr.data.converters.pieces import CHANGING
from wovr.data.converters.proprioception import column_widths, find_hand
from wovr.data.converters.source import EpisodeSource, no_column
from wovr.data.converters.success_labels import check_success
from wovr.data.converters.to_shards import (
    LONG,
    Choices,
    Converted,
    MeasuredActions,
    convert_to_shards,
    measure_actions,
)
from wovr.data.store.dataset import read_dataset, stored_range
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import DATASET_FILE
from wovr.errors import UserError, check_least
from wovr.runs import LOCK_FILE, RunFolder, place_beside

INPUTS_FILE = "convert.json"
"""What a folder is being filled from, written before the first file."""

RENEWED = ("source_content", "action_range")
"""Inputs that tell of the source and not of the options: where they differ, it is converted anew."""


def convert(
    source: Path,
    *,
    out: Path,
    camera: str = "",
    success: str = "",
    action: str = "",
    normalise: str = "auto",
    range_of: Path | None = None,
    state: str = "auto",
    hand: str = "",
    calibration: str = "auto",
    suite: str = "",
    fps: float = 0.0,
    size: int = 0,
    flip: str = "auto",
    pairing: str = "auto",
    long: str = "refuse",
    changing: str = "refuse",
    skip: str = "",
    filter: str = "",
    instruction: str = "",
    policy: str = "demonstration",
    trust: bool = False,
) -> None:
    """Convert episodes of another format into shards, or shards into a LeRobotDataset v3.0.

    What SOURCE is decides: a folder with meta/info.json (LeRobotDataset v2.0, v2.1, v3.0), .hdf5 files of LIBERO,
    robosuite, robomimic or Isaac Lab, .npy files of dictionaries, or a folder of shards, which becomes a
    LeRobotDataset. The same command again finishes what was stopped; where the source has changed since, it converts
    anew and keeps what there was under another name.

    Args:
        source: Folder or file.
        out: Folder of the result.
        camera: Whose frames are taken; may be left out where there is only one.
        success: Column with the success labels (0 or 1), last (every episode succeeds at its last frame, as
            demonstrations do; not one that its file marks as failed) or none; the format's own column where it has
            one that means success. A column named here is taken even where others contradict it.
        action: Column with the actions; the format's own unless given.
        normalise: How actions get into [-1, 1]: none, range (smallest and largest value), quantile (1 and 99 per cent,
            the rest is clipped), or auto: range where a value lies outside by more than rounding. Stored with the data.
        range_of: Folder of converted episodes whose range of actions is taken over instead of measured, so that -1 and
            1 are the same motions in both: for episodes held out, or recorded later with the same robot.
        state: Columns that are the proprioception, a comma list; none for no proprioception; auto for the format's own.
        hand: Which three numbers of the proprioception are the hand's x, y, z, e.g. 3,4,5; they are stored first. By
            their names unless given.
        calibration: Columns with the camera's intrinsics and pose at each row, which are stored with the frames: one of
            21 numbers, the rows of [K | R | t], or two, of 9 (K) and 12 or 16 ([R | t], from the world to the camera,
            which looks along z with y down); none for no camera; auto for the format's own.
        suite: Name of the suite, of the shards and of the keys; the source's name unless given.
        fps: Control rate, Hz, where the format does not say.
        size: Height and width of the stored frames, from a centred square; 0 for as they are.
        flip: Turn frames upside down: true, false, or auto, which does so for LIBERO's files.
        pairing: Whether a row's action is the one taken at its frame (taken) or the one that led to it (produced); auto
            for the format's way.
        long: What becomes of episodes of more than 512 frames: refuse, split or skip.
        changing: What becomes of episodes whose instruction changes: refuse, or split (an episode for each).
        skip: Episodes to leave out, a comma list of numbers counted from 0.
        filter: Only the episodes of a part that the source names: robomimic's filter keys, LeRobot's splits.
        instruction: Field or column with the instruction, where several say different things.
        policy: Who acted in these episodes.
        trust: Read .npy files of pickled objects.
    """
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in locals().items()
        if name not in ("source", "out")
    }
    if not source.exists():
        raise UserError(f"{source}: no such file or folder", "check the path")
    if (source / DATASET_FILE).exists():
        if given != _DEFAULTS:
            wrong = ", ".join(f"--{name}" for name, value in given.items() if value != _DEFAULTS[name])
            raise UserError(f"{wrong}: not an option of writing a LeRobotDataset", "leave it out")
        _write_lerobot(source, out)
        return
    if normalise not in ("auto", *KINDS):
        raise UserError(f"--normalise is '{normalise}'", f"give auto, {', '.join(KINDS)}")
    if range_of is not None and normalise != "auto":
        raise UserError(f"--normalise is '{normalise}' beside --range_of", "give one of the two")
    try:
        with closing(open_source(source, trust, instruction)) as opened:
            _write_shards(opened, out, given, normalise, _range_of(range_of))
    except MemoryError as error:
        raise UserError(
            f"{source}: out of memory while converting it: an episode is held whole, at the size it is stored in",
            "give --size, e.g. --size 128, for smaller pictures, or free some memory, then run the command again",
        ) from error


def _range_of(folder: Path | None) -> ActionRange | None:
    """The range of another data set's actions.

    Raises:
        UserError: It has none.
    """
    if folder is None:
        return None
    found = stored_range(read_dataset(folder), folder)
    if found is None:
        raise UserError(
            f"--range_of {folder}: its {DATASET_FILE} holds no range", "give a folder that `data convert` made"
        )
    return found


def _write_shards(
    source: EpisodeSource, out: Path, given: dict[str, Any], normalise: str, taken_over: ActionRange | None
) -> None:
    """Another format -> shards."""
    choices = _choose(source, given)
    kept = [index for index in range(len(source)) if index not in choices.skip]
    for note in (*source.notes, *check_success(source, kept, choices.success, named=bool(given["success"]))):
        print(f"note: {note}")
    told = len(source.notes)
    measured = measure_actions(source, choices, normalise, taken_over)
    content = source.content(choices.camera)
    # Where --range_of lies does not matter, only what it says.
    options = {name: value for name, value in given.items() if name != "range_of"}
    run = RunFolder(
        out,
        {
            **options,
            "source": source.name,
            "source_content": content.to_json(),
            "action_range": measured.range.to_json(),
        },
        begun=INPUTS_FILE,
    )
    if run.refuse_others(RENEWED, _DEFAULTS):
        _keep_aside(out)
    run.start()
    with episode_progress(f"convert {source.name}", len(source)) as on_episode:
        done = convert_to_shards(source, choices, measured.range, out, on_episode)
    content.check_unchanged()
    run.finish(episodes=done.dataset["episodes"])
    for note in source.notes[told:]:
        print(f"note: {note}")
    print(f"{out}: {_summary(source, choices, measured, done, taken_over is not None)}")


_DEFAULTS: dict[str, Any] = dict(convert.__kwdefaults__ or {})


def _choose(source: EpisodeSource, given: dict[str, Any]) -> Choices:
    """What the options mean for this source.

    Raises:
        UserError: A name that the source does not have, or something it does not say and the options do not either.
    """
    others = "; ".join(f"{name}: {what}" for name, what in source.other_pictures.items())
    if not source.cameras:
        said = f" of 8-bit colour ({others})" if others else ""
        raise UserError(
            f"{source.where(0)}: no camera's frames{said}", "convert a data set that was recorded with pictures"
        )
    if given["camera"] in source.other_pictures:
        what = source.other_pictures[given["camera"]]
        raise UserError(
            f"{source.path}: {given['camera']}: {what}, not 8-bit colour pictures",
            f"give --camera, one of: {', '.join(source.cameras)}",
        )
    camera = given["camera"] or (source.cameras[0] if len(source.cameras) == 1 else "")
    if camera not in source.cameras:
        wrong = f"no camera '{camera}'" if camera else "several cameras"
        raise UserError(f"{source.path}: {wrong}", f"give --camera, one of: {', '.join(source.cameras)}")
    success = given["success"] or source.success
    if success is None:
        raise UserError(
            f"{source.path}: no success labels"
            + (f" ({source.done} marks the end of an episode, successful or not)" if source.done else ""),
            "give --success last (every episode succeeds at its last frame), none (then mark them: wovr data label) "
            f"or a column: {', '.join(source.columns)}",
        )
    action = given["action"] or source.action
    for key in (action, *(() if success in ("last", "none") else (success,))):
        if key not in source.columns:
            raise no_column(str(source.path), key, source.columns)
    if given["fps"] and source.fps and abs(given["fps"] - source.fps) > 1e-6:
        raise UserError(f"{source.path}: {source.fps:g} fps, --fps is {given['fps']:g}", "leave --fps out")
    fps = source.fps or given["fps"]
    if fps <= 0:
        raise UserError(f"{source.path}: the control rate is not stored", "give --fps, in Hz")
    allowed = {
        "flip": ("auto", "true", "false"),
        "pairing": ("auto", "taken", "produced"),
        "long": LONG,
        "changing": CHANGING,
    }
    for name, there in allowed.items():
        if given[name] not in there:
            raise UserError(f"--{name} is '{given[name]}'", f"give {', '.join(there)}")
    check_least("--size", given["size"], 0)
    skip = _skipped(source, given["skip"], given["filter"])
    first = next((index for index in range(len(source)) if index not in skip), 0)
    state, widths, order = _state(source, given["state"], given["hand"], first)
    return Choices(
        name=_name(given["suite"] or source.name),
        camera=camera,
        success=success,
        action=action,
        taken=source.action_is_taken if given["pairing"] == "auto" else given["pairing"] == "taken",
        state=state,
        widths=widths,
        order=order,
        fps=float(fps),
        size=given["size"],
        flip=source.upside_down if given["flip"] == "auto" else given["flip"] == "true",
        long=given["long"],
        changing=given["changing"],
        skip=skip,
        policy=given["policy"],
        calibration=tuple(
            {"auto": source.calibration, "none": []}.get(given["calibration"], words(given["calibration"]))
        ),
    )


def _skipped(source: EpisodeSource, skip: str, filter_key: str) -> tuple[int, ...]:
    """Numbers of the episodes that are left out."""
    skipped = set(numbers("skip", skip, int))
    if wrong := [number for number in skipped if not 0 <= number < len(source)]:
        raise UserError(f"--skip names episode {wrong[0]}", f"give numbers from 0 to {len(source) - 1}")
    there = ", ".join(f"{name} ({len(kept)})" for name, kept in source.filters.items())
    if filter_key and filter_key not in source.filters:
        raise UserError(f"{source.path}: no filter key '{filter_key}'", f"there are: {there or 'none'}")
    if filter_key:
        skipped |= set(range(len(source))) - source.filters[filter_key]
    elif there:
        source.notes.append(f"filter keys: {there} of {len(source)} episodes; all are taken, --filter NAME takes one's")
    return tuple(sorted(skipped))


def _state(
    source: EpisodeSource, state: str, hand: str, index: int
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """Columns of the proprioception, how wide they are in an episode, and the order of their numbers."""
    columns = {"auto": source.state, "none": []}.get(state, words(state))
    widths = column_widths(source, columns, index)
    order, note = find_hand(source, columns, widths, numbers("hand", hand, int) if hand else None)
    if note:
        print(f"note: {note}")
    return tuple(columns), widths, order


def _write_lerobot(folder: Path, out: Path) -> None:
    """Shards -> LeRobotDataset."""
    store = EpisodeStore(folder)
    run = RunFolder(out, {"data": store.fingerprint}, begun=INPUTS_FILE)
    run.refuse_others()
    writer = LeRobotWriter(store, run.path)
    run.start()
    with episode_progress(f"convert {folder}", len(store)) as on_episode:
        info = writer.write(on_episode)
    run.finish(episodes=info["total_episodes"])
    print(
        f"{run.path}: LeRobotDataset {info['codebase_version']}, {info['total_episodes']} episodes, "
        f"{info['total_frames']:,} frames, {info['total_tasks']} tasks, camera {writer.camera}"
    )


def _summary(
    source: EpisodeSource, choices: Choices, measured: MeasuredActions, done: Converted, taken_over: bool
) -> str:
    """What has been converted, in a line."""
    dataset, kind = done.dataset, measured.range.kind
    part = f", {len(choices.skip)} left out" if choices.skip else ""
    scaled = "as they are" if kind == "none" else f"scaled by their {kind}"
    if taken_over:
        scaled = f"scaled by the range of --range_of ({measured.range.describe()})"
    parts = [
        f"{dataset['episodes']} episodes, {dataset['frames']:,} frames, SR {dataset['success_rate']:.3f}",
        f"from {source.kind} ({len(source)} episodes{part}), camera {choices.camera}",
        f"success: {choices.success}",
        *(["pictures turned upside down"] if choices.flip else []),
        f"actions {scaled}",
    ]
    if measured.clipped:
        above = " that were above 1 by rounding" if kind == "none" else ""
        parts.append(f"{measured.clipped} actions{above} clipped")
    if measured.still:
        parts.append(f"dimensions that stand still, stored as 0: {', '.join(map(str, measured.still))}")
    if done.split:
        parts.append(f"{len(done.split)} long episodes split, their pieces share the outcome")
    if done.changing:
        parts.append(f"{len(done.changing)} episodes split where their instruction changes")
    if done.left_out:
        parts.append(f"{len(done.left_out)} long episodes left out")
    return "; ".join(parts)


def _name(text: str) -> str:
    """A name for shards and keys."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60].strip("-") or "episodes"


def _keep_aside(folder: Path) -> None:
    """Move what a folder was filled with from an earlier state of its source beside it, so that it is filled anew.

    Raises:
        UserError: It cannot be moved.
    """
    kept = place_beside(folder)
    try:
        kept.mkdir()
        # convert.json last: until it has gone, the same command still knows that there is something to be kept.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == INPUTS_FILE):
            if path.name != LOCK_FILE:
                path.rename(kept / path.name)
    except OSError as error:
        with suppress(OSError):
            kept.rmdir()
        raise UserError(
            f"{folder}: its source has changed since it was filled, and what it holds cannot be moved to {kept}: "
            f"{error.strerror}",
            "choose another --out for the source as it is now",
        ) from error
    print(f"note: the source has changed since {folder} was filled from it; what it held is kept in {kept}")
