from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.data.synthetic import write_dataset
from wovr.cli import main
from wovr.models.checkpoint import load_network
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.tasks.probes.inverse_dynamics import shift_together

CONFIG: dict[str, Any] = {
    "save_every_n_steps": 2,
    "model": {
        "class_path": "wovr.tasks.probes.inverse_dynamics.InverseDynamicsTraining",
        "init_args": {
            "warmup_steps": 1,
            "network": {
                "class_path": "wovr.models.probes.inverse_dynamics.InverseDynamics",
                "init_args": {"keypoints": 4, "channels": [8, 8], "width": 8, "size": 16},
            },
        },
    },
    "data": {
        "class_path": "wovr.data.training.sequences.SequenceData",
        "init_args": {"length": 6, "batch_size": 4, "val_fraction": 0.34},
    },
    "trainer": {"accelerator": "cpu", "max_steps": 4, "log_every_n_steps": 1, "enable_progress_bar": False},
}

Fit = Callable[..., int]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    data = write_dataset(tmp_path / "data", num_frames=12, size=(16, 16))
    (tmp_path / "idm.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*words: str) -> int:
        common = ["--config", str(tmp_path / "idm.yaml"), "--data.folder", str(data), "--out", str(tmp_path / "run")]
        return main(["fit", *common, *words])

    return run


def test_fit_leaves_a_network_that_reads_actions(fit: Fit, tmp_path: Path) -> None:
    assert fit() == 0
    network = load_network(tmp_path / "run/checkpoints/last.ckpt", InverseDynamics)
    assert network.read(torch.zeros(1, 12, 16, 16, 3, dtype=torch.uint8)).shape == (1, 11, 4)
    assert "val/action_error" in (tmp_path / "run/metrics.json").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--data.length", "3"), "data.length is 3, the network's window 4; set data.length higher"),
        (
            ("--model.network.init_args.action_dim", "7"),
            "action_dim is 7 in the model and 4 in the data; set model.network.init_args.action_dim to 4",
        ),
        (("--data.length", "40"), "no training episode has 40 frames, the longest has 12"),
        (("--model.network.init_args.window", "1"), "window is 1: at least two frames are needed"),
    ],
)
def test_what_does_not_fit_is_a_line(
    words: tuple[str, ...], line: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error


def test_the_pictures_of_a_run_are_shifted_together() -> None:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (6, 3, 16, 16, 3), dtype=torch.uint8)
    shifted = shift_together(frames, 2)
    offsets = set()
    for before, after in zip(frames, shifted, strict=True):
        inner = after[:, 4:12, 4:12]
        [match] = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if torch.equal(inner, before[:, 4 + y : 12 + y, 4 + x : 12 + x])
        ]
        offsets.add(match)
    assert len(offsets) > 2
