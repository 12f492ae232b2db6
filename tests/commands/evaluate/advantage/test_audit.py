"""`wovr evaluate --metrics advantage`, through the command line, in the point environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.point_world import POINT, SIZE, write_checkpoint
from tests.envs.point_env import PointEnv
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.models.reward import SuccessClassifier
from wovr.types import Episode, EpisodeMeta, StartState

TASKS = [("spatial", task) for task in range(3)]


def near_goal(number: int, states: bool = True) -> Episode:
    """An episode of 24 random actions that begins a few steps from the goal."""
    env, rng = PointEnv(SIZE), np.random.default_rng(number)
    at = np.round(rng.uniform(-0.5, 0.5, 2), 2)
    frames = [env.start(StartState("spatial", number % 3, sim_state=np.array([*at, at[0] + 0.2, at[1], 0.0])))["image"]]
    seen = [env.sim_state().copy()]
    actions = rng.uniform(-1, 1, (24, 2)).astype(np.float32)
    for action in actions:
        frames.append(env.step(action)[0]["image"])
        seen.append(env.sim_state().copy())
    meta = EpisodeMeta("move", "spatial", number % 3, 0, 5.0, "random", POINT)
    kept = np.stack(seen) if states else None
    return Episode(f"e-{number}", np.stack(frames), actions, np.zeros(25, bool), meta, sim_state=kept)


def write_episodes(folder: Path, states: bool = True) -> Path:
    """Two episodes of each of three tasks, and keyframes of them in the folder KEYFRAMES beside it.

    The last action dimension stands for a gripper: at random it is opened and closed.
    """
    write_shard(shard_path(folder, "spatial", 0), [near_goal(number, states) for number in range(6)])
    finish_dataset(folder)
    words = ("--out", str(folder.with_name("keyframes")), "--lead", "1,4", "--memory", "2")
    assert main(["data", "keyframes", str(folder), *words]) == 0
    return folder


def write_judge(path: Path, tasks: list[tuple[str, int]] = TASKS, **arguments: Any) -> Path:
    torch.manual_seed(0)
    return write_checkpoint(path, SuccessClassifier(channels=[8, 8], consecutive=1, tasks=tasks, **arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of three tasks, with keyframes and without states, and untrained networks."""
    folder = tmp_path_factory.mktemp("audit")
    write_episodes(folder / "data")
    save_policy(folder / "policy.ckpt", make_policy())
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=2))
    write_judge(folder / "reward.ckpt", window=2, threshold=0.9)
    write_judge(folder / "value.ckpt", window=2, judges="outcome")
    return folder


def audit(folder: Path, out: Path, *words: str, wind: float = 0.05, **changes: Any) -> int:
    options: dict[str, Any] = {
        "policy": folder / "policy.ckpt",
        "suite": "spatial",
        "data": folder / "data",
        "out": out,
        "metrics": "advantage",
        "env": POINT,
        "env_args.size": SIZE,
        "env_args.wind": wind,
        "groups": 4,
        "group_size": 3,
        "chunks": "1,2",
        "continuations": 3,
        "num_envs": 6,
        "workers": 1,
        "device": "cpu",
    }
    flags = {f"--{name}": str(value) for name, value in (options | changes).items()}
    flags |= dict(zip(words[::2], words[1::2], strict=True))
    return main(["evaluate", *(word for flag in flags.items() for word in flag)])


def networks(folder: Path) -> dict[str, Any]:
    paths = {"value": "value.ckpt", "world_model": "wm.ckpt", "reward": "reward.ckpt"}
    return {name: folder / path for name, path in paths.items()} | {"sigmas": "1.0"}


def measured(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())["advantage"]


