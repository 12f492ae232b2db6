"""What a command takes where nobody says: one's own, else what the newest finished chain made, else a line."""

from __future__ import annotations

import os
import re
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from wovr.cli import main
from wovr.commands.config_files import find_config, read_config_file
from wovr.commands.pace.extending import read_chain
from wovr.commands.pace.folders import CHAIN_FILE
from wovr.commands.pace.main import with_environment
from wovr.commands.pace.stages import Surroundings, read_stages
from wovr.commands.places import BASE, HELD_OUT, PLACES, POLICY, RL, WORLD_MODEL, Finder, finished_chains
from wovr.errors import UserError
from wovr.runs import STAGE_FILE, write_json

MADE = {
    "collect": "dataset.json",
    "data": "keyframes.json",
    "fit": "checkpoints/last.ckpt",
    "rl": "checkpoints/last.ckpt",
}


def write_chain(folder: Path, suite: str = "spatial", finished: float = 0.0, without: str = "") -> None:
    """Folders as conf/pace/tabletop.yaml leaves them, of files that say where they lie."""
    declared = read_chain(find_config("pace/tabletop"))
    filled = with_environment(declared["stages"], declared["variables"], {})
    stages = read_stages(declared["stages"], 1, declared["first_round"], filled)
    given = Surroundings(folder, suite, 0)
    for stage in stages:
        write_json(folder / stage.name / STAGE_FILE, {"inputs": {"command": given.identity(stage)}, "attempts": []})
        made = folder / stage.name / MADE.get(stage.verb, "metrics.json")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(str(made))
    write_json(folder / CHAIN_FILE, {"suite": suite, "seed": 0})
    entries = [{"stage": stage.name, "finished": stage.name != without} for stage in stages]
    write_json(folder / "metrics.json", {"suite": suite, "stages": entries})
    os.utime(folder / "metrics.json", (finished, finished))


def write_own(path: str) -> None:
    file = Path(path) if PLACES[path].inside else Path(path, "dataset.json")
    file.parent.mkdir(parents=True)
    file.write_text("own")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_order_in_which_an_input_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="missing, and no finished chain below runs/"):
        Finder().find(WORLD_MODEL)
    write_chain(Path("runs/demo/spatial"), finished=1e9)
    assert Finder().find(WORLD_MODEL) == "runs/demo/spatial/wm_fit/checkpoints/last.ckpt"
    write_chain(Path("runs/pace"), finished=2e9)
    assert Finder().find(WORLD_MODEL) == "runs/pace/wm_fit/checkpoints/last.ckpt"  # the newer one
    assert re.search(
        r"taking runs/pace/wm_fit/\S+ for runs/wm/\S+, of the chain runs/pace of 2033", capsys.readouterr().out
    )
    write_own(WORLD_MODEL)
    assert Finder().find(WORLD_MODEL) == WORLD_MODEL
    assert capsys.readouterr().out == f"taking {WORLD_MODEL}\n"
    assert Finder(["--world_model", "other.ckpt"]).find("other.ckpt") == "other.ckpt"
    assert capsys.readouterr().out == ""


def test_what_the_command_line_names_is_never_exchanged() -> None:
    write_chain(Path("runs/pace"))
    for word in (BASE, f"--data={BASE}", f'["{BASE}", "data/more"]', f"data/more,{BASE}"):
        with pytest.raises(UserError, match=r"data/base: missing; make it with: wovr collect --episodes 1500$"):
            Finder(["--data", word]).find(BASE)
    assert Finder(["--data", "data/base2", "--out", "a/data/base"]).find(BASE) == "runs/pace/collect_base"


def test_only_a_finished_chain_and_one_of_the_suite_counts() -> None:
    write_chain(Path("runs/demo/spatial"), finished=1e9)
    write_chain(Path("runs/demo/goal"), suite="goal", finished=2e9, without="sr_pace")
    write_chain(Path("runs/demo/object"), suite="object", finished=3e9)
    (Path("runs/demo/broken")).mkdir()
    for name in (CHAIN_FILE, "metrics.json"):
        Path("runs/demo/broken", name).write_text("[")
    assert [chain.suite for chain in finished_chains()] == ["object", "spatial"]
    assert Finder().find(BASE) == "runs/demo/object/collect_base"
    assert Finder(["--suite", "spatial"]).find(BASE) == "runs/demo/spatial/collect_base"
    with pytest.raises(UserError, match="no finished chain"):
        Finder(["--suite=goal"]).find(BASE)


