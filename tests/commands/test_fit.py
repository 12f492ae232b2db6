from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

from tests.data.synthetic import make_episode
from tests.models.policies.small import observe
from wovr.callbacks.saving import SaveLast
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.models.checkpoint import data_record
from wovr.models.policies.loading import load_policy, policy_fingerprint
from wovr.runs import only_run
from wovr.tasks.behaviour_cloning import BehaviourCloningTraining

POLICY = {
    "class_path": "wovr.models.policies.tiny_vla.TinyVLA",
    "init_args": {
        "bins": 9, "channels": [16, 16], "width": 16, "layers": 1, "heads": 2, "text_width": 16, "buckets": 64,
    },
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "save_every_n_steps": 2,
    "model": {
        "class_path": "wovr.tasks.behaviour_cloning.BehaviourCloningTraining",
        "init_args": {"policy": POLICY, "warmup_steps": 2, "shift": 2},
    },
    "data": {
        "class_path": "wovr.data.training.demonstrations.DemonstrationData",
        "init_args": {"batch_size": 8, "val_fraction": 0.5},
    },
    "trainer": {
        "accelerator": "cpu", "max_steps": 10, "val_check_interval": 5, "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
    },
}  # fmt: skip

Fit = Callable[..., int]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demos")
    episodes = [make_episode(number, 10, (16, 16)) for number in range(0, 18, 3)]
    write_shard(shard_path(folder, "spatial", 0), episodes)
    finish_dataset(folder)
    return folder


