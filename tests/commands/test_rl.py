"""`wovr rl` on the command line: in a simulator and in imagination, killed and resumed, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.commands.point_world import write_checkpoint, write_point_dataset
from tests.commands.test_fit import assert_equal
from tests.envs.test_rollout import POINT, make_policy, save_policy
from tests.models.trust.toys import small_trust
from tests.models.world_model.tiny_world import tiny_world
from wovr.callbacks.updates import KeepCurve
from wovr.cli import main
from wovr.models.policies.loading import load_policy, policy_fingerprint
from wovr.models.reward import SuccessClassifier

CONFIG: dict[str, Any] = {
    "model": {"lr": 0.003, "warmup_steps": 0, "minibatches": 2},
    "groups": 4, "group_size": 4, "updates": 2, "num_envs": 8, "workers": 1,
    "trainer": {"accelerator": "cpu"},
}  # fmt: skip
REAL = ("--env", POINT, "--env_args.size", "16", "--env_args.wind", "0.6")

Rl = Callable[..., int]


@pytest.fixture
def rl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rl:
    """`rl(out, *flags)` runs the verb in an empty working folder and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    Path("rl.yaml").write_text(yaml.safe_dump(CONFIG))
    save_policy(Path("p.ckpt"), make_policy())

    def run(out: str, *flags: str) -> int:
        return main(["rl", "--config", "rl.yaml", "--policy", "p.ckpt", "--suite", "spatial", "--out", out, *flags])

    return run


def imagined_parts(action_dim: int = 2, suite: str = "spatial") -> list[str]:
    """Flags of an imagined environment of untrained networks, whose every frame is a success now and then."""
    write_point_dataset(Path("data"), (12, 12, 9))
    write_checkpoint(Path("wm.ckpt"), tiny_world(action_dim=action_dim))
    torch.manual_seed(0)
    tasks = [(suite, task) for task in range(3)]
    judge = SuccessClassifier(window=1, threshold=0.5, consecutive=1, channels=[8, 8], tasks=tasks)
    write_checkpoint(Path("reward.ckpt"), judge)
    return ["--env", "imagined", "--world_model", "wm.ckpt", "--reward", "reward.ckpt", "--data", "data"]


