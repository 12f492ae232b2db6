"""Which process of how many this is, by the variables that torchrun and Slurm set."""

from __future__ import annotations

import pytest

from wovr.cli import main
from wovr.errors import UserError
from wovr.processes import Processes, is_shared_out, launched_processes

NAMES = (
    *("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_LOCALID", "LOCAL_RANK"),
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Processes(0, 1, 1)),
        (TORCHRUN, Processes(5, 8, 2, 1)),
        (SLURM, Processes(4, 6, 2, 1)),
        (SLURM | TORCHRUN, Processes(5, 8, 2, 1)),  # torchrun may be what Slurm runs
        ({"SLURM_NTASKS": "6", "SLURM_PROCID": "0"}, Processes(0, 1, 1)),  # in the batch script itself
        ({"WORLD_SIZE": "2", "RANK": "1"}, Processes(0, 1, 1)),  # children of Lightning's own
    ],
)
def test_what_launchers_say(variables: dict[str, str], expected: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == expected
    assert expected.here * expected.machines == expected.count


@pytest.mark.parametrize("wrong", [{"RANK": "8"}, {"WORLD_SIZE": "many"}, {"LOCAL_WORLD_SIZE": "3"}, {"RANK": "-1"}])
def test_what_cannot_be(wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"launcher|number"):
        launched_processes()


@pytest.mark.parametrize(
    ("words", "shared"),
    [("fit --config wm", True), ("data imagine data/base", True), ("data convert x", False), ("fits", False)],
)
def test_whose_work_is_shared_out(words: str, shared: bool) -> None:
    assert is_shared_out(words) == shared


def test_a_launcher_in_front_of_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert main(["data", "verify", "nowhere"]) == 2
    assert "wovr data: started 8 times by a launcher, and its work is not shared out" in capsys.readouterr().err
