"""The metric `sr`: success rates of a policy in an environment, with Wilson intervals, and videos to look at."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from wovr.data.pictures import file_name, write_preview
from wovr.envs.actors.base import Actor
from wovr.envs.actors.names import make_actor
from wovr.envs.episodes import plan_episodes
from wovr.envs.progress import ActingProgress
from wovr.envs.registry import choose_tasks
from wovr.envs.rollout import EpisodeStart, Rollout, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.functional.intervals import wilson_interval
from wovr.types import TaskInfo


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Attributes:
        task: Index of its task.
        init_state: Number of the initial state it began at.
        steps_to_success: Actions up to the first successful frame; None for a failure.
    """

    task: int
    init_state: int
    steps_to_success: int | None


def measure_success(options: Mapping[str, Any]) -> dict[str, Any]:
    """Run the episodes of `wovr evaluate` and count.

    A suite's numbers do not depend on the other suites of the same call, but for a temperature that is chosen on all.

    Args:
        options: The verb's flags, see `wovr.commands.evaluate.main.evaluate`; `workers` is the number of processes.

    Returns:
        JSON values: `suites` -> name -> the counts of `count_suite`; `all` over all suites; `temperature`, that of the
        episodes, and `tried`, the counts at each that it was chosen from; `videos`, paths relative to `options["out"]`.

    Raises:
        UserError: Unknown environment, suite or task; a policy for other actions; a disk that is full.
    """
    env = options["env"]
    suites = [word.strip() for word in options["suite"].split(",")]
    if len(set(suites)) < len(suites):
        raise UserError(f"--suite {options['suite']} names a suite twice", "name each once")
    with closing(
        WorkerVectorEnv(
            env,
            options["num_envs"],
            options["workers"],
            options["env_args"],
            every_frame=options["videos"] > 0,
        )
    ) as simulators:
        chosen = {suite: choose_tasks(simulators.suites, env, suite, options["tasks"]) for suite in suites}
        actor = make_actor(options["policy"], simulators, options["temperature"], options["device"])
        trials = Trials(simulators, chosen, options)
        tried = trials.try_temperatures(actor)
        plans = trials.plans(options["episodes"], options["init_states"])
        total = sum(len(plan) for plan in plans.values())
        found: dict[str, list[Outcome]] = {}
        videos: list[str] = []
        with ActingProgress(f"evaluate {', '.join(suites)}", total) as progress:
            for suite, plan in plans.items():
                album = Album(options["out"], options["videos"], chosen[suite], simulators.fps)
                found[suite] = trials.play(actor, plan, progress, album)
                videos += album.names
    print(f"{total} episodes, {progress.seconds:.1f} s, {progress.steps_per_second:,.0f} steps/s")
    return {
        "suites": {suite: count_suite(tasks, found[suite]) for suite, tasks in chosen.items()},
        "all": count_outcomes([outcome for outcomes in found.values() for outcome in outcomes]),
        "temperature": actor.temperature,
        "tried": tried,
        "videos": videos,
    }


class Trials:
    """Episodes of an actor in simulators.

    Args:
        simulators: Where.
        chosen: Suite -> its chosen tasks.
        options: The verb's flags.
    """

    def __init__(
        self, simulators: WorkerVectorEnv, chosen: Mapping[str, Sequence[TaskInfo]], options: Mapping[str, Any]
    ) -> None:
        self.simulators, self.chosen, self.options = simulators, chosen, options

    def plans(self, episodes: int, init_states: str) -> dict[str, list[EpisodeStart]]:
        """Suite -> `episodes` of each of its tasks."""
        return {
            suite: plan_episodes(tasks, episodes * len(tasks), init_states, self.options["seed"])
            for suite, tasks in self.chosen.items()
        }

    def play(
        self, actor: Actor, plan: Sequence[EpisodeStart], progress: ActingProgress, album: Album | None = None
    ) -> list[Outcome]:
        """How the episodes of a plan end, in its order."""
        found = {}
        for rollout in roll_out(self.simulators, actor, plan, self.options["seed"], progress.steps):
            progress.episode(rollout.succeeded)
            if album is not None:
                album.offer(rollout)
            start = rollout.start
            found[rollout.number] = Outcome(start.task, start.init_state, rollout.steps_to_success)
        return [found[number] for number in sorted(found)]

    def try_temperatures(self, actor: Actor) -> list[dict[str, Any]]:
        """Give the actor the temperature that succeeds most on the states to choose on, of equal ones the lowest.

        Returns:
            The counts at each, with its `temperature`; none where there is nothing to choose.

        Raises:
            UserError: An actor that has no temperature.
        """
        choices = self.options["choose_temperature"]
        if not choices:
            return []
        if actor.temperature is None:
            raise UserError(
                f"--choose_temperature with --policy {self.options['policy']}", "leave it out, or give a checkpoint"
            )
        plans = self.plans(self.options["choose_episodes"], self.options["choose_init_states"])
        tried = []
        with ActingProgress("choose the temperature", len(choices) * sum(map(len, plans.values()))) as progress:
            for temperature in choices:
                actor.temperature = temperature
                outcomes = [outcome for plan in plans.values() for outcome in self.play(actor, plan, progress)]
                tried.append({"temperature": temperature, **count_outcomes(outcomes)})
        best = max(tried, key=lambda counts: (counts["success_rate"], -counts["temperature"]))
        actor.temperature = best["temperature"]
        return tried


