"""Which program `wovr evaluate` runs: the same whether flags ask for it or a configuration does."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from wovr.cli import main
from wovr.commands.evaluate.programs import METRICS, PROGRAMS, asking_options, choose_program, default_out
from wovr.errors import UserError
from wovr.metrics.catalogue import METRICS as CATALOGUE
from wovr.metrics.networks.weights import WEIGHTS

ASKED: list[tuple[dict[str, Any], str]] = [
    ({}, "sr"),
    ({"metrics": "sr"}, "sr"),
    ({"metrics": "fvd,lpips"}, "world_model"),
    ({"metrics": "fvd[idm]"}, "world_model"),
    ({"metrics": "reward"}, "reward"),
    ({"metrics": "hallucination", "world_model": "w", "reward": "r"}, "hallucination"),
    ({"metrics": "advantage", "world_model": "w"}, "advantage"),
    ({"world_model": "w"}, "world_model"),
    ({"reward": "r"}, "reward"),
    ({"metrics": "", "world_model": ""}, "sr"),
]


@pytest.mark.parametrize(("options", "name"), ASKED, ids=lambda value: str(value))
def test_flags_and_configurations_ask_alike(
    options: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    Path("mine.yaml").write_text(yaml.safe_dump(options | {"seed": 1}))
    lines = (
        flags,
        [f"--{key}={value}" for key, value in options.items()],
        ["--config", "mine.yaml"],
        ["--config=mine.yaml"],
    )
    for args in lines:
        assert choose_program(asking_options([*args, "--seed", "2"])).name == name


def test_the_last_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("metrics: fvd\n")
    assert asking_options(["--config", "mine.yaml", "--metrics", "sr"]) == {"metrics": "sr"}
    assert asking_options(["--metrics", "sr", "--config", "mine.yaml"]) == {"metrics": "fvd"}


@pytest.mark.parametrize("way", ["flag", "config"])
def test_an_unknown_metric_is_answered_with_all_of_them(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("metrics: lpips,fvdd\n")
    args = ["--metrics", "lpips,fvdd"] if way == "flag" else ["--config", "mine.yaml"]
    assert main(["evaluate", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown metric 'fvdd'; did you mean fvd? " in error
    assert all(metric in error for metric in METRICS)
    assert "fvd (weights i3d)" in error
    assert "state_error (--probe)" in error


def test_metrics_of_two_programs_are_told_apart() -> None:
    with pytest.raises(UserError, match="different programs; give sr and fvd,lpips one by one"):
        choose_program({"metrics": "sr,fvd,lpips"})


def test_the_table_names_what_there_is() -> None:
    assert set(next(program for program in PROGRAMS if program.name == "world_model").metrics) == {*CATALOGUE, "fps"}
    for program in PROGRAMS:
        flags = inspect.signature(program.load()).parameters
        needs = [need for needs in program.metrics.values() for need in needs]
        assert all(need.removeprefix("weights ") in WEIGHTS for need in needs if need.startswith("weights "))
        assert all(need.removeprefix("--") in flags for need in needs if need.startswith("--"))
        assert {"metrics", "out"} <= set(flags)


def test_results_have_a_folder_of_their_own() -> None:
    assert default_out({"metrics": "fvd, lpips[idm]"}) == Path("runs/evaluate/fvd-lpips_idm")
    for program in PROGRAMS:
        flags = inspect.signature(program.load()).parameters
        if flags["out"].default is not None:
            assert flags["out"].default == default_out({"metrics": flags["metrics"].default})
