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

from wovr.commands import pace_child
from wovr.commands.pace_child import Progress, execute, last_error, read_progress


def test_a_command_and_its_log(tmp_path: Path) -> None:
    log, ticks = tmp_path / "deep" / "stage.log", list[float]()
    ended = execute(["--version"], log, ticks.append)
    assert ended.status == 0
    assert ended.peak_memory > 5e6
    assert ended.seconds > 0
    ended = execute(["colect", "a b"], log, ticks.append)
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


def test_ctrl_c_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[subprocess.Popen] = []
    real = subprocess.Popen

    def sleep(words: list[str], **options: Any) -> subprocess.Popen:
        made.append(real(["sleep", "60"], **options))
        return made[0]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pace_child.subprocess, "Popen", sleep)
    monkeypatch.setattr(pace_child, "_END_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        execute(["x"], tmp_path / "log", interrupt)
    assert made[0].returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a child with its parent on Linux only")
def test_a_child_ends_when_its_chain_is_killed(tmp_path: Path) -> None:
    # The verb waits for ever in an environment's import.
    (tmp_path / "slow_env.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    script = (
        "import sys; from pathlib import Path; from wovr.commands import pace_child\n"
        "import subprocess; real = subprocess.Popen\n"
        "subprocess.Popen = lambda words, **options: real([sys.executable, 'slow_env.py'], **options)\n"
        "pace_child.execute(['x'], Path('log'), lambda seconds: None)\n"
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
