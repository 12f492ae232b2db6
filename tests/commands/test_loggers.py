"""TensorBoard by default, wandb by a line of YAML; offline here, since nobody listens."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.test_fit import CONFIG, Fit, demonstrations, fit  # noqa: F401
from tests.extras import needs
from wovr.cli import main
from wovr.commands.evaluate.results import Results


def scalars(folder: Path) -> dict[str, list[float]]:
    """What TensorBoard reads in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def with_logger(logger: Any) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": CONFIG["trainer"] | {"logger": logger}}))


def test_a_training_has_curves_unless_told_otherwise(fit: Fit) -> None:  # noqa: F811
    assert fit("run") == 0
    assert len(scalars(Path("run/tensorboard"))["train/loss"]) == 10
    with_logger(False)
    assert fit("quiet") == 0
    assert not Path("quiet/tensorboard").exists()


@needs("wandb")
def test_wandb_is_a_line_of_yaml(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with_logger("WandbLogger")
    assert fit("run") == 0
    assert not Path("wandb").exists()  # in the folder of the run, not where the command was given
    [kept] = Path("run/wandb").glob("offline-run-*/run-*.wandb")
    import wandb

    wandb.teardown()  # which the end of a process does
    assert b"train/loss" in kept.read_bytes()
    options = yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]["logger"]
    assert options["class_path"] == "lightning.pytorch.loggers.WandbLogger"
    assert (options["init_args"]["project"], options["init_args"]["name"]) == ("wovr", "run")


def test_wandb_that_is_not_installed_is_one_line(
    fit: Fit,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("wovr.commands.loggers.find_spec", lambda name: None if name == "wandb" else found(name))
    with_logger("WandbLogger")
    assert fit("run") == 2
    assert "wandb is not installed; install it with: pip install 'wovr[wandb]'" in capsys.readouterr().err


def test_an_evaluation_has_its_numbers(tmp_path: Path) -> None:
    measured = {
        "sr": {"all": {"success_rate": 0.25, "episodes": 8}, "tried": [1, 2], "best": None, "bad": float("inf")}
    }
    for rate in (0.5, 0.25):
        measured["sr"]["all"]["success_rate"] = rate  # type: ignore[index]
        results = Results(tmp_path / "out", {"episodes": 8})
        results.begin()
        results.keep(measured)
    assert scalars(tmp_path / "out/tensorboard") == {"sr/all/success_rate": [0.25], "sr/all/episodes": [8.0]}


def test_wovr_evaluate_writes_them(tmp_path: Path) -> None:
    flags = ["--policy", "expert", "--env", "tests.envs.point_env:PointEnv", "--suite", "spatial", "--episodes", "1"]
    flags += ["--num_envs", "2", "--workers", "1", "--videos", "0", "--env_args.size", "16"]
    assert main(["evaluate", *flags, "--out", str(tmp_path / "sr")]) == 0
    expected = json.loads((tmp_path / "sr/metrics.json").read_text())["sr"]["all"]["success_rate"]
    assert scalars(tmp_path / "sr/tensorboard")["sr/all/success_rate"] == [expected]
