"""The paper's chain at its own size, shown and not run: what it takes, in what order, under which launcher."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace, dict_to_namespace

from wovr.cli import main
from wovr.commands.pace.child import command_line
from wovr.commands.run_options import take_processes

ROOT = Path(__file__).resolve().parents[3]
PAPER = ROOT / "conf" / "paper"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
LAUNCHER = "torchrun --nproc_per_node 8"


def shown(words: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, dict[str, str]]:
    """What a dry run prints, and each stage's command."""
    assert main(["pace", *words.split(), *more, "--dry_run", "true"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    return out, dict(re.findall(r"^(\w+):\n  (.*)$", out, re.MULTILINE))


@pytest.mark.parametrize("suite", SUITES)
def test_the_chain_of_each_suite_is_the_paper_s(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out, commands = shown(f"--config conf/paper/pace.yaml --suite {suite}", capsys, "--launcher", LAUNCHER)
    assert "real episodes: 2,500, the budget is 2,500" in out
    order = ["sft_fit", "collect_base", "wm_fit", "rl_fit", "collect_evolved", "wm_refit", "rl_refit", "sr_pace"]
    assert [name for name in commands if name in order] == order
    front = f"{LAUNCHER} -m wovr "
    assert {name for name, text in commands.items() if text.startswith(front)} == {
        *("wm_fit", "rl_fit", "wm_refit", "rl_refit", "collect_base", "collect_evolved", "collect_held_out")
    }
    assert f"data/LIBERO/{suite}" in commands["demos"]
    assert "--data.per_task 1 " in commands["sft_fit"]
    for name, episodes in (("collect_base", 1500), ("collect_evolved", 1000)):
        assert f"--suite {suite} --episodes {episodes} " in commands[name]
        assert "--env libero " in commands[name]
    assert "sft_fit/checkpoints/last.ckpt" in commands["rl_fit"]
    assert "rl_fit/checkpoints/last.ckpt" in commands["rl_refit"]  # one co-evolution goes on with the improved policy


def test_the_commands_of_the_chain_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, commands = shown("--config conf/paper/pace.yaml", capsys)
    for name, text in commands.items():
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(text)[1:], "--print_config"])
        assert ended.value.code == 0, (name, capsys.readouterr().err)


def test_one_s_own_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--config conf/paper/pace.yaml --config conf/paper/real.yaml --env franka:FrankaEnv --suite robot --tasks 0"
    out, commands = shown(words, capsys, "--launcher", LAUNCHER)
    assert "real episodes: 150, the budget is 150" in out
    assert list(commands)[-1] == "sr_rl"
    assert "collect_evolved" not in commands
    assert "--data.per_task 10 " in commands["sft_fit"]
    assert "--episodes 150 " in commands["collect_base"]
    assert "--num_envs 1 --workers 1 --shard_episodes 1 " in commands["collect_base"]
    assert "--episodes 30 " in commands["sr_rl"]
    assert {text.split()[0] for name, text in commands.items() if name.startswith("collect")} == {"wovr"}
    assert commands["wm_fit"].startswith(LAUNCHER)


def test_an_update_is_the_paper_s() -> None:
    values = yaml.safe_load((PAPER / "rl.yaml").read_text())
    rollouts = values["groups"] * values["group_size"]
    assert rollouts == 64 * 16
    assert rollouts * values["horizon"] // 8 == values["model"]["minibatches"] * 8192
    assert values["groups"] % values["trainer"]["devices"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--launcher", "no-such-launcher --nproc_per_node 8"], "no such command"),
        (["--launcher", "torchrun '8"], "No closing quotation"),
        (["--launcher", ""], "no such command"),
        (["--launched", "[fit, report]"], "launched names 'report'"),
    ],
)
def test_a_launcher_that_cannot_be(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pace", *words, "--dry_run", "true"]) == 2
    assert said in capsys.readouterr().err


def test_what_to_type_by_hand() -> None:
    assert command_line(["fit", "--out", "a b"], ["torchrun", "--nproc_per_node", "2"]) == (
        "torchrun --nproc_per_node 2 -m wovr fit --out 'a b'"
    )
    assert command_line(["fit"], ["srun", "-n", "2"]) == "srun -n 2 wovr fit"
    assert command_line(["fit"]) == "wovr fit"


def test_a_launcher_decides_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shares = {"class_path": "ModelParallelStrategy", "init_args": {"data_parallel_size": 8, "tensor_parallel_size": 1}}
    for strategy in ("ddp", dict_to_namespace(shares)):
        trainer = Namespace(devices=1, num_nodes=1, strategy=strategy)
        take_processes(trainer)
        assert (trainer.devices, trainer.num_nodes) == (8, 2)
    assert trainer.strategy.init_args.data_parallel_size == 16
