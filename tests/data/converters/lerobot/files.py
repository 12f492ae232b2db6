"""Small LeRobotDatasets of any content, version 2.1, and frames that tell their own number after coding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, FPS, needs
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
SIZE = 32
PICTURES = "observation.image"
ROWS = DATA.format(episode_chunk=0, episode_index=0)
FRAMES = VIDEO.format(episode_chunk=0, episode_index=0, video_key=CAMERA)


def coded(length: int) -> np.ndarray:
    """(length, 32, 32, 3) uint8; frame t shows the bits of t."""
    frames = np.full((length, SIZE, SIZE, 3), 20, np.uint8)
    for t in range(length):
        for bit in range(8):
            if t >> bit & 1:
                frames[t, 8:24, 4 * bit : 4 * bit + 4] = 230
    return frames


def code(frame: np.ndarray) -> int:
    """The number that a frame of `coded` shows."""
    return sum(int(frame[10:22, 4 * bit + 1 : 4 * bit + 3].mean() > 120) << bit for bit in range(8))


def write_video(
    path: Path, frames: np.ndarray, fps: int = FPS, pixels: str = "yuv420p", encoder: str = "libx264"
) -> None:
    """An MP4 file as LeRobot's recorder writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=fps, options={"crf": "10"} if encoder == "libx264" else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def episode(length: int, **columns: Any) -> dict[str, Any]:
    """An episode whose action at row t says t / 100; `columns` are added or replace those of every episode."""
    return {"length": length, "columns": columns}


def write_dataset_2(folder: Path, episodes: Sequence[dict[str, Any]], features: Any = None, **info: Any) -> Path:
    """A LeRobotDataset v2.1 with one camera and one task, unless an episode's columns or `info` say other things.

    Args:
        folder: Where it goes.
        episodes: From `episode`; `frames` of one replaces its video's, None leaves the video out.
        features: Put over those that follow from the columns.
        info: Put over `info.json`.
    """
    pyarrow, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    declared: dict[str, Any] = {}
    lines = []
    for number, one in enumerate(episodes):
        length = one["length"]
        steps = np.arange(length)
        columns: dict[str, Any] = {
            "action": list(np.stack([steps / 100] * 2, 1).astype(np.float32)),
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": steps,
            "task_index": np.zeros(length, int),
            **one["columns"],
        }
        table = pyarrow.table({k: v if hasattr(v, "type") else pyarrow.array(v) for k, v in columns.items()})
        path = folder / DATA.format(episode_chunk=0, episode_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        declared |= {key: {"dtype": "int64" if "index" in key else "float32", "shape": [1]} for key in columns}
        declared["action"] = {"dtype": "float32", "shape": [2], "names": None}
        lines.append({"episode_index": number, "tasks": one.get("tasks", ["reach"]), "length": len(table)})
        frames = one.get("frames", coded(length))
        if frames is not None:
            write_video(folder / VIDEO.format(episode_chunk=0, episode_index=number, video_key=CAMERA), frames)
            declared[CAMERA] = {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
    declared |= features or {}
    meta = {"codebase_version": "v2.1", "fps": FPS, "chunks_size": 1000, "data_path": DATA, "video_path": VIDEO}
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta/info.json").write_text(json.dumps({**meta, "features": declared, **info}))
    write_lines(folder / "meta/episodes.jsonl", lines)
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": n, "task": t} for n, t in enumerate(("reach", "lift"))])
    return folder


def write_lines(path: Path, lines: Sequence[Any]) -> None:
    """JSON lines, texts as they are."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def change_info(folder: Path, **values: Any) -> None:
    """Put values over a data set's `info.json`."""
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pairs(folder: Path) -> list[tuple[int, int]]:
    """(number that the frame shows, number that the action beside it says) of all steps of converted episodes."""
    store = EpisodeStore(folder)
    found = []
    for index in range(len(store)):
        read = store.read(index)
        shown = [code(frame) for frame in read.frames[:-1]]
        found += list(zip(shown, np.rint(read.actions[:, 0] * 100).astype(int).tolist(), strict=True))
    return found


def convert(source: Path, *words: str) -> EpisodeStore:
    out = source.parent / "out"
    assert main(["data", "convert", str(source), "--out", str(out), "--success", "last", *words]) == 0
    return EpisodeStore(out)


def line(capsys: pytest.CaptureFixture[str], source: Path, *words: object) -> str:
    return refused(capsys, "convert", source, "--out", source.parent / "refused", "--success", "last", *words)