def test_trainings_take_what_was_made_first_and_measurements_what_was_made_last() -> None:
    write_chain(Path("runs/pace"))
    first = {
        path: Finder().find(path).removeprefix("runs/pace/").partition("/")[0]
        for path in PLACES
        if path not in ("runs/idm/checkpoints/last.ckpt", "data/keyframes", "data/imagined_whole")
        and not {"ae", "trust"} & set(path.split("/"))
    }
    assert first == {
        "data/demos": "demos",
        POLICY: "sft_fit",
        BASE: "collect_base",
        "runs/robot/checkpoints/last.ckpt": "robot_fit",
        WORLD_MODEL: "wm_fit",
        "runs/reward/checkpoints/last.ckpt": "reward_fit",
        "runs/value/checkpoints/last.ckpt": "value_fit",
        RL: "rl_fit",
        HELD_OUT: "collect_held_out",
        "runs/state_probe/checkpoints/last.ckpt": "probe_fit",
    }  # fmt: skip
    # Its imagined copies begin anew from real frames, which trust in whole rollouts cannot be learned from.
    with pytest.raises(UserError, match="make it with: wovr data imagine data/base --out data/imagined_whole"):
        Finder().find("data/imagined_whole")
    last = Finder(last=True)
    assert [last.find(path).split("/")[2] for path in (WORLD_MODEL, RL, HELD_OUT)] == [
        "wm_refit",
        "rl_refit",
        "collect_held_out",
    ]


def test_a_run_goes_on_with_what_it_was_begun_with() -> None:
    write_chain(Path("runs/old"), finished=1e9)
    write_chain(Path("runs/new"), finished=2e9)
    write_own(POLICY)
    begun = {
        "data": "runs/old/collect_base",
        "parts": [{"world_model": "runs/old/wm_fit/checkpoints/last.ckpt"}],
        "policy": "gone.ckpt",
    }
    options = Namespace(data=BASE, parts=[{"world_model": WORLD_MODEL}], policy=POLICY, out=BASE, seed=3)
    Finder(begun=begun).fill_in(options)
    assert vars(options) == {
        "data": "runs/old/collect_base",
        "parts": [{"world_model": "runs/old/wm_fit/checkpoints/last.ckpt"}],
        "policy": POLICY,  # what it was begun with is gone
        "out": BASE,
        "seed": 3,
    }
    assert Finder(["--data", BASE], begun=begun)._given(BASE)


def test_comma_lists_and_paths_are_filled_in() -> None:
    write_chain(Path("runs/pace"))
    found: dict[str, Any] = Finder().fill_in(
        {"data": f"{BASE},data/more", "folder": Path(BASE), "none": None, "a": ("x", 1)}
    )
    assert found == {
        "data": "runs/pace/collect_base,data/more",
        "folder": Path("runs/pace/collect_base"),
        "none": None,
        "a": ("x", 1),
    }


@pytest.mark.parametrize(
    "line", ["fit --config wm", "rl", "evaluate --metrics fvd,lpips", "evaluate", "collect --episodes 3"]
)
def test_before_anything_is_made_a_line_says_where_to_begin(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    [command, everything] = re.findall(r"with: (wovr [^()]+?)(?: \(|\))", error)
    assert command == PLACES["data/demos"].command
    assert everything == "wovr pace"
    assert not Path("runs").exists()


@pytest.mark.parametrize("path", PLACES)
def test_the_commands_that_make_things_are_accepted(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(PLACES[path].command)[1:], "--print_config"])
    assert ended.value.code == 0, capsys.readouterr().err
    names = list(PLACES)
    assert all(names.index(need) < names.index(path) for need in PLACES[path].needs)


def named_in(value: Any) -> set[str]:
    """The places that nested options name."""
    if isinstance(value, dict | list):
        return {path for item in (value.values() if isinstance(value, dict) else value) for path in named_in(item)}
    return set(str(value).split(",")) & PLACES.keys()


@pytest.mark.parametrize("path", [path for path, place in PLACES.items() if place.inside])
def test_what_a_run_needs_is_what_its_configuration_names(path: str) -> None:
    config = find_config(path.split("/")[1])
    assert named_in(read_config_file(config)) == set(PLACES[path].needs)
