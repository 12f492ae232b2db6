"""Folders of stages: what each was filled with, whether it is finished, and what stands for its result.

A stage's command writes the marker DONE of its folder, as ever. Beside it the chain keeps `stage.json`, written before
the command starts: the inputs the folder is being filled with. Finished with the same inputs: skipped. Same inputs, no
marker: the command is given again and goes on where it stopped. Other inputs: the folder is kept under another name,
whatever it holds, and the stage begins in a new one: nothing is ever deleted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wovr.commands.pace.stages import Stage, Surroundings, read_config
from wovr.errors import UserError
from wovr.renames import present_names
from wovr.runs import (
    LOCK_FILE,
    STAGE_FILE,
    RunFolder,
    explain_os_error,
    file_sha256,
    fingerprint,
    only_run,
    place_beside,
    read_json,
    refuse_changes,
    write_json,
)

CHAIN_FILE = "chain.json"
"""Suite and seed of a chain, in its folder."""

FILES = ("dataset.json", "keyframes.json", "keyframes.npz")
"""Files of a finished stage that stand for episodes and keyframes, byte by byte."""

CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
"""Files of a finished stage whose networks, and what they were trained on, are its result."""

DONE, STOPPED, CHANGED, NEW = "done", "stopped", "changed", "to come"
"""States of a stage."""


class StageFolder:
    """The folder of a stage.

    Args:
        stage: The stage.
        given: What its variables stand for.
        needed: Fingerprint of the result of each stage that it needs; None for one that is not finished.
    """

    def __init__(self, stage: Stage, given: Surroundings, needed: Mapping[str, str | None]) -> None:
        self.stage = stage
        self.path = given.folder(stage.name)
        self.inputs: dict[str, Any] = {
            "command": given.identity(stage),
            "config": read_config(stage, stage.config) if stage.config else None,
            "needs": dict(needed),
        }
        self.run = RunFolder(self.path, self.inputs)

    @property
    def record(self) -> dict[str, Any]:
        """What `stage.json` says; empty where there is none."""
        return read_record(self.path)

    def state(self) -> str:
        """DONE, STOPPED, CHANGED or NEW."""
        record = self.record
        if not record:
            return STOPPED if self.run.holds_something() else NEW
        if record.get("inputs") != self.inputs or None in self.inputs["needs"].values():
            return CHANGED
        return DONE if self.run.marker.exists() else STOPPED

    def changes(self) -> str:
        """What has changed since the folder was begun, in a few words."""
        before = self.record.get("inputs") or {}
        parts = [name for name in ("command", "config") if before.get(name) != self.inputs[name]]
        old = before.get("needs") or {}
        parts += [name for name in self.inputs["needs"] if old.get(name) != self.inputs["needs"][name]]
        return ", ".join(parts)

    def begin(self, command: str) -> dict[str, Any]:
        """Make place for the stage, keeping what was made from other inputs, and note what the folder is filled with.

        Returns:
            The new record.

        Raises:
            UserError: It cannot be written, or a command that somebody gave by hand is filling it.
        """
        attempts = [] if self.state() == CHANGED else self.record.get("attempts", [])
        if (place := self.kept_as()) is not None:
            with only_run(self.path):
                try:
                    self.path.rename(place)
                except OSError as error:
                    raise explain_os_error(error, place) from error
            (place / LOCK_FILE).unlink(missing_ok=True)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        attempts = [*attempts, {"seconds": 0.0, "peak_memory": None}]
        record = {"inputs": self.inputs, "command": command, "attempts": attempts}
        self.note(record)
        return record

    def kept_as(self) -> Path | None:
        """Where `begin` is going to keep what the folder holds; None where it needs no other place."""
        if self.state() != CHANGED or not self.run.holds_something():
            return None
        return place_beside(self.path)

    def note(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        write_json(self.path / STAGE_FILE, record)

    def finish(self) -> None:
        """Give the folder the marker where its command leaves none."""
        if not self.run.marker.exists():
            self.run.finish()


class Fingerprints:
    """Fingerprints of finished stages' results; a file is read once as long as it does not change.

    What a result was made with is no part of it: seconds, logs and an optimiser's state may differ where networks and
    episodes are the same.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def __call__(self, folder: Path) -> str | None:
        """Of what a folder holds; None for a stage that is not finished."""
        if not (folder / "DONE").exists():
            return None
        there = {name: self._of_file(folder / name) for name in (*FILES, *CHECKPOINTS) if (folder / name).exists()}
        if not there and (folder / "metrics.json").exists():  # a stage that only measures
            there["metrics.json"] = fingerprint(_without_times(read_json(folder / "metrics.json")))
        return fingerprint(there)

    def _of_file(self, path: Path) -> str:
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._known:
            if path.suffix == ".ckpt":
                from wovr.models.checkpoint import networks_fingerprint  # imports torch

                self._known[key] = networks_fingerprint(path)
            else:
                self._known[key] = file_sha256(path)
        return self._known[key]


def _without_times(value: Any) -> Any:
    """The same JSON value without entries that say how long something took or how fast it was."""
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if "second" not in key}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def read_record(folder: Path) -> dict[str, Any]:
    """`stage.json` of a stage's folder; empty where there is none."""
    path = folder / STAGE_FILE
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path}: not the record of a stage", f"remove {folder}")
    return present_names(record)


def check_chain(given: Surroundings) -> None:
    """Refuse a folder that holds the chain of another suite or seed: its stages would be emptied one by one.

    Raises:
        UserError: It does.
    """
    path = given.out / CHAIN_FILE
    before = read_json(path) if path.exists() else None
    if before is not None:
        refuse_changes(given.out, before, _chain(given), finished=False)


def claim_folder(given: Surroundings) -> None:
    """Note whose chain a folder holds.

    Raises:
        UserError: It holds another one, or cannot be written to.
    """
    check_chain(given)
    write_json(given.out / CHAIN_FILE, _chain(given))


def _chain(given: Surroundings) -> dict[str, Any]:
    return {"suite": given.suite, "seed": given.seed}
