"""Which process of how many this is, by the variables that torchrun and Slurm set."""

from __future__ import annotations

import pytest

from wovr.errors import UserError
from wovr.processes import Processes, launched_processes

NAMES = (
    *("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_NNODES", "SLURM_JOB_NAME"),
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_PROCID": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Processes(0, 1, 1)),
        (TORCHRUN, Processes(5, 8, 2)),
        (SLURM, Processes(4, 6, 2)),
        (SLURM | TORCHRUN, Processes(5, 8, 2)),  # torchrun may be what Slurm runs
        (SLURM | {"SLURM_JOB_NAME": "bash"}, Processes(0, 1, 1)),
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
