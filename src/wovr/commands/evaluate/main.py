"""`wovr evaluate`: the program that measures what is asked for; and the first of them, success rates of a policy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wovr.commands.arguments import alone_in_out, call, numbers, words
from wovr.commands.evaluate.programs import asking_options, choose_program, default_out, metric_list
from wovr.commands.evaluate.results import Results
from wovr.commands.evaluate.success_rate import measure_success, success_table
from wovr.commands.places import RL
from wovr.commands.suites import suites_of_policy
from wovr.commands.terminal import table_console
from wovr.envs.actors.names import policy_name
from wovr.envs.workers.vector import count_workers
from wovr.errors import UserError, check_least


def evaluate(
    policy: str = RL,
    suite: str | None = None,
    episodes: int = 20,
    out: Path = Path("runs/evaluate/sr"),
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

    Writes OUT/metrics.json and OUT/videos, and prints a table. The same command again prints what was measured.

    Args:
        policy: Who acts: expert, random, or the path of a policy's checkpoint.
        suite: Comma list of suites of the environment; those of the policy's demonstrations unless given.
        episodes: Episodes of each task.
        out: Folder of the results.
        metrics: sr, success rates.
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
        env_args: Arguments of the environment, e.g. --env_args.size 128; action_repeat, how often each action is
            executed, is one of every simulator.
        num_envs: Simulators side by side; part of what decides the result.
        workers: Simulator processes; 0 for one a processor core.
        device: Where a checkpoint computes: auto, cpu, cuda.
    """
    counts = (("episodes", episodes, 1), ("choose_episodes", choose_episodes, 1), ("num_envs", num_envs, 1))
    for flag, value, least in (*counts, ("videos", videos, 0)):
        check_least(f"--{flag}", value, least)
    choices = numbers("choose_temperature", choose_temperature, float)
    for choice in choices:
        if not 0 <= choice < math.inf:
            raise UserError(f"--choose_temperature has {choice}", "give temperatures of 0 or more")
    suite = ",".join(suites_of_policy(policy)) if suite is None else suite
    if not words(suite):
        raise UserError(f"--policy {policy} names no suite", "give some: --suite NAME,NAME")
    inputs = {
        "policy": policy_name(policy),
        "suite": suite,
        "episodes": episodes,
        "metrics": words(metrics),
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
    }
    options = inputs | {"policy": policy, "out": out, "workers": count_workers(workers), "device": device}
    results = Results(out, inputs)
    if not results.are_there():
        results.begin()
        results.keep({"sr": measure_success(options)})
    table_console().print(success_table(results.of("sr")))


def main(args: Sequence[str]) -> None:
    """Run the verb: the program that measures what is asked for."""
    program = choose_program(asking_options(args))
    function = program.load()
    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    about += f"\n\nOther metrics have other options: wovr evaluate --help --metrics NAME. To measure {metric_list()}."
    call(alone_in_out(function, default_out), args, "evaluate", about, measures=True)
