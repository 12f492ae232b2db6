"""A run's folder: one command at a time, atomic writes, the DONE marker, fingerprints of what a result came from."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from wovr.errors import UserError
from wovr.processes import wait_until
from wovr.renames import present_names

MAX_JSON = 1 << 26
"""Largest JSON file that is read, bytes: what JSON makes of a byte takes up to twenty in memory."""

LOCK_FILE = ".lock"
"""Held by the command that fills a folder, as long as it does."""

STAGE_FILE, LOG_FILE = "stage.json", "stage.log"
"""What a chain keeps in the folder of a stage: whose it is, and what its command has said."""

BESIDE = (LOCK_FILE, STAGE_FILE, LOG_FILE)
"""Files of a folder that are no result."""

_WAIT_SECONDS = 2.0
"""For what a killed command has left behind to end."""

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where launchers say which process of a run this is; the first that is set counts, as for Lightning."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def is_first_process() -> bool:
    """Whether this is the process of a run that speaks and writes for all; that of a run of one is."""
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"


@contextmanager
def only_run(folder: Path, wait: float | None = None) -> Iterator[int | None]:
    """Keep every other command out of a folder while this one fills it; one that was killed keeps nobody out.

    The lock is the kernel's, on OUT/.lock, and is gone with the last process that has inherited it. The file is removed
    at the end by the process that holds the lock, so nobody else can be waiting for it in vain: who gets a lock on a
    file that is no longer there tries again. Of a run of several processes the first one takes it for all.

    Args:
        folder: The folder; made when missing, with those it lies in, and removed again at the end where still empty.
        wait: Seconds to wait for another command; None for 2.

    Yields:
        A file descriptor, for child processes that fill parts of the folder to inherit; None where there is no lock.

    Raises:
        UserError: Another command works there, or the folder cannot be made.
    """
    if not is_first_process():
        yield None
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _lock(folder, _WAIT_SECONDS if wait is None else wait)
    try:
        yield descriptor
    finally:
        if _is_file_of(folder / LOCK_FILE, descriptor):
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()
                for path in made:
                    path.rmdir()  # which fails, as it should, where something has been written
        os.close(descriptor)


def _lock(folder: Path, wait: float) -> int:
    path = folder / LOCK_FILE
    until = time.monotonic() + wait
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            # Who made the folder may remove it while we make it (it is there, and no folder) or after that.
            gone = isinstance(error, FileNotFoundError | FileExistsError) and not folder.exists()
            if gone and time.monotonic() <= until + _WAIT_SECONDS:
                continue
            raise explain_os_error(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            if time.monotonic() >= until:
                raise UserError(
                    f"{folder}: another `wovr` command, or one that it started, is filling this folder",
                    "wait for it to end, or choose another --out",
                ) from error
            time.sleep(0.05)
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise explain_os_error(error, path) from error
            print(
                f"wovr: note: {folder}: this file system has no locks; give it to one command at a time",
                file=sys.stderr,
            )
        if _is_file_of(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever had it removed it in between


def _is_file_of(path: Path, descriptor: int) -> bool:
    """Whether a descriptor is of the file that stands at `path` now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under `path` whole or not at all.

    The bytes go to a hidden neighbour, are flushed to disk and renamed. On any error the neighbour is removed and
    what stood at `path` before stays.

    Args:
        path: Final path; its folder is made when missing.

    Yields:
        A binary file object.

    Raises:
        UserError: The disk is full or the place is not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        with suppress(OSError):  # it is gone after the rename, and where its folder could not be made
            temporary.unlink()


def explain_os_error(error: OSError, path: Path) -> UserError:
    """Turn a failed write into the line a user can act on."""
    remedies = {
        errno.ENOSPC: "free some space or choose another --out, then run the same command again",
        errno.EDQUOT: "free some of your quota or choose another --out, then run the same command again",
        errno.EACCES: "choose an --out you may write to",
        errno.EROFS: "choose an --out on a writable disk",
    }
    return UserError(
        f"{path}: cannot be written: {os.strerror(error.errno or 0)}",
        remedies.get(error.errno or 0, "choose another --out; what was already written is kept"),
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; the same value gives the same bytes."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing, not JSON, or larger than MAX_JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path}: more than {MAX_JSON} bytes, not read", "restore the file or make it anew")
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", "check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})", "restore the file or make it anew") from error


def place_beside(folder: Path) -> Path:
    """FOLDER.before-1, or the next number that is free: where an earlier result is kept when a new one replaces it."""
    folder = Path(os.path.abspath(folder))
    places = (folder.with_name(f"{folder.name}.before-{number}") for number in count(1))
    return next(place for place in places if not os.path.lexists(place))


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    return value_sha256(value)[:16]


