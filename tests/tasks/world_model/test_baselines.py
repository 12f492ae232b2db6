"""The trainings of conf/baselines: the systems that the paper compares with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.data.synthetic import write_dataset
from tests.models.world_model.tiny_world import linear_world, pictures, random_actions
from wovr.cli import main
from wovr.errors import UserError
from wovr.models.checkpoint import load_network
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.tasks.world_model.training import WorldModelTraining


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("episodes"), shards=1, episodes=8, num_frames=14, size=(16, 16))


@pytest.mark.parametrize("name", ["opensora", "cosmos"])
def test_a_baseline_trains_and_imagines_from_its_file(
    name: str, tmp_path: Path, episodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    conf = Path(__file__).resolve().parents[3] / "conf" / "baselines" / f"{name}.yaml"
    at = "--model.init_args"
    flags = (f"--data.folder={episodes}", "--trainer.accelerator=cpu", "--trainer.precision=32-true")
    short = (
        f"{at}.compile=false",
        f"{at}.world_model.init_args.sigmas=2",
        "--trainer.max_steps=2",
        "--data.val_windows=4",
    )
    few = ("--data.batch_size=2", "--trainer.val_check_interval=2", "--trainer.callbacks=[]")
    assert main(["fit", "--config", str(conf), *flags, *short, *few, "--out", "out"]) == 0
    model = load_network(Path("out/checkpoints/last.ckpt"), WorldModel)
    config = yaml.safe_load(conf.read_text())["model"]["init_args"]["world_model"]["init_args"]
    assert type(model.backbone).__name__ in config["backbone"]["class_path"]
    assert (model.chunk, model.memory, model.reference) == (8, 4, False)
    imagination = Imagination(model)
    imagination.start(pictures(2))
    actions = torch.rand(2, 8, 4) * 2 - 1
    start = imagination.snapshot()
    frames = imagination.step(actions)
    assert frames.shape == (2, 8, 16, 16, 3)
    imagination.restore(start)
    assert not torch.equal(imagination.step(-actions), frames)


def test_logit_normal_levels_lie_in_the_middle_and_each_range_is_as_likely() -> None:
    world = linear_world(shift=2.0)
    frames, actions = pictures(1, 13).expand(64, -1, -1, -1, -1), random_actions(64, 12)
    window = world.encode_window(frames, actions, torch.ones(64, 12, dtype=torch.bool), torch.full((64,), 8))
    task = WorldModelTraining(world, levels="logit_normal")
    sigma = task.draw(window).sigma
    before = (sigma / (2 - sigma)).logit().sort().values  # the shift undone
    expected = torch.distributions.Normal(0, 1).icdf((torch.arange(64) + 0.5) / 64)
    assert (before - expected)[2:-2].abs().max() < 0.3
    assert task._level(sigma).bincount().tolist() == [16] * 4
    with pytest.raises(UserError, match="levels is logit_normal with weighting bell"):
        WorldModelTraining(world, levels="logit_normal", weighting="bell")
