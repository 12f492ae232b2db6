"""Folders of stages: what each was filled with, whether it is finished, and one chain at a time.

A stage's command writes the marker DONE of its folder, as ever. Beside it the chain keeps `stage.json`, written before
the command starts: the inputs the folder is being filled with. Finished with the same inputs: skipped. Same inputs, no
marker: the command is given again and goes on where it stopped. Other inputs: the folder is emptied first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wovr.commands.pace_stages import Stage, Surroundings, read_config
from wovr.errors import UserError
from wovr.runs import RunFolder, explain_os_error, file_sha256, fingerprint, read_json, write_json

RECORD_FILE = "stage.json"
"""Inputs, command, seconds and peak memory of a stage."""

CHAIN_FILE = "chain.json"
"""Suite and seed of a chain, in its folder."""

RESULTS = (
    *("dataset.json", "keyframes.json", "keyframes.npz", "metrics.json"),
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
)
"""Files of a finished stage that stand for all of its result."""

DONE, STOPPED, CHANGED, NEW = "done", "stopped", "changed", "to come"
"""States of a stage."""

_LOCK_SECONDS = 10.0


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
        self.old = self.path.with_name(f".{self.path.name}.old")

    @property
    def record(self) -> dict[str, Any]:
        """What `stage.json` says; empty where there is none."""
        return read_record(self.path)

    def state(self) -> str:
        """DONE, STOPPED, CHANGED or NEW."""
        record = self.record
        if not record:
            return STOPPED if self.path.exists() and any(self.path.iterdir()) else NEW
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
        """Empty the folder if it holds something else, and note what it is being filled with.

        Returns:
            The new record.

        Raises:
            UserError: It cannot be written.
        """
        changed = self.state() == CHANGED
        try:
            if self.old.exists():
                shutil.rmtree(self.old)
            if changed:
                # At once or not at all: half a folder would look like one to go on in.
                self.path.rename(self.old)
                shutil.rmtree(self.old)
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        attempts = [*self.record.get("attempts", []), {"seconds": 0.0, "peak_memory": None}]
        record = {"inputs": self.inputs, "command": command, "attempts": attempts}
        self.note(record)
        return record

    def note(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        write_json(self.path / RECORD_FILE, record)

    def finish(self) -> None:
        """Give the folder the marker where its command leaves none."""
        if not self.run.marker.exists():
            self.run.finish()


class Fingerprints:
    """Fingerprints of finished stages' results; a file is read once as long as it does not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def __call__(self, folder: Path) -> str | None:
        """Of all RESULTS of a folder; None for a stage that is not finished."""
        if not (folder / "DONE").exists():
            return None
        return fingerprint({name: self._sha256(folder / name) for name in RESULTS if (folder / name).exists()})

    def _sha256(self, path: Path) -> str:
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._known:
            self._known[key] = file_sha256(path)
        return self._known[key]


def read_record(folder: Path) -> dict[str, Any]:
    """`stage.json` of a stage's folder; empty where there is none."""
    path = folder / RECORD_FILE
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path}: not the record of a stage", f"remove {folder}")
    return record


def check_chain(given: Surroundings) -> None:
    """Refuse a folder that holds the chain of another suite or seed: its stages would be emptied one by one.

    Raises:
        UserError: It does.
    """
    path = given.out / CHAIN_FILE
    before = read_json(path) if path.exists() else None
    if before is not None and before != _chain(given):
        raise UserError(
            f"{path}: this folder holds the chain of {_in_words(before)}, not of {_in_words(_chain(given))}",
            "choose another --out, or remove the folder",
        )


def claim_folder(given: Surroundings) -> None:
    """Note whose chain a folder holds.

    Raises:
        UserError: It holds another one, or cannot be written to.
    """
    check_chain(given)
    write_json(given.out / CHAIN_FILE, _chain(given))


def _chain(given: Surroundings) -> dict[str, Any]:
    return {"suite": given.suite, "seed": given.seed}


def _in_words(chain: Any) -> str:
    return (
        ", ".join(f"{key} {value}" for key, value in sorted(chain.items())) if isinstance(chain, dict) else str(chain)
    )


@contextmanager
def only_chain(out: Path) -> Iterator[int]:
    """Keep a second chain out of a folder; one that was killed keeps nobody out once its stage is gone too.

    Yields:
        A file descriptor for the stages' processes to inherit.

    Raises:
        UserError: Another chain runs there, or it cannot be written to.
    """
    lock = out / ".pace.lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise explain_os_error(error, lock) from error
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise UserError(
                        f"{out}: another `wovr pace`, or a stage it left behind, works here", "wait for it to end"
                    ) from error
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