def test_every_recipe_is_held_against_the_truth(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = networks(folder) | {"groups": 6, "group_size": 4}
    assert audit(folder, tmp_path / "one", **given) == 0
    printed = capsys.readouterr().out
    values = measured(tmp_path / "one")
    assert (values["groups"], values["chunk"], values["from_keyframes"]) == (6, 8, 0)
    assert [entry["chunks"] for entry in values["chunks"]] == [1, 2]
    for entry in values["chunks"]:
        assert set(entry["recipes"]) == {"outcome", "value, real", "value, imagined"}
        assert 0 < entry["truth"]["success_rate"]["value"] < 1
        for recipe in entry["recipes"].values():
            for name in ("pairwise", "groups_with_signal"):
                score = recipe[name]
                assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
            assert -1 <= recipe["rank_correlation"]["value"] <= 1
            assert 1 < recipe["rank_correlation"]["groups"] <= 6
            scale = recipe["noise_scale"]
            assert scale["noise"] > 0
            assert (scale["value"] is None) == (scale["signal"] <= 0)
            assert scale["value"] is None or scale["value"] == pytest.approx(4 * scale["noise"] / scale["signal"])
            assert scale["value"] is not None or scale["note"]
    # More rollouts have ended after more chunks, and what has ended is not continued.
    settled = [entry["truth"]["settled"]["value"] for entry in values["chunks"]]
    assert 0 <= settled[0] <= settled[1] < 1
    going_on = sum(24 - round(24 * share) for share in settled)
    assert values["rollouts"] == 24 + 3 * going_on
    assert f"{values['rollouts']} rollouts in the simulator" in printed
    assert printed.index("value, real") < printed.index("value, imagined")
    before = (tmp_path / "one" / "metrics.json").stat().st_mtime_ns
    assert audit(folder, tmp_path / "one", **given) == 0
    again = capsys.readouterr().out
    assert again.startswith(f"{tmp_path / 'one'} is complete\n")
    assert again.split("\n", 1)[1] == printed.split("\n", 1)[1]
    assert (tmp_path / "one" / "metrics.json").stat().st_mtime_ns == before
    assert audit(folder, tmp_path / "two", **given, workers=2) == 0
    assert measured(tmp_path / "two") == values
    assert audit(folder, tmp_path / "one", **given, seed=1) == 2
    assert "seed was 0" in capsys.readouterr().err


def test_outcomes_alone_from_keyframes(folder: Path, tmp_path: Path) -> None:
    assert audit(folder, tmp_path, keyframes=folder / "keyframes", keyframe_share=0.5, policy="random") == 0
    values = measured(tmp_path)
    assert values["from_keyframes"] == 2
    for entry in values["chunks"]:
        assert list(entry["recipes"]) == ["outcome"]
        assert entry["recipes"]["outcome"]["noise_scale"]["value"] is None
        assert "checkpoint" in entry["recipes"]["outcome"]["noise_scale"]["note"]


def test_what_does_not_differ_has_no_scores(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After three chunks every rollout has reached its horizon; so cold a policy always does the same."""
    assert audit(folder, tmp_path, wind=0.0, chunks="3", temperature=1e-6) == 0
    values = measured(tmp_path)
    [entry] = values["chunks"]
    assert entry["truth"]["settled"]["value"] == 1
    assert entry["truth"]["ceiling"] == {"value": None, "low": None, "high": None, "groups": 0}
    assert entry["recipes"]["outcome"]["pairwise"]["value"] is None
    assert entry["recipes"]["outcome"]["groups_with_signal"]["value"] == 0
    assert entry["recipes"]["outcome"]["noise_scale"]["note"] == "no group has a gradient"
    assert values["rollouts"] == 12
    assert "no noise scale, no group has a gradient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--metrics", "sr,advantage"), "are measured by different programs; give sr and advantage one by one"),
        (("--groups", "1"), "--groups is 1; give 2 or more"),
        (("--group_size", "1"), "--group_size is 1; give 2 or more"),
        (("--continuations", "1"), "--continuations is 1; give 2 or more"),
        (("--num_envs", "0"), "--num_envs is 0; give 1 or more"),
        (("--chunks", "0"), "--chunks is '0'; give different numbers from 1 to 512"),
        (("--chunks", "1,1"), "--chunks is '1,1'; give different numbers from 1 to 512"),
        (("--chunks", "one"), "--chunks is 'one'; give numbers separated by commas"),
        (("--chunks", "1,600"), "--chunks is '1,600'; give different numbers from 1 to 512"),
        (("--device", "abacus"), "--device is 'abacus'; give auto, cpu or cuda"),
        (("--temperature", "0"), "--temperature is 0.0; give a number above 0"),
        (("--coherence", "-1"), "--coherence is -1.0; give 0 or more"),
        (("--suite", "goal"), "no episode of suite 'goal'; choose from: spatial"),
        (("--suite", "spatial,goal"), "--suite is 'spatial,goal'; give one suite"),
        (("--tasks", "7"), "no episode of task 7"),
        (("--env", "nowhere"), "unknown environment 'nowhere'"),
        (("--env_args.size", "32"), "the simulator shows pictures of 32 x 32, the episodes have 16 x 16"),
        (("--env_args.action_dim", "3"), "the simulator takes actions of 3 dimensions, the episodes' have 2"),
        (("--policy", "none.ckpt"), "none.ckpt: no such file"),
        (("--value", "reward.ckpt"), "reward.ckpt: holds a success classifier"),
        (("--value", "other.ckpt"), "was not trained for task spatial/2, which there are start states for; train one"),
        (("--world_model", "wm.ckpt"), "--world_model without --reward; give --reward too"),
        (("--reward", "reward.ckpt"), "--reward without --world_model; give --world_model too"),
        (("--world_model", "wm.ckpt", "--reward", "reward.ckpt"), "--world_model without --value; give --value too"),
        (("--keyframes", "nowhere"), "nowhere"),
        (("--policy", "short.ckpt", "--value", "value.ckpt", "--world_model", "wm.ckpt", "--reward", "reward.ckpt"),
         "the policy's chunk is 4 actions, the world model's 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_a_line(
    words: tuple[str, ...],
    line: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    if "other.ckpt" in words:
        write_judge(Path("other.ckpt"), TASKS[:2], window=2, judges="outcome")
    if "short.ckpt" in words:
        policy = make_policy()
        save_policy(Path("short.ckpt"), type(policy)(**policy.init_args | {"chunk": 4}))
    assert audit(folder, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("starts", ["first frames", "keyframes"])
def test_start_states_that_no_simulator_can_be_put_into(
    starts: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"data": write_episodes(tmp_path / "data", states=False)}
    if starts == "keyframes":
        more["keyframes"] = tmp_path / "keyframes"
    capsys.readouterr()
    assert audit(folder, tmp_path / "out", **more) == 2
    assert "holds no sim_state, so it cannot be replayed; give episodes" in capsys.readouterr().err
