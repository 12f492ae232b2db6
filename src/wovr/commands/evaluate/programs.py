"""What `wovr evaluate` can measure: metrics by program, and which program a command line or a configuration asks for.

Each program is a function with options of its own, imported only when it is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wovr.commands.arguments import words
from wovr.commands.config_files import find_config, flag_values, names_config, read_config_file
from wovr.commands.places import RUNS
from wovr.errors import UserError, meant
from wovr.importing import import_named

ASKING = ("metrics", "world_model", "reward")
"""Options that say which program is meant."""


@dataclass(frozen=True)
class Program:
    """One of the programs.

    Attributes:
        name: What its results are called in metrics.json.
        path: Import path of its function.
        measures: What it measures, in a few words.
        metrics: Metric -> what it needs beside that: `weights NAME` (see `wovr weights list`) or the flag of a
            checkpoint.
    """

    name: str
    path: str
    measures: str
    metrics: Mapping[str, Sequence[str]]

    def load(self) -> Callable[..., None]:
        """Its function, whose arguments are its options."""
        return import_named(self.path, f"evaluate {self.name}", "install wovr again")


PROGRAMS = (
    Program("sr", "wovr.commands.evaluate.main:evaluate", "a policy in an environment", {"sr": ()}),
    Program(
        "world_model",
        "wovr.commands.evaluate.world_model:evaluate_world_model",
        "a world model on held-out episodes",
        {
            **dict.fromkeys(("psnr", "ssim", "fps", "permanence"), ()),
            "lpips": ("weights alexnet",),
            "flolpips": ("weights alexnet",),
            "fid": ("weights inception",),
            "fvd": ("weights i3d",),
            **{f"{name}[idm]": ("--idm",) for name in ("lpips", "flolpips", "fid", "fvd")},
            "action_following": ("--idm",),
            "state_error": ("--probe",),
            "policy_shift": ("--policy",),
        },
    ),
    Program(
        "reward",
        "wovr.commands.evaluate.reward:evaluate_reward",
        "a success classifier on held-out episodes",
        {"reward": ()},
    ),
    Program(
        "hallucination",
        "wovr.commands.evaluate.hallucination:evaluate_hallucination",
        "how much of a policy's imagined success is real",
        {"hallucination": ("--world_model", "--reward")},
    ),
    Program(
        "trust",
        "wovr.commands.evaluate.trust:evaluate_trust",
        "how well a trust tells what imagination gets wrong",
        {"trust": ("--trust", "--world_model", "--reward")},
    ),
    Program(
        "advantage",
        "wovr.commands.evaluate.advantage.audit:evaluate_advantage",
        "what RL takes for advantage",
        {"advantage": ()},
    ),
)
"""All of them; the first is the one that is meant where nothing says otherwise."""

METRICS: dict[str, Program] = {metric: program for program in PROGRAMS for metric in program.metrics}
"""Metric -> its program."""


def choose_program(options: Mapping[str, Any]) -> Program:
    """The program that some options ask for: by the metrics, else by what is to be measured.

    Args:
        options: Of the verb; those of ASKING count, an empty one as none.

    Raises:
        UserError: An unknown metric, or metrics of several programs.
    """
    names = words(str(options.get("metrics") or ""))
    for name in names:
        if name not in METRICS:
            guess = f"did you mean {guess}? " if (guess := meant(name, METRICS)) else ""
            raise UserError(f"unknown metric '{name}'", f"{guess}choose from, to measure {metric_list()}")
    asked = list(dict.fromkeys(METRICS[name].name for name in names))
    if len(asked) > 1:
        apart = " and ".join(",".join(name for name in names if METRICS[name].name == one) for one in asked)
        raise UserError(f"--metrics {','.join(names)} are measured by different programs", f"give {apart} one by one")
    by_name = {program.name: program for program in PROGRAMS}
    asked += [name for name in ("world_model", "reward") if options.get(name)]
    return by_name[asked[0]] if asked else PROGRAMS[0]


def asking_options(args: Sequence[str]) -> dict[str, Any]:
    """Those of ASKING that a command line gives, by flags or by `--config`; the last of each counts.

    Args:
        args: Words after the verb.

    Raises:
        UserError: A configuration that cannot be read.
    """
    found: dict[str, Any] = {}
    asking = [f"--{name}" for name in ASKING]
    for flag, value in flag_values(args):
        if flag == "--config" and value and names_config(value):
            given = read_config_file(find_config(value))
            found |= {name: given[name] for name in ASKING if name in given}
        elif flag in asking:
            found[flag.removeprefix("--")] = value
    return found


def metric_list() -> str:
    """Every metric with what it needs, program by program."""
    parts = []
    for program in PROGRAMS:
        of_program = [name + (f" ({', '.join(needs)})" if needs else "") for name, needs in program.metrics.items()]
        parts.append(f"{program.measures}: {', '.join(of_program)}")
    return "; ".join(parts)


def default_out(options: Mapping[str, Any]) -> Path:
    """Where results go: runs/evaluate/fvd-lpips for these two metrics."""
    names = [re.sub(r"\W+", "_", name).strip("_") for name in words(options["metrics"])]
    return RUNS / "evaluate" / "-".join(names)
