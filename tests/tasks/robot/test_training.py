"""Fitting a robot model, through the real command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.data.hands import hand_episode, hand_place, write_hands
from tests.data.synthetic import write_dataset
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.statistics import least_spread
from wovr.models.checkpoint import KEY
from wovr.models.robot.loading import load_robot_model
from wovr.models.robot.model import RobotModel
from wovr.tasks.robot.training import RobotModelTraining

CONFIG: dict[str, Any] = {
    "save_every_n_steps": 50,
    "model": {
        "class_path": "wovr.tasks.robot.training.RobotModelTraining",
        "init_args": {
            "warmup_steps": 5,
            "network": {
                "class_path": "wovr.models.robot.model.RobotModel",
                "init_args": {"action_dim": 4, "proprio_dim": 4, "width": 16},
            },
        },
    },
    "data": {
        "class_path": "wovr.data.training.world_model.WorldModelData",
        "init_args": {"batch_size": 16, "val_fraction": 0.25},
    },
    "trainer": {
        "accelerator": "cpu", "max_steps": 150, "val_check_interval": 75, "check_val_every_n_epoch": None,
        "log_every_n_steps": 1, "enable_progress_bar": False,
    },
}  # fmt: skip
SHORT = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2")

Fit = Callable[..., int]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(data, out, *flags)` runs the verb in an empty working folder and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    Path("robot.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(data: Path, out: str, *flags: str) -> int:
        return main(["fit", "--config", "robot.yaml", "--data.folder", str(data), "--out", out, *flags])

    return run


def load(out: str) -> RobotModel:
    return load_robot_model(Path(out, "checkpoints/last.ckpt"))


def test_it_learns_how_the_hand_moves_and_where_it_is_seen(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_hands(tmp_path / "hands")
    losses: list[float] = []
    step = RobotModelTraining.training_step

    def spy(self: RobotModelTraining, *arguments: Any) -> torch.Tensor:
        loss = step(self, *arguments)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(RobotModelTraining, "training_step", spy)
    assert fit(data, "run") == 0
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:5])
    robot = load("run")

    store = EpisodeStore(data)
    states = np.concatenate([np.asarray(store.proprio(index), np.float64) for index in range(len(store))])
    np.testing.assert_allclose(robot.mean, states.mean(0), atol=1e-5)
    np.testing.assert_allclose(robot.spread, states.std(0), atol=1e-5)

    unseen = hand_episode(1000)
    assert unseen.proprio is not None
    proprio, actions = torch.from_numpy(unseen.proprio), torch.from_numpy(unseen.actions)
    with torch.no_grad():
        frame = torch.from_numpy(unseen.frames[:1])
        found = robot.restore(robot.states(proprio[:1], actions[None, :8], frame))[0]
        place, depth = robot.project(robot.normalise(proprio))
    moved = (proprio[8] - proprio[0])[:3].norm().item()
    assert (found[-1] - proprio[8])[:3].norm().item() < 0.3 * moved
    true = hand_place(unseen.proprio[:, :3], 32)
    seen = (true > 2).all(1) & (true < 30).all(1)
    assert seen.sum() > 5
    error = np.linalg.norm((place.numpy() + 1) * 16 - true, axis=1)[seen]
    assert error.max() < 2  # pixels, of 32
    assert (depth - 1).abs().max() < 0.5


def test_it_learns_to_see_what_a_hand_will_hold(fit: Fit, tmp_path: Path) -> None:
    """Whether the grip ends at 1 or at -1 only the colour of the hand tells: blind, every guess is between them."""
    data = write_hands(tmp_path / "hands", 24, held=True)
    touch = ("--model.init_args.network.init_args.touch", "[3]")
    assert fit(data, "blind", "--trainer.max_steps", "300") == 0
    assert fit(data, "seeing", "--trainer.max_steps", "300", *touch) == 0
    unseen = [hand_episode(1000 + number, held=True) for number in range(8)]
    frame = torch.from_numpy(np.stack([episode.frames[4] for episode in unseen]))
    proprio = torch.from_numpy(np.stack([episode.proprio for episode in unseen if episode.proprio is not None]))
    actions = torch.from_numpy(np.stack([episode.actions for episode in unseen]))
    error = {}
    for name in ("blind", "seeing"):
        robot = load(name).eval()
        found = robot.restore(robot.states(proprio[:, 4], actions[:, 4:12], frame))[:, -1, 3]
        error[name] = (found - proprio[:, 12, 3]).abs().mean().item()
    assert error["blind"] > 0.5
    assert error["seeing"] < 0.3


def test_a_model_that_goes_on_keeps_its_mean_and_spread(fit: Fit, tmp_path: Path) -> None:
    near, far = write_hands(tmp_path / "near"), write_hands(tmp_path / "far", far=5.0)
    assert fit(near, "first", *SHORT) == 0
    assert fit(far, "second", "--init_from", "first/checkpoints/last.ckpt", *SHORT) == 0
    first, second = load("first"), load("second")
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.spread, second.spread)
    assert fit(far, "anew", *SHORT) == 0
    torch.testing.assert_close(load("anew").mean[:3], first.mean[:3] + 5, atol=1e-4, rtol=0)


def test_a_number_that_never_changes(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is predicted to stay, and nothing is divided by 0."""
    monkeypatch.setattr("tests.data.hands.METRES", 0.0)
    monkeypatch.setattr("tests.data.hands.hand_place", lambda position, size: np.full((len(position), 2), size / 2))
    data = write_hands(tmp_path / "still")
    assert fit(data, "run", *SHORT) == 0
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert saved[KEY]["networks"].keys() == {"robot_model"}
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    robot = load("run")
    assert (robot.spread > 0).all()
    # What stood still in training is a millimetre, or a thousandth of a turn, elsewhere later.
    off = robot.normalise(robot.mean + 0.001) - robot.normalise(robot.mean)
    assert off.abs().max() <= 1.001


