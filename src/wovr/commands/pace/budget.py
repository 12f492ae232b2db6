"""Real episodes of a chain: how many its stages will take and took, and whether that is within the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wovr.commands.arguments import words
from wovr.commands.evaluate.programs import ASKING, choose_program
from wovr.commands.pace.stages import COUNTS, Stage
from wovr.errors import UserError
from wovr.runs import read_json

BUDGET, EVALUATION, BASELINE = COUNTS


@dataclass(frozen=True)
class Episodes:
    """Real episodes of a stage.

    Attributes:
        collected: Episodes that something can be learned from.
        evaluated: Episodes that only measure.
        per_task: Episodes that only measure, of each task; for what is still to come, where the number of tasks is the
            environment's to say.
    """

    collected: int = 0
    evaluated: int = 0
    per_task: int = 0


def planned_episodes(stage: Stage) -> Episodes:
    """What a stage will take, by its options.

    Raises:
        UserError: They do not say.
    """
    if stage.verb == "collect":
        return Episodes(collected=_number(stage, "episodes"))
    if stage.verb == "rl":
        env = stage.option("env", "imagined")
        updates = _number(stage, "updates", 100)
        rollouts = 0 if env == "imagined" else stage.option("max_real_episodes")
        if rollouts is None:
            rollouts = _number(stage, "groups", 16) * _number(stage, "group_size", 8) * updates
        evaluated = 0
        if stage.option("eval_env"):
            rounds = 1 + -(-updates // _number(stage, "eval_every", 10))  # one before the first update
            evaluated = rounds * _number(stage, "eval_episodes", 100)
        return Episodes(int(rollouts), evaluated)
    if kind_of(stage) in ("sr", "hallucination"):
        return Episodes(per_task=_number(stage, "episodes"))
    if kind_of(stage) == "advantage":  # at most: rollouts that have ended are not continued
        places = len(words(str(stage.option("chunks", "1,2,4"))))
        each = 1 + places * _number(stage, "continuations", 8)
        return Episodes(evaluated=_number(stage, "groups", 40) * _number(stage, "group_size", 8) * each)
    return Episodes()


def taken_episodes(stage: Stage, folder: Path) -> Episodes:
    """What a finished stage took, by what it wrote."""
    if stage.verb == "collect":
        return Episodes(collected=int(read_json(folder / "dataset.json")["episodes"]))
    path = folder / "metrics.json"
    values = read_json(path) if path.exists() else {}
    if stage.verb == "rl":
        return Episodes(int(values.get("real_episodes", 0)), int(values.get("evaluation_episodes", 0)))
    if "sr" in values:
        return Episodes(evaluated=int(values["sr"]["all"]["episodes"]))
    if "hallucination" in values:
        return Episodes(evaluated=int(values["hallucination"]["rollouts"]))
    if "advantage" in values:
        return Episodes(evaluated=int(values["advantage"]["rollouts"]))
    return Episodes()


@dataclass(frozen=True)
class Budget:
    """The real episodes of a chain.

    Attributes:
        limit: Most that the chain may collect; None for no limit.
        spent: Episodes that the chain learns from.
        evaluated: Episodes that only measure, those of stages that say `counts: evaluation` included.
        per_task: The same to come, of each task.
        baselines: Baseline -> episodes that it learns from, those of the stages it needs included.
        by_stage: Stage -> its episodes.
    """

    limit: int | None
    spent: int
    evaluated: int
    per_task: int
    baselines: Mapping[str, int]
    by_stage: Mapping[str, Episodes]

    def check(self) -> None:
        """Hold it against the limit.

        Raises:
            UserError: It is exceeded.
        """
        if self.limit is None:
            return
        for name, spent in {"the chain": self.spent, **self.baselines}.items():
            if spent > self.limit:
                own = {n: e.collected for n, e in self.by_stage.items() if e.collected}
                shown = ", ".join(f"{stage} {count:,}" for stage, count in own.items())
                raise UserError(
                    f"budget.real_episodes is {self.limit:,}, and {name} takes {spent:,} ({shown})",
                    "collect fewer episodes, or raise the budget",
                )

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "real_episodes": self.spent,
            "limit": self.limit,
            "evaluation_episodes": self.evaluated,
            "baselines": dict(self.baselines),
            "by_stage": {
                name: {"collected": episodes.collected, "evaluated": episodes.evaluated}
                for name, episodes in self.by_stage.items()
            },
        }


def count_budget(stages: Sequence[Stage], limit: int | None, finished: Mapping[str, Path]) -> Budget:
    """Count the real episodes of a chain.

    Args:
        stages: All of its stages.
        limit: Most episodes it may collect; None for no limit.
        finished: Stage -> its folder, for those that are finished and count as they are.

    Raises:
        UserError: A stage does not say how many it takes.
    """
    by_stage = {
        stage.name: taken_episodes(stage, finished[stage.name]) if stage.name in finished else planned_episodes(stage)
        for stage in stages
    }
    by_name = {stage.name: stage for stage in stages}
    baselines = {}
    for stage in stages:
        if stage.counts == BASELINE and by_stage[stage.name].collected:
            learned_from = [name for name in _all_needs(stage, by_name) if by_name[name].counts != EVALUATION]
            baselines[stage.name] = sum(by_stage[name].collected for name in (stage.name, *learned_from))
    return Budget(
        limit,
        spent=sum(by_stage[stage.name].collected for stage in stages if stage.counts == BUDGET),
        evaluated=sum(
            by_stage[stage.name].evaluated + (by_stage[stage.name].collected if stage.counts == EVALUATION else 0)
            for stage in stages
        ),
        per_task=sum(by_stage[stage.name].per_task for stage in stages),
        baselines=baselines,
        by_stage=by_stage,
    )


def kind_of(stage: Stage) -> str:
    """What a stage measures or makes: sr, hallucination, advantage, world_model, reward, or its verb."""
    if stage.verb != "evaluate":
        return stage.verb
    return choose_program({name: stage.option(name) for name in ASKING}).name


def _all_needs(stage: Stage, stages: Mapping[str, Stage]) -> list[str]:
    """Every stage that a stage rests on."""
    found: list[str] = []
    left = list(stage.needs)
    while left:
        name = left.pop()
        if name not in found:
            found.append(name)
            left += stages[name].needs
    return found


def _number(stage: Stage, name: str, default: int | None = None) -> int:
    value = stage.option(name, default)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"stage '{stage.name}': {name} is {value!r}, and its real episodes cannot be counted",
            f"give {name} in args",
        ) from error
