"""`wovr data imagine`: stored episodes as a world model imagines them, with the success they really had.

The success classifier learns from them what imagined frames of a real failure look like (facts that no augmentation of
real frames shows), and so does not take a world model's kindness for success.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wovr.commands.arguments import choose_device
from wovr.commands.collect import INPUTS_FILE, check_folder, summary
from wovr.data.dataset import read_dataset
from wovr.data.reader import EpisodeStore
from wovr.data.shards import complete_shards, finish_dataset, shard_path, write_shard
from wovr.errors import UserError
from wovr.models.checkpoint import check_image_size, fingerprint_of, load_network
from wovr.models.imagination import Imagination
from wovr.models.world_model import WorldModel
from wovr.runs import RunFolder, write_json
from wovr.types import SCHEMA_VERSION, Episode

NAME = "imagined"


def imagine_episodes(
    folders: Sequence[Path],
    out: Path,
    world_model: Path,
    *,
    sigmas: Sequence[float] | None,
    precision: str,
    compile: bool,
    device: str,
    batch_size: int,
    seed: int,
    progress: Callable[[int], None],
) -> str:
    """Imagine what follows the first frame of each episode under its actions, and store it.

    Frames are imagined, everything else is the real episode's: actions, success, instruction, key. Shards that are
    there already are kept, so that an interrupted call goes on.

    Args:
        folders: Folders of real episodes.
        out: Where the shards go.
        world_model: Checkpoint.
        sigmas: Noise levels of the sampler; None for the world model's own.
        precision: `fp32` or `bf16`.
        compile: Let torch.compile make faster code.
        device: `auto`, `cpu` or `cuda`.
        batch_size: Rollouts side by side, which is also the number of episodes of a shard.
        seed: Of the noise.
        progress: Told the episodes of every finished shard.

    Returns:
        What is there now, in a few words.

    Raises:
        UserError: A world model for other actions, or a folder that holds something else.
    """
    if batch_size < 1:
        raise UserError(f"--batch_size is {batch_size}", "give 1 or more")
    store = EpisodeStore(*folders)
    model = load_network(world_model, WorldModel)
    if model.action_dim != store.action_dim:
        raise UserError(
            f"{world_model}: its actions have {model.action_dim} numbers, those of the episodes {store.action_dim}",
            "use a world model of the same robot",
        )
    check_image_size(world_model, store.image_size, f"those of {folders[0]} have")
    place = choose_device(device)
    fingerprint = fingerprint_of(model)
    inputs = {
        "episodes": [read_dataset(folder)["shards"] for folder in folders], "world_model": fingerprint, "seed": seed,
        "sigmas": None if sigmas is None else list(sigmas), "precision": precision, "batch_size": batch_size,
        "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    run = RunFolder(out, inputs)
    check_folder(run)
    run.start()
    write_json(out / INPUTS_FILE, inputs)
    imagination = Imagination(model.to(place), sigmas, precision, compile)
    there = complete_shards(out, NAME)
    for index, first in enumerate(range(0, len(store), batch_size)):
        members = range(first, min(first + batch_size, len(store)))
        if index not in there:
            episodes = [store.read(member) for member in members]
            source = f"imagined by {fingerprint}"
            write_shard(
                shard_path(out, NAME, index),
                [
                    replace(
                        episode, frames=frames, sim_state=None, proprio=None, meta=replace(episode.meta, source=source)
                    )
                    for episode, frames in zip(
                        episodes, imagine_frames(imagination, episodes, seeds=[seed + m for m in members]), strict=True
                    )
                ],
            )
        progress(len(members))
    dataset = finish_dataset(out, imagine=inputs)
    run.finish(episodes=dataset["episodes"])
    return summary(dataset)


def imagine_frames(imagination: Imagination, episodes: Sequence[Episode], seeds: Sequence[int]) -> list[np.ndarray]:
    """The frames that a world model shows from each episode's first frame on, under its actions.

    Rollouts leave the batch at the end of their actions; a last chunk is filled up with zeros, whose frames are thrown
    away.

    Args:
        imagination: Of the world model.
        episodes: N real episodes.
        seeds: Of the noise, one an episode.

    Returns:
        N times (T, H, W, 3) uint8, the first frame being the real one.
    """
    chunk = imagination.model.chunk
    found = [[episode.frames[:1]] for episode in episodes]
    rows = [row for row, episode in enumerate(episodes) if len(episode.actions)]
    proprio = _first_proprio([episodes[row] for row in rows])
    first = np.stack([episodes[row].frames[0] for row in rows])
    imagination.start(first, proprio=proprio, seeds=[seeds[row] for row in rows])
    done = 0
    while rows:
        actions = np.zeros((len(rows), chunk, imagination.model.action_dim), np.float32)
        for place, row in enumerate(rows):
            given = episodes[row].actions[done : done + chunk]
            actions[place, : len(given)] = given
        frames = imagination.step(actions).cpu().numpy()
        for place, row in enumerate(rows):
            found[row].append(frames[place, : len(episodes[row].actions) - done])
        done += chunk
        going_on = np.array([len(episodes[row].actions) > done for row in rows])
        rows = [row for row, stays in zip(rows, going_on, strict=True) if stays]
        if rows:
            imagination.keep(going_on)
    return [np.concatenate(parts) for parts in found]


def _first_proprio(episodes: Sequence[Episode]) -> np.ndarray:
    """(N, P) float32, P being 0 where they do not all hold the same: the world model then says what it needs."""
    states = [episode.proprio[0] for episode in episodes if episode.proprio is not None]
    alike = len(states) == len(episodes) and len({state.shape for state in states}) == 1
    return np.stack(states) if alike else np.zeros((len(episodes), 0), np.float32)
