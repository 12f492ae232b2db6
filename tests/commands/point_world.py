"""Episodes of the point environment on disk, networks to measure them with, and models of it that are known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.envs.point_env import PointEnv
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.models.checkpoint import KEY, Network, record
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.types import Episode, EpisodeMeta, StartState

POINT = "tests.envs.point_env:PointEnv"
SIZE = 16
LENGTHS = (12, 12, 9, 5)


def make_episode(number: int, length: int) -> Episode:
    """An episode of random actions."""
    env, rng = PointEnv(SIZE), np.random.default_rng(number)
    frames = [env.start(StartState("spatial", number % 3, number))["image"]]
    states = [env.sim_state().copy()]
    actions = rng.uniform(-1, 1, (length - 1, 2)).astype(np.float32)
    for action in actions:
        frames.append(env.step(action)[0]["image"])
        states.append(env.sim_state().copy())
    meta = EpisodeMeta("move", "spatial", number % 3, 0, 5.0, "random", POINT)
    return Episode(
        f"spatial-{number:06d}", np.stack(frames), actions, np.zeros(length, bool), meta, sim_state=np.stack(states)
    )


def write_point_dataset(folder: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """A data set of one shard."""
    episodes = [make_episode(number, length) for number, length in enumerate(lengths)]
    write_shard(shard_path(folder, "spatial", 0), episodes)
    finish_dataset(folder)
    return folder


def write_checkpoint(path: Path, network: Network) -> Path:
    """A checkpoint that holds one network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: record({"network": network}, {"fingerprint": "none"})}, path)
    return path


def write_idm(path: Path) -> Path:
    """A checkpoint of an untrained inverse-dynamics network."""
    torch.manual_seed(0)
    return write_checkpoint(path, InverseDynamics(2, window=3, keypoints=4, channels=[8, 8], width=8, size=SIZE))


class PerfectModel:
    """Knows the environment: executes the actions from the state behind the reference frame.

    Args:
        store: Episodes whose first frames it may be shown.
        deaf: Execute the episode's own actions whatever it is told.
    """

    def __init__(self, store: EpisodeStore, deaf: bool = False) -> None:
        self.store = store
        self.deaf = deaf
        self.seeds: dict[int, int] = {}
        self.batches: list[int] = []

    def __call__(
        self, reference: Tensor, signals: Mapping[str, Tensor], actions: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        self.batches.append(len(reference))
        return torch.stack([self._one(*row) for row in zip(reference, actions, seeds, strict=True)])

    def _one(self, reference: Tensor, actions: Tensor, seed: int) -> Tensor:
        [episode] = [i for i in range(len(self.store)) if np.array_equal(self.store.frames(i, 0, 1)[0], reference)]
        self.seeds.setdefault(episode, seed)
        assert self.seeds[episode] == seed
        read = self.store.read(episode)
        if self.deaf or np.array_equal(actions[: len(read.actions)], read.actions[: len(actions)]):
            # As stored, compression included.
            frames = read.frames[1 : len(actions) + 1]
            return torch.from_numpy(np.concatenate([frames, np.repeat(frames[-1:], len(actions) - len(frames), 0)]))
        assert read.sim_state is not None
        env = PointEnv(SIZE)
        env.start(StartState("spatial", read.meta.task, sim_state=read.sim_state[0]))
        return torch.from_numpy(np.stack([env.step(action.numpy())[0]["image"] for action in actions]))


def copy_model(reference: Tensor, signals: Mapping[str, Tensor], actions: Tensor, seeds: Sequence[int]) -> Tensor:
    """Nothing ever happens."""
    return reference[:, None].expand(-1, actions.shape[1], -1, -1, -1)
