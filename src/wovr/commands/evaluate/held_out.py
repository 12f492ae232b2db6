"""Held-out episodes as batches of rollouts to be: frames, actions and true positions, longest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.reader import EpisodeStore
from wovr.envs.futures import Future, simulate_futures
from wovr.envs.scenes import scene_positions
from wovr.errors import UserError
from wovr.functional.matching import place_in_slots
from wovr.metrics.rollouts import ImaginedBatch
from wovr.tasks.probes.state_probe import slots_of
from wovr.types import StartState


@dataclass
class HeldOutBatch:
    """Episodes to replay.

    Attributes:
        episodes: Their indices in the store.
        rollouts: Their frames and actions; `imagined` is the real frames until somebody imagines others.
        other_actions: (B, T - 1, A) float32, the actions of each one's partner, an episode of the same data; None where
            there is no other.
        other_lengths: (B,) int64, frames that those produce, the first one included.
        signals: What else all episodes hold, at the first frames, by name: (B, P) float32 each.
    """

    episodes: list[int]
    rollouts: ImaginedBatch
    other_actions: Tensor | None
    other_lengths: Tensor
    signals: dict[str, Tensor]


class HeldOutEpisodes:
    """The episodes of a store that an evaluation replays, cut to the largest horizon.

    Args:
        store: The episodes.
        horizons: Horizons; each needs an episode as long, and episodes shorter than all of them are left out.
        count: Use this many, spread evenly over the store; 0 for all.

    Raises:
        UserError: A horizon that no episode reaches.
    """

    def __init__(self, store: EpisodeStore, horizons: Sequence[int], count: int = 0) -> None:
        self.store = store
        self.num_frames = max(horizons)
        lengths = np.array([entry.num_frames for entry in store.entries])
        enough = np.flatnonzero(lengths >= min(horizons))
        if count and count < len(enough):
            enough = enough[np.linspace(0, len(enough) - 1, count).round().astype(int)]
        self.episodes: list[int] = enough.tolist()
        self.left_out = int((lengths < min(horizons)).sum())
        chosen = lengths[enough]
        for horizon in sorted(horizons):
            if not (chosen >= horizon).any():
                longest = int((chosen if len(chosen) else lengths).max())
                folders = ", ".join(map(str, store.folders))
                raise UserError(
                    f"{folders}: horizon {horizon} is longer than every episode used, the longest has {longest} frames",
                    f"give --horizons up to {longest}, or longer episodes",
                )
        self.at_horizon = {horizon: int((chosen >= horizon).sum()) for horizon in sorted(horizons)}

    def partner(self, episode: int) -> int | None:
        """The episode whose actions are swapped in for this one's: the next one; None when there is no other."""
        place = self.episodes.index(episode)
        return self.episodes[(place + 1) % len(self.episodes)] if len(self.episodes) > 1 else None

    def batches(self, size: int, looks: Sequence[str] | None, device: torch.device) -> Iterator[HeldOutBatch]:
        """All episodes, those of like length together.

        Args:
            size: Rollouts a batch.
            looks: Points of a state probe, when the true positions are wanted.
            device: Where the tensors go.

        Raises:
            UserError: Damaged episodes, or ones without states where positions are wanted.
        """
        order = sorted(self.episodes, key=lambda episode: (-self.store.entries[episode].num_frames, episode))
        for first in range(0, len(order), size):
            yield self._batch(order[first : first + size], looks, device)

    def futures(
        self, batch: HeldOutBatch, env: str, env_args: Mapping[str, Any], workers: int
    ) -> tuple[Tensor, Tensor]:
        """What the simulator shows of the batch's starts under the partners' actions.

        Args:
            batch: Of `batches`, with other actions.
            env: Environment to replay in, as the user named it; what the episodes say of theirs is never followed.
            env_args: Arguments of its class, the user's too.
            workers: Simulator processes.

        Returns:
            (B, T, H, W, 3) uint8 frames, the last ones repeated, and (B,) int64 valid frames of each.

        Raises:
            UserError: The episodes hold no states, or their simulator cannot be made.
        """
        assert batch.other_actions is not None
        wanted = []
        for row, episode in enumerate(batch.episodes):
            read = self.store.read(episode)
            if read.sim_state is None:
                raise UserError(f"{self.store.entries[episode].shard}: episode {read.key}: holds no sim_state")
            actions = batch.other_actions[row, : int(batch.other_lengths[row]) - 1].cpu().numpy()
            start = StartState(read.meta.suite, read.meta.task, sim_state=read.sim_state[0], horizon=len(actions))
            wanted.append(Future(start, actions))
        found = simulate_futures(env, env_args, wanted, workers)
        length, size = batch.rollouts.real.shape[1], tuple(batch.rollouts.real.shape[2:4])
        if found[0].shape[1:3] != size:
            raise UserError(
                f"--env {env} shows pictures of {found[0].shape[1]} x {found[0].shape[2]}, the episodes have "
                f"{size[0]} x {size[1]}",
                f"give the arguments they were collected with, e.g. --env_args.size {size[0]}",
            )
        frames = np.stack([_fill(frames, length) for frames in found])
        device = batch.rollouts.real.device
        return torch.from_numpy(frames).to(device), torch.tensor([len(one) for one in found], device=device)

    def _batch(self, episodes: list[int], looks: Sequence[str] | None, device: torch.device) -> HeldOutBatch:
        lengths = [min(self.store.entries[episode].num_frames, self.num_frames) for episode in episodes]
        longest = max(lengths)
        frames = np.stack(
            [
                _fill(self.store.frames(episode, 0, length), longest)
                for episode, length in zip(episodes, lengths, strict=True)
            ]
        )
        actions = np.stack([self._actions(episode, longest - 1) for episode in episodes])
        real = torch.from_numpy(frames).to(device)
        rollouts = ImaginedBatch(
            imagined=real,
            real=real,
            actions=torch.from_numpy(actions).to(device),
            lengths=torch.tensor(lengths, device=device),
            instructions=[self.store.entries[episode].meta.instruction for episode in episodes],
        )
        if looks is not None:
            self._add_positions(rollouts, episodes, looks)
        partners = [self.partner(episode) for episode in episodes]
        others = [index for index in partners if index is not None]
        other_actions = np.stack([self._actions(index, longest - 1) for index in others]) if others else None
        return HeldOutBatch(
            episodes,
            rollouts,
            None if other_actions is None else torch.from_numpy(other_actions).to(device),
            torch.tensor([min(self.store.entries[index].num_frames, longest) for index in others], device=device),
            {name: torch.from_numpy(v).to(device) for name, v in self.store.first_signals(episodes).items()},
        )

    def _actions(self, episode: int, count: int) -> np.ndarray:
        """(count, A) float32, the first actions of an episode; zeros after its end."""
        actions = self.store.actions(episode)[:count]
        return np.concatenate([actions, np.zeros((count - len(actions), actions.shape[1]), np.float32)])

    def _add_positions(self, batch: ImaginedBatch, episodes: list[int], looks: Sequence[str]) -> None:
        shape = (*batch.real.shape[:2], len(looks))
        device = batch.real.device
        batch.positions = torch.full((*shape, 3), torch.nan, device=device)
        batch.movable = torch.zeros((shape[0], shape[2]), dtype=torch.bool, device=device)
        batch.held = torch.zeros(shape, dtype=torch.bool, device=device)
        for row, episode in enumerate(episodes):
            entry = self.store.entries[episode]
            where = f"{entry.shard}: episode {entry.key}"
            scene = scene_positions(entry.meta, self.store.read(episode).sim_state, where)
            slots = slots_of(looks, scene.looks, where)
            stop = int(batch.lengths[row])
            positions = place_in_slots(torch.from_numpy(scene.positions[:stop]), slots, len(looks))
            batch.positions[row, :stop] = positions.to(device)
            batch.movable[row, slots] = torch.from_numpy(scene.movable).to(device)
            batch.held[row, :stop, slots] = torch.from_numpy(scene.held[:stop]).to(device)


def _fill(frames: np.ndarray, length: int) -> np.ndarray:
    """Frames with the last one repeated up to a length, or cut to it."""
    frames = frames[:length]
    return np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
