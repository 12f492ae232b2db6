"""The report of a chain: what its stages have measured, gathered into metrics.json, a page and Markdown.

Whatever a stage has not measured is named as missing; nothing is filled in.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wovr import __version__
from wovr.commands.pace.budget import Budget, kind_of
from wovr.commands.pace.folders import read_record
from wovr.commands.pace.stages import Stage, Surroundings
from wovr.commands.report.page import write_html, write_markdown
from wovr.commands.report.sections import make_sections
from wovr.functional.intervals import bootstrap_interval
from wovr.runs import read_json, write_json

PAPER: Mapping[str, Mapping[str, float]] = {
    "base policy (one-trajectory SFT)": {"spatial": 61.5, "object": 36.3, "goal": 48.2, "long": 13.7, "average": 39.9},
    "GRPO (online)": {"spatial": 66.6, "object": 45.1, "goal": 52.1, "long": 14.5, "average": 44.6},
    "WMPO": {"spatial": 67.8, "object": 48.0, "goal": 54.6, "long": 13.7, "average": 46.2},
    "WoVR": {"spatial": 81.5, "object": 82.0, "goal": 77.5, "long": 35.8, "average": 69.2},
}
"""Success rates in percent of the paper's Table 2: LIBERO, OpenVLA-OFT, 2,500 real trajectories a suite."""

PACKAGES = ("torch", "lightning", "diffusers", "mujoco", "gymnasium", "numpy", "av")


@dataclass(frozen=True)
class Result:
    """A finished stage.

    Attributes:
        stage: The stage.
        folder: Its folder.
        kind: What it measures or makes: sr, hallucination, advantage, world_model, reward, or its verb.
        values: Its metrics.json, or dataset.json, or keyframes.json; empty where there is none.
    """

    stage: Stage
    folder: Path
    kind: str
    values: Mapping[str, Any]


def write_report(
    chain: Sequence[Stage], given: Surroundings, budget: Budget, rounds: int = 1, changed: Sequence[str] = ()
) -> Path:
    """Write OUT/report.html, OUT/report.md and OUT/metrics.json.

    Args:
        chain: All stages.
        given: Folder, suite and seed.
        budget: Real episodes.
        rounds: Rounds of the chain.
        changed: Finished stages whose configuration or inputs are others by now.

    Returns:
        The page.

    Raises:
        UserError: A stage's results cannot be read, or the report cannot be written.
    """
    results = read_results(chain, given)
    values = report_values(chain, results, given, budget, rounds, changed)
    write_json(given.out / "metrics.json", values)
    title = f"From demonstrations to PACE: {given.suite}, seed {given.seed}"
    sections = make_sections(values, {name: result.folder for name, result in results.items()})
    write_markdown(given.out / "report.md", title, sections, given.out / "report")
    write_html(given.out / "report.html", title, sections)
    return given.out / "report.html"


def read_results(chain: Sequence[Stage], given: Surroundings) -> dict[str, Result]:
    """What finished stages have written, by stage."""
    results = {}
    for stage in chain:
        folder = given.folder(stage.name)
        if (folder / "DONE").exists():
            files = [folder / name for name in ("metrics.json", "dataset.json") if (folder / name).exists()]
            values = read_json(files[0]) if files else {}
            results[stage.name] = Result(stage, folder, kind_of(stage), values if isinstance(values, dict) else {})
    return results


