"""Training a world model that is told what the robot itself is going to do, through the real command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.data.hands import write_hands
from tests.data.synthetic import write_dataset
from tests.models.world_model.tiny_world import following_world, pictures, random_actions, robot_of, tiny_robot
from tests.tasks.robot.test_training import CONFIG as ROBOT
from tests.tasks.robot.test_training import SHORT
from tests.tasks.world_model.test_training import CONFIG, WORLD
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.models.checkpoint import load_network
from wovr.models.robot.loading import load_robot_model
from wovr.models.world_model.context import noise_memory
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.tasks.robot.wrong_turns import WrongTurns
from wovr.tasks.world_model import training as tasks
from wovr.tasks.world_model.training import WorldModelTraining

GRID = {
    "class_path": "wovr.callbacks.imagination_grid.ImaginationGrid",
    "init_args": {"episodes": 2, "chunks": 2, "every": 4},
}

Fit = Callable[..., int]
CHECKPOINT = "model.init_args.world_model.init_args.conditioning.init_args.robot.init_args.checkpoint"


def following(checkpoint: str = "") -> dict[str, Any]:
    """`WORLD` with a robot model, 4 numbers an action, and the head that follows the hand."""
    world = WORLD["init_args"]
    robot: dict[str, Any] = {"class_path": "wovr.models.robot.loading.load_robot_model"}
    if checkpoint:
        robot["init_args"] = {"checkpoint": checkpoint}
    own = dict.fromkeys(("in_channels", "out_channels", "action_dim", "latent_frames"))
    more: dict[str, Any] = {
        "backbone": {**world["backbone"], "init_args": {**world["backbone"]["init_args"], **own}},
        "head": "linear",
        "context": "channels",
        "conditioning": {
            "class_path": "wovr.models.robot.conditioning.RobotConditioning",
            "init_args": {"robot": robot, "follow_hidden": 32},
        },
    }
    return {**WORLD, "init_args": {**world, **more}}


def augmented(name: str, share: float) -> tuple[str, str]:
    """Flags of one augmentation."""
    described = {"class_path": f"wovr.tasks.robot.{name}", "init_args": {"share": share}}
    return "--model.init_args.augmentations", json.dumps([described])


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hands(tmp_path_factory.mktemp("hands"), size=16)


@pytest.fixture(scope="module")
def robot(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a robot model that guesses the grip from the picture."""
    folder = tmp_path_factory.mktemp("robot")
    (folder / "robot.yaml").write_text(yaml.safe_dump(ROBOT))
    words = ["--config", str(folder / "robot.yaml"), "--data.folder", str(hands), "--out", str(folder / "run")]
    assert main(["fit", *words, *SHORT, "--model.init_args.network.init_args.touch", "[3]"]) == 0
    return folder / "run/checkpoints/last.ckpt"


