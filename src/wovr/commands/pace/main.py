"""`wovr pace`: the whole chain in one command, co-evolution included (paper, section 4.3: PACE).

Clone a policy, collect with it, learn a world model and a success classifier, improve the policy in imagination,
collect with the better policy, refine both on old and new episodes, improve again. Which stages there are is a matter
of YAML; each is an ordinary command, printed before it runs, with a folder of its own:

    OUT/STAGE/           what the command makes, its marker DONE, its inputs stage.json, its output stage.log
    OUT/report.html      the report, complete in one file; the same as report.md and metrics.json

The same command again goes on where it was stopped, at any moment and by any signal. What differs from the paper: its
budget, its sizes, and that the classifier is refined beside the world model.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from rich.table import Table

from wovr.commands.arguments import OptionsParser, explain_arguments
from wovr.commands.config_files import find_config_files, flag_values
from wovr.commands.pace.budget import Budget, count_budget, planned_episodes
from wovr.commands.pace.child import Child, command_line
from wovr.commands.pace.extending import with_extended
from wovr.commands.pace.folders import DONE, Fingerprints, check_chain, claim_folder
from wovr.commands.pace.proprioception import depends_on_proprio, left_out
from wovr.commands.pace.run import Launcher, look, run_stages, spent_seconds
from wovr.commands.pace.stages import Stage, Surroundings, choose_stages, read_stages
from wovr.commands.pace.view import clock
from wovr.commands.terminal import table_console
from wovr.errors import UserError, check_least
from wovr.processes import SHARED_OUT
from wovr.runs import only_run

TABLETOP, SMALL = "conf/pace/tabletop.yaml", "conf/pace/small.yaml"
"""Chains: the tabletop's own, and one of a smaller size for any environment."""

_LOCK_SECONDS = 10.0  # for the stage of a killed chain to end


def pace(
    stages: list,  # jsonargparse would read "-50:" in a list[dict[str, Any]] as YAML once more
    suite: str = "spatial",
    env: str | None = None,
    env_args: dict | None = None,  # not dict[str, Any], as above
    tasks: str | None = None,
    out: Path = Path("runs/pace"),
    seed: int = 0,
    rounds: int = 1,
    first_round: dict[str, str] | None = None,
    variables: dict | None = None,  # not dict[str, Any]
    budget: dict[str, int] | None = None,
    jobs: int = 1,
    proprio: bool | None = None,
    launcher: str | None = None,
    launched: list[str] = ["fit", "rl", "collect", "data imagine"],  # noqa: B006 (jsonargparse shows it as the default)
    dry_run: bool = False,
    from_stage: str | None = None,
    until: str | None = None,
) -> None:
    """Run a chain of stages from demonstrations to a report.

    A stage that is finished is skipped, one that was stopped goes on, one whose configuration or inputs have changed is
    begun again in a new folder; what the old one holds is kept as OUT/STAGE.before-1, -2, ... and said so. The same
    command again picks up where it was stopped.

    Args:
        stages: Stages, each with name and command, and any of config, args, needs, title, counts, seconds, alone,
            each_round, needs_proprio, without_proprio.
        suite: Suite of the environment; {suite} in the stages.
        env: Environment, as for wovr collect; {env} in the stages. Null for what the chain says.
        env_args: Its arguments; {env_args} in the stages. Null for what the chain says.
        tasks: Comma list of task indices or names; {tasks} in the stages. Null for what the chain says, or all.
        out: Folder of the chain; {out} in the stages.
        seed: Seed; {seed} in the stages.
        rounds: How often the stages that say each_round are repeated; 0 for a chain without them.
        first_round: What {previous:NAME} stands for in the first round: NAME -> a stage before the rounds.
        variables: What {NAME} in the stages stands for: NAME -> a value; null leaves the flag out.
        budget: real_episodes: most real episodes that stages may collect; more is an error before anything runs.
        jobs: Most stages that run at once. With more than one each computes with its share of the cores, and those that
            say alone with all of them while nothing else runs.
        proprio: Whether the episodes hold proprioception, without which the stages that say needs_proprio are left out;
            null for what the chain's first episodes hold.
        launcher: What is put in front of commands that share their work out over processes, e.g. "torchrun
            --nproc_per_node 8" or "srun --ntasks 16"; null for one process each, or as many as a training's
            trainer.devices says.
        launched: Commands that it is put in front of, but for stages that say launch: false.
        dry_run: Only show stages, their states, commands and real episodes.
        from_stage: Begin with this stage and take those before it as they are.
        until: End after this stage.
    """
    given_too = {"env": env, "env_args": env_args, "tasks": tasks}
    filled = with_environment(stages, variables or {}, given_too)
    given = Surroundings(out, suite, seed)
    in_front = read_launcher(launcher, launched)
    check_least("jobs", jobs)
    limit = read_budget(budget or {})

    def chain_for(holds: bool | None) -> tuple[list[Stage], list[Stage]]:
        """The chain, and what is chosen of it; as with proprioception while nobody knows."""
        found = read_stages(stages, rounds, first_round, filled, holds is not False)
        return found, choose_stages(found, from_stage, until)

    chain, chosen = chain_for(proprio)
    check_chain(given)
    depends = depends_on_proprio(stages)
    left = left_out(stages, rounds)
    if depends and proprio is None and (proprio := hold_proprio(chain, given)) is not None:
        chain, chosen = chain_for(proprio)
    if depends and proprio is False:
        print(without_proprio("this chain", left))
    if dry_run:
        count = count_budget(chain, limit, finished_folders(chain, given))
        show_plan(chain, chosen, given, count, in_front)
        if depends and proprio is None:
            print(f"if the first episodes hold no proprioception: without {', '.join(left) or 'no stage'}")
        count.check()
        return
    count_budget(chain, limit, finished_folders(chain, given)).check()
    with only_run(out, _LOCK_SECONDS) as lock:
        claim_folder(given)
        descriptors = [] if lock is None else [lock]
        if depends and proprio is None and (first := first_collection(chosen)) is not None:
            # Of one's own environment nobody knows what it gives, before it has given something.
            begun = chosen[: chosen.index(first) + 1]
            run_stages(chain, begun, given, jobs=jobs, launch=Child, launcher=in_front, descriptors=descriptors)
            if hold_proprio(chain, given) is False:
                print(without_proprio(first.name, left))
                chain, chosen = chain_for(False)
        run_stages(chain, chosen, given, jobs=jobs, launch=Child, launcher=in_front, descriptors=descriptors)
        from wovr.commands.report.chain import write_report  # imports what draws and reads videos

        finished = finished_folders(chain, given)
        changed = [stage.name for stage in chain if is_finished(stage, given) and stage.name not in finished]
        path = write_report(chain, given, count_budget(chain, limit, finished), rounds, changed)
    print(f"report: {path}")


