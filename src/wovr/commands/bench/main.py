"""`wovr bench WHAT`: speeds on this machine, each beside the ceiling that the same run measures."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from wovr.commands.arguments import call
from wovr.commands.bench.collect import bench_collect
from wovr.commands.bench.imagination import bench_imagination
from wovr.commands.places import BASE
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.video import decode_video
from wovr.data.training.clips import ClipDataset, collate_clips
from wovr.errors import UserError

_ROUND = 16  # clips a batch; loader and raw decoding take turns batch by batch


def loader(data: Path = Path(BASE), seconds: float = 5.0, length: int = 13, seed: int = 0) -> None:
    """Random clips from shards on one core, beside decoding the same clips from bytes that are in memory already.

    Args:
        data: Folder with shards and dataset.json.
        seconds: How long to measure.
        length: Frames of a clip.
        seed: Of the choice of clips.
    """
    if seconds <= 0:
        raise UserError(f"--seconds {seconds}", "give a time above 0")
    torch.set_num_threads(1)
    dataset = ClipDataset(EpisodeStore(data), length)
    rng = np.random.default_rng(seed)
    clips, loading, decoding = 0, 0.0, 0.0
    _load(dataset, rng.integers(len(dataset), size=_ROUND))  # warm: opens the shards
    while loading + decoding < seconds:
        windows = rng.integers(len(dataset), size=_ROUND)
        loading += _timed(_load, dataset, windows)
        decoding += _timed(_decode, [_encoded(dataset, int(window)) for window in windows])
        clips += _ROUND
    height, width = dataset.store.image_size
    height, width = dataset.store.image_size
    print(f"{data}: random clips of {length} frames, {height} x {width}, one core of {_processor()}, {clips:,} clips")
    for what, spent in (("from shards, as training gets them", loading), ("decoded from memory", decoding)):
        print(f"  {what:<36}{clips / spent:8,.0f} clips/s {clips * length / spent:10,.0f} frames/s")
    print(f"  {'share of raw decoding':<36}{decoding / loading:8.0%}")


def _load(dataset: ClipDataset, windows: np.ndarray) -> None:
    """What a DataLoader does for a batch, in this process."""
    collate_clips([dataset[int(window)] for window in windows])


def _encoded(dataset: ClipDataset, window: int) -> tuple[bytes, int, int]:
    """The video a window is cut from, and the window."""
    episode, start = dataset.window(window)
    return dataset.store.encoded_video(episode), start, start + dataset.length


def _decode(clips: Sequence[tuple[bytes, int, int]]) -> None:
    """Nothing but decoding."""
    for video, start, stop in clips:
        decode_video(video, start, stop)


def _timed(function: Callable[..., object], *args: object) -> float:
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cores)"


BENCHMARKS: dict[str, Callable[..., None]] = {
    "collect": bench_collect,
    "loader": loader,
    "imagination": bench_imagination,
}
"""What there is to measure: name on the command line -> function whose arguments are the options."""


def main(args: Sequence[str]) -> None:
    """Run `wovr bench ARGS`."""
    call(BENCHMARKS, args, "bench", __doc__)