@pytest.fixture
def fit(tmp_path: Path, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(out, *flags)` runs the verb in an empty working folder and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(out: str, *flags: str) -> int:
        return main(["fit", "--config", "small.yaml", f"--data.folder={demonstrations}", "--out", out, *flags])

    return run


def weights(out: str) -> dict[str, Any]:
    return torch.load(Path(out) / "checkpoints" / "last.ckpt", weights_only=True)


def assert_equal(one: Any, other: Any) -> None:
    """Nested lists and dictionaries of tensors and numbers are exactly equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("moment", ["after the last step", "after the end"])
def test_a_run_killed_before_its_marker_ends_with_the_same_metrics(
    moment: str, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("whole") == 0
    with monkeypatch.context() as patched:
        if moment == "after the last step":
            patched.setattr(SaveLast, "on_train_end", lambda self, trainer, module: (_ for _ in ()).throw(Killed()))
        else:
            patched.setattr(Trainer, "validate", lambda self, *args, **kwargs: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            fit("killed")
    assert fit("killed") == 0
    found = [json.loads(Path(out, "metrics.json").read_text()) for out in ("whole", "killed")]
    assert found[0]["metrics"] == found[1]["metrics"]
    assert {"train/loss", "val/loss"} <= found[0]["metrics"].keys()


@pytest.mark.parametrize("trainer", [2.5, None, "cpu", [1], 2**63])
def test_a_trainer_that_is_no_section_is_one_line(trainer: Any, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": trainer}))
    assert fit("run") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "trainer" in line
    assert not Path("run").exists()


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have training die in the middle of a step."""
    original = BehaviourCloningTraining.on_before_optimizer_step

    def die(self: LightningModule, optimizer: Any) -> None:
        if self.global_step == step:
            raise Killed
        original(self, optimizer)

    monkeypatch.setattr(BehaviourCloningTraining, "on_before_optimizer_step", die)


def test_a_run_leaves_a_policy_and_its_record(
    fit: Fit, demonstrations: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert fit("run") == 0
    out, err = capfd.readouterr()
    assert out.startswith("run/checkpoints/last.ckpt: 10 steps in ")
    assert err.splitlines()[-1].startswith("step 10/10  ETA 0:00:00  train/loss")
    assert "Tip" not in err
    assert "GPU" not in err
    assert "warn" not in err.lower()
    assert sorted(os.listdir()) == ["run", "small.yaml"]
    assert sorted(os.listdir("run")) == ["DONE", "checkpoints", "config.yaml", "metrics.json", "tensorboard"]

    policy = load_policy(Path("run/checkpoints/last.ckpt"))
    assert (policy.chunk, policy.action_dim, policy.bins) == (8, 4, 9)
    assert policy.act(observe(2, (16, 16))).actions.shape == (2, 8, 4)
    dataset = json.loads((demonstrations / "dataset.json").read_text())
    assert data_record(Path("run/checkpoints/last.ckpt"))["action_statistics"] == dataset["action_statistics"]
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["steps"] == 10
    assert metrics["seconds"] > 0
    names = {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "token_accuracy", "action_error")}
    assert metrics["metrics"].keys() == names


def test_the_saved_options_run_again_to_the_same_weights(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("run") == 0
    assert main(["fit", "--config", "run/config.yaml", "--out", "again"]) == 0
    assert_equal(weights("run")["state_dict"], weights("again")["state_dict"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_is_trained_on_and_gone_on_with(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stream: bool
) -> None:
    folder = tmp_path / "shards"
    for index in range(3):
        write_shard(shard_path(folder, "spatial", index), [make_episode(3 * index, 10, (16, 16))])
    finish_dataset(folder)
    flags = [f"--data.folder={folder}", f"--data.stream={stream}".lower(), "--data.val_fraction=0.3"]
    assert fit("whole", *flags) == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 7)
        fit("killed", *flags)
    assert fit("killed", *flags) == 0
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_equal(weights("whole")[key], weights("killed")[key])
    metrics = [json.loads(Path(out, "metrics.json").read_text())["metrics"] for out in ("whole", "killed")]
    assert metrics[0] == metrics[1]
    assert ("val/loss" in metrics[0]) == stream, "of three demonstrations a third by index is none, of shards one"


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("step", [4, 7])
def test_a_killed_run_resumes_as_if_nothing_had_happened(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, step: int, averaged: bool
) -> None:
    flags = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"] if averaged else []
    assert fit("whole", *flags) == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step)
        fit("killed", *flags)
    assert not Path("killed/DONE").exists()
    assert weights("killed")["global_step"] == step // 2 * 2
    spent = weights("killed")["callbacks"]["Timer"]["time_elapsed"]["train"]
    assert spent > 0
    assert fit("killed", "--resume", "true", *flags) == 0
    assert weights("killed")["callbacks"]["Timer"]["time_elapsed"]["train"] > spent, "what was spent before counts too"
    one, other = weights("whole"), weights("killed")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(one[key], other[key])
    metrics = [json.loads(Path(out, "metrics.json").read_text())["metrics"] for out in ("whole", "killed")]
    assert metrics[0] == metrics[1]
    if averaged:
        # load_policy takes the averaged weights, which are those of `state_dict`.
        policy = load_policy(Path("whole/checkpoints/last.ckpt"))
        assert_equal(dict(policy.state_dict()), {k[7:]: v for k, v in one["state_dict"].items()})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_terminated_run_ends_after_its_step_and_keeps_it(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], accumulate: int
) -> None:
    flags = [f"--trainer.accumulate_grad_batches={accumulate}", "--save_every_n_steps=100"]
    assert fit("whole", *flags) == 0
    original = BehaviourCloningTraining.on_before_optimizer_step

    def signal_at_five(self: LightningModule, optimizer: Any) -> None:
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(BehaviourCloningTraining, "on_before_optimizer_step", signal_at_five)
        assert fit("ended", *flags) == 143
    assert "wovr: terminated; the same command again picks up" in capsys.readouterr().err
    assert weights("ended")["global_step"] == 5
    assert not Path("ended/.lock").exists()
    assert fit("ended", *flags) == 0
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(weights("whole")[key], weights("ended")[key])


def test_two_trainings_do_not_share_a_folder(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    with only_run(Path("run")):
        assert fit("run") == 2
        assert "run: another `wovr` command, or one that it started, is filling this folder" in capsys.readouterr().err
    assert fit("run", "--trainer.max_steps=-x") == 2
    assert not Path("run").exists()  # a mistake leaves no lock behind
    assert fit("run") == 0
    assert not Path("run/.lock").exists()


def test_resume_false_begins_again(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 7)
        fit("run")
    started = []
    monkeypatch.setattr(BehaviourCloningTraining, "on_train_start", lambda self: started.append(self.global_step))
    assert fit("run", "--resume", "false") == 0
    assert started == [0]


def test_a_finished_run_is_left_alone(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("run") == 0
    before = Path("run/checkpoints/last.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    assert fit("run") == 0
    assert capsys.readouterr().out == "run: done before with the same options, nothing to do\n"
    assert fit("run", "--trainer.max_steps", "11") == 2
    assert "trainer.max_steps was 10 and is 11; choose another --out" in capsys.readouterr().err
    assert Path("run/checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_init_from_takes_the_weights(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("run") == 0
    assert fit("next", "--init_from", "run/checkpoints/last.ckpt", "--model.lr=0", "--trainer.max_steps=1") == 0
    fingerprints = [policy_fingerprint(Path(out, "checkpoints/last.ckpt")) for out in ("run", "next")]
    assert fingerprints[0] == fingerprints[1]
    assert fit("other", "--init_from", "run/checkpoints/last.ckpt", "--model.policy.width=32") == 2
    assert "another shape" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = BehaviourCloningTraining.training_step

    def poisoned(self: BehaviourCloningTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        return original(self, batch, batch_idx) * (float("nan") if self.global_step == 5 else 1)

    monkeypatch.setattr(BehaviourCloningTraining, "training_step", poisoned)
    assert fit("run") == 2
    assert "the loss is nan at step 5; run/checkpoints/last.ckpt is from before" in capsys.readouterr().err
    assert weights("run")["global_step"] == 4
    assert all(value.isfinite().all() for value in weights("run")["state_dict"].values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--data.bogus", "3"], "'bogus' is not accepted"),
        (["--bogus", "3"], "unrecognized arguments: --bogus"),
        (["--trainer.max_steps", "many"], "trainer.max_steps"),
        (["--trainer.accelerator", "abacus"], "abacus"),
        (["--data.folder", "nothing"], "nothing: no such folder"),
        (["--data.suites", "goal"], "none of 6 episodes passes"),
        (["--data.val_fraction", "2"], "data.val_fraction is 2.0"),
        (["--data.chunk", "4"], "chunk is 8 in the model and 4 in the data; set model.policy.init_args.chunk to 4"),
        (["--model.policy.action_dim", "7"], "set model.policy.init_args.action_dim to 4"),
        (["--model.policy.width", "17"], "width 17 is not a multiple"),
        (["--save_every_n_steps", "0"], "save_every_n_steps is 0"),
        (["--init_from", "nothing.ckpt"], "nothing.ckpt: no such file"),
    ],
)
def test_mistakes_end_in_one_line(fit: Fit, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert fit("run", *flags) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("wovr: error: ")
    assert message in line


def test_a_damaged_checkpoint_is_not_resumed(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 7)
        fit("run")
    Path("run/checkpoints/last.ckpt").write_bytes(b"not a checkpoint")
    capsys.readouterr()
    assert fit("run") == 2
    assert "last.ckpt: is not a checkpoint, or is damaged" in capsys.readouterr().err


def test_required_options_and_help(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "--config is not given; choose from: ae, bc, " in capsys.readouterr().err
    assert main(["fit", "--config", "small.yaml", "--out=run"]) == 2
    assert "required: folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("out", "resume", "init_from", "model", "data", "trainer.max_steps"))


def test_a_full_disk_is_one_line(fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.fabric.plugins.io.torch_io._atomic_save", full)
    assert fit("run") == 2
    assert "last.ckpt: cannot be written: No space left on device" in capsys.readouterr().err
