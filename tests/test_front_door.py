"""From an empty folder to a world model by nothing but the commands that error lines name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from wovr.cli import main

SMALL = {
    "collect": "--episodes 6 --tasks 0 --num_envs 2 --workers 1",
    "fit": "--trainer.max_steps 1 --trainer.accelerator cpu --trainer.val_check_interval 1 "
    "--trainer.limit_val_batches 1 --trainer.log_every_n_steps 1 --data.batch_size 2 --data.val_fraction 0.5",
    "fit --config conf/wm.yaml": "--model.compile false --trainer.callbacks null --data.memory 12",
}
"""Beginning of a command -> what makes it small; the last of a flag counts."""


def small(command: str) -> list[str]:
    more = [flags for beginning, flags in SMALL.items() if f"{command} ".startswith(f"{beginning} ")]
    return [*shlex.split(command), *shlex.split(" ".join(more))]


@pytest.mark.filterwarnings("ignore")
def test_error_lines_lead_from_nothing_to_a_world_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted, followed = "fit --config conf/wm.yaml", list[str]()
    while main(small(wanted)) == 2:
        error = capsys.readouterr().err
        found = re.search(r"(?:make it|begin) with: wovr ([^()]+?) \(", error)
        assert found, error
        assert found.group(1) not in followed
        followed.append(found.group(1))
        assert main(small(followed[-1])) == 0, capsys.readouterr().err
    assert [re.sub(r" --(suite|episodes).*", "", line) for line in followed] == [
        "collect --policy expert",
        "fit --config conf/bc.yaml",
        "collect",
        "fit --config conf/robot.yaml",
    ]
    assert Path("runs/wm/checkpoints/last.ckpt").exists()
    taken = re.findall(r"taking (\S+)\n", capsys.readouterr().out)
    assert taken[-2:] == ["runs/robot/checkpoints/last.ckpt", "data/base"]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["bc", "robot", "wm"]
    assert sorted(path.name for path in Path("data").iterdir()) == ["base", "demos"]