def first_collection(chain: Sequence[Stage]) -> Stage | None:
    """The stage that collects the first episodes."""
    return next((stage for stage in chain if stage.verb == "collect"), None)


def without_proprio(whose: str, left: Sequence[str]) -> str:
    """What is said of a chain whose episodes hold no proprioception, and of the stages that are left out."""
    return f"the episodes of {whose} hold no proprioception: left out are {', '.join(left) or 'no stages'}"


def hold_proprio(chain: Sequence[Stage], given: Surroundings) -> bool | None:
    """Whether the first episodes that a chain collects hold proprioception; None before they are there.

    Raises:
        UserError: They are broken.
    """
    first = first_collection(chain)
    if first is None or not is_finished(first, given):
        return None
    from wovr.data.store.reader import EpisodeStore  # imports what reads videos

    return EpisodeStore(given.folder(first.name)).proprio_dim > 0


def with_environment(stages: Sequence[Any], variables: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a chain, with those of the environment that the command line gives in their place.

    Raises:
        UserError: One is given that the stages have no place for.
    """
    text = json.dumps(stages, default=str)
    for name, value in given.items():
        if value is not None and f"{{{name}}}" not in text:
            raise UserError(f"--{name} is given, and no stage has a place for it", f"use {SMALL}, or write {{{name}}}")
    return {"env_args": None, "tasks": None, **variables, **{k: v for k, v in given.items() if v is not None}}


def default_chain(args: Sequence[str]) -> list[str]:
    """The command line with a chain, if it names none: the tabletop's own, or for another environment the small one."""
    words = list(args)
    flags = {word.partition("=")[0] for word in words}
    if flags & {"--config", "--stages", "--help", "-h"}:
        return words
    named = [value for flag, value in flag_values(words) if flag == "--env"]
    return ["--config", SMALL if named and named[-1] != "tabletop" else TABLETOP, *words]


def read_budget(budget: Mapping[str, Any]) -> int | None:
    """The most real episodes that may be collected; None for no limit.

    Raises:
        UserError: Something else than a number of real episodes.
    """
    unknown = [key for key in budget if key != "real_episodes"]
    if unknown:
        raise UserError(f"budget: unknown key '{unknown[0]}'", "write budget: {real_episodes: N}")
    limit = budget.get("real_episodes")
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise UserError(f"budget.real_episodes is {limit!r}", "give a number of episodes")
    return limit


def finished_folders(chain: Sequence[Stage], given: Surroundings) -> dict[str, Path]:
    """Stage -> folder, of those that are finished and would be skipped if those before them are."""
    folders = look(chain, given, Fingerprints())
    return {name: folder.path for name, folder in folders.items() if folder.state() == DONE}


def is_finished(stage: Stage, given: Surroundings) -> bool:
    """Whether a stage's folder has its marker, from whatever inputs."""
    return (given.folder(stage.name) / "DONE").exists()


def read_launcher(launcher: str | None, launched: Sequence[str]) -> Launcher:
    """What is put in front of commands.

    Raises:
        UserError: No command, one that is not there, or a verb whose work is not shared out.
    """
    for verb in launched:
        if verb not in SHARED_OUT:
            raise UserError(
                f"launched names {verb!r}, which is one process always", f"choose from: {', '.join(SHARED_OUT)}"
            )
    try:
        words = shlex.split(launcher or "")
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}", 'write it as "torchrun --nproc_per_node 8"') from error
    # torchrun comes with torch, and is run as a module of this very interpreter.
    if launcher is not None and not (words and (words[0] == "torchrun" or shutil.which(words[0]))):
        raise UserError(f"--launcher {launcher!r}: no such command", "install it, or check its name")
    return Launcher(tuple(words), tuple(launched))


