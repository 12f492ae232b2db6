"""Commands under torchrun: two processes share the work of one and make the same of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.commands.point_world import write_checkpoint
from tests.commands.test_rl import CONFIG, REAL
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.models.policies.loading import load_policy

ROOT = Path(__file__).resolve().parents[2]


def launched(folder: Path, processes: int, *words: str) -> str:
    """What `torchrun --nproc_per_node PROCESSES -m wovr WORDS` prints."""
    front = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [sys.executable, *front, "-m", "wovr", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_collecting_and_imagining_share_shards_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are those of one process; each has made every second shard."""
    collect = ["collect", *REAL, "--policy", "p.ckpt", "--suite", "spatial", "--episodes", "14", "--num_envs", "4"]
    collect += ["--shard_episodes", "4", "--workers", "1", "--device", "cpu"]
    save_policy(tmp_path / "p.ckpt", make_policy())
    write_checkpoint(tmp_path / "wm.ckpt", tiny_world(action_dim=2))
    imagine = ["data", "imagine", "one", "--world_model", "wm.ckpt", "--batch_size", "5", "--restart", "8"]
    monkeypatch.chdir(tmp_path)
    for words, name in ((collect, ""), (imagine, "imagined_")):
        assert main([*words, "--out", f"{name}one"]) == 0
        said = launched(tmp_path, 2, *words, "--out", f"{name}two")
        assert said.count("14 episodes, ") == 1
        one, two = files(tmp_path / f"{name}one"), files(tmp_path / f"{name}two")
        assert one == two
        assert sum(file.endswith(".tar") for file in one) in (3, 4)
    # A shard that is lost is made again, whoever's it was.
    [*_, last] = sorted((tmp_path / "two").glob("*.tar"))
    last.unlink()
    launched(tmp_path, 2, *collect, "--out", "two")
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_rl_with_weights_shared_out(tmp_path: Path) -> None:
    """Two processes, each with half of every weight, of the rollouts and of the evaluation."""
    strategy = {
        "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
        "init_args": {"data_parallel_size": 8, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
    }
    model = {"lr": 1e-3, "warmup_steps": 0, "minibatches": 1, "reward_coefficient": 5.0}
    config = CONFIG | {"model": model, "updates": 1, "trainer": {"accelerator": "cpu", "strategy": strategy}}
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(config))
    save_policy(tmp_path / "p.ckpt", make_policy())
    evaluation = ["--eval_env", REAL[1], "--eval_env_args.size", "16", "--eval_episodes", "7", "--eval_num_envs", "4"]
    words = ["rl", "--config", "rl.yaml", "--policy", "p.ckpt", "--suite", "spatial", *REAL, *evaluation]
    results = []
    for processes in (1, 2):
        launched(tmp_path, processes, *words, "--out", f"out{processes}")
        results.append(json.loads((tmp_path / f"out{processes}" / "metrics.json").read_text()))
        assert (results[-1]["rollouts"], results[-1]["evaluation_episodes"], results[-1]["steps"]) == (16, 14, 1)
    for name in ("success_rate_real", "eval_success_rate_real", "gradient_norm", "valid_length"):
        one, two = (result["curve"][-1][name] for result in results)
        assert abs(one - two) <= 1e-4 * max(1e-3, abs(one)), name
    before, one, two = (
        torch.cat([weight.flatten() for weight in load_policy(tmp_path / path).parameters()])
        for path in ("p.ckpt", "out1/checkpoints/last.ckpt", "out2/checkpoints/last.ckpt")
    )
    assert float((one - before).abs().mean()) > 1e-4
    assert float((one - two).abs().mean()) < 1e-2 * float((one - before).abs().mean())