class Album:
    """Keeps some successes and some failures of a suite as videos, spread over the tasks; the first ones of each.

    Args:
        out: The evaluation's folder; videos go to `out/videos`.
        size: Successes, and failures, to keep.
        tasks: The tasks of the suite.
        fps: Control rate, Hz.
    """

    def __init__(self, out: Path, size: int, tasks: Sequence[TaskInfo], fps: float) -> None:
        self.out, self.size, self.fps = out, size, fps
        self.tasks = {task.index: task for task in tasks}
        self.names: list[str] = []
        self._kept: Counter[tuple[bool, int]] = Counter()

    def offer(self, rollout: Rollout) -> None:
        """Keep a rollout if there is room for one of its outcome and task."""
        key = (rollout.succeeded, rollout.start.task)
        same_outcome = sum(count for (succeeded, _), count in self._kept.items() if succeeded == rollout.succeeded)
        if same_outcome >= self.size or self._kept[key] >= -(-self.size // len(self.tasks)):
            return
        self._kept[key] += 1
        task = self.tasks[rollout.start.task]
        outcome = "success" if rollout.succeeded else "failure"
        words = (task.suite, f"{task.index:02d}", task.name, outcome, f"{rollout.number:04d}")
        name = f"videos/{file_name('-'.join(words))}.mp4"
        write_preview(self.out / name, rollout.frames, self.fps)
        self.names.append(name)


def count_suite(tasks: Sequence[TaskInfo], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The counts of a suite; under `tasks`, of each task with its index, name and instruction; and `outcomes`.

    `outcomes` has an entry an episode: task, initial state, steps to success (None for a failure).
    """
    of_tasks = [
        {
            "index": task.index,
            "name": task.name,
            "instruction": task.instruction,
            **count_outcomes([outcome for outcome in outcomes if outcome.task == task.index]),
        }
        for task in tasks
    ]
    each = [[outcome.task, outcome.init_state, outcome.steps_to_success] for outcome in outcomes]
    return {**count_outcomes(outcomes), "tasks": of_tasks, "outcomes": each}


def count_outcomes(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Count some episodes.

    Returns:
        `episodes`, `successes`, `success_rate`, its 95 % Wilson interval `low` and `high`, and `mean_length`, the mean
        number of steps to the first success (None without one).
    """
    lengths = [outcome.steps_to_success for outcome in outcomes if outcome.steps_to_success is not None]
    interval = wilson_interval(len(lengths), len(outcomes))
    return {
        "episodes": len(outcomes),
        "successes": len(lengths),
        "success_rate": len(lengths) / len(outcomes),
        "low": interval.low,
        "high": interval.high,
        "mean_length": statistics.fmean(lengths) if lengths else None,
    }


def success_table(values: Mapping[str, Any]) -> Table:
    """What `measure_success` returned, as a table."""
    title = "success rate, 95 % Wilson interval"
    if tried := values.get("tried"):
        rates = ", ".join(f"{counts['temperature']:g}: {100 * counts['success_rate']:.1f} %" for counts in tried)
        title += f", at temperature {values['temperature']:g} (chosen: {rates})"
    table = Table("suite", "task", "instruction", title=title)
    for heading in ("episodes", "SR", "interval", "steps to success"):
        table.add_column(heading, justify="right")
    for suite, of_suite in values["suites"].items():
        for task in of_suite["tasks"]:
            table.add_row(suite, str(task["index"]), task["instruction"], *_cells(task))
        table.add_section()
        table.add_row(suite, "all", "", *_cells(of_suite), style="bold")
        table.add_section()
    if len(values["suites"]) > 1:
        table.add_row("all", "", "", *_cells(values["all"]), style="bold")
    return table


def _cells(counts: Mapping[str, Any]) -> tuple[str, str, str, str]:
    length = counts["mean_length"]
    return (
        str(counts["episodes"]),
        f"{100 * counts['success_rate']:.1f} %",
        f"{100 * counts['low']:.1f} - {100 * counts['high']:.1f}",
        "-" if length is None else f"{length:.1f}",
    )
