"""Real episodes are counted by what stages are to take, and by what they took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wovr.commands.pace.budget import Episodes, count_budget, kind_of, planned_episodes, taken_episodes
from wovr.commands.pace.stages import Stage, read_stages
from wovr.errors import UserError
from wovr.runs import write_json


def stages(*declared: dict[str, Any]) -> list[Stage]:
    return read_stages([{"name": f"s{number}", **entry} for number, entry in enumerate(declared)])


ONLINE = {"command": "rl", "args": {"env": "tabletop", "max_real_episodes": 30}}


def test_what_a_stage_will_take(tmp_path: Path) -> None:
    config = tmp_path / "rl.yaml"
    config.write_text("env: tabletop\ngroups: 3\ngroup_size: 4\nupdates: 5\neval_env: tabletop\neval_every: 2")
    found = stages(
        {"command": "collect", "args": {"episodes": 70}},
        ONLINE,
        {"command": "rl", "config": str(config), "args": {"updates": 7, "eval_episodes": 10}},
        {"command": "rl", "config": str(config), "args": {"env": "imagined", "eval_env": None}},
        {"command": "evaluate", "args": {"episodes": 20, "policy": "x"}},
        {"command": "evaluate", "args": {"episodes": 5, "metrics": "hallucination", "world_model": "x"}},
        {"command": "evaluate", "args": {"metrics": "advantage", "groups": 5, "chunks": "1,3", "world_model": "x"}},
        {"command": "evaluate", "args": {"world_model": "x"}},
        {"command": "evaluate", "args": {"reward": "x"}},
        {"command": "fit"},
    )
    assert [planned_episodes(stage) for stage in found] == [
        Episodes(70),
        Episodes(30),
        Episodes(84, 50),
        Episodes(),
        Episodes(per_task=20),
        Episodes(per_task=5),
        Episodes(evaluated=5 * 8 * (1 + 2 * 8)),
        *[Episodes()] * 3,
    ]
    kinds = ["collect", "rl", "rl", "rl", "sr", "hallucination", "advantage", "world_model", "reward", "fit"]
    assert [kind_of(stage) for stage in found] == kinds
    for args in ({}, {"episodes": "many"}):
        with pytest.raises(UserError, match="stage 's0': episodes is"):
            planned_episodes(stages({"command": "collect", "args": args})[0])


def test_the_budget_of_chain_and_baselines() -> None:
    found = stages(
        {"command": "collect", "args": {"episodes": 10}},
        {"command": "fit", "needs": ["s0"]},
        {"command": "collect", "args": {"episodes": 20}, "needs": ["s1"]},
        {"command": "collect", "args": {"episodes": 5}, "needs": ["s1"], "counts": "evaluation"},
        {**ONLINE, "needs": ["s1", "s3"], "counts": "baseline"},
        {"command": "evaluate", "args": {"episodes": 20, "policy": "x"}},
    )
    budget = count_budget(found, 40, {})
    assert (budget.spent, budget.evaluated, budget.per_task, budget.baselines) == (30, 5, 20, {"s4": 40})
    budget.check()
    with pytest.raises(UserError, match="real_episodes is 39, and s4 takes 40"):
        count_budget(found, 39, {}).check()
    with pytest.raises(UserError, match=r"real_episodes is 29, and the chain takes 30 \(s0 10, s2 20"):
        count_budget(found, 29, {}).check()
    count_budget(found, None, {}).check()


def test_what_a_stage_took(tmp_path: Path) -> None:
    found = stages(
        {"command": "collect", "args": {"episodes": 10}},
        ONLINE,
        {"command": "evaluate", "args": {"episodes": 20, "policy": "x"}},
        {"command": "evaluate", "args": {"episodes": 20, "metrics": "hallucination"}},
        {"command": "evaluate", "args": {"metrics": "advantage"}},
        {"command": "fit"},
    )
    folders = {stage.name: tmp_path / stage.name for stage in found}
    write_json(folders["s0"] / "dataset.json", {"episodes": 12})
    write_json(folders["s1"] / "metrics.json", {"real_episodes": 28, "evaluation_episodes": 6})
    write_json(folders["s2"] / "metrics.json", {"sr": {"all": {"episodes": 200}}})
    write_json(folders["s3"] / "metrics.json", {"hallucination": {"rollouts": 100}})
    write_json(folders["s4"] / "metrics.json", {"advantage": {"rollouts": 50}})
    expected = [Episodes(12), Episodes(28, 6), Episodes(0, 200), Episodes(0, 100), Episodes(0, 50), Episodes()]
    assert [taken_episodes(stage, folders[stage.name]) for stage in found] == expected
    budget = count_budget(found, 40, folders)
    assert (budget.spent, budget.evaluated, budget.per_task) == (40, 356, 0)
    assert budget.as_json()["by_stage"]["s0"] == {"collected": 12, "evaluated": 0}
