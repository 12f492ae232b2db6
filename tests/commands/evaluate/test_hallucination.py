"""`wovr evaluate --metrics hallucination`, through the command line, in a tiny tabletop; and what it counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.commands.evaluate.imagined_and_real import Pair, PairReport
from wovr.envs.futures import PlayedFuture
from wovr.envs.rollout import Rollout
from wovr.models.reward import SuccessClassifier
from wovr.types import StartState, TaskInfo


def write_reward(path: Path, threshold: float) -> None:
    torch.manual_seed(0)
    tasks = [("spatial", 0), ("spatial", 1)]
    network = SuccessClassifier(2, threshold, 2, channels=(8, 8), embedding=4, width=8, max_tasks=4, tasks=tasks)
    write_checkpoint(path, network)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of each of two tasks of a tiny tabletop, and untrained networks."""
    folder = tmp_path_factory.mktemp("world")
    words = (
        "collect",
        "--policy",
        "random",
        "--suite",
        "spatial",
        "--tasks",
        "0,1",
        "--episodes",
        "4",
        "--num_envs",
        "2",
    )
    assert main([*words, "--workers", "1", "--env_args.size", "16", "--out", str(folder / "data")]) == 0
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=4))
    save_policy(folder / "policy.ckpt", make_policy(action_dim=4))
    write_reward(folder / "reward.ckpt", 1e-6)
    write_reward(folder / "never.ckpt", 1.0)
    return folder


def evaluate(folder: Path, out: Path, *words: str, reward: str = "reward.ckpt", policy: str = "policy.ckpt") -> int:
    options = {
        "policy": folder / policy,
        "world_model": folder / "wm.ckpt",
        "reward": folder / reward,
        "data": folder / "data",
        "out": out,
        "metrics": "hallucination",
        "episodes": 2,
        "horizon": 10,
        "num_envs": 3,
        "workers": 1,
        "device": "cpu",
        "sigmas": "1.0",
        "uncertainty_seeds": 1,
        "env_args.size": 16,
    }
    flags = {f"--{name}": str(value) for name, value in options.items()}
    flags |= dict(zip(words[::2], words[1::2], strict=True))
    return main(["evaluate", *(word for flag in flags.items() for word in flag)])


def test_hallucinated_success_is_found(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, tmp_path, "--videos", "1") == 0
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "metrics.json").read_text())["hallucination"]
    scores = values["scores"]
    assert (scores["false_success"], scores["true_success"], scores["false_failure"]) == (4, 0, 0)
    assert scores["false_success_rate"] == 1.0
    assert scores["recall"] is None
    assert scores["confidence_auroc"] is None
    assert (values["imagined"]["success_rate"], values["real"]["success_rate"]) == (1.0, 0.0)
    assert [(task["index"], task["rollouts"]) for task in values["tasks"]] == [(0, 2), (1, 2)]
    assert values["parting"]["false-success"] == {"rollouts": 4, "median_frame": 2.0}
    assert len(values["psnr_by_frame"]) == 2  # success at the second frame in a row
    assert "4 (false successes)" in printed
    (name,) = values["videos"]
    assert name.startswith("videos/false-success-spatial-0")
    with av.open(str(tmp_path / name)) as container:
        assert len(list(container.decode(video=0))) == 1 + 2 + 8  # two actions, and a moment's grace
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    assert evaluate(folder, tmp_path, "--videos", "1") == 0
    again = capsys.readouterr().out
    assert again.startswith(f"{tmp_path} is complete\n")
    assert again.split("\n", 1)[1] == printed.split("\n", 1)[1]
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before
    assert evaluate(folder, tmp_path, reward="never.ckpt") == 2
    assert "holds a finished result of other inputs: reward was" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before
    assert evaluate(folder, tmp_path / "never", reward="never.ckpt") == 0
    values = json.loads((tmp_path / "never" / "metrics.json").read_text())["hallucination"]
    assert values["scores"]["true_failure"] == 4
    assert values["scores"]["false_success_rate"] is None
    assert len(values["psnr_by_frame"]) == 10
    assert values["videos"] == []
    assert not (tmp_path / "never" / "videos").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--metrics", "sr,hallucination"), "are measured by different programs; give sr and hallucination one by one"),
        (("--episodes", "0"), "--episodes is 0; give 1 or more"),
        (("--sigmas", "one"), "--sigmas is 'one'; give numbers separated by commas"),
        (("--suite", "goal"), "no episode of suite 'goal'"),
        (("--env_args.size", "32"), "the simulator shows pictures of 32 x 32, the episodes have 16 x 16"),
        (("--env", "nowhere"), "unknown environment 'nowhere'"),
        (("--policy", "expert"), "this environment has no scripted expert"),
        (("--policy", "none.ckpt"), "none.ckpt: no such file"),
        (("--keyframe_share", "0.5"), "no folder of keyframes is given"),
    ],
)
def test_what_cannot_be_measured_is_a_line(
    words: tuple[str, ...], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "metrics.json").exists()


