"""Pictures of imagined rollouts at each validation of a world model, through the real command line."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.data.synthetic import make_episode, write_dataset
from wovr.callbacks.imagination_grid import ImaginationGrid, choose_episodes, imagination_grid
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.world_model import WorldModelData
from wovr.errors import UserError
from wovr.models.checkpoint import load_network
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.tasks.world_model.training import WorldModelTraining

NUMBERS = {
    "in_channels": 768, "out_channels": 1280, "action_dim": 4, "patch": 1, "heads": 2, "head_dim": 12, "layers": 1,
    "ffn_dim": 24, "frequencies": 8,
}  # fmt: skip
GRID = "wovr.callbacks.imagination_grid.ImaginationGrid"


def config(**arguments: Any) -> dict[str, Any]:
    world = {
        "autoencoder": {"class_path": "wovr.models.world_model.autoencoders.patch.PatchAutoencoder"},
        "backbone": {"class_path": "wovr.models.world_model.backbones.wan.WanBackbone", "init_args": NUMBERS},
        "prediction": "data",
        "head": "copy",
    }
    return {
        "model": {
            "class_path": "wovr.tasks.world_model.training.WorldModelTraining",
            "init_args": {
                "world_model": {"class_path": "wovr.models.world_model.model.WorldModel", "init_args": world},
                **{"warmup_steps": 1, "ema_decay": 0.5, "lr": 0.01},
            },
        },
        "data": {
            "class_path": "wovr.data.training.world_model.WorldModelData",
            "init_args": {"batch_size": 4, "val_fraction": 0.5, "val_windows": 4},
        },
        "trainer": {
            "accelerator": "cpu", "max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None,
            "callbacks": [{"class_path": GRID, "init_args": {"episodes": 2, "chunks": 2, **arguments}}],
        },
    }  # fmt: skip


@functools.cache
def tiny() -> WorldModel:
    """A world model that does not just repeat the last frame."""
    torch.manual_seed(0)
    backbone = WanBackbone(**NUMBERS)  # type: ignore[arg-type]
    for parameter in backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return WorldModel(PatchAutoencoder(), backbone, prediction="data", head="copy")


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", size=(16, 16))


def fit(tmp_path: Path, episodes: Path, out: str, options: dict[str, Any]) -> int:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(options))
    return main(
        ["fit", "--config", str(tmp_path / "tiny.yaml"), f"--data.folder={episodes}", "--out", str(tmp_path / out)]
    )


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def cell(grid: np.ndarray, row: int, column: int) -> np.ndarray:
    return grid[row * 18 : row * 18 + 16, column * 18 : column * 18 + 16]


def test_a_picture_at_each_validation_of_the_averaged_weights(tmp_path: Path, episodes: Path) -> None:
    assert fit(tmp_path, episodes, "run", config()) == 0
    samples = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in samples] == ["step-000002.png", "step-000004.png"]
    data = WorldModelData(str(episodes), val_fraction=0.5)
    chosen = choose_episodes(data, 2)
    assert {data.store.entries[index].meta.task for index in chosen} == {0, 1}
    world = load_network(tmp_path / "run/checkpoints/last.ckpt", WorldModel)  # the average
    np.testing.assert_array_equal(picture(samples[1]), imagination_grid(world, data.store, chosen, 2, 4))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
    images = events.Reload().Images("val/imagination")
    assert [image.step for image in images] == [2, 4]
    assert (images[0].height, images[0].width) == (4 * 18 - 2, 5 * 18 - 2)


def test_training_is_the_same_without(tmp_path: Path, episodes: Path) -> None:
    weights = []
    for out, number in (("with", 2), ("without", 0)):
        assert fit(tmp_path, episodes, out, config(episodes=number)) == 0
        weights.append(torch.load(tmp_path / out / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not (tmp_path / "without" / "samples").exists()


def test_the_grid_is_real_above_imagined(tmp_path: Path) -> None:
    short = [make_episode(number, num_frames, (16, 16)) for number, num_frames in ((0, 24), (1, 12))]
    write_shard(shard_path(tmp_path, "spatial", 0), short, lossless=True)
    finish_dataset(tmp_path)
    store = EpisodeStore(tmp_path)
    grid = imagination_grid(tiny(), store, [0, 1], chunks=2, every=8)
    assert grid.shape == (4 * 18 - 2, 3 * 18 - 2, 3)
    imagination = Imagination(tiny())
    imagination.start(np.stack([store.frames(0)[0], store.frames(1)[0]]))
    actions = np.zeros((2, 16, 4), np.float32)
    actions[0], actions[1, :11] = store.actions(0)[:16], store.actions(1)
    with torch.no_grad():
        chunks = [imagination.step(actions[:, :8]).numpy(), imagination.step(actions[:, 8:]).numpy()]
    for episode in range(2):
        np.testing.assert_array_equal(cell(grid, 2 * episode, 1), store.frames(episode)[8])
        np.testing.assert_array_equal(cell(grid, 2 * episode + 1, 0), store.frames(episode)[0])
        np.testing.assert_array_equal(cell(grid, 2 * episode + 1, 1), chunks[0][episode, -1])
    np.testing.assert_array_equal(cell(grid, 0, 2), store.frames(0)[16])
    np.testing.assert_array_equal(cell(grid, 1, 2), chunks[1][0, -1])
    assert (cell(grid, 2, 2) == 255).all()  # beyond the end of the short one
    assert (cell(grid, 3, 2) == 255).all()
    assert not np.array_equal(cell(grid, 1, 1), cell(grid, 1, 0))


@pytest.mark.parametrize(("name", "value"), [("episodes", -1), ("chunks", 0), ("every", 0)])
def test_numbers_out_of_range(
    tmp_path: Path, episodes: Path, capsys: pytest.CaptureFixture[str], name: str, value: int
) -> None:
    assert fit(tmp_path, episodes, "run", config(**{name: value})) == 2
    assert f"ImaginationGrid: {name} is {value}; give at least" in capsys.readouterr().err


def test_other_trainings_refuse_it() -> None:
    class Trainer:
        datamodule = None

    task = WorldModelTraining(tiny())
    with pytest.raises(UserError, match="ImaginationGrid with WorldModelTraining and NoneType"):
        ImaginationGrid().setup(Trainer(), task, "fit")  # type: ignore[arg-type]
    ImaginationGrid(episodes=0).setup(Trainer(), task, "fit")  # type: ignore[arg-type]