def value_sha256(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunFolder:
    """A folder that one command fills and marks DONE.

    Args:
        path: The folder; made when missing.
        inputs: What the result depends on (options, fingerprints of inputs); JSON values.
        begun: File of the folder that holds the inputs from the start on, so that it is known whose it is before it is
            finished; None where only a finished result is guarded.
    """

    def __init__(self, path: Path, inputs: Any, begun: str | None = None) -> None:
        self.path = path
        self.inputs = inputs
        self.begun = None if begun is None else path / begun
        self.marker = path / "DONE"

    def is_done(self) -> bool:
        """True when the folder was finished with the same inputs."""
        return self.marker.exists() and _inputs_in(self.marker) == json.loads(json.dumps(self.inputs))

    def holds_something(self) -> bool:
        """Whether there is anything in it beside what says whose it is."""
        beside = {*BESIDE, None if self.begun is None else self.begun.name}
        found = self.path.iterdir() if self.path.exists() else ()
        return any(path.name not in beside and not path.name.startswith(".") for path in found)

    def refuse_others(self, renewed: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> list[str]:
        """Leave alone what was made from other inputs and, where there is a file `begun`, what others have put there.

        A folder in which nothing has been made yet is nobody's: a command that was refused can be mended.

        Args:
            renewed: Inputs of which the result may have been made from an earlier state.
            defaults: What an input was that a folder does not name: from before it could be chosen.

        Returns:
            Those of `renewed` in which it differs, where it differs in nothing else.

        Raises:
            UserError: The folder holds something else.
        """
        if not is_first_process():  # it says so for all
            return []
        finished = self.marker.exists()
        place = self.marker if self.begun is None else self.begun
        if not place.exists():
            if self.begun is not None and self.holds_something():
                raise UserError(f"{self.path}: not empty, and not begun by this command", "choose another --out")
            return []
        before, now = _inputs_in(place), json.loads(json.dumps(self.inputs))
        if not isinstance(before, dict):
            raise UserError(f"{place}: not a list of inputs", "restore the file or choose another --out")
        if not self.holds_something():
            return []
        before = {name: value for name, value in (defaults or {}).items() if name in now} | before
        changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
        if changed <= set(renewed):
            return sorted(changed)
        for inputs in (before, now):
            for name in renewed:
                inputs.pop(name, None)
        refuse_changes(self.path, before, now, finished)
        return []

    def start(self) -> None:
        """Make the folder, take back an older marker, and note the inputs in the file `begun`.

        Of several processes the first does it, and the others wait until they find it done.
        """
        if not is_first_process():
            wait_until(self._is_begun)
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.marker.unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        if self.begun is not None:
            write_json(self.begun, self.inputs)

    def _is_begun(self) -> bool:
        """Whether the file `begun`, if there is to be one, names these inputs and nothing is said to be finished."""
        if self.begun is None:
            return True
        there = self.begun.exists() and not self.marker.exists()
        return there and bool(_inputs_in(self.begun) == json.loads(json.dumps(self.inputs)))

    def finish(self, **result: Any) -> None:
        """Write the marker, with the inputs and whatever the command wants to be read beside them."""
        write_json(self.marker, {"inputs": self.inputs, **result})


def refuse_changes(folder: Path, before: Any, now: Any, finished: bool) -> None:
    """Refuse to go on in a folder whose result comes, or was to come, from other inputs.

    Args:
        folder: The folder.
        before: What it was filled from, JSON values.
        now: What it would be filled from.
        finished: Whether the result is whole.

    Raises:
        UserError: They differ; with the first three differences, as `trainer.max_steps was 10 and is 11`.
    """
    flat = _leaves(before), _leaves(now)
    names = sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
    if not names:
        return
    shown = [f"{name} was {repr(flat[0].get(name))[:100]} and is {repr(flat[1].get(name))[:100]}" for name in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    what = "holds a finished result of other inputs" if finished else "was begun with other inputs"
    remedy = "choose another --out, or remove the folder"
    raise UserError(
        f"{folder}: {what}: {', '.join(shown)}{more}",
        remedy if finished else f"give the same command to finish it, or {remedy}",
    )


def _inputs_in(path: Path) -> Any:
    """Inputs in a marker or in a file `begun`, classes by their present names."""
    value = read_json(path)
    return present_names(value.get("inputs") if path.name == "DONE" and isinstance(value, dict) else value)


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"trainer.max_steps": 100, ...}."""
    if not isinstance(value, dict):
        return {name: value}
    inside = (_leaves(item, f"{name}.{key}".lstrip(".")) for key, item in value.items())
    return {key: leaf for leaves in inside for key, leaf in leaves.items()}