@pytest.fixture
def fit(tmp_path: Path, hands: Path, robot: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(out, *flags, data=...)` runs the verb in an empty working folder and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    arguments = {"world_model": following(str(robot)), "warmup_steps": 2, "ema_decay": 0.5, "lr": 3e-3}
    Path("tiny.yaml").write_text(
        yaml.safe_dump({**CONFIG, "model": {**CONFIG["model"], "init_args": arguments}}, sort_keys=False)
    )

    def run(out: str, *flags: str, data: Path = hands) -> int:
        return main(["fit", "--config", "tiny.yaml", "--data.folder", str(data), "--out", out, *flags])

    return run


def test_training_lowers_the_loss_and_leaves_the_robot_model_alone(
    fit: Fit, robot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    step = WorldModelTraining.training_step

    def spy(self: WorldModelTraining, *arguments: Any) -> torch.Tensor:
        loss = step(self, *arguments)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(WorldModelTraining, "training_step", spy)
    flags = ["--trainer.max_steps", "80", "--trainer.val_check_interval", "80"]
    assert fit("run", *flags, "--model.init_args.pure_noise_share", "1") == 0
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])
    world = load_network(Path("run/checkpoints/last.ckpt"), WorldModel)
    fitted = load_robot_model(robot).state_dict()
    assert all(torch.equal(value, fitted[name]) for name, value in robot_of(world).state_dict().items())


def test_held_out_episodes_are_imagined_from_their_own_proprioception(
    fit: Fit, hands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[np.ndarray] = []
    start = Imagination.start

    def spy(self: Imagination, *arguments: Any, **more: Any) -> None:
        begun.extend(np.asarray(more["signals"]["proprio"]))
        start(self, *arguments, **more)

    monkeypatch.setattr(Imagination, "start", spy)
    Path("grid.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [GRID]}}))
    short = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2")
    assert fit("run", "--config", "grid.yaml", *short) == 0
    assert list(Path("run/samples").iterdir())
    store = EpisodeStore(hands)
    firsts = store.first_signals(range(len(store)))["proprio"]
    assert len(begun) == 2
    assert all((firsts == one).all(1).any() for one in begun)


def test_wrong_turns(fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """They happen in training only, and leave windows without a chunk before them alone."""
    turned: list[bool] = []
    take = WrongTurns.__call__

    def spy(self: WrongTurns, model: Any, batch: Any, window: Any) -> Any:
        assert model.training
        found = take(self, model, batch, window)
        changed = (found.context.memory != window.context.memory).flatten(1).any(1)
        assert not changed[batch.start < 8].any()
        turned.append(bool(changed.any()))
        return found

    monkeypatch.setattr(WrongTurns, "__call__", spy)
    monkeypatch.setattr(  # the robot model is barely fitted: nothing would be possible
        "wovr.tasks.robot.wrong_turns.wrong_course",
        lambda courses, truth: (courses.values[:, 0], torch.ones(len(truth), dtype=torch.bool)),
    )
    turns = augmented("wrong_turns.WrongTurns", 1.0)
    short = ("--trainer.max_steps", "4", "--trainer.val_check_interval", "4")
    assert fit("run", *turns, *short) == 0
    assert len(turned) == 4
    assert any(turned)
    assert fit("other", *turns, "--data.memory", "4", *short) == 2
    assert "memory is 12 in the model and 4 in the data; set data.memory to 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.init_args.ema_decay", "0.9"], "weights that are sharded; set ema_decay to null"),
        (
            ["--model.init_args.ema_decay", "null", *augmented("wrong_turns.WrongTurns", 0.5), "--data.memory", "12"],
            "WrongTurns cannot be had with weights that are sharded; set augmentations to null",
        ),
        (
            ["--model.init_args.ema_decay", "null", "--model.init_args.muon_lr", "0.01"],
            "weights that are sharded; set muon_lr to null",
        ),
    ],
)
def test_what_cannot_be_had_with_sharded_weights(
    fit: Fit, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks.WorldModelTraining, "device_mesh", {"data_parallel": None})  # as under FSDP
    monkeypatch.setattr(tasks.WorldModelTraining, "configure_model", lambda _: None)
    assert fit("run", *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_refit_keeps_the_robot_model_that_is_given(fit: Fit, robot: Path, hands: Path, tmp_path: Path) -> None:
    """One may have been fitted further meanwhile; all else begins from the first training."""
    words = ["--data.folder", str(hands), "--init_from", str(robot), "--out", str(tmp_path / "robot"), *SHORT]
    touch = ["--model.init_args.network.init_args.touch", "[3]"]
    assert main(["fit", "--config", str(robot.parents[2] / "robot.yaml"), *words, *touch]) == 0
    short = ("--trainer.max_steps", "1", "--trainer.val_check_interval", "1", "--model.init_args.ema_decay", "null")
    assert fit("first", *short) == 0
    further = tmp_path / "robot/checkpoints/last.ckpt"
    given = (f"--{CHECKPOINT}", str(further))
    still = ("--model.init_args.lr", "1e-12", "--model.init_args.weight_decay", "0")
    assert fit("second", "--init_from", "first/checkpoints/last.ckpt", *given, *still, *short) == 0
    first, second = (load_network(Path(out, "checkpoints/last.ckpt"), WorldModel) for out in ("first", "second"))
    wanted, before = load_robot_model(further).state_dict(), robot_of(first).state_dict()
    assert not all(torch.equal(value, before[name]) for name, value in wanted.items())
    assert all(torch.equal(value, wanted[name]) for name, value in robot_of(second).state_dict().items())
    for ours, theirs in zip(second.backbone.parameters(), first.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_does_not_fit_together(fit: Fit, robot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(message: str, *flags: str, **arguments: Any) -> None:
        assert fit("run", *flags, **arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1

    world = "--model.init_args.world_model.init_args"
    says("set backbone.init_args.action_dim to null", f"{world}.backbone.init_args.action_dim", "20")
    says("nowhere.ckpt: no such file", f"--{CHECKPOINT}", "nowhere.ckpt")
    silent = write_dataset(tmp_path / "silent", shards=1, episodes=4, num_frames=14, size=(16, 16))
    says("proprio", data=silent)


def test_training_tells_the_truth_of_what_touch_decides() -> None:
    """The loss is that of the window with the true numbers told, whatever the guess."""
    world = following_world(robot=tiny_robot(touch=[3, 4]))
    task = WorldModelTraining(world)
    known = torch.ones(3, 12, dtype=torch.bool)
    frames, actions, start = pictures(3, 13), random_actions(3, 12), torch.tensor([8, 8, 8])
    proprio = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(3))
    window = world.encode_window(frames, actions, known, start, signals={"proprio": proprio})
    torch.manual_seed(4)
    draw = task.draw(window)
    losses = task.losses(window, draw)
    context = noise_memory(window.context, draw.memory_sigma, draw.memory_noise)
    level = draw.sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * window.new + level * draw.noise
    unknowing = replace(context, state={"proprio": context.state["proprio"]})
    for told, same in ((context, True), (unknowing, False)):
        inputs = world.inputs(told, window.actions)
        error = (world.predict(noisy, draw.sigma, context, window.actions, inputs) - window.new) / level.clamp(min=0.3)
        assert torch.allclose(losses, (error**2).flatten(1).mean(1), rtol=1e-6, atol=0) == same
