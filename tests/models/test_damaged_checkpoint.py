"""A changed byte of a checkpoint is found by whoever loads it, and what was not restored is told as that."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands.point_world import write_idm
from tests.commands.test_fit import Fit, demonstrations, fit
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, load_network, read_checkpoint
from wovr.models.probes.inverse_dynamics import InverseDynamics

__all__ = ["demonstrations", "fit"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_idm(tmp_path / "idm.ckpt")


def test_each_part_reveals_a_flipped_bit(checkpoint: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(checkpoint) as archive:
        parts = [entry for entry in archive.infolist() if entry.file_size]
    assert len(parts) > 10
    whole = checkpoint.read_bytes()
    for number, part in enumerate(parts):
        data = bytearray(whole)
        start = part.header_offset + 30 + int.from_bytes(whole[part.header_offset + 26 :][:2], "little")
        start += int.from_bytes(whole[part.header_offset + 28 :][:2], "little")  # name and padding before the content
        data[start + part.file_size // 2] ^= 1
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{number}.ckpt: is not a checkpoint, or is damaged"):
            read_checkpoint(path)


def test_a_part_that_is_there_twice_is_refused(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        value = archive.read(name)
    with zipfile.ZipFile(checkpoint, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, bytes(len(value)))
    with pytest.raises(UserError, match="is not a checkpoint, or is damaged"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("part", ["data/0", "data/3"])
def test_a_part_that_was_cut_does_not_go_on_with_the_next_one(part: str, checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(checkpoint, "w") as archive:
        for name, data in found.items():
            archive.writestr(name, data[: len(data) // 2] if name.endswith(part) else data)
    with pytest.raises(UserError, match=r"hold tensors of \d+ bytes, of which"):
        read_checkpoint(checkpoint)


def test_a_file_that_changes_is_read_again(checkpoint: Path) -> None:
    load_network(checkpoint, InverseDynamics)
    load_network(checkpoint, InverseDynamics)
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        load_network(checkpoint, InverseDynamics)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tensor: tensor.index_fill(0, torch.tensor([0]), float("nan")), "numbers that are not finite in 1"),
        (lambda tensor: tensor - float("inf"), "numbers that are not finite in 1"),
        (lambda tensor: tensor.long(), "another kind of number in 1"),
        (lambda tensor: tensor > 0, "another kind of number in 1"),
        (lambda tensor: tensor[:-1].clone(), "another shape in 1"),
    ],
)
def test_weights_are_finite_numbers_of_the_networks_kind(
    change: Callable[[torch.Tensor], torch.Tensor], problem: str, checkpoint: Path
) -> None:
    found = torch.load(checkpoint, weights_only=True)
    name = next(name for name in found["state_dict"] if name.endswith("weight"))
    found["state_dict"][name] = change(found["state_dict"][name])
    torch.save(found, checkpoint)
    with pytest.raises(UserError, match=problem):
        load_network(checkpoint, InverseDynamics)


def _lose_weight(found: dict[str, Any]) -> None:
    found["state_dict"].popitem()


def _lose_optimiser(found: dict[str, Any]) -> None:
    del found["optimizer_states"]


def _text_for_state(found: dict[str, Any]) -> None:
    found["optimizer_states"][0]["param_groups"] = "none"


def _wrong_loops(found: dict[str, Any]) -> None:
    found["loops"] = [1]


@pytest.mark.parametrize("edit", [_lose_weight, _lose_optimiser, _text_for_state, _wrong_loops])
def test_a_run_that_cannot_go_on_says_so_in_a_line(
    edit: Callable[[dict[str, Any]], None], fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("run", "--trainer.max_steps=4") == 0
    shutil.copy("run/checkpoints/last.ckpt", "whole.ckpt")
    Path("run/DONE").unlink()
    found = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert KEY in found
    edit(found)
    torch.save(found, "run/checkpoints/last.ckpt")
    capsys.readouterr()
    assert fit("run", "--trainer.max_steps=4") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("wovr: error: run/checkpoints/last.ckpt: ")
    shutil.copy("whole.ckpt", "run/checkpoints/last.ckpt")
    assert fit("run", "--trainer.max_steps=4") == 0