def show_plan(
    chain: Sequence[Stage], chosen: Sequence[Stage], given: Surroundings, count: Budget, launcher: Launcher
) -> None:
    """Print stages with their states, then the commands, then the real episodes."""
    console = table_console()
    folders = look(chain, given, Fingerprints())
    names = {stage.name for stage in chosen}
    table = Table("", "stage", "state", "needs", title=f"{given.out}, suite {given.suite}, seed {given.seed}")
    for heading in ("real episodes", "took"):
        table.add_column(heading, justify="right")
    runs: set[str] = set()
    for number, stage in enumerate(chain, 1):
        folder = folders[stage.name]
        state = folder.state()
        if state == "changed" and not runs.intersection(stage.needs):
            state = f"changed: {folder.changes()}"
        if stage.name not in names:
            state = f"{state}, left out"
        elif state != DONE or runs.intersection(stage.needs):
            runs.add(stage.name)
            state = "run again" if state == DONE else state
        episodes = count.by_stage[stage.name]
        planned = planned_episodes(stage)
        cell = f"{episodes.collected:,}" if episodes.collected else ""
        if stage.counts != "budget" or not cell:
            measured = f"{episodes.evaluated:,}" if episodes.evaluated else ""
            measured = measured or (f"{planned.per_task} a task" if planned.per_task else "")
            cell = f"({cell or measured})" if cell or measured else ""
        took = spent_seconds(folder.record)
        row = (str(number), stage.name, state, ", ".join(stage.needs), cell, clock(took) if took else "")
        table.add_row(*row, style=None if stage.name in names else "dim")
    console.print(table)
    for stage in chosen:
        console.print(f"{stage.name}:\n  {command_line(given.words(stage), launcher.of(stage))}", soft_wrap=True)
    limit = "no limit is declared" if count.limit is None else f"the budget is {count.limit:,}"
    print(f"real episodes: {count.spent:,}, {limit}; for measuring only, in brackets: {count.evaluated:,}", end="")
    print(f", and {count.per_task} a task to come" if count.per_task else "")
    for name, spent in count.baselines.items():
        print(f"baseline {name}: {spent:,} real episodes with those it rests on")


def main(args: Sequence[str]) -> None:
    """Run the verb.

    Raises:
        UserError: See `pace`; wrong options.
    """
    parser = OptionsParser(prog="wovr pace", exit_on_error=False, description=(pace.__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--config",
        action="config",
        help=f"YAML of the chain, {TABLETOP} by default, or {SMALL} with another --env; a second adds to the first.",
    )
    parser.add_function_arguments(pace, skip={"from_stage"}, as_group=False)
    # `from` is a word of Python's.
    parser.add_argument(
        "--from", type=str | None, default=None, help="Begin with this stage and take those before it as they are."
    )
    words = with_extended(find_config_files(default_chain(args)))
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        raise explain_arguments(error, "pace", parser) from error
    options = parsed.as_dict()
    options.pop("config", None)
    pace(from_stage=options.pop("from"), **options)
