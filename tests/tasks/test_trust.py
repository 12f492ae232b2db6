"""`wovr fit` of a trust, on copies of episodes that lie from a known step on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.commands.point_world import write_checkpoint
from tests.data.training.replays import CHUNK, write_replays
from tests.models.trust.toys import small_reader
from wovr.cli import main
from wovr.data.training.replay import ReplayData
from wovr.functional.classification import area_under_roc
from wovr.models.checkpoint import read_checkpoint
from wovr.models.reward import SuccessClassifier
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import error_of_psnr, frame_error
from wovr.models.trust.loading import load_trust

CONFIG: dict[str, Any] = {
    "save_every_n_steps": 100,
    "model": {
        "class_path": "wovr.tasks.trust.TrustTraining",
        "init_args": {
            "warmup_steps": 1,
            "lr": 1e-2,
            "critic": {
                "class_path": "wovr.models.trust.critic.ChunkCritic",
                "init_args": {"chunk": CHUNK, "channels": [8, 8], "embedding": 4, "width": 8},
            },
        },
    },
    "data": {
        "class_path": "wovr.data.training.replay.ReplayData",
        "init_args": {"batch_size": 16, "chunk": CHUNK, "val_fraction": 0.34},
    },
    "trainer": {"accelerator": "cpu", "max_steps": 4, "log_every_n_steps": 1, "enable_progress_bar": False},
}

Fit = Callable[..., int]


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_replays(tmp_path_factory.mktemp("replays"))


@pytest.fixture
def fit(replays: tuple[Path, Path], tmp_path: Path) -> Fit:
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump(CONFIG))
    real, imagined = replays

    def run(*words: str) -> int:
        common = ["--config", str(tmp_path / "trust.yaml"), "--data.folder", str(real), "--out", str(tmp_path / "run")]
        return main(["fit", *common, "--data.imagined_folder", str(imagined), *words])

    return run


def write_judge(path: Path, tasks: int = 2) -> Path:
    torch.manual_seed(0)
    known = [("spatial", task) for task in range(tasks)]
    return write_checkpoint(path, SuccessClassifier(window=2, channels=[8, 8], tasks=known))


def test_lies_are_told_from_the_truth(fit: Fit, replays: tuple[Path, Path], tmp_path: Path) -> None:
    assert fit("--trainer.max_steps", "60") == 0
    trust = load_trust(tmp_path / "run/checkpoints/last.ckpt", (16, 16))
    data = ReplayData(str(replays[0]), str(replays[1]), chunk=CHUNK, val_fraction=0.34)
    data.setup("fit")
    chunks = data.held_out()
    batch = chunks.__getitems__(range(len(chunks)))
    right = frame_error(batch.frames[:, -1], batch.real[:, -1]) <= error_of_psnr(20.0)
    found = trust(SeenChunk(batch.reference, batch.before, batch.frames, batch.actions))
    assert trust.names == ["critic"]
    assert trust.weight[0] > 0
    assert area_under_roc(found, right) > 0.85
    assert float(found.mean()) == pytest.approx(float(right.float().mean()), abs=0.02)  # as a logistic fit's must be
    assert "val/auroc" in (tmp_path / "run/metrics.json").read_text()


def test_other_signals_join_in(fit: Fit, tmp_path: Path) -> None:
    reader = write_checkpoint(tmp_path / "idm.ckpt", small_reader(3))
    judge = write_judge(tmp_path / "reward.ckpt")
    more = ("--model.reward", str(judge))
    loading = "wovr.models.trust.loading.load_inverse_dynamics"
    more += ("--model.inverse_dynamics", loading, "--model.inverse_dynamics.checkpoint", str(reader))
    assert fit(*more) == 0
    path = tmp_path / "run/checkpoints/last.ckpt"
    trust = load_trust(path, (16, 16))
    assert trust.names == ["critic", "action_error", "doubt"]
    assert trust.reading is not None
    assert (trust.reading.unit != 1).all()
    assert (trust.scale != 1).all()
    assert not any("classifier" in name for name in read_checkpoint(path)["state_dict"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--model.critic.init_args.action_dim", "4"), "action_dim is 4 in the model and 3 in the data"),
        (("--data.chunk", "5"), "chunk is 4 in the model and 5 in the data"),
        (("--model.right_psnr", "3"), "chunks of held-out episodes 20 are right at right_psnr 3, half of them have 1"),
        (("--data.val_fraction", "0"), "of 0 chunks of held-out episodes 0 are right at right_psnr 20; set model"),
        (("--model.right_psnr", "0"), "right_psnr is 0"),
        (("--model.shift", "-1"), "model.shift is -1; give 0 or more"),
    ],
)
def test_what_does_not_fit_is_a_line(
    words: tuple[str, ...], line: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error


def test_a_classifier_that_lacks_a_task_is_a_line(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = write_judge(tmp_path / "reward.ckpt", 1)
    assert fit("--model.reward", str(judge)) == 2
    assert "reward.ckpt: the success classifier was not trained for task 1 of spatial" in capsys.readouterr().err
