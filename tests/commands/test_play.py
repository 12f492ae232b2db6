"""`wovr play` on the command line: what it refuses, in one line, before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.point_world import POINT, write_checkpoint
from tests.envs.test_rollout import save_policy
from tests.models.world_model.tiny_world import tiny_world
from tests.serve.tiny_play import write_parts
from wovr.cli import main
from wovr.commands import play as play_module
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.serve.listening import open_port


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_parts(tmp_path))
    return tmp_path


def play(*flags: str, **given: str) -> int:
    options = {"world_model": "wm.ckpt", "reward": "reward.ckpt", "data": "data", "policy": "", "value": ""}
    options |= {"keyframes": "", "env": "", "port": "0"} | given
    return main(["play", *(word for name, value in options.items() for word in (f"--{name}", value)), *flags])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_what_is_refused_before_anything_is_loaded(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, told in (
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 can be reached by others and there is no --token; give one"),
        ({"token": "short"}, "--token has 5 characters; give 16 or more"),
        ({"port": "70000"}, "--port is 70000; give 0 to 65535"),
        ({"sessions": "0"}, "--sessions is 0; give 1 or more"),
        ({"host": "203.0.113.1", "token": "a" * 16}, "--host 203.0.113.1"),
    ):
        assert play(**given) == 2
        assert told in error(capsys)
    with open_port("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert play(port=port, world_model="missing.ckpt") == 2
        assert f"--port {port}: in use on 127.0.0.1; give another, or 0" in error(capsys)


def test_parts_that_do_not_fit(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("three.ckpt"), tiny_world(action_dim=3))
    write_checkpoint(Path("large.ckpt"), tiny_world(action_dim=2, autoencoder=PatchAutoencoder(32)))
    save_policy(Path("short.ckpt"), TinyVLA(chunk=4, action_dim=2))
    for given, told in (
        ({"world_model": "three.ckpt"}, "three.ckpt: takes actions of 3 dimensions, those of the start states have 2"),
        ({"world_model": "large.ckpt"}, "32"),
        ({"world_model": "policy.ckpt"}, "policy.ckpt: holds policy, not a world_model"),
        ({"world_model": "no.ckpt"}, "no.ckpt: no such file"),
        ({"policy": "short.ckpt"}, "short.ckpt: the policy's chunk is 4 actions, the world model's 8"),
        ({"value": "reward.ckpt"}, "reward.ckpt"),
        ({"data": "nowhere"}, "nowhere"),
        ({"suite": "spatail"}, "no episode of suite 'spatail'; did you mean spatial?"),
        ({"env": "tabeltop"}, "unknown environment 'tabeltop'; did you mean tabletop?"),
    ):
        assert play(**given) == 2
        assert told in error(capsys), given


def test_a_simulator_that_does_not_fit_is_a_note(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wovr.serve.starts import StoredStarts

    starts = StoredStarts(["data"])
    simulator, note = play_module._simulator("tabletop", None, starts)
    assert simulator is None
    assert note == f"no simulator beside: the episodes say they come from '{POINT}', the replay is in --env tabletop"
    simulator, note = play_module._simulator(POINT, {"size": 24}, starts)
    assert simulator is None
    assert "has pictures of 24 x 24 and actions of 2 dimensions, the episodes others" in note
    simulator, note = play_module._simulator(POINT, {"size": 16}, starts)
    assert (simulator is not None, note) == (True, "")
    assert simulator is not None
    simulator.close()


def test_names_of_policies() -> None:
    taken: dict[str, object] = {}
    for path in ("runs/bc/checkpoints/last.ckpt", "x/bc/checkpoints/last.ckpt", "policy.ckpt", "hand.ckpt"):
        taken[play_module._name(path, taken)] = path
    assert list(taken) == ["bc", "bc-2", "policy", "hand-2"]


def test_nothing_is_begun_by_asking_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["play", "--help"])
    text = capsys.readouterr().out
    assert "Interface to bind to; one that others reach needs --token." in " ".join(text.split())