def report_values(
    chain: Sequence[Stage],
    results: Mapping[str, Result],
    given: Surroundings,
    budget: Budget,
    rounds: int = 1,
    changed: Sequence[str] = (),
) -> dict[str, Any]:
    """All numbers of the report as JSON values.

    Returns:
        `success`, `learning`, `world_model`, `hallucination`, `reward`, `training`, `collected`, each a list with an
        entry a stage, in the order of the chain; `paper`, Table 2; `budget`; `stages`, what each took; `versions`;
        `suite`, `seed`, `rounds`; `missing`, lines.
    """

    def entries(kind: str, key: str | None) -> list[dict[str, Any]]:
        found = []
        for result in results.values():
            values = result.values if key is None else result.values.get(key)
            if result.kind == kind and values:
                found.append({"stage": result.stage.name, "title": result.stage.title, **values})
        return found

    success = entries("sr", "sr")
    for entry in success:
        first = next(other for other in success if bool(other.get("tried")) == bool(entry.get("tried")))
        entry["over"] = first["stage"]
        entry["points"] = round(100 * (entry["all"]["success_rate"] - first["all"]["success_rate"]), 2)
        entry["points_interval"] = points_interval(entry, first)
    learning = entries("rl", None)
    for entry in learning:
        entry["imagined_frames"] = 0 if entry.get("real_episodes") else _sum(entry.get("curve", ()), "rollout_frames")
        entry["optimisation_seconds"] = round(_sum(entry.get("curve", ()), "seconds_optimisation"), 1)
        entry["rollout_seconds"] = round(_sum(entry.get("curve", ()), "seconds_rollouts"), 1)
    stages = [_spent(stage, given) for stage in chain]
    return {
        "suite": given.suite,
        "seed": given.seed,
        "rounds": rounds,
        "success": success,
        "paper": {name: dict(row) for name, row in PAPER.items()},
        "learning": learning,
        "world_model": entries("world_model", "world_model"),
        "hallucination": entries("hallucination", "hallucination"),
        "reward": entries("reward", "reward"),
        "training": [
            {
                "stage": result.stage.name,
                "title": result.stage.title,
                **{key: result.values.get(key) for key in ("steps", "seconds", "parameters", "metrics")},
            }
            for result in results.values()
            if result.kind == "fit" and result.values
        ],
        "collected": [
            {
                "stage": result.stage.name,
                "title": result.stage.title,
                **{key: result.values.get(key) for key in ("episodes", "frames", "successes", "success_rate")},
            }
            for result in results.values()
            if result.kind == "collect"
        ],
        "budget": budget.as_json()
        | {
            "imagined_frames": int(sum(entry["imagined_frames"] for entry in learning)),
            "seconds": round(sum(stage["seconds"] for stage in stages), 1),
            "peak_memory": max((stage["peak_memory"] or 0 for stage in stages), default=0) or None,
        },
        "stages": stages,
        "versions": versions(),
        "missing": _missing(chain, results, changed),
    }


def points_interval(entry: Mapping[str, Any], first: Mapping[str, Any]) -> list[float] | None:
    """95 % bootstrap interval of the difference between two success rates, paired over initial states, in points.

    Args:
        entry: What `wovr.commands.evaluate.success_rate.measure_success` returned.
        first: The same of the policy compared with.

    Returns:
        Its ends; None where the two were not measured on the same initial states.
    """
    mine, other = (_successes_by_state(values) for values in (entry, first))
    if mine.keys() != other.keys() or not mine:
        return None
    differences = np.array([mine[state] - other[state] for state in sorted(mine)])
    interval = bootstrap_interval(differences, np.ones(len(differences)))
    return [round(100 * interval.low, 2), round(100 * interval.high, 2)]


def _successes_by_state(values: Mapping[str, Any]) -> dict[tuple[str, int, int], float]:
    """(Suite, task, initial state) -> share of its episodes that succeeded."""
    found: dict[tuple[str, int, int], list[bool]] = {}
    for suite, of_suite in values["suites"].items():
        for task, init_state, steps in of_suite.get("outcomes", ()):
            found.setdefault((suite, task, init_state), []).append(steps is not None)
    return {state: sum(successes) / len(successes) for state, successes in found.items()}


def versions() -> dict[str, str]:
    """Versions of what computed, and the machine."""
    found = {"wovr": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"processor": _processor(), "cores": str(os.cpu_count() or "?")}


def _spent(stage: Stage, given: Surroundings) -> dict[str, Any]:
    """What a stage took."""
    record = read_record(given.folder(stage.name))
    attempts = record.get("attempts", [])
    peaks = [attempt["peak_memory"] for attempt in attempts if attempt.get("peak_memory")]
    return {
        "stage": stage.name,
        "title": stage.title,
        "finished": (given.folder(stage.name) / "DONE").exists(),
        "seconds": round(sum(attempt.get("seconds") or 0.0 for attempt in attempts), 1),
        "attempts": len(attempts),
        "peak_memory": max(peaks, default=None),
        "command": record.get("command"),
    }


def _missing(chain: Sequence[Stage], results: Mapping[str, Result], changed: Sequence[str]) -> list[str]:
    """What a reader will look for in vain."""
    lines = [f"{stage.title}: stage {stage.name} has not been run" for stage in chain if stage.name not in results]
    lines += [f"{name}: finished with another configuration or other inputs than now" for name in changed]
    kinds = {kind_of(stage) for stage in chain}
    for kind, what in (
        ("sr", "success rates"),
        ("rl", "learning curves"),
        ("world_model", "quality of the world model"),
        ("hallucination", "imagined against real success"),
        ("reward", "precision and recall of the classifier on held-out episodes"),
    ):
        if kind not in kinds:
            lines.append(f"{what}: no stage of this chain measures it")
    if not any(stage.counts == "baseline" for stage in chain):
        lines.append("online GRPO under the same real budget: no stage of this chain runs it")
    return lines


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(row.get(name) or 0 for row in rows)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
