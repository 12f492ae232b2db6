"""Exceptions that the machine or an input causes end in one line; defects keep their traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode
from wovr import cli
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.errors import UserError
from wovr.failures import SMALLER, explain


def cannot_allocate() -> Exception:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    return caught.value


def too_large_an_array() -> Exception:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 57)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        too_large_an_array(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"),
        cannot_allocate(),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("verb", ["fit", "rl", "evaluate"])
def test_out_of_memory_names_the_option_that_makes_it_smaller(error: Exception, verb: str) -> None:
    told = explain(error, verb)
    assert told is not None
    assert "memory" in str(told)
    assert SMALLER[verb].split(",")[0].split(" ")[0] in str(told)


@pytest.mark.parametrize("verb", SMALLER)
def test_the_options_named_exist(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    seconds = {"data": ["imagine"], "bench": ["imagination"]}.get(verb, [])
    text = ""
    for words in ([*seconds], ["collect"] if verb == "bench" else []):
        with pytest.raises(SystemExit):
            cli.main([verb, *words, "--help"])
        text += capsys.readouterr().out
    if verb == "evaluate":
        with pytest.raises(SystemExit):
            cli.main([verb, "--world_model", "x", "--help"])
        text += capsys.readouterr().out
    for option in [word.strip("(),") for word in SMALLER[verb].split() if "--" in word]:
        assert option in text or option.startswith("--data.")  # those of a class come with the class


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.npz"),
            "a.npz: No such file or directory; check",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "o"), "o: Permission denied; check the permissions"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "o"), "o: Not a directory; give a folder"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8"),
    ],
)
def test_what_the_system_refuses_is_a_line(error: Exception, told: str) -> None:
    assert told in str(explain(error, "data"))


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("a"), RuntimeError("shapes differ"), ValueError("x")])
def test_a_defect_is_none_of_these(error: Exception) -> None:
    assert explain(error, "fit") is None


def test_a_file_in_the_place_of_a_folder_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_shard(shard_path(tmp_path / "d", "x", 0), [make_episode(0, 5, (16, 16))])
    finish_dataset(tmp_path / "d")
    (tmp_path / "file").touch()
    assert cli.main(["data", "inspect", str(tmp_path / "d"), "--out", str(tmp_path / "file" / "sheet.png")]) == 2
    shown = capfd.readouterr().err
    assert shown.startswith("wovr: error: ")
    assert shown.count("\n") == 1


def run(command: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("wovr", f"{sys.executable} -m wovr")],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    episodes = [make_episode(index, 5, (16, 16)) for index in range(400)]
    for index, episode in enumerate(episodes):
        episode.meta.task = index
    write_shard(shard_path(tmp_path / "d", "x", 0), episodes)
    finish_dataset(tmp_path / "d")
    for reader in ("head -n 1", "true"):
        result = run(f"wovr data inspect d | {reader}; echo ${{PIPESTATUS[0]}} >status", tmp_path)
        assert result.stderr == ""
        assert (tmp_path / "status").read_text().strip() in ("0", "1", "141")


def test_a_text_the_terminal_cannot_show_is_spelled_out(tmp_path: Path) -> None:
    episode = make_episode(0, 5, (16, 16))
    episode.meta.instruction = "把碗放在盘子上"
    write_shard(shard_path(tmp_path / "d", "x", 0), [episode])
    finish_dataset(tmp_path / "d")
    result = run("wovr data inspect d", tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\\u628a" in result.stdout


def test_debug_shows_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from wovr.commands.data import main as data

    def main(args: list[str]) -> None:
        raise MemoryError

    monkeypatch.setattr(data, "main", main)
    assert cli.main(["data", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.splitlines()[-1] == "wovr: error: out of memory; give a smaller one of --batch_size"


def test_the_line_of_a_failure_is_one_line() -> None:
    told = explain(RuntimeError("CUDA out of memory.\nGPU 0 has a total of\n2 GiB"), "rl")
    assert isinstance(told, UserError)
    assert "\n" not in str(told)
