"""Several world models on the same episodes, side by side (paper, Table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.commands.evaluate.measure_rollouts import COPIED, FPS, IMAGINED
from wovr.commands.evaluate.quality_report import score_cell
from wovr.data.pictures import file_name
from wovr.errors import UserError
from wovr.models.checkpoint import read_checkpoint
from wovr.models.world_model.model import WorldModel


def name_checkpoints(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each of some checkpoints: their run's (runs/NAME/checkpoints/last.ckpt), or else their file's.

    Returns:
        Name -> path, in the order given.

    Raises:
        UserError: Two of a name.
    """
    named: dict[str, str] = {}
    for path in paths:
        parents = Path(path).absolute().parents
        in_run = parents[0].name == "checkpoints" and len(parents) > 1
        name = file_name(parents[1].name if in_run else Path(path).stem)
        if name in named:
            raise UserError(
                f"--world_model has {named[name]} and {path}, which would both be called '{name}'",
                "compare checkpoints of runs whose folders have different names",
            )
        named[name] = path
    return named


def describe(model: WorldModel, path: Path) -> dict[str, Any]:
    """What a world model is and cost: JSON values.

    Args:
        model: Loaded from `path`.
        path: Its checkpoint.

    Returns:
        `checkpoint`; `backbone`, its class; `parameters` without those of the frozen autoencoder; `steps` of its
        sampler; `trained_steps` and `trained_seconds`, null where the checkpoint does not say.
    """
    checkpoint = read_checkpoint(path)
    steps = checkpoint.get("global_step")
    seconds = _seconds(checkpoint)
    frozen = {id(parameter) for parameter in model.autoencoder.parameters()}
    return {
        "checkpoint": str(path),
        "backbone": type(model.backbone).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in frozen),
        "steps": len(model.sigmas),
        "trained_steps": steps if isinstance(steps, int) else None,
        "trained_seconds": None if seconds is None else round(seconds, 1),
    }


def _seconds(checkpoint: Mapping[str, Any]) -> float | None:
    """Seconds of training, as Lightning's Timer keeps them; None where it was not there."""
    found: Any = checkpoint
    for key in ("callbacks", "Timer", "time_elapsed", "train"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, float) else None


def comparison_table(compared: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A block a horizon, a row a world model, a column a score; the first frame copied as the last row of each.

    Args:
        compared: `name`, and what `describe` and `measure_quality` said, of each.
    """
    first = compared[0]
    scores = [name for name in first["scores"] if name != FPS and first["rows"][IMAGINED][name]["shown"]]
    table = Table("frames", "world model", title="world models on the same held-out episodes")
    for heading in ("parameters", "training", "steps", "frames/s"):
        table.add_column(heading, justify="right")
    for name in scores:
        arrow = "↑" if first["rows"][IMAGINED][name]["better"] == "higher" else "↓"
        table.add_column(Text(f"{name} {arrow}"), justify="right")
    for horizon in sorted(first["episodes"], key=int, reverse=True):
        for index, of in enumerate(compared):
            rows = of["rows"][IMAGINED]
            table.add_row(
                horizon if index == 0 else "",
                Text(of["name"]),
                f"{of['parameters']:,}",
                "-" if of["trained_seconds"] is None else f"{of['trained_seconds']:,.0f} s",
                str(of["steps"]),
                score_cell(rows[FPS], horizon),
                *(score_cell(rows[score], horizon) for score in scores),
            )
        copied = first["rows"].get(COPIED, {})
        table.add_row(
            "", COPIED, *[""] * 4,
            *(score_cell(copied[score], horizon) if score in copied else "" for score in scores), end_section=True,
        )  # fmt: skip
    notes = [f"{of['name']}: {note}" for of in compared for note in of["notes"]]
    return Group(table, *(Text(note) for note in notes))
