from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.data.synthetic import make_episode, write_dataset
from wovr.cli import main
from wovr.envs.scenes import scene_positions
from wovr.errors import UserError
from wovr.models.checkpoint import load_network
from wovr.models.probes.state_probe import StateProbe
from wovr.tasks.probes.state_probe import slots_of

LOOKS = ["gripper", "left_finger", "right_finger", "drawer", "red_cube", "red_cube", "blue_cylinder", "yellow_block"]
CONFIG: dict[str, Any] = {
    "save_every_n_steps": 20,
    "model": {
        "class_path": "wovr.tasks.probes.state_probe.StateProbeTraining",
        "init_args": {
            "warmup_steps": 1,
            "lr": 3.0e-2,
            "network": {
                "class_path": "wovr.models.probes.state_probe.StateProbe",
                "init_args": {"looks": LOOKS, "maps": 1, "channels": [8, 8], "width": 8, "size": 16},
            },
        },
    },
    "data": {
        "class_path": "wovr.data.training.sequences.SequenceData",
        "init_args": {"length": 1, "batch_size": 8, "val_fraction": 0.34},
    },
    "trainer": {"accelerator": "cpu", "max_steps": 20, "log_every_n_steps": 1, "enable_progress_bar": False},
}
STATES = np.repeat(0.1 * np.random.default_rng(0).normal(size=(1, 203)), 12, axis=0)

Fit = Callable[..., int]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*words: str, **episodes: Any) -> int:
        changes = {"num_frames": 12, "size": (16, 16), "sim_state": STATES, **episodes}
        data = write_dataset(tmp_path / "data", **changes)
        common = ["--config", str(tmp_path / "probe.yaml"), "--data.folder", str(data), "--out", str(tmp_path / "run")]
        return main(["fit", *common, *words])

    return run


def test_fit_leaves_a_probe_that_has_learned_where_things_are(fit: Fit, tmp_path: Path) -> None:
    assert fit() == 0
    network = load_network(tmp_path / "run/checkpoints/last.ckpt", StateProbe)
    episode = make_episode(0, 12, (16, 16), sim_state=STATES)
    true = scene_positions(episode.meta, episode.sim_state, "").positions
    untrained = StateProbe(LOOKS, maps=1, channels=[8, 8], width=8, size=16).eval()
    errors = [
        np.linalg.norm(probe.read(torch.from_numpy(episode.frames)).numpy() - true, axis=-1).mean()
        for probe in (network, untrained)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_look_alikes_take_the_outputs_of_their_look_in_turn() -> None:
    assert slots_of(["cube", "gripper", "cube"], ["gripper", "cube", "cube"], "x") == [1, 0, 2]
    with pytest.raises(UserError, match=r"the probe has no output for another 'cube'; add 'cube' to model\.network"):
        slots_of(["cube", "gripper"], ["gripper", "cube", "cube"], "x")
    with pytest.raises(UserError, match="no output for 'ball'"):
        slots_of(["cube"], ["ball"], "x")


@pytest.mark.parametrize(
    ("episodes", "line"),
    [
        ({"sim_state": None}, "episode spatial-000000: holds no sim_state; use episodes collected with states"),
        ({"sim_state": STATES[:, :9]}, "sim_state has shape (12, 9), task spatial/next_to_cylinder takes at least"),
        (
            {"meta": dataclasses.replace(make_episode(0).meta, source="gym")},
            "what a simulator state of 'gym' means is not known; use episodes of tabletop",
        ),
        (
            {"meta": dataclasses.replace(make_episode(0).meta, suite="object")},
            "the probe has no output for 'yellow_cube'",
        ),
    ],
)
def test_states_that_cannot_be_used_are_a_line(
    episodes: dict[str, Any], line: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(**episodes) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error
