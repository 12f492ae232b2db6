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
from wovr.commands.collect import INPUTS_FILE, summary
from wovr.data.store.dataset import check_trained_range, check_trained_repeat, read_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import complete_shards, finish_dataset, shard_path, write_shard
from wovr.data.training.replay import unique_keys
from wovr.errors import UserError, check_least
from wovr.functional.windows import window_index
from wovr.models.checkpoint import check_image_size, data_record, fingerprint_of
from wovr.models.world_model.loading import load_world_model
from wovr.models.world_model.rollout import Imagination
from wovr.processes import launched_processes, wait_for
from wovr.runs import RunFolder
from wovr.types import SCHEMA_VERSION, Episode

NAME = "imagined"


def imagine_episodes(
    folders: Sequence[Path],
    out: Path,
    world_model: Path,
    *,
    episodes: int,
    restart: int,
    sigmas: Sequence[float] | None,
    precision: str,
    compile: bool,
    device: str,
    batch_size: int,
    seed: int,
    progress: Callable[[int], None],
) -> str | None:
    """Imagine what follows the first frame of each episode under its actions, and store it.

    With `restart` no frame is imagined from farther back than that, so each resembles the real one whose success it
    has; without, they show what becomes of long rollouts. Frames are imagined, everything else is the real episode's:
    actions, success, instruction, key. Shards that are there already are kept, so that an interrupted call goes on.

    Args:
        folders: Folders of real episodes.
        out: Where the shards go.
        world_model: Checkpoint.
        episodes: How many, evenly spread over those there are; 0 for all.
        restart: See `imagine_frames`.
        sigmas: Noise levels of the sampler; None for the world model's own.
        precision: `fp32` or `bf16`.
        compile: Let torch.compile make faster code.
        device: `auto`, `cpu` or `cuda`.
        batch_size: Rollouts side by side, which is also the number of episodes of a shard.
        seed: Of the noise.
        progress: Told the episodes of every finished shard.

    Returns:
        What is there now, in a few words; None where another process of the command says so.

    Raises:
        UserError: A world model for other actions, or a folder that holds something else.
    """
    check_least("--batch_size", batch_size)
    for name, value in (("episodes", episodes), ("restart", restart)):
        check_least(f"--{name}", value, 0)
    store = EpisodeStore(*folders)
    count = min(len(store), episodes or len(store))
    chosen = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    model = load_world_model(world_model)
    if model.action_dim != store.action_dim:
        raise UserError(
            f"{world_model}: its actions have {model.action_dim} numbers, those of the episodes {store.action_dim}",
            "use a world model of the same robot",
        )
    check_image_size(world_model, store.image_size, f"those of {folders[0]} have")
    check_trained_range(world_model, data_record(world_model), folders[0], store.action_range)
    check_trained_repeat(world_model, data_record(world_model), folders[0], store.action_repeat)
    place = choose_device(device)
    fingerprint = fingerprint_of(model)
    inputs = {
        "episodes": [read_dataset(folder)["shards"] for folder in folders], "world_model": fingerprint, "seed": seed,
        "sigmas": None if sigmas is None else list(sigmas), "precision": precision, "batch_size": batch_size,
        "count": count, "restart": restart,
        "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    run = RunFolder(out, inputs, begun=INPUTS_FILE)
    run.refuse_others()
    run.start()
    processes = launched_processes()
    imagination = Imagination(model.to(place), sigmas, precision, compile)
    there = complete_shards(out, NAME)
    keys = unique_keys([entry.key for entry in store.entries])
    for index, first in enumerate(range(0, count, batch_size)):
        members = chosen[first : first + batch_size]
        if index not in there and processes.takes(index):
            truth = [replace(store.read(member), key=keys[member]) for member in members]
            imagined = imagine_frames(imagination, truth, [seed + member for member in members], restart)
            source = f"imagined by {fingerprint}"
            write_shard(
                shard_path(out, NAME, index),
                [
                    replace(
                        episode, frames=frames, sim_state=None, proprio=None, meta=replace(episode.meta, source=source)
                    )
                    for episode, frames in zip(truth, imagined, strict=True)
                ],
            )
        progress(len(members))
    if not processes.is_first:
        return None
    wait_for(shard_path(out, NAME, index) for index in range(-(-count // batch_size)))
    convert = next((found for one in store.datasets if (found := one.get("extra", {}).get("convert"))), None)
    dataset = finish_dataset(out, imagine=inputs, **({} if convert is None else {"convert": convert}))
    run.finish(episodes=dataset["episodes"])
    return summary(dataset)


def imagine_frames(
    imagination: Imagination, episodes: Sequence[Episode], seeds: Sequence[int], restart: int = 0
) -> list[np.ndarray]:
    """The frames that a world model shows from each episode's first frame on, under its actions.

    Rollouts leave the batch at the end of their actions; a last chunk is filled up with zeros, whose frames are thrown
    away.

    Args:
        imagination: Of the world model.
        episodes: N real episodes.
        seeds: Of the noise, one an episode.
        restart: Imagination begins anew, from real frames, after every so many; 0 for never.

    Returns:
        N times (T, H, W, 3) uint8, the first frame being the real one.
    """
    model = imagination.model
    chunk = model.chunk
    pieces = [
        (row, first)
        for row, episode in enumerate(episodes)
        for first in range(0, len(episode.actions), restart or max(1, len(episode.actions)))
    ]
    given = [
        episodes[row].actions[first : first + restart] if restart else episodes[row].actions for row, first in pieces
    ]
    found: list[list[np.ndarray]] = [[] for _ in pieces]
    _start(
        imagination, [episodes[row] for row, _ in pieces], [first for _, first in pieces], [seeds[r] for r, _ in pieces]
    )
    rows, done = list(range(len(pieces))), 0
    while rows:
        actions = np.zeros((len(rows), chunk, model.action_dim), np.float32)
        for place, row in enumerate(rows):
            now = given[row][done : done + chunk]
            actions[place, : len(now)] = now
        frames = imagination.step(actions).cpu().numpy()
        for place, row in enumerate(rows):
            found[row].append(frames[place, : len(given[row]) - done])
        done += chunk
        going_on = np.array([len(given[row]) > done for row in rows])
        rows = [row for row, stays in zip(rows, going_on, strict=True) if stays]
        if rows:
            imagination.keep(going_on)
    frames_of = [[episode.frames[:1]] for episode in episodes]
    for (row, _), parts in zip(pieces, found, strict=True):
        frames_of[row] += parts
    return [np.concatenate(parts) for parts in frames_of]


def _start(imagination: Imagination, episodes: Sequence[Episode], first: Sequence[int], seeds: Sequence[int]) -> None:
    """Begin R rollouts, each at frame `first` of its episode."""
    model = imagination.model
    neutral = model.neutral.cpu().numpy()[None]  # the last row, which NO_ACTION finds
    index = window_index(np.array(first), model.memory, 0)
    memories = [episode.frames[of[1:]] for episode, of in zip(episodes, index.frames, strict=True)]
    actions = [np.concatenate([e.actions, neutral])[of] for e, of in zip(episodes, index.actions, strict=True)]
    known = [{name: v[start] for name, v in e.signals.items()} for e, start in zip(episodes, first, strict=True)]
    # What they do not all hold alike is left out, and the world model says what it needs.
    alike = [name for name in known[0] if len({np.shape(of[name]) if name in of else None for of in known}) == 1]
    imagination.start(
        np.stack([episode.frames[0] for episode in episodes]),
        np.stack(memories),
        np.stack(actions),
        age=np.array(first, np.float32),
        signals={name: np.stack([of[name] for of in known]) for name in alike},
        seeds=seeds,
    )
