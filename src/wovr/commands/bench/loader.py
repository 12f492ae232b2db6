"""`wovr bench loader`: batches of a training from shards, beside decoding alone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wovr.commands.places import BASE
from wovr.data.store.video import decode_pieces
from wovr.data.training.world_model import WorldModelBatch, WorldModelData
from wovr.errors import UserError


def bench_loader(
    data: Path = Path(BASE), seconds: float = 5.0, batch_size: int = 16, memory: int = 4, seed: int = 0
) -> None:
    """Batches of a world model's training on one core, beside decoding the same frames from bytes already in memory.

    Frames are decoded anew for every batch, as in a training whose episodes do not fit in memory.

    Args:
        data: Folder with shards and dataset.json.
        seconds: How long to measure.
        batch_size: Windows a batch.
        memory: Memory frames of a window.
        seed: Of the order of windows.
    """
    if seconds <= 0:
        raise UserError(f"--seconds {seconds}", "give a time above 0")
    torch.set_num_threads(1)
    windows = WorldModelData(str(data), batch_size, memory=memory, val_fraction=0.0, cache_mb=0.0, seed=seed)
    windows.setup("fit")
    batches = _without_end(windows.train_dataloader())
    index = {entry.key: number for number, entry in enumerate(windows.store.entries)}
    count, loading, decoding = 0, 0.0, 0.0
    next(batches)  # warm: opens the shards
    while loading + decoding < seconds:
        spent, batch = _timed(partial(next, batches))
        loading += spent
        asked = [
            (windows.store.encoded_video(index[key]), max(0, start - memory + 1), start + batch.chunk + 1)
            for key, start in zip(batch.keys, batch.start.tolist(), strict=True)
        ]
        decoding += _timed(partial(_decode, asked))[0]
        count += len(batch)
    height, width = windows.store.image_size
    frames = batch.frames.shape[1]
    print(f"{data}: windows of {frames} frames, {height} x {width}, one core of {_processor()}, {count:,} windows")
    for what, spent in (("from shards, as training gets them", loading), ("decoded from memory", decoding)):
        print(f"  {what:<36}{count / spent:8,.0f} windows/s {count * frames / spent:10,.0f} frames/s")
    print(f"  {'share of raw decoding':<36}{decoding / loading:8.0%}")


def _decode(windows: Sequence[tuple[bytes, int, int]]) -> None:
    """Nothing but decoding: of each video the first frame, and those of a window."""
    for video, start, stop in windows:
        decode_pieces(video, [(0, 1), (start, stop)])


def _without_end(epochs: Iterable[WorldModelBatch]) -> Iterator[WorldModelBatch]:
    while True:
        yield from epochs


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds a call takes, and what it gives."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cores)"
