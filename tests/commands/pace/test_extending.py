"""Chains that extend others, and chains of episodes without proprioception."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.pace.test_pace import NOTEBOOK, InProcess
from tests.envs.test_rollout import POINT
from wovr.cli import main
from wovr.commands.pace import main as pace
from wovr.commands.pace.extending import read_chain, with_extended
from wovr.commands.pace.stages import Surroundings, read_stages
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.models.world_model.conditioning import Conditioning
from wovr.models.world_model.loading import load_world_model

BASE: dict[str, Any] = {
    "suite": "goal",
    "rounds": 2,
    "variables": {"few": 3, "many": 9},
    "stages": [
        {"name": "a", "command": "collect", "args": {"episodes": "{few}", "seed": 1}},
        {"name": "b", "command": "fit", "config": "bc", "args": {"data.folder": "{stage:a}"}, "title": "cloning"},
        {"name": "c", "command": "evaluate", "args": {"policy": "{stage:b}"}},
    ],
}


def write(folder: Path, name: str, **values: Any) -> Path:
    (folder / name).write_text(yaml.safe_dump(values))
    return folder / name


def names(chain: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in chain["stages"]]


def test_numbers_and_stages_take_the_place_of_those_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", **BASE)
    stages = [{"name": "a", "args": {"seed": 2, "tasks": "0"}, "seconds": 5}, {"name": "b", "title": "other"}]
    own = write(tmp_path, "own.yaml", extends="base.yaml", suite="long", variables={"few": 4}, stages=stages)
    found = read_chain(own)
    assert found["suite"] == "long"
    assert found["rounds"] == 2
    assert found["variables"] == {"few": 4, "many": 9}
    assert found["stages"] == [
        {"name": "a", "command": "collect", "args": {"episodes": "{few}", "seed": 2, "tasks": "0"}, "seconds": 5},
        {"name": "b", "command": "fit", "config": "bc", "args": {"data.folder": "{stage:a}"}, "title": "other"},
        BASE["stages"][2],
    ]
    assert read_chain(tmp_path / "base.yaml") == BASE


def test_new_stages_stand_behind_the_one_before_and_others_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", **BASE)
    stages = [
        {"name": "a", "seconds": 1},
        {"name": "new", "command": "evaluate"},
        {"name": "newer", "command": "evaluate"},
        {"name": "c", "leave_out": True},
        {"name": "last", "command": "evaluate"},
    ]
    middle = write(tmp_path, "middle.yaml", extends="base.yaml", stages=stages)
    assert names(read_chain(middle)) == ["a", "new", "newer", "b", "last"]
    top = write(tmp_path, "top.yaml", extends="middle.yaml", stages=[{"name": "new", "leave_out": True}])
    assert names(read_chain(top)) == ["a", "newer", "b", "last"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"extends": ["a", "b"]}, r"own.yaml: extends is \['a', 'b'\]; name one file"),
        ({"extends": "nowhere.yaml"}, r"own.yaml: extends: nowhere.yaml: no such file"),
        ({"extends": "own.yaml"}, "own.yaml: extends own.yaml, which leads back or too far"),
        ({"extends": "back.yaml"}, "back.yaml: extends own.yaml, which leads back or too far"),
        ({"extends": "base.yaml", "stages": ["a"]}, "own.yaml: stages: a names no stage; write - {name: x"),
        ({"extends": "base.yaml", "stages": [{"name": "z", "leave_out": True}]}, "'z' is left out, and there is none"),
    ],
)
def test_files_that_cannot_be_put_together(tmp_path: Path, values: dict[str, Any], line: str) -> None:
    write(tmp_path, "base.yaml", **BASE)
    write(tmp_path, "back.yaml", extends="own.yaml")
    with pytest.raises(UserError, match=line):
        read_chain(write(tmp_path, "own.yaml", **values))


def test_a_command_line_names_files_or_holds_them(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", **BASE)
    own = write(tmp_path, "own.yaml", extends="base.yaml", suite="long")
    words = ["--config", str(base), f"--config={own}", "--suite", "object", "--config"]
    found = with_extended(words)
    assert found[:2] == words[:2]
    assert json.loads(found[2].removeprefix("--config="))["suite"] == "long"
    assert found[3:] == words[3:]


GIVEN = Surroundings(Path("out"), "goal", 7)


def test_episodes_without_proprioception_do_without_some_stages_and_flags() -> None:
    declared = [
        {"name": "robot", "command": "fit", "needs_proprio": True},
        {"name": "wm", "command": "fit", "args": {"x": 1, "robot": "{stage:robot}", "y": None},
         "without_proprio": {"robot": None, "head": "copy", "x": 2}},
    ]  # fmt: skip
    with_it = read_stages(declared)
    assert [GIVEN.words(stage)[1:-2] for stage in with_it] == [
        [],
        ["--x", "1", "--robot", "out/robot", "--y", "null"],
    ]
    [without] = read_stages(declared, proprio=False)
    assert GIVEN.words(without)[1:-2] == ["--x", "2", "--y", "null", "--head", "copy"]
    assert without.needs == ()
    with pytest.raises(UserError, match="stage 'wm': without_proprio is no mapping"):
        read_stages([{**declared[1], "without_proprio": ["robot"]}], proprio=False)


def test_no_round_leaves_out_the_stages_of_rounds() -> None:
    declared = [
        {"name": "a", "command": "fit"},
        {"name": "b", "command": "fit", "each_round": True, "args": {"x": "{previous:b}"}},
        {"name": "c", "command": "fit"},
    ]
    assert [stage.name for stage in read_stages(declared, 0, {"b": "a"})] == ["a", "c"]
    with pytest.raises(UserError, match="rounds is -1"):
        read_stages(declared, -1)


SMALL = {
    "extends": "pace/small.yaml",
    "variables": {
        "demonstrations": 4, "base_episodes": 5, "test_episodes": 1, "policy_steps": 2,
        "world_model_steps": 2, "world_model_check": None,
    },
    "stages": [{"name": "wm_fit", "args": {"model.init_args.compile": False, "trainer.accelerator": "cpu"}}],
}  # fmt: skip


def run_small(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> Sequence[str]:
    """The chain that comes with the project up to its world model, in a simulator without proprioception."""
    run = InProcess()
    monkeypatch.setattr(pace, "Child", run)
    words = ["--env", POINT, "--env_args", '{"proprio": "none"}', "--tasks", "0", "--out", "out", *flags]
    with contextlib.chdir(folder):
        (folder / "own.yaml").write_text(yaml.safe_dump(SMALL))
        assert main(["pace", "--config", "own.yaml", *words]) == 0
    return run.ran


def test_a_chain_finds_out_that_there_is_no_proprioception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(run_small(tmp_path, monkeypatch, "--dry_run", "true")) == []
    assert "if the first episodes hold no proprioception: without robot_fit, robot_refit" in capsys.readouterr().out
    ran = run_small(tmp_path, monkeypatch, "--until", "wm_fit")
    assert ran == ["demos", "sft_fit", "collect_base", "sr_base", "wm_fit"]
    printed = capsys.readouterr().out
    assert "the episodes of demos hold no proprioception: left out are robot_fit, robot_refit" in printed
    assert EpisodeStore(tmp_path / "out" / "collect_base").proprio_dim == 0
    model = load_world_model(tmp_path / "out" / "wm_fit" / "checkpoints" / "last.ckpt")
    assert type(model.conditioning) is Conditioning
    assert list(run_small(tmp_path, monkeypatch, "--until", "wm_fit")) == []
    assert "the episodes of this chain hold no proprioception" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [[], ["--env", "metaworld", "--env_args", "{action_repeat: 3, horizon: 210}", "--suite", "mt10", "--tasks", "2"]],
)
def test_the_budget_of_table_3(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(NOTEBOOK.parents[1])
    words = ["pace", "--config", "conf/pace/few.yaml", *more, "--out", str(tmp_path / "out"), "--dry_run", "true"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "real episodes: 160, the budget is 160" in printed
    collected = re.findall(r"wovr collect --env (\S+) .*--tasks (\d) --episodes (\d+)", printed)
    task = ("metaworld", "2") if more else ("tabletop", "0")
    assert collected == [(*task, "10"), (*task, "150")]
    assert ("action_repeat" in printed) == bool(more)
    assert "rl_fit" in printed
    assert "refit:" not in printed
