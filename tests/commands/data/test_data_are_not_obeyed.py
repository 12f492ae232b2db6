"""Episodes that name programs: what they say of their environment is compared with the command line, never followed."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.evaluate.test_hallucination import write_reward
from tests.commands.point_world import LENGTHS, POINT, SIZE, make_episode, write_checkpoint, write_idm
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=2))
    write_idm(folder / "idm.ckpt")
    save_policy(folder / "policy.ckpt", make_policy(action_dim=2))
    write_reward(folder / "reward.ckpt", 1e-6)
    return folder


def write_episodes(folder: Path, source: str, suite: str = "spatial", **extra: Any) -> Path:
    """The point environment's episodes, which say that they come from elsewhere."""
    episodes = [make_episode(number, length) for number, length in enumerate(LENGTHS)]
    for episode in episodes:
        episode.meta = dataclasses.replace(episode.meta, source=source, suite=suite)
    write_shard(shard_path(folder, "spatial", 0), episodes)
    finish_dataset(folder, **extra)
    return folder


def follow(networks: Path, data: Path, out: Path, *words: str) -> int:
    given = ("--world_model", networks / "wm.ckpt", "--idm", networks / "idm.ckpt", "--data", data, "--out", out)
    metric = ("--metrics", "action_following", "--horizons", "3,12", "--workers", "1", "--device", "cpu")
    return main(["evaluate", *map(str, given), *metric, *words])


def hallucinate(networks: Path, data: Path, out: Path, *words: str) -> int:
    given = {name: networks / f"{name}.ckpt" for name in ("policy", "reward")} | {"world_model": networks / "wm.ckpt"}
    options: dict[str, Any] = given | {"data": data, "out": out, "metrics": "hallucination", "episodes": 1}
    options |= {"tasks": "0,1", "horizon": 4, "num_envs": 2, "workers": 1, "device": "cpu", "sigmas": "1.0"}
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return main(["evaluate", *flags, "--uncertainty_seeds", "0", "--videos", "4", *words])


def trap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a mark when it is imported; returns the mark."""
    (folder / "trap_module.py").write_text(f"open({str(folder / 'MARK')!r}, 'w').close()\nclass Env: pass\n")
    monkeypatch.syspath_prepend(folder)  # type: ignore[no-untyped-call]
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{':'.join(sys.path)}")  # for simulator workers
    return folder / "MARK"


@pytest.mark.parametrize("kind", ["gym", "import path", "registered name"])
def test_what_episodes_name_is_neither_imported_nor_called(
    networks: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = trap(tmp_path, monkeypatch)
    program = {"env": "subprocess:Popen", "arguments": {"args": ["touch", str(mark)]}}
    source = {"gym": "gym", "import path": "trap_module:Env", "registered name": "gym"}[kind]
    if kind == "registered name":
        program = {"env": "trap_module:Env"}
    data = write_episodes(tmp_path / "data", source, collect={"env_args": program})
    where = ("--env", POINT, f"--env_args.size={SIZE}")
    assert follow(networks, data, tmp_path / "following", *where) == 0
    assert hallucinate(networks, data, tmp_path / "hallucination", *where) == 0
    assert not mark.exists()
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(f"the episodes say they come from '{source}', the replay is in --env {POINT}") == 2


def test_the_replay_happens_where_the_user_says(networks: Path, tmp_path: Path) -> None:
    data = write_episodes(tmp_path / "data", POINT, collect={"env_args": {"size": SIZE}})
    assert follow(networks, data, tmp_path / "out", "--env", POINT, f"--env_args.size={SIZE}") == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["world_model"]
    assert values["rows"]["real frames"]["swap_difference"]["by_horizon"]["12"] > 0
    assert not [note for note in values["notes"] if "episodes say" in note or "no real futures" in note]


def test_other_arguments_than_the_episodes_were_collected_with_are_said(networks: Path, tmp_path: Path) -> None:
    data = write_episodes(tmp_path / "data", POINT, collect={"env_args": {"size": SIZE, "wind": 0.5}})
    assert hallucinate(networks, data, tmp_path / "out", "--env", POINT, f"--env_args.size={SIZE}") == 0
    [note] = json.loads((tmp_path / "out" / "metrics.json").read_text())["hallucination"]["notes"]
    assert '{"size": 16, "wind": 0.5}, the replay has {"size": 16}' in note


def test_the_size_of_pictures_is_no_argument_of_the_replay(
    networks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_episodes(tmp_path / "data", POINT)
    assert follow(networks, data, tmp_path / "out", "--env", POINT) == 0
    assert "--env_args.size 16" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("collect", [[1], "text", {"env_args": "text"}, {"env_args": [[]]}, None])
def test_nonsense_where_arguments_should_be_is_no_matter(networks: Path, tmp_path: Path, collect: Any) -> None:
    data = write_episodes(tmp_path / "data", POINT, collect=collect)
    assert follow(networks, data, tmp_path / "out", "--env", POINT, f"--env_args.size={SIZE}") == 0
