"""`wovr fit` of a success classifier, on toy episodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.data.lamps import lamps
from tests.data.synthetic import make_episode
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.models.checkpoint import KEY, read_checkpoint
from wovr.models.reward import SuccessClassifier, load_classifier
from wovr.tasks.reward import RewardTraining

CONFIG: dict[str, Any] = {
    "save_every_n_steps": 2,
    "model": {
        "class_path": "wovr.tasks.reward.RewardTraining",
        "init_args": {
            "warmup_steps": 1,
            "lr": 5e-3,
            "network": {
                "class_path": "wovr.models.reward.SuccessClassifier",
                "init_args": {"channels": [8, 16, 16], "embedding": 4, "width": 16, "max_tasks": 6},
            },
        },
    },
    "data": {
        "class_path": "wovr.data.training.reward.RewardData",
        "init_args": {"batch_size": 16, "val_fraction": 0.34},
    },
    "trainer": {"accelerator": "cpu", "max_steps": 4, "log_every_n_steps": 1, "enable_progress_bar": False},
}

Fit = Callable[..., int]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamps(tmp_path_factory.mktemp("lamps"))


@pytest.fixture
def fit(data: Path, tmp_path: Path) -> Fit:
    (tmp_path / "reward.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*words: str, out: str = "run", folder: Path = data) -> int:
        common = ("--config", str(tmp_path / "reward.yaml"), "--data.folder", str(folder), "--out", str(tmp_path / out))
        return main(["fit", *common, *words])

    return run


class Killed(Exception):
    """Stands for a killed process."""


def test_it_learns_what_success_looks_like_in_each_task(fit: Fit, tmp_path: Path) -> None:
    assert fit("--trainer.max_steps", "80", "--model.choose_threshold", "true", "--model.ema_decay", "0.9") == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]
    assert {f"val/{name}" for name in ("precision", "recall", "average_precision", "calibration_error")} <= set(metrics)
    assert metrics["val/average_precision"] > 0.95
    assert metrics["val/episode_accuracy"] == 1.0
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    classifier = load_classifier(checkpoint)
    assert classifier.tasks == [("spatial", 0), ("spatial", 1)]
    assert 0 < classifier.threshold < 1
    assert classifier.threshold != 0.5


def test_a_killed_run_resumes_as_if_it_had_never_stopped(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Begun from a checkpoint whose task comes first there and last in the data's order.
    assert fit(folder=lamps(tmp_path / "one", range(12), suite="zoo", tasks=1), out="first") == 0
    words = ("--init_from", str(tmp_path / "first/checkpoints/last.ckpt"), "--model.choose_threshold", "true")
    assert fit(*words, out="whole") == 0
    step = RewardTraining.training_step

    def dying(self: RewardTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            raise Killed
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RewardTraining, "training_step", dying)
        fit(*words, out="killed")
    assert fit(*words, out="killed") == 0
    whole, killed = (read_checkpoint(tmp_path / out / "checkpoints/last.ckpt") for out in ("whole", "killed"))
    assert all(torch.equal(value, killed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert whole[KEY]["networks"] == killed[KEY]["networks"]
    assert whole[KEY]["networks"]["reward"]["init_args"]["tasks"] == [["zoo", 0], ["spatial", 0], ["spatial", 1]]
    metrics = [json.loads((tmp_path / out / "metrics.json").read_text())["metrics"] for out in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_more_tasks_are_added_behind_those_of_the_checkpoint(fit: Fit, tmp_path: Path) -> None:
    other = lamps(tmp_path / "goal", suite="goal")
    assert fit(folder=other) == 0
    first = tmp_path / "run/checkpoints/last.ckpt"
    words = ("--init_from", str(first), "--trainer.max_steps", "1", "--model.lr", "0.0", "--model.ema_decay", "null")
    assert fit(*words, out="more") == 0
    classifier, before = load_classifier(tmp_path / "more/checkpoints/last.ckpt"), load_classifier(first)
    assert classifier.tasks == [("goal", 0), ("goal", 1), ("spatial", 0), ("spatial", 1)]
    frames = torch.randint(0, 256, (1, 3, 16, 16, 3), dtype=torch.uint8)
    goal = [("goal", 1)]
    assert torch.equal(classifier.probability(frames, goal), before.probability(frames, goal))


def test_the_threshold_stays_unless_it_is_to_be_chosen(fit: Fit, tmp_path: Path) -> None:
    assert fit("--model.network.init_args.threshold", "0.25") == 0
    assert load_classifier(tmp_path / "run/checkpoints/last.ckpt").threshold == 0.25


def test_faults_are_drawn_for_each_window() -> None:
    images = torch.zeros(6, 6, 16, 16)
    images[:, :, 8, 8] = 1.0
    torch.manual_seed(0)
    untouched = RewardTraining(SuccessClassifier(), blur=0.0, noise=0.0, brightness=0.0).disturb(images)
    assert torch.equal(untouched, images)
    blurred = RewardTraining(SuccessClassifier(), blur=1.5, noise=0.0, brightness=0.0).disturb(images)
    peaks = blurred[:, :, 8, 8]
    assert torch.allclose(peaks, peaks[:, :1].expand(-1, 6)), "the frames of a window are as sharp as each other"
    assert len(peaks[:, 0].unique()) > 2
    brighter = RewardTraining(SuccessClassifier(), blur=0.0, noise=0.0, brightness=0.3).disturb(images) - images
    assert torch.allclose(brighter.flatten(1).std(1), torch.zeros(6), atol=1e-6)
    assert 0.05 < brighter.abs().max() <= 0.3
    noisy = RewardTraining(SuccessClassifier(), blur=0.0, noise=0.2, brightness=0.0).disturb(images) - images
    spread = noisy.flatten(1).std(1)
    assert spread.max() < 0.22
    assert spread.std() > 0.02, "every window has its own"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--data.window", "3"), "window is 2 in the model and 3 in the data; set data.window to 2"),
        (("--data.window", "20"), "episode spatial-000000: 12 frames, a window has 20 (12 of 12 episodes"),
        (("--model.network.init_args.max_tasks", "1"), "2 tasks, the classifier has room for 1; set the network's"),
        (
            ("--model.choose_threshold", "true", "--data.val_fraction", "0"),
            "of 0 frames in 0 episodes 0 are successful",
        ),
        (("--data.judges", "outcome"), "the network judges frame, the data outcome; set both alike"),
        (("--model.noise", "-1"), "noise is -1.0; give 0 or more"),
        (("--model.ema_decay", "1"), "ema_decay is 1"),
        (("--model.network.init_args.consecutive", "0"), "consecutive is 0: at least 1 is needed"),
        (("--data.autoencoder", "none.ckpt", "--data.autoencoder_share", "0.5"), "none.ckpt: no such file"),
    ],
)
def test_what_does_not_fit_is_a_line(
    words: tuple[str, ...], line: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error


def test_one_class_is_a_line(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures = tmp_path / "failures"
    write_shard(shard_path(failures, "s", 0), [make_episode(number, 9, (16, 16)) for number in (1, 2)])
    finish_dataset(failures)
    assert fit(folder=failures) == 2
    assert "none has a successful frame that ends a window; add episodes that succeed" in capsys.readouterr().err
    successes = tmp_path / "successes"
    write_shard(shard_path(successes, "s", 0), [make_episode(0, 9, (16, 16), success=np.ones(9, bool))])
    finish_dataset(successes)
    assert fit(folder=successes) == 2
    assert "every frame that ends a window is successful" in capsys.readouterr().err


def test_a_task_that_never_succeeds_is_named(fit: Fit, tmp_path: Path) -> None:
    some = lamps(tmp_path / "some", range(3), tasks=3)  # number 2 fails
    with pytest.warns(UserWarning, match="none will be called a success: spatial 2"):
        assert fit(folder=some) == 0
