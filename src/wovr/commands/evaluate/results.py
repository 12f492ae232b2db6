"""What a program of `wovr evaluate` leaves: OUT/metrics.json, measured once and shown as often as asked."""

from __future__ import annotations

from collections.abc import Mapping
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
        self._run.finish()

    def of(self, name: str) -> Any:
        """What was measured under a name."""
        return read_json(self.path)[name]
