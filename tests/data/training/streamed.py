"""Data modules of small data sets, streamed; and their windows as text, to be counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from wovr.data.training.demonstrations import DemonstrationData
from wovr.data.training.reward import RewardData
from wovr.data.training.sequences import SequenceData
from wovr.data.training.world_model import WorldModelData

SHARDS, EPISODES, FRAMES = 5, 2, 14
EPISODE_MB = FRAMES * 16 * 16 * 3 / 1e6


KINDS: dict[str, Callable[..., Any]] = {
    "world model": WorldModelData,
    "demonstrations": DemonstrationData,
    "classifier": RewardData,
    "value": lambda *args, **options: RewardData(*args, judges="outcome", **options),
    "sequences": SequenceData,
}


def made(kind: str, folder: Path | list[Path], **options: Any) -> Any:
    folders = [str(path) for path in folder] if isinstance(folder, list) else str(folder)
    chosen = {"batch_size": 4, "val_fraction": 0.0, "stream": True}
    if kind == "world model":
        chosen["start_fraction"] = 0.0
    data = KINDS[kind](folders, **chosen | options)
    data.setup("fit")
    return data


def content(batch: Any) -> dict[str, Any]:
    """A batch as plain values, without what numbers its episode."""
    return {name: plain(value) for name, value in vars(batch).items() if name != "episode"}


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {key: plain(of) for key, of in value.items()} if isinstance(value, Mapping) else value


def windows(batches: Any) -> list[str]:
    """Every window of some batches, as text."""
    found = []
    for batch in batches:
        values = content(batch)
        size = max(len(value) for value in values.values() if isinstance(value, list))
        for row in range(size):
            of_row = {name: value[row] if isinstance(value, list) else value for name, value in values.items()}
            found.append(json.dumps(of_row, sort_keys=True))
    return found