@pytest.mark.parametrize(("mean", "least"), [(0.0, 1e-3), (-0.5, 1e-3), (180.0, 0.18), (-1000.0, 1.0)])
def test_the_least_spread_is_a_thousandth_of_the_unit_or_of_the_values(mean: float, least: float) -> None:
    assert least_spread(np.array([mean]))[0] == pytest.approx(least)


@pytest.mark.parametrize(
    ("silent", "flags", "message"),
    [
        (
            True,
            [],
            "not all episodes hold proprioception of one size; collect them again",
        ),
        (False, ["proprio_dim", "8"], "proprio_dim is 8 in the model and 4 in the data; set the network's proprio_dim"),
        (False, ["action_dim", "7"], "action_dim is 7 in the model and 4 in the data; set the network's action_dim"),
        (False, ["touch", "[1]"], "touch is [1] with proprio_dim 4; give numbers from 3 to 3, or null"),
        (False, ["touch", "[3]", "chunk", "4"], "chunk is 4 in the model and 8 in the data; set the network's chunk"),
        (False, ["proprio_dim", "2"], "proprio_dim is 2; give 3 or more: x, y, z of the hand come first"),
    ],
)
def test_what_does_not_fit_together(
    fit: Fit, tmp_path: Path, silent: bool, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", num_frames=14) if silent else write_hands(tmp_path / "data", 2)
    pairs = zip(flags[::2], flags[1::2], strict=True)
    words = [word for name, value in pairs for word in (f"--model.init_args.network.init_args.{name}", value)]
    assert fit(data, "run", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_numbers_that_are_null_are_the_episodes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_hands(Path("hands"), episodes=24)
    network = {**CONFIG["model"]["init_args"]["network"]}
    network["init_args"] = {"action_dim": None, "proprio_dim": None, "touch": None, "width": 8}
    arguments = {**CONFIG["model"]["init_args"], "network": network}
    Path("null.yaml").write_text(yaml.safe_dump({**CONFIG, "model": {**CONFIG["model"], "init_args": arguments}}))
    assert main(["fit", "--config", "null.yaml", "--data.folder", "hands", "--out", "run", *SHORT]) == 0
    robot = load_robot_model(Path("run/checkpoints/last.ckpt"))
    assert (robot.action_dim, robot.proprio_dim, robot.touch) == (4, 4, [3])
    options = yaml.safe_load(Path("run/config.yaml").read_text())  # it can be run again on other episodes
    assert options["model"]["init_args"]["network"]["init_args"]["proprio_dim"] is None
    # A refit has the numbers of what it begins from, though these few episodes show no fingers.
    write_hands(Path("few"), episodes=4)
    words = ["--init_from", "run/checkpoints/last.ckpt", "--out", "refit", *SHORT]
    assert main(["fit", "--config", "null.yaml", "--data.folder", "few", *words]) == 0
    assert load_robot_model(Path("refit/checkpoints/last.ckpt")).touch == [3]
