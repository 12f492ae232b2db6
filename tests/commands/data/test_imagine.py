"""`wovr data imagine`, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.data.synthetic import make_episode
from tests.models.world_model.tiny_world import following_world, tiny_world
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, write_shard
from wovr.models.world_model.rollout import Imagination

LENGTHS = (12, 30, 17, 9, 2)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    episodes = [
        make_episode(seed, num_frames=length, size=(16, 16), action_dim=3) for seed, length in enumerate(LENGTHS)
    ]
    write_shard(tmp_path / "real" / "real-000000.tar", episodes, lossless=True)
    finish_dataset(tmp_path / "real")
    return tmp_path / "real"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "world.ckpt", tiny_world())


def words(real: Path, world: Path, out: Path) -> list[str]:
    return [
        "data", "imagine", str(real), "--world_model", str(world), "--out", str(out), "--batch_size", "3",
        "--precision", "fp32", "--sigmas", "1,0.5",
    ]  # fmt: skip


def test_frames_are_imagined_and_all_else_is_real(real: Path, world: Path, tmp_path: Path) -> None:
    assert main(words(real, world, tmp_path / "out")) == 0
    stored, imagined = EpisodeStore(real), EpisodeStore(tmp_path / "out")
    assert len(imagined) == len(LENGTHS)
    by_key = {imagined.entries[i].key: imagined.read(i) for i in range(len(imagined))}
    for index in range(len(stored)):
        truth = stored.read(index)
        episode = by_key[truth.key]
        assert np.array_equal(episode.actions, truth.actions)
        assert np.array_equal(episode.success, truth.success)
        assert episode.meta.instruction == truth.meta.instruction
        assert episode.meta.source.startswith("imagined by ")
        assert episode.sim_state is None
        assert len(episode.frames) == len(truth.frames)
        # The same, imagined alone, chunk after chunk (video encoding moves colours a little).
        imagination = Imagination(tiny_world(), [1.0, 0.5])
        imagination.start(truth.frames[:1], seeds=[index])
        frames = [truth.frames[:1]]
        for first in range(0, len(truth.actions), 8):
            actions = np.zeros((1, 8, 3), np.float32)
            given = truth.actions[first : first + 8]
            actions[0, : len(given)] = given
            frames.append(imagination.step(actions)[0, : len(given)].numpy())
        expected = np.concatenate(frames).astype(float)
        assert np.abs(episode.frames - expected).mean() < 12


def test_it_begins_anew_from_real_frames_where_it_is_told(real: Path, world: Path, tmp_path: Path) -> None:
    assert main([*words(real, world, tmp_path / "out"), "--restart", "16", "--episodes", "3"]) == 0
    stored, imagined = EpisodeStore(real), EpisodeStore(tmp_path / "out")
    keys = [stored.entries[index].key for index in (0, 2, 4)]
    assert sorted(entry.key for entry in imagined.entries) == sorted(keys)
    assert main([*words(real, world, tmp_path / "long"), "--restart", "8"]) == 0
    truth, long = stored.read(1), EpisodeStore(tmp_path / "long")
    [episode] = [long.read(i) for i in range(len(long)) if long.entries[i].key == truth.key]
    frames = [truth.frames[:1]]
    for first in range(0, len(truth.actions), 8):
        imagination = Imagination(tiny_world(), [1.0, 0.5])
        if first == 0:
            imagination.start(truth.frames[:1], seeds=[1])
        else:
            memory, made = truth.frames[None, first - 3 : first + 1], truth.actions[None, first - 4 : first]
            imagination.start(truth.frames[:1], memory, made, seeds=[1])
        given = truth.actions[first : first + 8]
        actions = np.concatenate([given, np.zeros((8 - len(given), 3), np.float32)])[None]
        frames.append(imagination.step(actions)[0, : len(given)].numpy())
    assert len(episode.frames) == len(truth.frames) == 30
    # As near as the video lets it be, and farther from what goes on without the real frames.
    whole = EpisodeStore(tmp_path / "whole") if main(words(real, world, tmp_path / "whole")) == 0 else None
    assert whole is not None
    [other] = [whole.read(i) for i in range(len(whole)) if whole.entries[i].key == truth.key]
    error = np.abs(episode.frames - np.concatenate(frames).astype(float))[9:].mean()
    assert error < 12
    assert error < np.abs(other.frames - np.concatenate(frames).astype(float))[9:].mean()


def test_only_a_model_that_needs_proprioception_asks_for_it(
    real: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where some episodes hold it, and others do not."""
    spoken = [
        make_episode(9 + n, num_frames=10, size=(16, 16), action_dim=3, proprio=np.full((10, 5), n, np.float32))
        for n in range(2)
    ]
    following = write_checkpoint(tmp_path / "following.ckpt", following_world())
    write_shard(tmp_path / "told" / "told-000000.tar", spoken, lossless=True)
    finish_dataset(tmp_path / "told")
    assert main(words(tmp_path / "told", following, tmp_path / "imagined")) == 0
    imagination = Imagination(following_world(), [1.0, 0.5])
    imagination.start(spoken[1].frames[:1], signals={"proprio": spoken[1].signals["proprio"][:1]}, seeds=[1])
    expected = imagination.step(spoken[1].actions[None, :8])[0].numpy()
    store = EpisodeStore(tmp_path / "imagined")
    (index,) = [i for i, entry in enumerate(store.entries) if entry.key == spoken[1].key]
    assert np.abs(store.read(index).frames[1:9] - expected.astype(float)).mean() < 12

    write_shard(real / "told-000000.tar", spoken, lossless=True)
    finish_dataset(real)
    assert main(words(real, world, tmp_path / "mixed")) == 0
    capsys.readouterr()
    assert main(words(real, following, tmp_path / "refused")) == 2
    assert "takes 5 numbers of proprioception, there are none; use episodes that hold it" in capsys.readouterr().err


