"""Weights to give away: half the size, the same networks, a card of what was measured; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint, write_point_dataset
from tests.envs.test_rollout import make_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.commands.places import Finder
from wovr.data.store.reader import EpisodeStore
from wovr.envs.imagined.env import make_imagined_env
from wovr.models.checkpoint import fingerprint_of, network_fingerprint, read_checkpoint
from wovr.models.half_copies import WHOLE_BELOW, write_half_copy
from wovr.models.policies.loading import load_policy
from wovr.models.reward import SuccessClassifier
from wovr.models.world_model.loading import load_world_model
from wovr.models.world_model.model import WorldModel
from wovr.runs import write_json
from wovr.serve.starts import StoredStarts


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stage(name: str, command: list[str]) -> Path:
    """A finished stage of runs/chain."""
    folder = Path("runs/chain", name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "stage.json", {"inputs": {"command": command}, "command": f"wovr {' '.join(command)}"})
    (folder / "DONE").write_text("{}")
    return folder


def write_chain() -> Path:
    """A chain of tiny networks."""
    last = "checkpoints/last.ckpt"
    write_json(Path("runs/chain/chain.json"), {"suite": "spatial", "seed": 0})
    write_checkpoint(stage("sft_fit", ["fit", "--config", "conf/bc.yaml"]) / last, make_policy())
    write_point_dataset(stage("collect_base", ["collect", "--policy", "{stage:sft_fit}/checkpoints/last.ckpt"]))
    write_checkpoint(stage("wm_fit", ["fit", "--config", "conf/wm.yaml"]) / last, tiny_world(action_dim=2))
    judge = SuccessClassifier(window=1, channels=[8, 8], tasks=[("spatial", task) for task in range(3)])
    folder = stage("reward_fit", ["fit", "--config", "conf/reward.yaml"])
    write_checkpoint(folder / last, judge)
    write_json(folder / "metrics.json", {"metrics": {"train/loss": 3.0, "val/recall": 0.875}, "seconds": 12.5})
    measured = {"all": {"success_rate": 0.5, "low": 0.25, "high": 0.75, "episodes": 16}, "temperature": 0.0}
    policy = ["evaluate", "--policy", "{stage:sft_fit}/checkpoints/last.ckpt"]
    write_json(stage("sr_base", policy) / "metrics.json", {"inputs": {"temperature": 1.0}, "sr": measured})
    return Path("runs/chain")


def test_a_chain_is_packed_and_loaded_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    chain = write_chain()
    assert main(["weights", "pack", str(chain), "--episodes", "3"]) == 0
    out = Path("weights/tabletop")
    names = {path.name for path in out.iterdir()}
    assert names == {"policy.ckpt", "world_model.ckpt", "reward.ckpt", "episodes", "README.md", "weights.json"}
    world = load_world_model(out / "world_model.ckpt")
    whole = load_world_model(chain / "wm_fit/checkpoints/last.ckpt")
    for (name, one), other in zip(world.named_parameters(), whole.parameters(), strict=True):
        assert one.dtype is torch.float32, name
        torch.testing.assert_close(one, other, rtol=2**-11, atol=1e-7)
    size, before = (p.stat().st_size for p in (out / "world_model.ckpt", chain / "wm_fit/checkpoints/last.ckpt"))
    assert size < 0.7 * before
    load_policy(out / "policy.ckpt")
    env = make_imagined_env(out / "world_model.ckpt", out / "reward.ckpt", StoredStarts([out / "episodes"]), 1)
    env.reset(seed=0)
    assert env.step_chunk(np.zeros((1, 8, 2), np.float32)).valid.all()
    assert sorted(entry.meta.task for entry in EpisodeStore(out / "episodes").entries) == [0, 1, 2]
    assert f"{out}: 7 files" in capsys.readouterr().out


def test_the_card_says_what_the_chain_has_measured() -> None:
    assert main(["weights", "pack", str(write_chain())]) == 0
    card = Path("weights/tabletop/README.md").read_text()
    assert "| sr_base | sft_fit | 50.0 % | 25.0 to 75.0 | 16 | 0.0 |" in card
    assert "| reward_fit | val/recall 0.875 |" in card
    assert "wovr fit --config conf/wm.yaml\n" in card
    manifest = json.loads(Path("weights/tabletop/weights.json").read_text())
    assert manifest["stages"] == {
        "policy.ckpt": "sft_fit",
        "world_model.ckpt": "wm_fit",
        "reward.ckpt": "reward_fit",
    }
    rows = dict(re.findall(r"\| `(\w+\.ckpt)` \| \w+ \| ([\d,]+) \|", card))
    weights = read_checkpoint(Path("runs/chain/wm_fit/checkpoints/last.ckpt"))["state_dict"]
    assert rows["world_model.ckpt"] == f"{sum(weight.numel() for weight in weights.values()):,}"


def test_what_is_not_packed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "pack", "runs/chain"]) == 2
    assert "runs/chain: not the folder of a chain" in capsys.readouterr().err
    chain = write_chain()
    assert main(["weights", "pack", str(chain), "--megabytes", "0.01"]) == 2
    assert re.search(r"weights/tabletop: 0\.\d MB in all, the largest \S+ with", capsys.readouterr().err)
    assert list(Path("weights").iterdir()) == []
    (chain / "wm_fit/DONE").unlink()
    assert main(["weights", "pack", str(chain)]) == 2
    assert "has made nothing like runs/wm/checkpoints/last.ckpt" in capsys.readouterr().err
    Path("weights/tabletop").mkdir()
    assert main(["weights", "pack", str(chain)]) == 2
    assert "weights/tabletop: is there already" in capsys.readouterr().err


def test_a_half_copy_keeps_what_half_precision_cannot_hold(tmp_path: Path) -> None:
    model = tiny_world(action_dim=2)
    big = next(name for name, weight in model.named_parameters() if weight.numel() >= WHOLE_BELOW)
    with torch.no_grad():
        model.get_parameter(big).view(-1)[0] = 1e6
    source = torch.load(write_checkpoint(tmp_path / "a.ckpt", model), weights_only=True)
    torch.save(source | {"optimizer_states": [torch.zeros(1000)], "loops": {"a": 1}}, tmp_path / "a.ckpt")
    write_half_copy(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    copy = read_checkpoint(tmp_path / "b.ckpt")
    assert set(copy) == {"state_dict", "wovr"}
    assert copy["wovr"] == source["wovr"]
    for name, weight in copy["state_dict"].items():
        whole = source["state_dict"][name]
        halved = whole.dtype is torch.float32 and whole.numel() >= WHOLE_BELOW and name != f"network.{big}"
        assert weight.dtype is (torch.float16 if halved else whole.dtype), name
        assert halved or torch.equal(weight, whole)
    assert network_fingerprint(tmp_path / "b.ckpt", WorldModel) == fingerprint_of(load_world_model(tmp_path / "b.ckpt"))


def test_shipped_weights_are_the_last_resort_of_what_only_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "pack", str(write_chain())]) == 0
    place = "runs/bc/checkpoints/last.ckpt"
    finder = Finder(shipped=True, optional=("value", "policy"))
    found = finder.fill_in(
        {"policy": f"{place},runs/rl/checkpoints/last.ckpt", "value": "runs/value/checkpoints/last.ckpt"}
    )
    assert found == {"policy": "weights/tabletop/policy.ckpt", "value": ""}
    assert f"taking weights/tabletop/policy.ckpt for {place}, shipped" in capsys.readouterr().out
    Path("runs/bc/checkpoints").mkdir(parents=True)
    Path(place).write_text("own")
    assert finder.find(place) == place
    assert main(["evaluate", "--policy", "runs/rl/checkpoints/last.ckpt"]) == 2  # which takes none for its own
    assert "runs/rl/checkpoints/last.ckpt: missing" in capsys.readouterr().err
