"""`wovr bench loader`: batches of a training from shards, by index and streamed, beside decoding alone."""

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
    data: Path = Path(BASE),
    seconds: float = 5.0,
    batch_size: int = 16,
    memory: int = 4,
    buffer_mb: float = 64.0,
    seed: int = 0,
) -> None:
    """Batches of a world model's training on one core, by index and streamed, beside decoding frames from memory.

    By index frames are decoded anew for every batch, as in a training whose episodes do not fit in memory. A stream
    decodes each frame once a pass; it is measured once its buffer is full, so that for every batch drawn as much comes
    in. The ceiling decodes the frames of the windows by index from bytes already in memory. The three take turns.

    Args:
        data: Folder with shards and dataset.json.
        seconds: How long to measure.
        batch_size: Windows a batch.
        memory: Memory frames of a window.
        buffer_mb: Size of the stream's buffer, MB.
        seed: Of the order of windows.
    """
    if seconds <= 0:
        raise UserError(f"--seconds {seconds}", "give a time above 0")
    torch.set_num_threads(1)
    by_index = WorldModelData(str(data), batch_size, memory=memory, val_fraction=0.0, cache_mb=0.0, seed=seed)
    streamed = WorldModelData(
        str(data), batch_size, memory=memory, val_fraction=0.0, cache_mb=buffer_mb, seed=seed, stream=True
    )
    loaders = []
    for windows in (by_index, streamed):
        windows.setup("fit")
        loaders.append(_without_end(windows.train_dataloader()))
    store = by_index.store
    index = {entry.key: number for number, entry in enumerate(store.entries)}
    count, spent = 0, [0.0, 0.0, 0.0]
    for _ in range(_batches_in(buffer_mb, streamed)):
        next(loaders[1])  # warm: episodes of the first batches are decoded for those that follow too
    next(loaders[0])  # warm: opens the shards
    while sum(spent) < seconds:
        took, batch = _timed(partial(next, loaders[0]))
        spent[0] += took
        spent[1] += _timed(partial(next, loaders[1]))[0]
        asked = [
            (store.encoded_video(index[key]), max(0, start - memory + 1), start + batch.chunk + 1)
            for key, start in zip(batch.keys, batch.start.tolist(), strict=True)
        ]
        spent[2] += _timed(partial(_decode, asked))[0]
        count += len(batch)
    height, width = store.image_size
    frames = batch.frames.shape[1]
    print(f"{data}: windows of {frames} frames, {height} x {width}, one core of {_processor()}, {count:,} of each")
    for what, seconds_of in zip(
        ("by index, as training gets them", "streamed (data.stream)", "decoded from memory, by index"),
        spent,
        strict=True,
    ):
        print(f"  {what:<36}{count / seconds_of:8,.0f} windows/s {count * frames / seconds_of:10,.0f} frames/s")
    print(f"  {'by index, of raw decoding':<36}{spent[2] / spent[0]:8.0%}")


def _batches_in(buffer_mb: float, data: WorldModelData) -> int:
    """Batches until as many windows are drawn as a buffer holds, or as there are."""
    height, width = data.store.image_size
    share = min(1.0, buffer_mb * 1e6 / (data.count_streamed(0) * height * width * 3))
    return int(share * len(data.train_dataloader()))


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
