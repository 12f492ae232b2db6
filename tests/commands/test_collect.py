"""`wovr collect`: the same bytes whoever computes them, after a kill too; bad input ends in one line."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.envs.test_rollout import make_policy, save_policy
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.runs import file_sha256

ROOT = Path(__file__).resolve().parents[2]
POINT = "tests.envs.point_env:PointEnv"


def arguments(out: Path, *extra: str, policy: str = "expert", episodes: int = 14, seed: int = 3) -> list[str]:
    return [
        *("collect", "--policy", policy, "--env", POINT, "--suite", "spatial", "--out", str(out), "--seed", str(seed)),
        *("--episodes", str(episodes), "--num_envs", "3", "--shard_episodes", "6", "--workers", "1", *extra),
    ]


def process(args: list[str], **kwargs) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Whoever runs the tests in the background of a shell has Ctrl-C ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([sys.executable, "-m", "wovr", *args], env=environment, **pipes, **kwargs)
    finally:
        signal.signal(signal.SIGINT, before)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.tar"))}


def test_stores_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demos"
    assert main(arguments(out, "--tasks", "go_blue,0", "--init_states", "5:9", "--env_args.size", "72")) == 0
    printed = capsys.readouterr()
    assert "note: 6 of 14 episodes start where another one does" in printed.out
    assert printed.err == ""  # no progress bar where there is no terminal
    assert "14 episodes" in printed.out
    assert "SR 1.000" in printed.out
    store = EpisodeStore(out)
    assert len(store) == 14
    assert sorted(path.name for path in out.glob("*.tar")) == [f"spatial-{i:06d}.tar" for i in range(3)]
    for index in range(14):
        episode = store.read(index)
        assert episode.key == f"spatial-{index:06d}"
        assert episode.meta.task == (2, 0)[index % 2]
        assert episode.meta.instruction == ("move the blue dot", "move the red dot")[index % 2]
        assert episode.meta.init_state in range(5, 9)
        assert (episode.meta.policy, episode.meta.source, episode.meta.seed, episode.meta.fps) == (
            "expert",
            POINT,
            3,
            5.0,
        )
        assert episode.frames.shape[1:] == (72, 72, 3)
        assert episode.success.sum() >= 1
        assert episode.success.argmax() + 9 == len(episode.success) or len(episode.success) == 25  # 8 more, or horizon
        assert episode.sim_state is not None
        # The stored states tell where the dot was: it moved by 0.1 x action.
        moved = episode.sim_state[1:, :2] - episode.sim_state[:-1, :2]
        assert moved == pytest.approx(0.1 * episode.actions, abs=1e-6)
        assert episode.proprio is not None
        assert (episode.proprio[:, :2] == episode.sim_state[:, :2].astype(np.float32)).all()
    assert store.proprio_dim == 3


def test_the_tabletop_tells_where_its_hand_is(tmp_path: Path) -> None:
    out = tmp_path / "table"
    args = ["collect", "--policy", "random", "--env", "tabletop", "--suite", "spatial", "--tasks", "0,5", "--seed", "0"]
    options = ["--episodes", "2", "--num_envs", "2", "--workers", "1", "--env_args.size", "16"]
    assert main([*args, *options, "--out", str(out)]) == 0
    store = EpisodeStore(out)
    assert store.proprio_dim == 8
    assert store.signal_dims == {"proprio": 8, "camera": 21}
    assert main(["data", "verify", str(out)]) == 0
    camera = store.camera(0)
    assert camera is not None
    assert camera.shape == (1, 3, 7)  # it stands still
    assert camera[0, :2, 2] == pytest.approx([8.0, 8.0])  # and looks through the middle of 16 x 16 pixels
    assert np.array_equal(store.signals(0)["camera"][3], camera.ravel())
    for index, entry in enumerate(store.entries):
        proprio, states = store.proprio(index), store.sim_state(index)
        assert proprio is not None
        assert states is not None
        assert (proprio.shape, proprio.dtype) == ((entry.num_frames, 8), np.float32)
        assert (proprio[:, :5] == states[:, 2:7].astype(np.float32)).all()  # steps, time, then the joints' positions
        # The hand pursues what an action moves by 2.5 cm, and which stays within 4 cm of it.
        ahead = np.abs(proprio[1:, 5:] - proprio[:-1, :3])
        assert (ahead <= 0.04 + 1e-6).all()
        assert ahead.max() > 0.01


@pytest.mark.parametrize("policy", ["expert", "random", "checkpoint"])
def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path: Path, policy: str) -> None:
    if policy == "checkpoint":
        policy = str(save_policy(tmp_path / "tiny.ckpt", make_policy()))
    for out, extra in (("one", ()), ("again", ("--workers", "3"))):
        assert main(arguments(tmp_path / out, *extra, policy=policy)) == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "again")
    for name in ("dataset.json", "DONE", "collect.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert main(arguments(tmp_path / "other", policy=policy, seed=4)) == 0
    assert not set(hashes(tmp_path / "one").values()) & set(hashes(tmp_path / "other").values())


def test_killed_and_given_again_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    slow = ("--env_args.delay", "0.01", "--workers", "2")
    assert main(arguments(tmp_path / "whole", *slow, "--workers", "1")) == 0
    out = tmp_path / "killed"
    child = process(arguments(out, *slow))
    while not list(out.glob("*.tar")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    first = hashes(out)
    assert 0 < len(first) < 3
    assert not (out / "DONE").exists()
    assert not (out / "dataset.json").exists()
    (out / ".spatial-000002.tar.99999.tmp").write_bytes(b"half a shard")  # had it been killed while writing
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert main(arguments(out, *slow)) == 0
    assert hashes(out) == hashes(tmp_path / "whole")
    assert all((out / name).stat().st_mtime_ns == time_ for name, time_ in before.items())  # whole shards are kept
    assert (out / "dataset.json").read_bytes() == (tmp_path / "whole" / "dataset.json").read_bytes()
    assert len({entry.key for entry in EpisodeStore(out).entries}) == 14
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_again_when_done_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path)) == 0
    before = hashes(tmp_path)
    assert main(arguments(tmp_path, "--workers", "2")) == 0
    assert "is complete: 14 episodes" in capsys.readouterr().out
    (tmp_path / "spatial-000001.tar").unlink()  # a lost shard is made again
    assert main(arguments(tmp_path)) == 0
    assert "6 episodes now" in capsys.readouterr().out
    assert hashes(tmp_path) == before


def test_a_folder_of_other_inputs_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path / "a")) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert main(arguments(tmp_path / "a", "--init_states", "0:5", seed=9)) == 2
    error = capsys.readouterr().err
    assert "a: holds a finished result of other inputs" in error
    assert "init_states was ':-10' and is '0:5', seed was 3 and is 9" in error
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine-000000.tar").write_bytes(b"mine")
    assert main(arguments(tmp_path / "b")) == 2
    assert "b: not empty, and not begun by this command" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine-000000.tar"]


def test_one_collector_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(arguments(tmp_path)) == 2
        assert "another `wovr` command, or one that it started, is filling this folder" in capsys.readouterr().err
    assert main(arguments(tmp_path)) == 0  # the file alone, left by a killed one, keeps nobody out


def test_expert_and_random_never_import_torch(tmp_path: Path) -> None:
    code = (
        "import os, sys; from wovr.cli import main; assert main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules;"
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"  # in time for a torch that a checkpoint would import
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["PYTHONPATH"] = str(ROOT)
    for policy in ("expert", "random"):
        args = arguments(tmp_path / policy, "--env_args.forbid", "torch", policy=policy, episodes=3)
        subprocess.run([sys.executable, "-c", code, *args], env=environment, check=True, capture_output=True)


def test_full_disk(tmp_path: Path) -> None:
    command = arguments(tmp_path, "--num_envs", "1", "--shard_episodes", "20", episodes=26)
    assert main(command) == 0
    whole = hashes(tmp_path)
    for name in ("spatial-000000.tar", "DONE"):
        (tmp_path / name).unlink()
    # No file may grow past 128 KB: the shared memory of one simulator fits, a shard of 20 episodes does not.
    limit = 2**17
    child = process(command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, error = child.communicate(timeout=60)
    assert child.returncode == 2, (output, error)
    assert error.count("\n") == 1
    assert error.startswith(f"wovr: error: {tmp_path}/spatial-000000.tar: cannot be written: File too large")
    assert hashes(tmp_path) == {"spatial-000001.tar": whole["spatial-000001.tar"]}
    assert not list(tmp_path.glob(".spatial*.tmp"))
    assert main(command) == 0
    assert hashes(tmp_path) == whole


def test_damaged_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path)) == 0
    (tmp_path / "DONE").unlink()
    shard = tmp_path / "spatial-000001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert main(arguments(tmp_path)) == 2
    assert "spatial-000001.tar" in capsys.readouterr().err


def nan_policy(folder: Path) -> Path:
    policy = make_policy()
    torch.nn.init.constant_(policy.head.weight, float(np.nan))
    return save_policy(folder / "nan.ckpt", policy)


BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "environment": (lambda _: ["--env", "nowhere"], "unknown environment 'nowhere'; choose from: tabletop"),
    "module": (lambda _: ["--env", "no.such:Env"], "environment 'no.such:Env' cannot be imported"),
    "suite": (lambda _: ["--suite", "kitchen"], "has no suite 'kitchen'; choose from: spatial, object, unguided"),
    "task": (lambda _: ["--tasks", "0,9"], "suite 'spatial' has no task '9'; choose from: 0 go_red"),
    "task twice": (lambda _: ["--tasks", "0,go_red"], "names a task twice"),
    "init state": (lambda _: ["--init_states", "15:50"], "'15:50' reaches beyond the task"),
    "episodes": (lambda _: ["--episodes", "0"], "--episodes is 0; give 1 or more"),
    "workers": (lambda _: ["--workers", "-1"], "--workers is -1; give 0"),
    "num_envs": (lambda _: ["--num_envs", "0"], "--num_envs is 0; give 1 or more"),
    "arguments": (lambda _: ["--env_args.colour", "red"], "unexpected keyword argument 'colour'"),
    "no expert": (lambda _: ["--suite", "unguided"], "this task has no scripted expert"),
    "no checkpoint": (lambda _: ["--policy", "best.ckpt"], "best.ckpt: no such file"),
    "crash": (lambda _: ["--env_args.crash_at", "4"], "was killed by SIGKILL; run the same command again"),
    "exception": (lambda _: ["--env_args.raise_at", "4"], "ValueError: the motor is on fire"),
    "action size": (
        lambda folder: ["--policy", str(save_policy(folder / "p.ckpt", make_policy(3)))],
        "p.ckpt: the policy's actions have 3 dimensions, the environment takes 2",
    ),
    "not a number": (
        lambda folder: ["--policy", str(nan_policy(folder))],
        "has numbers that are not finite in 1 weights",
    ),
    "image size": (
        lambda folder: ["--env_args.size", "20", "--policy", str(save_policy(folder / "p.ckpt", make_policy()))],
        "images are 20 x 20",
    ),
    "read-only": (lambda _: ["--out", "/proc/wovr"], "/proc/wovr"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = BAD[name]
    assert main(arguments(tmp_path / "out", *make(tmp_path))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("wovr: error: ")
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_killed_parent_takes_its_workers_along(tmp_path: Path) -> None:
    child = process(arguments(tmp_path / "out", "--env_args.delay", "0.05", "--workers", "2"))
    while not (tmp_path / "out" / "collect.json").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(workers) >= 2
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["starting", "acting"])
def test_ctrl_c_is_one_line_too(tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out"
    child = process(arguments(out, "--env_args.delay", "0.05", "--workers", "3"), start_new_session=True)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    while not ((out / "collect.json").exists() if stage == "acting" else children.read_text()):
        assert child.poll() is None, child.communicate()
        time.sleep(0.001)
    time.sleep(0.3 if stage == "acting" else 0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, error = child.communicate(timeout=30)
    assert child.returncode == 130
    assert error == "wovr: interrupted; the same command again picks up where it stopped\n"


def test_help_describes_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["collect", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    described = text.split("\n  --")[1:]
    assert len(described) >= 15
    for flag in described:
        assert len(flag.split("(", 1)[0].split()) > 4, flag


def test_inputs_are_kept_with_the_data(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, "--temperature", "0.5")) == 0
    kept = json.loads((tmp_path / "dataset.json").read_text())["extra"]["collect"]
    assert kept == json.loads((tmp_path / "collect.json").read_text())
    assert kept["temperature"] == 0.5
    assert "workers" not in kept