def test_a_policy_for_other_actions(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = save_policy(tmp_path / "other.ckpt", make_policy(action_dim=2))
    assert evaluate(folder, tmp_path / "out", "--policy", str(policy)) == 2
    assert "the policy's actions have 2 dimensions, the environment takes 4" in capsys.readouterr().err


def make_pair(imagined: list[int], real: list[int], number: int = 0, **info: Any) -> Pair:
    """A pair from success by frame; the real frames are brighter by one each frame."""
    frames = np.full((len(imagined), 16, 16, 3), 100, np.uint8)
    seen = 100 + np.minimum(np.arange(len(real)), len(imagined) - 1).astype(np.uint8)
    actions = np.zeros((len(imagined) - 1, 4), np.float32)
    info = {"success_probability": np.linspace(0, 0.9, len(actions)), **info}
    rollout = Rollout(
        number, StartState("spatial", number % 2), "go", frames, actions, np.array(imagined, bool), None, info
    )
    return Pair(
        rollout, PlayedFuture(np.broadcast_to(seen[:, None, None, None], (len(real), 16, 16, 3)), np.array(real, bool))
    )


def test_outcomes_and_where_they_part() -> None:
    for imagined, real, outcome, parting in (
        ([0, 0, 1], [0, 0, 1, 1], "true-success", None),
        ([0, 0, 1], [0, 0, 0, 0, 1], "true-success", 2),
        ([0, 0, 0, 1], [0, 1, 0, 0], "true-success", 1),
        ([0, 0, 1], [0, 0, 0, 0], "false-success", 2),
        ([0, 0, 0, 0], [0, 0, 1, 0], "false-failure", 2),
        ([0, 0, 0], [0, 0, 0], "true-failure", None),
    ):
        pair = make_pair(imagined, real)
        assert (pair.outcome, pair.parting) == (outcome, parting)
    pair = make_pair([0, 0, 0, 1], [0, 0, 0, 0], uncertainty=np.array([0.3, 0.2, 0.1]))
    assert (pair.confidence, pair.spread) == pytest.approx((0.9, 0.1))
    np.testing.assert_allclose(pair.psnr(), 20 * np.log10(255 / np.array([1, 2, 3])))
    assert np.isnan(make_pair([0, 1], [0, 1]).spread)


def test_a_report_of_pairs(tmp_path: Path) -> None:
    tasks = [TaskInfo("spatial", index, f"task_{index}", "go", 9, 1) for index in range(2)]
    report = PairReport(tmp_path, tasks, 2, 10.0)
    cases = [([0, 1], [0, 0, 0]), ([0, 1], [0, 0]), ([0, 1], [0, 0]), ([0, 0, 0], [0, 1, 1]), ([0, 1], [0, 0, 1])]
    for number, (imagined, real) in enumerate(cases):
        report.add(make_pair(imagined, real, number))
    values = report.values()
    assert values["scores"]["false_success_rate"] == 0.75
    assert (values["scores"]["recall"], values["scores"]["agreement"]) == (0.5, 0.2)
    assert values["parting"]["same outcome"] == {"rollouts": 1, "median_frame": 1.0}
    assert values["parting"]["false-failure"] == {"rollouts": 1, "median_frame": 1.0}
    assert [task["imagined"]["successes"] for task in values["tasks"]] == [3, 1]
    assert values["tasks"][1]["real"]["successes"] == 1
    assert values["real"]["low"] < 0.4 < values["real"]["high"]
    assert values["psnr_by_frame"] == pytest.approx([48.13, 42.11], abs=0.01)
    assert len(values["videos"]) == 3
    assert sorted(f"videos/{path.name}" for path in (tmp_path / "videos").iterdir()) == sorted(values["videos"])


def test_a_suite_cannot_name_a_video_outside_the_folder(tmp_path: Path) -> None:
    suite = "../../escaped"
    report = PairReport(tmp_path / "a" / "b", [TaskInfo(suite, 0, "task", "go", 9, 1)], 2, 10.0)
    pair = make_pair([0, 1], [0, 0, 0])
    start = dataclasses.replace(pair.imagined.start, suite=suite)
    report.add(dataclasses.replace(pair, imagined=dataclasses.replace(pair.imagined, start=start)))
    assert report.values()["videos"] == ["videos/false-success-escaped-00-0000.mp4"]
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.mp4")] == [
        Path("a/b/videos/false-success-escaped-00-0000.mp4")
    ]
