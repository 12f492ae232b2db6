"""`wovr evaluate`: counts, intervals, videos; and `wovr bench collect`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import pytest
from scipy.stats import binomtest

from tests.envs.point_env import SUITES
from tests.envs.test_rollout import make_policy, save_policy
from wovr.cli import main
from wovr.envs.actors.base import RandomActor
from wovr.envs.episodes import plan_episodes
from wovr.envs.rollout import roll_out
from wovr.envs.workers.vector import WorkerVectorEnv

POINT = "tests.envs.point_env:PointEnv"


def arguments(out: Path, *extra: str, policy: str = "expert", suite: str = "spatial") -> list[str]:
    return [
        *("evaluate", "--policy", policy, "--env", POINT, "--suite", suite, "--out", str(out), "--seed", "2"),
        *("--episodes", "8", "--num_envs", "4", "--workers", "1", *extra),
    ]


def test_counts_equal_the_rollouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # In a strong wind random actions reach the goal now and then.
    wind = ("--env_args.wind", "0.4")
    assert main(arguments(tmp_path, *wind, "--init_states", "10:15", policy="random", suite="object,spatial")) == 0
    printed = capsys.readouterr().out
    measured = json.loads((tmp_path / "metrics.json").read_text())["sr"]
    env = WorkerVectorEnv(POINT, 4, 1, {"wind": 0.4})
    total = 0
    for suite in ("spatial", "object"):
        plan = plan_episodes(SUITES[suite], 24, "10:15", seed=2)
        assert {episode.start.init_state for episode in plan} == set(range(10, 15))
        rollouts = list(roll_out(env, RandomActor(), plan, seed=2))
        successes = sum(rollout.succeeded for rollout in rollouts)
        assert 0 < successes < 24
        total += successes
        found = measured["suites"][suite]
        assert (found["episodes"], found["successes"]) == (24, successes)
        expected = binomtest(successes, 24).proportion_ci(method="wilson")
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
        lengths = [int(rollout.success.argmax()) for rollout in rollouts if rollout.succeeded]
        assert found["mean_length"] == pytest.approx(sum(lengths) / len(lengths))
        assert [task["name"] for task in found["tasks"]] == ["go_red", "go_green", "go_blue"]
        for task in found["tasks"]:
            of_task = [rollout.succeeded for rollout in rollouts if rollout.start.task == task["index"]]
            assert (task["episodes"], task["successes"]) == (8, sum(of_task))
            assert task["success_rate"] == sum(of_task) / 8
        assert f"{100 * successes / 24:.1f} %" in printed
    env.close()
    assert (measured["all"]["episodes"], measured["all"]["successes"]) == (48, total)


def test_videos_play_anywhere(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, "--videos", "3", "--env_args.wind", "0.4", policy="random")) == 0
    names = json.loads((tmp_path / "metrics.json").read_text())["sr"]["videos"]
    assert sorted(f"videos/{path.name}" for path in (tmp_path / "videos").iterdir()) == sorted(names)
    outcomes = [
        re.fullmatch(r"videos/spatial-(\d\d)-go_\w+-(success|failure)-\d{4}\.mp4", name).groups() for name in names
    ]
    assert [outcome for _, outcome in outcomes].count("failure") == 3
    assert 1 <= [outcome for _, outcome in outcomes].count("success") <= 3
    assert len(set(outcomes)) == len(outcomes)  # spread over the tasks
    for name, (_, outcome) in zip(names, outcomes, strict=True):
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert min(stream.width, stream.height) >= 256
            frames = list(container.decode(stream))
            assert float(stream.average_rate) == 5.0
        assert len(frames) == 25 if outcome == "failure" else 2 <= len(frames) <= 25
        picture = frames[0].to_ndarray(format="rgb24")
        assert abs(int(picture[128, 2, 0]) - 40) < 8  # the grey ground of the environment


def test_expert_succeeds_and_workers_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path / "a", "--workers", "1", "--tasks", "1,2")) == 0
    assert "100.0 %" in capsys.readouterr().out
    assert main(arguments(tmp_path / "b", "--workers", "3", "--tasks", "1,2")) == 0
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()
    measured = json.loads((tmp_path / "a" / "metrics.json").read_text())["sr"]
    assert [task["index"] for task in measured["suites"]["spatial"]["tasks"]] == [1, 2]
    for name in measured["videos"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_checkpoint_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_policy(tmp_path / "tiny.ckpt", make_policy())
    out = tmp_path / "out"
    assert main(arguments(out, "--temperature", "0", policy=str(checkpoint))) == 0
    table = capsys.readouterr().out.split("success rate, 95 % Wilson interval")[1]
    before = (out / "metrics.json").stat().st_mtime_ns
    checkpoint.rename(tmp_path / "renamed.ckpt")  # the same policy under another path
    assert main(arguments(out, "--temperature", "0", policy=str(tmp_path / "renamed.ckpt"))) == 0
    again = capsys.readouterr().out
    assert "is complete" in again
    assert again.split("success rate, 95 % Wilson interval")[1] == table
    assert (out / "metrics.json").stat().st_mtime_ns == before
    videos = sorted((out / "videos").iterdir())
    assert videos
    assert main(arguments(out, "--videos", "0", policy=str(tmp_path / "renamed.ckpt"))) == 2
    assert "out: holds a finished result of other inputs: " in (error := capsys.readouterr().err)
    assert "videos was 4 and is 0" in error
    assert sorted((out / "videos").iterdir()) == videos
    assert (out / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--metrics", "sr,fvdd"), "unknown metric 'fvdd'; did you mean fvd? choose from, "),
        (("--episodes", "0"), "--episodes is 0; give 1 or more"),
        (("--suite", "spatial,kitchen"), "has no suite 'kitchen'"),
        (("--suite", "spatial,spatial"), "names a suite twice"),
        (("--init_states", "40:50"), "'40:50' reaches beyond the task"),
        (("--env_args.crash_at", "2"), "was killed by SIGKILL"),
        (("--policy", "no.ckpt"), "no.ckpt: no such file"),
        (("--env", "nowhere"), "unknown environment 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], message: str
) -> None:
    assert main(arguments(tmp_path, *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "metrics.json").exists()


def test_bench_collect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--episodes", "12", "--num_envs", "4", "--workers", "2", "--repeats", "2")
    assert main(["bench", "collect", "--env", POINT, "--suite", "spatial", *sizes]) == 0
    lines = capsys.readouterr().out.splitlines()
    measured = [
        re.search(r"collect +([\d,]+) steps/s +ceiling +([\d,]+) steps/s +ratio (\d\.\d\d)", line) for line in lines
    ]
    found = [[float(word.replace(",", "")) for word in match.groups()] for match in measured if match]
    assert len(found) == 2
    for collect, ceiling, ratio in found:
        assert min(ceiling, collect) > 0  # which is faster depends on what else the machine does
        assert ratio == pytest.approx(collect / ceiling, abs=0.02)
    assert main(["bench", "collect", "--env", POINT, "--suite", "spatial", "--repeats", "0"]) == 2
    assert main(["bench", "collect", "--env", POINT, "--suite", "spatial", "--env_args.raise_at", "2"]) == 2


def test_the_temperature_is_chosen_on_other_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(save_policy(tmp_path / "p.ckpt", make_policy()))
    choose = ("--choose_temperature", "0,1,2", "--choose_init_states", ":10", "--choose_episodes", "5")
    options = ("--init_states", "10:18", "--env_args.wind", "0.4", "--videos", "0")
    assert main(arguments(tmp_path / "chosen", *options, *choose, policy=checkpoint)) == 0
    found = json.loads((tmp_path / "chosen" / "metrics.json").read_text())["sr"]
    assert [(counts["temperature"], counts["episodes"]) for counts in found["tried"]] == [(0, 15), (1, 15), (2, 15)]
    most = max(counts["successes"] for counts in found["tried"])
    best = [counts["temperature"] for counts in found["tried"] if counts["successes"] == most]
    assert found["temperature"] == best[0]
    assert f"at temperature {best[0]:g} (chosen: 0: " in " ".join(capsys.readouterr().out.split())
    given = ("--temperature", str(best[0]))
    assert main(arguments(tmp_path / "given", *options, *given, policy=checkpoint)) == 0
    same = json.loads((tmp_path / "given" / "metrics.json").read_text())["sr"]
    assert same["suites"] == found["suites"]
    outcomes = found["suites"]["spatial"]["outcomes"]
    assert len(outcomes) == 24
    assert {state for _, state, _ in outcomes} == set(range(10, 18))
    assert sum(steps is not None for *_, steps in outcomes) == found["all"]["successes"]
    assert same["tried"] == []


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (("--choose_temperature", "0,-1"), "--choose_temperature has -1.0"),
        (("--choose_temperature", "inf"), "--choose_temperature has inf"),
        (("--choose_temperature", "cold"), "--choose_temperature is 'cold'"),
        (("--choose_temperature", "0,1"), "--choose_temperature with --policy expert"),
        (("--choose_episodes", "0"), "--choose_episodes is 0"),
    ],
)
def test_bad_choices_of_a_temperature(
    tmp_path: Path, extra: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, *extra)) == 2
    assert line in " ".join(capsys.readouterr().err.split())
