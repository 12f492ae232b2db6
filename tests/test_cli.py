"""The table of verbs: what `wovr` answers before and after a verb is chosen."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wovr import __version__, cli

ROOT = Path(__file__).resolve().parents[1]

SUBVERBS = {"data": ["inspect", "verify"], "bench": ["collect", "loader"]}
"""Verbs that take a second word."""

HEADERS = [[verb, *rest] for verb in cli.VERBS for rest in [[], *([word] for word in SUBVERBS.get(verb, []))]]
"""Every beginning of a command line that answers --help."""


def help_text(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `wovr WORDS --help` prints, wide enough that no line is folded."""
    monkeypatch.setenv("COLUMNS", "1000")
    try:
        status = cli.main([*words, "--help"])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 0
    return capsys.readouterr().out


def options_with_help(text: str) -> dict[str, str]:
    """Option -> its help line, without the `(type: ..., default: ...)` that jsonargparse adds by itself."""
    options: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        head = re.match(r"  (-\S+.*?)(?:\s{2,}(.*))?$", line)
        if head:
            name = head.group(1)
            options[name] = head.group(2) or ""
        elif line.startswith("    ") and name:
            options[name] += " " + line.strip()
        else:
            name = ""
    return {
        name: re.sub(r"\((?:required, )?(?:type|default): .*\)$", "", line).strip() for name, line in options.items()
    }


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [verb] for line in lines) for verb in cli.VERBS)


def test_no_verb_prints_the_usage_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: wovr")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"wovr {__version__}\n"


def test_unknown_verb_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["colect", "--episodes", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "unknown verb 'colect'" in captured.err
    assert "collect" in captured.err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from wovr.cli import main; status = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'mujoco', 'lightning', 'jsonargparse', 'rich'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))\n"
        "sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "heavy:"


def test_the_module_runs_as_a_program() -> None:
    result = subprocess.run([sys.executable, "-m", "wovr", "nonsense"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("wovr: error: unknown verb 'nonsense'")


@pytest.mark.parametrize("words", HEADERS, ids=" ".join)
def test_every_option_of_every_verb_has_a_help_line(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_text(words, capsys, monkeypatch)
    options = options_with_help(text)
    assert options, text
    assert [name for name, line in options.items() if not line] == []


@pytest.mark.parametrize(
    "words", [words for words in HEADERS if words[0] in SUBVERBS and len(words) == 1], ids=" ".join
)
def test_a_verb_of_two_words_lists_the_second(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_text(words, capsys, monkeypatch)
    assert all(word in text for word in SUBVERBS[words[0]])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["collect", "--sweet", "spatial"], "--sweet"),
        (["collect", "--episodes", "many"], "episodes"),
        (["collect", "--policy", "expert"], "episodes"),
        (["data", "inspekt", "data"], "inspekt"),
        (["data", "verify"], "folder"),
        (["bench", "loader", "--data", ".", "--seconds", "long"], "seconds"),
        (["fit", "--config", "bc", "--sweet", "spatial"], "--sweet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_options_is_one_line_and_status_2(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("wovr: error: ")
    assert named in captured.err
    assert f"see: wovr {words[0]} --help" in captured.err


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["colect"], "collect"),
        (["collect", "--episode", "3"], "--episodes"),  # flags are not guessed from their beginnings
        (["collect", "--polcy", "random", "--suite", "x", "--episodes", "1", "--out", "o"], "--policy"),
        (["data", "inspekt", "data"], "inspect"),
        (["data", "inspect", "--row", "3", "data"], "--rows"),
        (["weights", "fetch", "raaft"], "raft"),
        (["pace", "--config", "pace/tabletop", "--suit", "object"], "--suite"),
        (
            ["fit", "--config", "bc", "--data.folder", "d", "--out", "o", "--trainer.max_step", "3"],
            "--trainer.max_steps",
        ),
        (["fit", "--config", "bc", "--data.foldr", "d", "--out", "o"], "folder"),
        (["fit", "--config", "bc", "--data.folder", "d", "--out", "o", "--model.policy.chunks", "8"], "chunk"),
        (["rl", "--policy", "p", "--suite", "s", "--out", "o", "--group_sizes", "8"], "--group_size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_does_not_exist_is_answered_with_the_one_that_was_meant(
    words: list[str], guess: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"; did you mean {guess}? " in error


def test_an_option_without_a_help_line_is_noticed() -> None:
    text = (
        "options:\n"
        "  -h, --help      show this\n"
        "  --seed SEED     (type: int, default: 0)\n"
        "  --out OUT\n"
        "                  (required, type: Path)\n"
        "  --suite SUITE   which suite (required)\n"
    )
    assert [name for name, line in options_with_help(text).items() if not line] == ["--seed SEED", "--out OUT"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_verb_as_ctrl_c_does(number: int, status: int, tmp_path: Path) -> None:
    """It cleans up behind itself; nobody finds its lock, and what it had forked ends as usual."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    words = ["collect", "--policy", "random", "--env", "slow:X", "--suite", "x", "--episodes", "1", "--out", "out"]
    script = (
        # Whoever runs the tests in the background or under nohup has these ignored, and children inherit that.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "import wovr.commands.collect as module; module.WorkerVectorEnv = lambda *a, **k: __import__('slow')\n"
        "from wovr.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    process = subprocess.Popen([sys.executable, "-c", script, *words], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert (tmp_path / "out" / ".lock").exists()
    process.send_signal(number)
    assert process.communicate(timeout=60)[1].count("\n") == 1
    assert process.returncode == status
    assert not (tmp_path / "out").exists()


def test_nohup_stays_nohup() -> None:
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from wovr import cli\n"
        "with cli._told_to_end(): assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_on_a_full_disk_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "wovr", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("wovr: error: ")
    assert "Traceback" not in ended.stderr
