"""What a program of `wovr evaluate` leaves: OUT/metrics.json and its numbers in OUT/tensorboard, measured once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wovr import __version__
from wovr.runs import RunFolder, read_json, write_json

METRICS_FILE = "metrics.json"
"""What every program writes, in the folder of its results."""


class Results:
    """The folder of a measurement.

    Args:
        out: The folder.
        inputs: What the numbers depend on, JSON values; the version of wovr is added.

    Raises:
        UserError: The folder holds a finished measurement of other inputs.
    """

    def __init__(self, out: Path, inputs: Mapping[str, Any]) -> None:
        self.inputs = {**inputs, "version": __version__}
        self.path = out / METRICS_FILE
        self._run = RunFolder(out, self.inputs)
        self._run.refuse_others()

    def are_there(self) -> bool:
        """Whether they were measured before; then it is said."""
        found = self._run.is_done() and self.path.exists()
        if found:
            print(f"{self._run.path} is complete")
        return found

    def begin(self) -> None:
        """Make the folder: everything that can be refused has been looked at."""
        self._run.start()

    def keep(self, measured: Mapping[str, Any]) -> None:
        """Write what was measured, metric by metric."""
        write_json(self.path, {"inputs": self.inputs, **measured})
        write_numbers(measured, self.path.parent / "tensorboard")
        self._run.finish()

    def of(self, name: str) -> Any:
        """What was measured under a name."""
        return read_json(self.path)[name]


def write_numbers(measured: Mapping[str, Any], folder: Path) -> None:
    """Every finite number of nested results as a scalar of TensorBoard's; takes the place of what it wrote before.

    Args:
        measured: JSON values; lists and what is not a number are left out.
        folder: Where the event file goes.
    """
    # Its own writer: that of torch would bring torch along, which counting successes of an expert does not need.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    suffix = ".results"
    for old in folder.glob(f"events.out.tfevents.*{suffix}"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    values = [Summary.Value(tag=name, simple_value=value) for name, value in _numbers(measured)]
    writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
    writer.close()


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}/{key}".strip("/"))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield name, float(value)
