"""The completion script, asked by the shell itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from wovr import cli
from wovr.commands.completion import SHELLS, completion_script

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
$(complete -p wovr | sed 's/.*-F \\([^ ]*\\).*/\\1/') wovr
printf '%s\\n' "${COMPREPLY[@]}"
"""

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "wovr.bash"
    path.write_text(completion_script("bash", cli.VERBS))
    return path


@needs_bash
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["e"], {"evaluate"}),
        (["evaluate", "--hor"], {"--horizon", "--horizons"}),  # of two programs
        (["evaluate", "--metrics", "fv"], {"fvd", "fvd[idm]"}),
        (["fit", "--config", "wm_"], {"wm_small"}),
        (["fit", "--resume", ""], {"true", "false"}),
        (["fit", "--trainer.max_s"], {"--trainer.max_steps"}),
        (["fit", "--data.folde"], {"--data.folder"}),
        (["fit", "--model.world_model.mem"], {"--model.world_model.memory"}),
        (["rl", "--model.coh"], {"--model.coherence"}),
        (["data", "in"], {"inspect"}),
        (["data", "keyframes", "--lea"], {"--lead", "--least_horizon"}),
        (["collect", "--env", "metaw"], {"metaworld"}),
        (["pace", "--dry"], {"--dry_run"}),
        (["bench", "imagination", "--comp"], {"--compile"}),
        (["--print_completion", ""], set(SHELLS)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(words: list[str], completed: set[str], script: Path, tmp_path: Path) -> None:
    asked = ["bash", "-c", ASK, "bash", str(script), "wovr", *words]
    result = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == completed, result.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_reads_it(tmp_path: Path) -> None:
    (tmp_path / "_wovr").write_text(completion_script("zsh", cli.VERBS))
    subprocess.run(["zsh", "-n", str(tmp_path / "_wovr")], check=True)


def test_another_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--print_completion", "bsh"], ["--print_completion=bsh"]):
        assert cli.main(words) == 2
        error = "wovr: error: --print_completion is 'bsh'; did you mean bash? choose from: bash, zsh\n"
        assert capsys.readouterr().err == error
    assert cli.main(["--print_completion"]) == 2
