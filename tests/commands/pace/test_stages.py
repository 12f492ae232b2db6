"""Stages from YAML: names, needs, rounds, variables, and the mistakes one can make."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from wovr.commands.pace.child import command_line
from wovr.commands.pace.stages import Surroundings, choose_stages, read_stages
from wovr.errors import UserError

GIVEN = Surroundings(Path("out"), "goal", 7)


def stage(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": "fit", **more}


def test_a_stage_is_an_ordinary_command() -> None:
    args = {
        "suite": "{suite}", "init_states": "-50:", "lr": 1e-4, "resume": True, "tasks": "",
        "env_args": {"size": 16, "place": "{out}"}, "data": ["{stage:a}", "x"], "seed": "{seed}", "r": "{round}",
    }  # fmt: skip
    _, last = read_stages([stage("a"), stage("b", command="data keyframes {stage:a}", args=args)])
    words = GIVEN.words(last)
    assert words == [
        *("data", "keyframes", "out/a", "--suite", "goal", "--init_states=-50:", "--lr", "0.0001", "--resume", "true"),
        *("--tasks", "", "--env_args", '{"size": 16, "place": "out"}', "--data", '["out/a", "x"]'),
        *("--seed", "7", "--r", "1", "--out", "out/b"),
    ]  # fmt: skip
    assert shlex.split(command_line(words)) == ["wovr", *words]
    elsewhere = Surroundings(Path("/far/away"), "goal", 7)
    assert GIVEN.identity(last) == elsewhere.identity(last)
    assert GIVEN.identity(last) != Surroundings(Path("out"), "goal", 8).identity(last)


def test_stages_come_after_what_they_need() -> None:
    stages = read_stages(
        [stage("c", args={"x": "{stage:b}"}), stage("a"), stage("b", needs=["a"]), stage("d", needs=["a"])]
    )
    assert [(found.name, found.needs) for found in stages] == [("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("a",))]


def test_rounds_repeat_stages_with_numbers() -> None:
    declared = [
        stage("rl"),
        stage("collect", each_round=True, args={"policy": "{previous:again}", "seed": "{round}"}),
        stage("again", each_round=True, args={"policy": "{previous:again}", "data": "{stage:collect}"}),
        stage("end", needs=["again"]),
    ]
    stages = read_stages(declared, rounds=3, first_round={"again": "rl"})
    assert [(found.name, found.needs, found.round) for found in stages] == [
        ("rl", (), 1),
        ("collect", ("rl",), 1),
        ("again", ("rl", "collect"), 1),
        ("collect_2", ("again",), 2),
        ("again_2", ("again", "collect_2"), 2),
        ("collect_3", ("again_2",), 3),
        ("again_3", ("again_2", "collect_3"), 3),
        ("end", ("again_3",), 1),
    ]
    assert stages[3].args == {"policy": "{stage:again}", "seed": "2"}
    assert stages[3].title == "collect, round 2"
    assert [found.name for found in choose_stages(stages, "collect_2", "again_2")] == ["collect_2", "again_2"]


def test_variables_of_the_user() -> None:
    args = {
        "tasks": "{tasks}",
        "env_args": "{env_args}",
        "states": "from {first} of {suite}",
        "resume": None,
        "all": ["{first}"],
    }
    variables = {"tasks": None, "env_args": {"size": 64}, "first": 3}
    (found,) = read_stages([stage("a", command="data look {first}", args=args)], variables=variables)
    assert GIVEN.words(found) == [
        *("data", "look", "3", "--env_args", '{"size": 64}', "--states", "from 3 of goal", "--resume", "null"),
        *("--all", "[3]", "--out", "out/a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "line"), [("seed", "'seed' is the chain's own"), ("No-1", "'No-1' cannot stand in braces")]
)
def test_names_that_a_variable_cannot_have(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        read_stages([stage("a")], variables={name: 1})


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ([], "the chain has none"),
        (["fit"], "entry 1 is no mapping"),
        ([{"name": "a"}], "entry 1 is no mapping with name and command"),
        ([stage("a", configuration="x")], "stage 'a': unknown key 'configuration'"),
        ([stage("a/b")], "cannot be the name of a folder"),
        ([stage("a", command=" ")], "the command is empty"),
        ([stage("a", command=-(10**30))], "stage 'a': command is -1000000000000000000000000000000, no text"),
        ([stage("a", command=["fit"])], "stage 'a': command is ['fit'], no text"),
        ([{"name": 3, "command": "fit"}], "stage '3': name is 3, no text"),
        ([stage("a", config=2.5)], "stage 'a': config is 2.5, no text"),
        ([stage("a", args=["--x"])], "args is no mapping"),
        ([stage("a", args={"out": "x"})], "args names out"),
        ([stage("a", needs="b")], "needs is no list"),
        ([stage("a", counts="twice")], "counts is 'twice'"),
        ([stage("a", seconds="long")], "seconds is 'long'"),
        ([stage("a"), stage("a")], "'a' is declared twice"),
        ([stage("a", needs=["b"])], "stage 'a': needs names 'b'"),
        ([stage("a", args={"x": "{stage:b}"})], "stage 'a': {stage:b} names 'b'"),
        ([stage("a", args={"x": "{sweet}"})], "stage 'a': unknown variable {sweet}"),
        ([stage("a", args={"x": ["{seed:3}"]})], "stage 'a': unknown variable {seed:3}"),
        ([stage("a", args={"x": "{previous:a}"})], "{previous:a} is of no round"),
        ([stage("a", each_round=True, args={"x": "{previous:a}"})], "{previous:a} in the first round"),
        ([stage("a", needs=["b"]), stage("b", needs=["a"])], "need each other in a circle or wait for it: a, b"),
        ([stage("a", needs=["a"])], "circle"),
        ([stage("a", config="no.yaml")], "stage 'a': config no.yaml: no such file"),
        ([stage("a", each_round=True), stage("a_2")], "makes a second 'a_2'"),
    ],
)
def test_mistakes_are_named(declared: list[Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_stages(declared, rounds=2)
    assert line in str(caught.value)


def test_a_config_has_to_be_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "broken.yaml").write_text("a: [")
    for name, line in (("list", "no mapping of options"), ("broken", "not valid YAML")):
        with pytest.raises(UserError, match=line):
            read_stages([stage("a", config=str(tmp_path / f"{name}.yaml"))])
