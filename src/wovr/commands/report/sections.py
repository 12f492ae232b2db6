"""The sections of a chain's report: from its numbers to tables, charts and videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wovr.commands.pace.view import clock, gigabytes
from wovr.commands.report.charts import Bar, as_svg, bar_chart, line_chart
from wovr.commands.report.page import Block, Grid, Paragraph, Picture, Pictures, Section, Videos

SUITES = ("spatial", "object", "goal", "long")

_CURVES = {
    "success_rate_imagined": "imagined SR",
    "success_rate_real": "SR in the simulator",
    "eval_success_rate_real": "real evaluation",
}
"""Columns of a learning curve that are success rates -> name in the chart."""

_REWARD_SCORES = {
    "precision": "frames: precision",
    "recall": "recall",
    "average_precision": "average precision",
    "episodes": "episodes",
    "episode_precision": "episodes: precision",
    "episode_recall": "recall",
    "episode_accuracy": "accuracy",
}
"""Scores of `wovr evaluate --reward` -> heading."""

_VIDEOS_OF_A_STAGE = 2


def make_sections(values: Mapping[str, Any], folders: Mapping[str, Path]) -> list[Section]:
    """All sections of the report.

    Args:
        values: See `wovr.commands.report.chain.report_values`.
        folders: Stage -> its folder, where its videos are.
    """
    return [
        Section("Success rates", _headline(values)),
        Section("By task", _by_task(values)),
        Section("Beside the paper", _paper(values)),
        Section("Learning curves", _learning(values)),
        Section("Quality of the world model", _quality(values)),
        Section("Imagined against real success", _hallucination(values)),
        Section("Success classifier", _reward(values)),
        Section("Videos", _videos(values, folders)),
        Section("What it cost", _cost(values)),
        Section("Versions, seed and commands", _versions(values)),
        Section("Missing", [Paragraph(line, missing=True) for line in values["missing"]] or [Paragraph("Nothing.")]),
    ]


def headline(values: Mapping[str, Any]) -> str:
    """The success rates in one sentence."""
    parts = [f"{entry['title']} {_rate(entry['all'])}" for entry in values["success"]]
    return "; ".join(parts) + "." if parts else "No success rate has been measured."


def _headline(values: Mapping[str, Any]) -> list[Block]:
    success = values["success"]
    if not success:
        return [Paragraph("No success rate has been measured.", missing=True)]
    rows = [
        [
            entry["title"],
            _temperature(entry),
            str(entry["all"]["episodes"]),
            _percent(entry["all"]["success_rate"]),
            _interval(entry["all"]),
            "" if entry["over"] == entry["stage"] else f"{entry['points']:+.1f}",
            "" if entry["over"] == entry["stage"] else _between(entry["points_interval"]),
        ]
        for entry in success
    ]
    bars = [Bar(entry["title"], *(entry["all"][key] for key in ("success_rate", "low", "high"))) for entry in success]
    caption = "success rates in the simulator, held-out initial states, 95 % intervals"
    first = success[0]["title"]
    headings = ("policy", "temperature ", "episodes ", "SR ", "95 % Wilson interval ", f"points over {first} ", "95 % ")
    return [
        Paragraph(headline(values)),
        Pictures([Picture("success.svg", bar_chart(bars), caption)]),
        Grid(headings, rows),
        Paragraph(
            "The points are over the first policy measured at a temperature of the same kind: given, or chosen on "
            "initial states of the training. Their interval is a bootstrap over initial states, both policies on the "
            "same."
        ),
    ]


def _by_task(values: Mapping[str, Any]) -> list[Block]:
    success = values["success"]
    rows: dict[tuple[str, int], list[str]] = {}
    for column, entry in enumerate(success):
        for suite, found in entry["suites"].items():
            for task in found["tasks"]:
                row = rows.setdefault((suite, task["index"]), [suite, str(task["index"]), task["instruction"]])
                row += [""] * (3 + column - len(row)) + [f"{_percent(task['success_rate'])} ({_interval(task)})"]
    if not rows:
        return [Paragraph("No success rate has been measured.", missing=True)]
    full = [row + [""] * (3 + len(success) - len(row)) for _, row in sorted(rows.items())]
    return [Grid(("suite", "task", "instruction", *(f"{entry['title']} " for entry in success)), full)]


def _paper(values: Mapping[str, Any]) -> list[Block]:
    rows = [
        [f"paper: {name}", *(f"{row[suite]:.1f}" for suite in (*SUITES, "average"))]
        for name, row in values["paper"].items()
    ]
    ours = []
    for entry in values["success"]:
        cells = [
            f"{_percent(entry['suites'][suite]['success_rate'])}" if suite in entry["suites"] else ""
            for suite in SUITES
        ]
        ours.append([f"here: {entry['title']}", *cells, ""])
    note = (
        "The paper's figures are of LIBERO with OpenVLA-OFT and 2,500 real trajectories a suite (its Table 2); those "
        f"here are of this chain's environment and its {values['budget']['real_episodes']:,} real episodes. Compare "
        "the gains, not the levels. An average over suites takes a chain for each."
    )
    headings = ("policy", *(f"{suite.capitalize()} " for suite in SUITES), "Average ")
    return [Grid(headings, rows + ours, strong=range(len(rows), len(rows) + len(ours))), Paragraph(note)]


def _learning(values: Mapping[str, Any]) -> list[Block]:
    charts, rows = [], []
    for entry in values["learning"]:
        curve = entry.get("curve") or []
        last = int(max((row["update"] for row in curve), default=0))
        series = {}
        for column, name in _CURVES.items():
            found = {int(row["update"]): float(row[column]) for row in curve if column in row}
            if found:
                series[name] = [found.get(update, math.nan) for update in range(last + 1)]
        if series:
            chart = line_chart(f"{entry['title']}: success rate by update", "update", "SR", series)
            charts.append(Picture(f"curve-{entry['stage']}.svg", as_svg(chart), f"{entry['title']}, by update"))
        rates = next((rates for rates in series.values()), [])
        known = [rate for rate in rates if math.isfinite(rate)]
        tenth = max(1, len(known) // 10)
        rows.append(
            [
                entry["title"],
                str(entry.get("updates", "")),
                f"{entry.get('rollouts', 0):,}",
                f"{entry['imagined_frames']:,.0f}",
                f"{entry.get('real_episodes', 0):,}",
                _percent(sum(known[:tenth]) / tenth) if known else "",
                _percent(sum(known[-tenth:]) / tenth) if known else "",
                f"{entry['rollout_seconds']:.0f} / {entry['optimisation_seconds']:.0f}",
            ]
        )
    if not rows:
        return [Paragraph("No policy was optimised.", missing=True)]
    headings = (
        *("run", "updates ", "rollouts ", "imagined frames ", "real episodes "),
        *("SR, first tenth ", "SR, last tenth ", "seconds: rollouts / optimisation "),
    )
    pictures = [Pictures(charts)] if charts else []
    return [*pictures, Grid(headings, rows), Paragraph("SR in this table is that of the rollouts learned from.")]


def _quality(values: Mapping[str, Any]) -> list[Block]:
    entries = values["world_model"]
    if not entries:
        return [Paragraph("The world model has not been measured.", missing=True)]
    scores = list(dict.fromkeys(name for entry in entries for name in entry["scores"]))
    horizons = sorted({horizon for entry in entries for horizon in entry["episodes"]}, key=int)
    rows = []
    for name in scores:
        for entry in entries:
            for frames in entry["frames"]:
                score = entry["rows"][frames].get(name)
                if score is None or not score["shown"]:
                    continue
                if frames != entry["frames"][0] and entry is not entries[0]:
                    continue  # what is no imagination is the same for each
                title = entry["title"] if frames == entry["frames"][0] else frames
                arrow = "↑" if score["better"] == "higher" else "↓"
                rows.append([f"{name} {arrow}", title, *(_score(score, horizon) for horizon in horizons)])
    episodes = ", ".join(f"{count} to frame {horizon}" for horizon, count in entries[0]["episodes"].items())
    notes = list(dict.fromkeys(f"{entry['title']}: {note}" for entry in entries for note in entry["notes"]))
    return [
        Grid(("score", "frames", *(f"frame {horizon} " for horizon in horizons)), rows),
        Paragraph(f"Imagined under the actions of real episodes ({episodes}) and held against their frames."),
        *(Paragraph(note) for note in notes),
    ]


def _hallucination(values: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for entry in values["hallucination"]:
        scores = entry["scores"]
        rows = [
            ["imagined to succeed", str(scores["true_success"]), f"{scores['false_success']} (false successes)"],
            ["imagined to fail", f"{scores['false_failure']} (false failures)", str(scores["true_failure"])],
        ]
        blocks.append(Grid((entry["title"], "really succeeds ", "really fails "), rows))
        blocks.append(
            Paragraph(
                f"{entry['rollouts']} rollouts: imagined SR {_rate(entry['imagined'])}, "
                f"real SR {_rate(entry['real'])}; false among the imagined successes: "
                f"{_percent(scores['false_success_rate'])} %; same outcome in {_percent(scores['agreement'])} %."
            )
        )
    return blocks or [Paragraph("Imagined success has not been held against real success.", missing=True)]


def _reward(values: Mapping[str, Any]) -> list[Block]:
    rows = []
    for entry in values["reward"]:
        for source in ("real", "imagined"):
            if source in entry:
                rows.append(
                    [entry["title"], source, *(_number(entry[source]["all"].get(key)) for key in _REWARD_SCORES)]
                )
    if rows:
        return [Grid(("classifier", "frames", *(f"{name} " for name in _REWARD_SCORES.values())), rows)]
    return [Paragraph("Not measured on held-out episodes; what training said is under the costs.", missing=True)]


def _videos(values: Mapping[str, Any], folders: Mapping[str, Path]) -> list[Block]:
    blocks: list[Block] = []
    for kind, what in (
        ("success", "in the simulator"),
        ("world_model", "real | imagined | difference, under the same actions"),
        ("hallucination", "real | imagined | difference, imagined success that is not real, or the reverse"),
    ):
        items = []
        for entry in values[kind]:
            names = [name for name in entry.get("videos", ()) if (folders[entry["stage"]] / name).exists()]
            for name in _spread(names):
                items.append((folders[entry["stage"]] / name, f"{entry['title']}: {Path(name).stem}"))
        if items:
            blocks += [Paragraph(what[0].upper() + what[1:] + "."), Videos(items)]
    return blocks or [Paragraph("No stage has kept a video.", missing=True)]


def _cost(values: Mapping[str, Any]) -> list[Block]:
    budget = values["budget"]
    limit = "no limit was declared" if budget["limit"] is None else f"the budget is {budget['limit']:,}"
    peak = "not measured" if budget["peak_memory"] is None else gigabytes(budget["peak_memory"])
    unfinished = sum(not stage["finished"] for stage in values["stages"])
    text = (
        f"Real episodes that were learned from: {budget['real_episodes']:,} ({limit}); that only measured: "
        f"{budget['evaluation_episodes']:,}. Imagined frames that were learned from: {budget['imagined_frames']:,}. "
        f"All stages: {clock(budget['seconds'])}; the largest process held {peak}."
    )
    if unfinished:
        text += f" {unfinished} stages are not finished: of those, what they are to take."
    blocks: list[Block] = [Paragraph(text)]
    for name, spent in budget["baselines"].items():
        blocks.append(Paragraph(f"Baseline {name}: {spent:,} real episodes, those it rests on included."))
    rows = []
    for stage in values["stages"]:
        episodes = budget["by_stage"][stage["stage"]]
        rows.append(
            [
                stage["stage"],
                stage["title"],
                clock(stage["seconds"]) if stage["attempts"] else "",
                str(stage["attempts"] or ""),
                "" if stage["peak_memory"] is None else gigabytes(stage["peak_memory"]),
                f"{episodes['collected']:,}" if episodes["collected"] else "",
                f"{episodes['evaluated']:,}" if episodes["evaluated"] else "",
            ]
        )
    headings = (
        *("stage", "what", "time ", "attempts ", "peak memory ", "real episodes learned from "),
        "real episodes that only measured ",
    )
    blocks.append(Grid(headings, rows))
    if values["training"]:
        trained = [
            [
                entry["title"],
                str(entry["steps"]),
                f"{entry['parameters'] / 1e6:.2f} M" if entry["parameters"] else "",
                ", ".join(f"{name} {value:.3g}" for name, value in sorted((entry["metrics"] or {}).items())),
            ]
            for entry in values["training"]
        ]
        blocks.append(Grid(("training", "steps ", "parameters ", "last metrics"), trained))
    if values["collected"]:
        rows = [
            [entry["title"], f"{entry['episodes']:,}", f"{entry['frames']:,}", _percent(entry["success_rate"])]
            for entry in values["collected"]
        ]
        blocks.append(Grid(("collected", "episodes ", "frames ", "SR "), rows))
    return blocks


def _versions(values: Mapping[str, Any]) -> list[Block]:
    rows = [[name, version] for name, version in values["versions"].items()]
    commands = [[stage["stage"], stage["command"]] for stage in values["stages"] if stage["command"]]
    return [
        Paragraph(f"Suite {values['suite']}, seed {values['seed']}, rounds {values['rounds']}."),
        Grid(("what", "version"), rows),
        Grid(("stage", "command"), commands, code=[1]),
    ]


def _spread(names: Sequence[str]) -> list[str]:
    """The first and the last: of an evaluation a success and a failure, where there are both."""
    return list(dict.fromkeys([*names[: _VIDEOS_OF_A_STAGE - 1], *names[-1:]]))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(counts: Mapping[str, Any]) -> str:
    return f"{100 * counts['low']:.1f} - {100 * counts['high']:.1f}"


def _temperature(entry: Mapping[str, Any]) -> str:
    """`0 (chosen of 0, 0.5, 1)`, `1`, or nothing of an actor without one."""
    temperature, tried = entry.get("temperature"), entry.get("tried")
    if temperature is None:
        return ""
    choices = ", ".join(f"{counts['temperature']:g}" for counts in tried or ())
    return f"{temperature:g}" + (f" (chosen of {choices})" if choices else "")


def _between(interval: Sequence[float] | None) -> str:
    return "other states" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _rate(counts: Mapping[str, Any]) -> str:
    return f"{_percent(counts['success_rate'])} % ({_interval(counts)})"


def _score(score: Mapping[str, Any], horizon: str) -> str:
    value = score["by_horizon"].get(horizon)
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{score['digits']}f}"


def _number(value: Any) -> str:
    return "-" if value is None else (f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