def test_an_interrupted_call_goes_on(real: Path, world: Path, tmp_path: Path) -> None:
    assert main(words(real, world, tmp_path / "whole")) == 0
    assert main(words(real, world, tmp_path / "cut")) == 0
    (tmp_path / "cut" / "DONE").unlink()
    (tmp_path / "cut" / "dataset.json").unlink()
    (tmp_path / "cut" / "imagined-000001.tar").unlink()
    assert main(words(real, world, tmp_path / "cut")) == 0
    one, other = (json.loads((tmp_path / name / "dataset.json").read_text())["shards"] for name in ("whole", "cut"))
    assert one == other


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--sigmas", "1,x"], "--sigmas is '1,x'; give numbers separated by commas"),
        (["--batch_size", "0"], "--batch_size is 0; give 1 or more"),
        (["--restart", "-8"], "--restart is -8; give 0 or more"),
        (["--seed", "5"], "holds a finished result of other inputs: seed was 0 and is 5"),
    ],
)
def test_bad_input_is_one_line(
    real: Path, world: Path, tmp_path: Path, flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(real, world, tmp_path / "out")) == 0
    assert main([*words(real, world, tmp_path / "out"), *flags]) == 2
    assert line in capsys.readouterr().err


def test_a_world_model_of_another_robot(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    other = write_checkpoint(tmp_path / "other.ckpt", tiny_world(action_dim=5))
    assert main(words(real, other, tmp_path / "out")) == 2
    assert "its actions have 5 numbers, those of the episodes 3" in capsys.readouterr().err


def test_two_folders_may_have_episodes_of_the_same_key(real: Path, world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_shard(other / "other-000000.tar", [make_episode(0, num_frames=7, size=(16, 16), action_dim=3)], lossless=True)
    finish_dataset(other)
    assert {entry.key for entry in EpisodeStore(other).entries} < {entry.key for entry in EpisodeStore(real).entries}
    command = words(real, world, tmp_path / "out")
    assert main([*command[:3], str(other), *command[3:]]) == 0
    imagined = EpisodeStore(tmp_path / "out")
    lengths = {entry.key: entry.num_frames for entry in imagined.entries}
    [twice] = [key for key in lengths if key.endswith("-2")]
    assert (lengths[twice.removesuffix("-2")], lengths[twice]) == (LENGTHS[0], 7)
