"""The list of a LeRobotDataset's episodes: number, length and, in version 3, their files."""

from __future__ import annotations

import reprlib
from typing import Any

from wovr.data.converters.lerobot import layout
from wovr.data.converters.lerobot.info import RESTORE, Info, inside, json_lines, whole
from wovr.data.converters.lerobot.tables import Table
from wovr.data.converters.source import numbered
from wovr.errors import UserError

_MOST_EPISODES = 1_000_000
_MOST_ROWS = 1_000_000
"""Rows of an episode: nine hours at 30 Hz."""


def read_episodes(info: Info) -> list[dict[str, Any]]:
    """What is known of each episode, in the order of their numbers.

    Raises:
        UserError: Missing or damaged, an episode twice, or others than `info.json` counts.
    """
    found = list(json_lines(info.root, layout.EPISODES_2)) if info.version.startswith("v2.") else _from_tables(info)
    if not found:
        raise UserError(f"{info.root}: no list of episodes in meta/", RESTORE)
    seen: set[int] = set()
    for place, episode in enumerate(found):
        where = f"{info.root}: list of episodes: row {place}"
        try:
            for key, low, high in (("episode_index", 0, 2**53), ("length", 1, _MOST_ROWS)):
                try:
                    episode[key] = whole(episode.get(key), low, high)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from error
            rows = [episode.get(f"dataset_{end}_index") for end in ("from", "to")]
            if None not in rows and whole(rows[1]) - whole(rows[0]) != episode["length"]:
                raise ValueError(f"rows {rows[0]} to {rows[1]}, the length is {episode['length']}")
            tasks = episode.get("tasks")
            if tasks is not None and not (isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)):
                raise ValueError(f"tasks is {reprlib.repr(tasks)}, must be a list of texts")
            if episode["episode_index"] in seen:
                raise ValueError(f"episode {episode['episode_index']} twice")
        except ValueError as error:
            raise UserError(f"{where}: {error}", RESTORE) from error
        seen.add(episode["episode_index"])
    for key, count in (("total_episodes", len(found)), ("total_frames", sum(e["length"] for e in found))):
        if key in info.values and info.whole(key, 0) != count:
            raise UserError(
                f"{info.path}: {key} is {info.values[key]}, the list of episodes has {count}",
                "restore the one that is wrong from a copy",
            )
    return sorted(found, key=lambda episode: episode["episode_index"])


def _from_tables(info: Info) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    folder = inside(info.root, layout.EPISODES_FOLDER, str(info.root))
    for path in sorted(folder.rglob("*.parquet"), key=lambda p: numbered(str(p))):
        table = Table(inside(info.root, str(path.relative_to(info.root)), str(info.root)))
        found += table.records(_MOST_EPISODES - len(found))
    return found


def split_episodes(info: Info, episodes: list[dict[str, Any]]) -> dict[str, set[int]]:
    """Places of the episodes of each split that `info.json` names; empty where one split holds all.

    Raises:
        UserError: `splits` is something else.
    """
    splits = info.values.get("splits") or {}
    numbers = {episode["episode_index"]: place for place, episode in enumerate(episodes)}
    found: dict[str, set[int]] = {}
    try:
        for name, stretch in splits.items():
            first, stop = (whole(int(end)) for end in stretch.split(":"))
            found[name] = {place for number, place in numbers.items() if first <= number < stop}
    except (AttributeError, TypeError, ValueError) as error:
        raise info.wrong("splits", "names of stretches of episodes, 'first:stop'") from error
    return {} if any(len(places) == len(episodes) for places in found.values()) else found
