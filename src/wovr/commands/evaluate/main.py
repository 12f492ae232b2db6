"""`wovr evaluate`: measure a policy. One function a metric; metrics.json, a table, videos.

With `--world_model` it measures a world model: `wovr.commands.evaluate.world_model`; with `--reward` a success
classifier: `wovr.commands.evaluate.reward`; with `--metrics hallucination` a policy in a world model against reality:
`wovr.commands.evaluate.hallucination`; with `--metrics advantage` what GRPO takes for advantage against the truth:
`wovr.commands.evaluate.advantage.audit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from wovr import __version__
from wovr.commands.arguments import alone_in_out, call, numbers, words
from wovr.commands.evaluate.success_rate import measure_success, success_table
from wovr.commands.terminal import table_console
from wovr.envs.rollout import policy_name
from wovr.envs.workers.vector import count_workers
from wovr.errors import UserError
from wovr.runs import RunFolder, read_json, write_json

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Metric:
    """One entry of `--metrics`.

    Attributes:
        measure: From the verb's options (by flag name) to JSON values; may write files below `options["out"]`.
        table: From those values to what is printed.
    """

    measure: Callable[[Mapping[str, Any]], dict[str, Any]]
    table: Callable[[Mapping[str, Any]], RenderableType]


METRICS: dict[str, Metric] = {"sr": Metric(measure_success, success_table)}
"""Name in `--metrics` -> how it is measured and shown."""


def evaluate(
    policy: str,
    suite: str,
    episodes: int,
    out: Path,
    metrics: str = "sr",
    env: str = "tabletop",
    tasks: str = "",
    init_states: str = "-10:",
    seed: int = 0,
    temperature: float = 1.0,
    choose_temperature: str = "",
    choose_init_states: str = ":-10",
    choose_episodes: int = 20,
    videos: int = 4,
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    device: str = "auto",
) -> None:
    """Measure a policy in an environment.

    Writes OUT/metrics.json and OUT/videos, and prints a table. The same command again prints what was measured. A world
    model, or a success classifier, is measured with other options: wovr evaluate --help --world_model CKPT, or --reward
    CKPT. So is what a policy's imagined success is worth: wovr evaluate --help --metrics hallucination; and what RL
    learns from: wovr evaluate --help --metrics advantage.

    Args:
        policy: Who acts: expert, random, or the path of a policy's checkpoint.
        suite: Comma list of suites of the environment.
        episodes: Episodes of each task.
        out: Folder of the results.
        metrics: Comma list of metrics: sr (success rate).
        env: Environment: tabletop, metaworld, libero, or an import path like my_robot:FrankaEnv.
        tasks: Comma list of task indices or names; empty for all.
        init_states: Initial states to start from, a slice START:STOP of each task's (write --init_states=-10: with an
            equals sign). The default is the last ten, which `wovr collect` leaves out.
        seed: Seed of the initial states' order and of all sampling.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        choose_temperature: Comma list of temperatures, as 0,0.5,1: in the place of --temperature, that which succeeds
            most on other initial states.
        choose_init_states: The initial states to choose on, such as the policy was trained on.
        choose_episodes: Episodes of each task to choose on, at each temperature.
        videos: Successes, and failures, of each suite to keep as videos.
        env_args: Arguments of the environment, e.g. --env_args.size 128.
        num_envs: Simulators side by side; part of what decides the result.
        workers: Simulator processes; 0 for one a processor core.
        device: Where a checkpoint computes: auto, cpu, cuda.
    """
    counts = (("episodes", episodes, 1), ("choose_episodes", choose_episodes, 1), ("num_envs", num_envs, 1))
    for flag, value, least in (*counts, ("videos", videos, 0)):
        if value < least:
            raise UserError(f"--{flag} is {value}", f"give {least} or more")
    choices = numbers("choose_temperature", choose_temperature, float)
    for choice in choices:
        if not 0 <= choice < math.inf:
            raise UserError(f"--choose_temperature has {choice}", "give temperatures of 0 or more")
    names = [word.strip() for word in metrics.split(",")]
    for name in names:
        if name not in METRICS:
            raise UserError(f"unknown metric '{name}'", f"choose from: {', '.join(METRICS)}")
    inputs = {
        "policy": policy_name(policy),
        "suite": suite,
        "episodes": episodes,
        "metrics": names,
        "env": env,
        "tasks": tasks,
        "init_states": init_states,
        "seed": seed,
        "temperature": temperature,
        "choose_temperature": choices,
        "choose_init_states": choose_init_states if choices else None,
        "choose_episodes": choose_episodes if choices else None,
        "videos": videos,
        "env_args": env_args or {},
        "num_envs": num_envs,
        "version": __version__,
    }
    options = inputs | {"policy": policy, "out": out, "workers": count_workers(workers), "device": device}
    run = RunFolder(out, inputs)
    run.refuse_others()
    path = out / METRICS_FILE
    if run.is_done() and path.exists():
        measured = read_json(path)
        print(f"{out} is complete")
    else:
        run.start()
        write_json(path, {"inputs": inputs} | {name: METRICS[name].measure(options) for name in names})
        run.finish()
        measured = read_json(path)
    console = table_console()
    for name in names:
        console.print(METRICS[name].table(measured[name]))


def main(args: Sequence[str]) -> None:
    """Run the verb."""
    if _asks_for("advantage", args):
        from wovr.commands.evaluate.advantage.audit import evaluate_advantage

        call(alone_in_out(evaluate_advantage), args, "evaluate")
    elif _asks_for("hallucination", args):
        from wovr.commands.evaluate.hallucination import evaluate_hallucination

        call(alone_in_out(evaluate_hallucination), args, "evaluate")
    elif any(word.partition("=")[0] == "--world_model" for word in args):
        from wovr.commands.evaluate.world_model import evaluate_world_model

        call(alone_in_out(evaluate_world_model), args, "evaluate")
    elif any(word.partition("=")[0] == "--reward" for word in args):
        from wovr.commands.evaluate.reward import evaluate_reward

        call(alone_in_out(evaluate_reward), args, "evaluate")
    else:
        call(alone_in_out(evaluate), args, "evaluate")


def _asks_for(name: str, args: Sequence[str]) -> bool:
    """Whether `--metrics` names a metric that is measured on its own: other arguments go with it than with others."""
    values = [word.partition("=")[2] for word in args if word.startswith("--metrics=")]
    values += [value for word, value in pairwise(args) if word == "--metrics"]
    return any(name in words(value) for value in values)
