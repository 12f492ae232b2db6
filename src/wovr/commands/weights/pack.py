"""`wovr weights pack`: what a chain has learned, small enough to give away, with a card that says what it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wovr import __version__
from wovr.commands.pace.folders import CHAIN_FILE, read_record
from wovr.commands.places import BASE, PLACES, POLICY, REWARD, SHIPPED, SHIPPED_NAMES, WORLD_MODEL, Chain
from wovr.commands.weights.card import Packed, write_card
from wovr.commands.weights.manifest import MANIFEST, write_manifest
from wovr.errors import UserError, check_least
from wovr.runs import read_json

NEEDED = (POLICY, WORLD_MODEL, REWARD)
"""Without which there is nothing to play with."""


def pack(chain: Path, out: Path = SHIPPED, episodes: int = 20, megabytes: float = 25.0) -> None:
    """Pack the networks of a chain to give them away: half precision, nothing of their training, a few episodes.

    The cloned policy, the improved one, and the last robot model, world model, success classifier and value function,
    as far as the chain has made them; episodes to begin from; a model card README.md with the commands and the figures
    that the chain has measured; weights.json with sizes and SHA-256. All that loads checkpoints loads them.

    Args:
        chain: Folder of a chain, as runs/demo/spatial.
        out: Folder to make.
        episodes: Episodes to pack, evenly over tasks.
        megabytes: All files together may have.
    """
    check_least("--episodes", episodes)
    if out.exists():
        raise UserError(f"{out}: is there already", "choose another --out, or remove it")
    made = read_stages(chain)
    found = {
        place: path
        for place in SHIPPED_NAMES
        if (path := made.made(PLACES[place], last=place not in (POLICY, BASE))) is not None
    }
    for place in (*NEEDED, BASE):
        if place not in found:
            raise UserError(f"{chain}: has made nothing like {place}", "let the chain finish: wovr pace")
    begun = out.with_name(f".{out.name}.packing")
    shutil.rmtree(begun, ignore_errors=True)  # what a killed packing of ours has left
    try:
        packed = [_pack_network(path, begun / SHIPPED_NAMES[place]) for place, path in found.items() if place != BASE]
        _pack_episodes(found[BASE], begun / SHIPPED_NAMES[BASE], episodes)
        write_card(begun / "README.md", made, packed, begun / SHIPPED_NAMES[BASE])
        about = {"version": __version__, "suite": made.suite, "stages": {one.file: one.stage for one in packed}}
        files = write_manifest(begun, about)["files"]
        total = sum(file["bytes"] for file in files.values()) + (begun / MANIFEST).stat().st_size
        if total > 1e6 * megabytes:
            largest = max(files, key=lambda name: files[name]["bytes"])
            told = f"{total / 1e6:.1f} MB in all, the largest {largest} with {files[largest]['bytes'] / 1e6:.1f}"
            raise UserError(f"{out}: {told}", "pack fewer --episodes, or allow more --megabytes")
        begun.rename(out)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    print(f"{out}: {len(files) + 1} files, {total / 1e6:.1f} MB; networks: {', '.join(one.file for one in packed)}")


def read_stages(folder: Path) -> Chain:
    """The finished stages of a chain, which need not be finished itself, in the order in which they were.

    Raises:
        UserError: The folder is no chain's.
    """
    if not (folder / CHAIN_FILE).is_file():
        raise UserError(
            f"{folder}: not the folder of a chain", "give one that wovr pace has filled, as runs/demo/spatial"
        )
    done = [path.parent for path in folder.glob("*/DONE") if (path.parent / "stage.json").is_file()]
    done.sort(key=lambda stage: ((stage / "DONE").stat().st_mtime, stage.name))
    stages: dict[str, Sequence[str]] = {}
    for stage in done:
        words = (read_record(stage).get("inputs") or {}).get("command")
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            stages[stage.name] = words
    finished = max(((stage / "DONE").stat().st_mtime for stage in done), default=0.0)
    return Chain(folder, str(read_json(folder / CHAIN_FILE).get("suite")), finished, stages)


def _pack_network(checkpoint: Path, copy: Path) -> Packed:
    from wovr.models.half_copies import write_half_copy  # imports torch

    parameters = write_half_copy(checkpoint, copy)
    return Packed(copy.name, checkpoint.parent.parent.name, parameters, copy.stat().st_size)


def _pack_episodes(folder: Path, out: Path, count: int) -> None:
    """Copy some episodes, evenly over their tasks and over those of a task."""
    from wovr.data.store.reader import EpisodeStore
    from wovr.data.store.saving import save_episodes

    store = EpisodeStore(folder)
    by_task: dict[Any, list[int]] = {}
    for index, entry in enumerate(store.entries):
        by_task.setdefault((entry.meta.suite, entry.meta.task), []).append(index)
    chosen = []
    for number, (_, indices) in enumerate(sorted(by_task.items())):
        share = min(len(indices), (count + len(by_task) - 1 - number) // len(by_task))
        chosen += [indices[place * len(indices) // share] for place in range(share)]
    save_episodes(out, (store.read(index) for index in sorted(chosen)))