def test_a_run_in_a_simulator(rl: Rl, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = ("--eval_env", POINT, "--eval_env_args.size", "16", "--eval_env_args.wind", "0.6")
    more = ("--eval_every", "2", "--eval_episodes", "6", "--eval_num_envs", "6", "--max_real_episodes", "20")
    assert rl("out", *REAL, *evaluation, *more) == 0
    printed = capsys.readouterr().err
    assert [line.split()[0] for line in printed.splitlines()[:4]] == ["before:", "update", "1/2", "2/2"]
    result = json.loads(Path("out/metrics.json").read_text())
    assert result["rollouts"] == result["real_episodes"] == 20
    assert result["evaluation_episodes"] == 12
    curve = result["curve"]
    assert [row["update"] for row in curve] == [0, 1, 2]
    assert [row.get("rollouts") for row in curve] == [None, 16, 20]
    assert ["eval_success_rate_real" in row for row in curve] == [True, False, True]
    assert max(row["success_rate_real"] for row in curve[1:]) > 0
    assert result["best"]["success_rate"] == max(row.get("eval_success_rate_real", 0) for row in curve)
    best = 0 if result["best"]["update"] == 0 else 2
    expected = {0: "p.ckpt", 2: "out/checkpoints/last.ckpt"}[best]
    assert policy_fingerprint(Path("out/checkpoints/best.ckpt")) == policy_fingerprint(Path(expected))
    assert policy_fingerprint(Path("out/checkpoints/last.ckpt")) != policy_fingerprint(Path("p.ckpt"))
    assert rl("out", *REAL, *evaluation, *more) == 0
    assert "done before" in capsys.readouterr().out


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    rl: Rl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rl("whole", *REAL, "--updates", "3") == 0
    kept = KeepCurve.on_train_batch_end

    def die(self: KeepCurve, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if batch.update == 1:
            raise KeyboardInterrupt
        kept(self, trainer, module, outputs, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(KeepCurve, "on_train_batch_end", die)
        assert rl("killed", *REAL, "--updates", "3") == 130
    assert rl("killed", *REAL, "--updates", "3") == 0
    whole, killed = (torch.load(f"{out}/checkpoints/last.ckpt", weights_only=True) for out in ("whole", "killed"))
    assert_equal(whole["state_dict"], killed["state_dict"])
    assert_equal(whole["optimizer_states"], killed["optimizer_states"])
    curves = [json.loads(Path(out, "metrics.json").read_text())["curve"] for out in ("whole", "killed")]
    for row, other in zip(*curves, strict=True):
        assert row.keys() == other.keys()
        assert all(row[name] == other[name] for name in row if not name.startswith("seconds"))
    assert rl("killed", *REAL, "--updates", "4") == 2
    assert "updates was 3 and is 4" in capsys.readouterr().err


def test_a_run_in_imagination(rl: Rl) -> None:
    assert rl("out", *imagined_parts(), "--horizon", "16", "--shared_noise", "true") == 0
    result = json.loads(Path("out/metrics.json").read_text())
    assert (result["rollouts"], result["real_episodes"], result["evaluation_episodes"]) == (32, 0, 0)
    assert [row["update"] for row in result["curve"]] == [1, 2]
    # What is imagined with other noise does not always succeed again: the best is never believed more than it was seen.
    assert 0 < result["best"]["success_rate"] < max(row["success_rate_imagined"] for row in result["curve"])
    assert result["best"]["by_real"] is False
    assert load_policy(Path("out/checkpoints/best.ckpt")).action_dim == 2


def test_imagined_rollouts_are_cut_where_a_value_function_takes_over(
    rl: Rl, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = imagined_parts()
    tasks = [("spatial", task) for task in range(3)]
    write_checkpoint(Path("value.ckpt"), SuccessClassifier(window=1, channels=[8, 8], tasks=tasks, judges="outcome"))
    assert rl("out", *parts, "--horizon", "16", "--value", "value.ckpt", "--cut_after", "5") == 0
    rows = json.loads(Path("out/metrics.json").read_text())["curve"]
    assert all(row["rollout_frames"] <= 16 * 5 for row in rows)
    assert all(0 < row["success_rate_imagined"] < 1 for row in rows)
    assert rl("more", *parts, "--value", "value.ckpt") == 2
    assert "--value without --cut_after; give both" in capsys.readouterr().err
    assert rl("more", *REAL, "--cut_after", "8") == 2
    assert "--cut_after without --value; give both" in capsys.readouterr().err
    assert rl("more", *REAL, "--model.gae_lambda", "0.5") == 2
    assert "model.gae_lambda without --value; give both" in capsys.readouterr().err
    assert rl("more", *parts, "--start_value", "[0.1,0.9]") == 2
    assert "--start_value without --value; give both" in capsys.readouterr().err
    assert rl("more", *parts, "--value", "value.ckpt", "--start_value", "[0.9,0.1]") == 2
    assert "--start_value is [0.9, 0.1]; give two probabilities" in capsys.readouterr().err
    assert rl("more", *parts, "--value", "reward.ckpt", "--cut_after", "8") == 2
    assert "reward.ckpt: holds a success classifier" in capsys.readouterr().err


def test_whole_rollouts_have_the_credit_of_their_chunks(rl: Rl, capsys: pytest.CaptureFixture[str]) -> None:
    parts = imagined_parts()
    tasks = [("spatial", task) for task in range(3)]
    write_checkpoint(Path("value.ckpt"), SuccessClassifier(window=1, channels=[8, 8], tasks=tasks, judges="outcome"))
    credit = ("--value", "value.ckpt", "--model.gae_lambda", "0.5", "--start_value", "[0,1]")
    for out, where in (("imagined", (*parts, "--horizon", "16")), ("real", (*REAL, "--data", "data"))):
        assert rl(out, *where, *credit, "--model.ratio", "chunk", "--model.coherence", "0.5") == 0
        assert re.search(r"\d+ of \d+ first frames have a value from 0 to 1", capsys.readouterr().out)
        rows = json.loads(Path(out, "metrics.json").read_text())["curve"]
        assert all(row["groups_without_signal"] < 1 for row in rows)
        assert max(row["rollout_frames"] for row in rows) > 16 * 8, "nothing is cut"
        assert all(0 <= row["clip_fraction"] < 1 for row in rows)


def test_the_simulator_can_stand_in_for_imagination(rl: Rl) -> None:
    imagined_parts()
    tasks = [("spatial", task) for task in range(3)]
    write_checkpoint(Path("value.ckpt"), SuccessClassifier(window=2, channels=[8, 8], tasks=tasks, judges="outcome"))
    assert rl("out", *REAL, "--data", "data", "--value", "value.ckpt", "--cut_after", "8") == 0
    result = json.loads(Path("out/metrics.json").read_text())
    assert (result["rollouts"], result["real_episodes"]) == (32, 32)
    assert all(row["rollout_frames"] <= 16 * 8 for row in result["curve"])
    assert all(0 < row["success_rate_real"] < 1 for row in result["curve"])
    assert rl("whole", *REAL, "--data", "data") == 0  # whole rollouts from stored first frames


def test_patience_ends_a_run_that_gets_no_better(rl: Rl) -> None:
    # Without wind this policy never succeeds: the first update's rate stays the best.
    assert rl("out", "--env", POINT, "--env_args.size", "16", "--updates", "9", "--patience", "2") == 0
    result = json.loads(Path("out/metrics.json").read_text())
    assert (result["updates"], result["best"]["update"]) == (3, 0)


def test_without_masking_rollouts_go_on_after_success(rl: Rl) -> None:
    easy = ("--env", POINT, "--env_args.size", "16", "--env_args.wind", "0.4", "--updates", "1", "--groups", "20")
    assert rl("masked", *easy) == 0
    assert rl("unmasked", *easy, "--model.mask", "none") == 0
    masked, unmasked = (json.loads(Path(out, "metrics.json").read_text())["curve"][0] for out in ("masked", "unmasked"))
    assert 0 < masked["success_rate_real"] == unmasked["success_rate_real"]
    assert masked["rollout_frames"] < unmasked["rollout_frames"] == 80 * 24
    assert masked["valid_length"] == unmasked["valid_length"] == masked["rollout_frames"] / 80
    parts = [*imagined_parts(), "--horizon", "16", "--updates", "1", "--model.mask", "none"]
    assert rl("imagined", *parts) == 0
    row = json.loads(Path("imagined/metrics.json").read_text())["curve"][0]
    assert row["rollout_frames"] == 16 * 16


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--env", "imagined"], "--env imagined without --world_model"),
        ([*REAL, "--reward", "x"], "--reward with --env tests.envs.point_env:PointEnv"),
        ([*REAL, "--value", "x", "--cut_after", "8"], "PointEnv and without --data; give --data"),
        ([*REAL, "--data", "x", "--init_states", ":5"], "--init_states :5 with --data"),
        ([*REAL, "--group_size", "1"], "--group_size is 1"),
        ([*REAL, "--env_args.action_dim", "3"], "p.ckpt: the policy's actions have 2 dimensions"),
        ([*REAL, "--trainer.max_steps", "5"], "use --updates"),
        ([*REAL, "--model.clip_low", "2"], "model.clip_low is 2"),
        ([*REAL, "--model.lr", "1e30"], "is not finite"),
        ([*REAL, "--seed_everything", "false"], "seed_everything is false"),
    ],
)
def test_bad_input_is_one_line(rl: Rl, flags: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rl("out", *flags) == 2
    [error] = [text for text in capsys.readouterr().err.splitlines() if text.startswith("wovr: error")]
    assert line in error


def test_parts_of_an_imagined_run_must_fit(rl: Rl, capsys: pytest.CaptureFixture[str]) -> None:
    parts = imagined_parts()

    def refused(*flags: str) -> str:
        assert rl("out", *flags) == 2
        return capsys.readouterr().err

    save_policy(Path("p.ckpt"), make_policy(action_dim=3))
    assert "p.ckpt: the policy's actions have 3 dimensions" in refused(*parts)
    save_policy(Path("p.ckpt"), make_policy())
    assert "'object'" in refused(*parts, "--suite", "object")
    Path("empty").mkdir()
    assert "empty" in refused(*parts, "--keyframes", "empty", "--keyframe_share", "0.5")
    assert "keyframe_share" in refused(*parts, "--keyframe_share", "0.5")
    shutil.rmtree("data")
    assert "data" in refused(*parts)


def test_chunks_that_are_not_trusted_are_taken_back(rl: Rl, capsys: pytest.CaptureFixture[str]) -> None:
    parts = imagined_parts()
    trust = small_trust(2, reader=False)
    write_checkpoint(Path("trust.ckpt"), trust)
    parts += ["--horizon", "16", "--model.discount", "0.9"]
    flags = [*parts, "--trust", "trust.ckpt"]
    assert rl("plain", *parts) == 0
    assert rl("all", *flags, "--trust_threshold", "0") == 0
    plain, everything = (json.loads(Path(out, "metrics.json").read_text()) for out in ("plain", "all"))
    for row, other in zip(plain["curve"], everything["curve"], strict=True):  # nothing is below 0
        assert other["rollouts_taken_back"] == 0
        assert 0 < other["trust"] < 1
        assert all(row[name] == other[name] for name in row if not name.startswith("seconds"))
    levels = [row["trust"] for row in everything["curve"]]
    assert rl("some", *flags, "--trust_threshold", str(levels[0])) == 0
    row = json.loads(Path("some/metrics.json").read_text())["curve"][0]
    assert 0 < row["rollouts_taken_back"] < 1
    assert row["trust"] > levels[0]
    assert rl("weighed", *flags, "--trust_weight", "true") == 0
    weighed = json.loads(Path("weighed/metrics.json").read_text())["curve"]
    assert weighed[0]["trust"] == everything["curve"][0]["trust"]
    assert weighed[0]["loss"] != everything["curve"][0]["loss"]
    capsys.readouterr()
    trust.bias.fill_(1.0)
    write_checkpoint(Path("trust.ckpt"), trust)
    assert rl("all", *flags, "--trust_threshold", "0") == 2
    assert "holds a finished result of other inputs: data.trust was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--trust", "t.ckpt"), "--trust without --trust_threshold (or --trust_weight true); give both, or neither"),
        (("--trust_threshold", "0.5"), "--trust_threshold without --trust; give both, or neither"),
        (("--trust_weight", "true"), "--trust_weight without --trust; give both, or neither"),
        (("--trust", "t.ckpt", "--trust_threshold", "1.2"), "--trust_threshold is 1.2; give a number from 0 to 1"),
        (
            ("--trust", "t.ckpt", "--trust_threshold", "1"),
            "not one of 16 rollouts has a chunk that is trusted",
        ),
        (("--trust", "o.ckpt", "--trust_threshold", "0.5"), "learned on actions of 3 dimensions, the world model has"),
        (("--trust", "reward.ckpt", "--trust_threshold", "0.5"), "reward.ckpt: holds reward, not a trust"),
    ],
)
def test_trust_that_cannot_act_is_a_line(
    rl: Rl, flags: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = imagined_parts()
    for name, dims in (("t", 2), ("o", 3)):
        write_checkpoint(Path(f"{name}.ckpt"), small_trust(dims, reader=False))
    assert rl("out", *parts, "--horizon", "16", *flags) == 2
    assert line in capsys.readouterr().err


def test_a_simulator_needs_no_trust(rl: Rl, capsys: pytest.CaptureFixture[str]) -> None:
    assert rl("out", *REAL, "--trust", "t.ckpt", "--trust_threshold", "0.5") == 2
    assert f"--trust with --env {POINT}; leave it out, or use --env imagined" in capsys.readouterr().err
