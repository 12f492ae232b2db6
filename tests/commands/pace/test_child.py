"""Child processes: log, status, memory, progress; and that they end with the chain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wovr.commands.pace import child as pace_child
from wovr.commands.pace.child import Child, Ended, Progress, last_error, read_progress


def run(words: list[str], log: Path) -> Ended:
    child = Child(words, log)
    while (ended := child.poll()) is None:
        time.sleep(0.02)
    return ended


def test_a_command_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "stage.log"
    ended = run(["--version"], log)
    assert ended.status == 0
    assert ended.peak_memory > 5e6
    assert ended.seconds > 0
    ended = run(["colect", "a b"], log)
    assert ended.status == 2
    lines = log.read_text().splitlines()
    assert (lines[0], lines[2]) == ("$ wovr --version", "$ wovr colect 'a b'")
    assert last_error(log).startswith("unknown verb 'colect'")
    assert last_error(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("", Progress(None, None, "")),
        ("$ wovr fit --x 1/2\n", Progress(None, None, "")),
        ("step 10/40  ETA 0:01  loss 2\nnote: slow\n", Progress(10, 40, "note: slow")),
        ("  update  SR\n    2/1,000  0.5\n", Progress(2, 1000, "2/1,000  0.5")),
        ("9/3 is no progress\n", Progress(None, None, "9/3 is no progress")),
    ],
)
def test_progress_is_read_off_the_log(text: str, progress: Progress, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    assert read_progress(tmp_path / "log") == progress


@pytest.mark.parametrize("deaf", [False, True])
def test_a_child_is_ended(deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGTERM, or, where it goes on, by force."""
    made: list[subprocess.Popen] = []
    real = subprocess.Popen

    def sleep(words: list[str], **options: Any) -> subprocess.Popen:
        script = "trap '' TERM; echo ready; sleep 60 & wait; sleep 60" if deaf else "echo ready; exec sleep 60"
        made.append(real(["sh", "-c", script], **options))
        return made[0]

    monkeypatch.setattr(pace_child.subprocess, "Popen", sleep)
    child = Child(["x"], tmp_path / "log")
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    assert child.poll() is None
    child.terminate()
    assert child.wait(0.3 if deaf else 20.0) is not deaf
    if deaf:
        child.kill()
    assert made[0].returncode == -(signal.SIGKILL if deaf else signal.SIGTERM)


def test_a_child_is_told_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []
    real = subprocess.Popen

    def note(words: list[str], **options: Any) -> subprocess.Popen:
        told.append(options["env"].get("OMP_NUM_THREADS"))
        return real(["true"], **options)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pace_child.subprocess, "Popen", note)
    for threads in (3, None):
        assert Child(["x"], tmp_path / "log", (), threads).wait(20.0)
    assert told == ["3", None]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a child with its parent on Linux only")
def test_a_child_ends_when_its_chain_is_killed(tmp_path: Path) -> None:
    # The verb waits for ever in an environment's import.
    (tmp_path / "slow_env.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    script = (
        "import sys; from pathlib import Path; from wovr.commands.pace import child as pace_child\n"
        "import subprocess; real = subprocess.Popen\n"
        "subprocess.Popen = lambda words, **options: real([sys.executable, 'slow_env.py'], **options)\n"
        "child = pace_child.Child(['x'], Path('log'))\n"
        "import time; time.sleep(60)\n"
    )
    chain = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    deadline = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    os.kill(child, 0)
    chain.send_signal(signal.SIGKILL)
    chain.wait()
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, and nobody has asked
            return
        time.sleep(0.05)
    pytest.fail("the child goes on")
