"""`wovr evaluate --world_model CKPT`: imagined rollouts against held-out episodes (paper, sections 5.1 and 6.1).

The protocol is the paper's: chunk after chunk, each imagined from the last frames of the one before, under the actions
of held-out episodes; at the start the first frame stands in for the whole memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wovr.commands.arguments import choose_device, numbers, words
from wovr.commands.evaluate.comparison import comparison_table, describe, name_checkpoints
from wovr.commands.evaluate.held_out import HeldOutEpisodes
from wovr.commands.evaluate.measure_rollouts import FPS, Measurement, make_rows, measure_quality
from wovr.commands.evaluate.programs import METRICS, default_out
from wovr.commands.evaluate.quality_report import quality_table
from wovr.commands.evaluate.results import Results
from wovr.commands.places import HELD_OUT, IDM, RL, STATE_PROBE, WORLD_MODEL, Finder
from wovr.commands.terminal import table_console
from wovr.commands.weights.main import fetch_shown
from wovr.data.store.dataset import check_trained_range, check_trained_repeat
from wovr.data.store.reader import EpisodeStore
from wovr.envs.actors.names import policy_name
from wovr.envs.workers.vector import count_workers
from wovr.errors import UserError, check_least, choose_from
from wovr.metrics.catalogue import Instruments
from wovr.metrics.networks.weights import has_weights, weights_folder
from wovr.models.checkpoint import check_image_size, data_record, network_fingerprint
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.state_probe import StateProbe
from wovr.models.world_model.loading import load_world_model
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination


def evaluate_world_model(
    world_model: str = WORLD_MODEL,
    data: str = HELD_OUT,
    out: Path | None = None,
    metrics: str = "psnr,ssim,fps",
    horizons: str = "16,32,64",
    episodes: int = 0,
    idm: str = "",
    probe: str = "",
    policy: str = "",
    env: str = "tabletop",
    env_args: dict[str, Any] | None = None,
    weights: str = "",
    sigmas: str = "",
    batch_size: int = 16,
    precision: str = "fp32",
    seed: int = 0,
    videos: int = 4,
    workers: int = 0,
    device: str = "auto",
) -> None:
    """Measure a world model on held-out episodes, or compare several on the same ones.

    Writes OUT/metrics.json, OUT/plots, OUT/videos and OUT/tensorboard, and prints a table. The same command again
    prints what was measured. Of several world models each has those in OUT/NAME, its run's name, and the table, which
    OUT/metrics.json holds too, has all of them at each horizon, with their parameters, seconds of training and frames
    a second.

    Args:
        world_model: Checkpoint of a world model; several as a comma list, to compare them.
        data: Folder of held-out episodes; several as a comma list.
        out: Folder of the results; runs/evaluate/ and the metrics, as runs/evaluate/fvd-lpips, unless given.
        metrics: Comma list: psnr, ssim, lpips, flolpips, fid, fvd, fps, action_following, state_error, permanence,
            policy_shift; and the stand-ins lpips[idm], flolpips[idm], fid[idm], fvd[idm], which need no weights from
            elsewhere. Weights that are missing are fetched.
        horizons: Comma list of horizons: the first so many frames of an episode, the given one among them.
        episodes: Use this many episodes, spread over the data; 0 for all.
        idm: Checkpoint of an inverse-dynamics network, for action_following and the stand-ins; of runs/idm unless
            given.
        probe: Checkpoint of a state probe, for state_error; of runs/state_probe unless given.
        policy: Checkpoint of a policy, for policy_shift; of runs/rl unless given.
        env: Environment that action_following replays swapped actions in: tabletop, metaworld, libero, gym, or an
            import path like my_robot:FrankaEnv. What the episodes say of theirs is compared with it, never followed.
        env_args: Arguments of that environment, e.g. --env_args.size 128.
        weights: Folder of weights; the environment's WOVR_WEIGHTS unless given, else the user's cache.
        sigmas: Comma list of noise levels of the sampler, falling from 1; empty for the model's own.
        batch_size: Rollouts side by side.
        precision: fp32, or bf16 for matrix products of the world model in bfloat16.
        seed: Seed of the noise.
        videos: Rollouts to show beside the real episode.
        workers: Simulator processes, for what really happens under swapped actions; 0 for one a processor core.
        device: Where to compute: auto, cpu, cuda.
    """
    for flag, value, least in (("episodes", episodes, 0), ("batch_size", batch_size, 1), ("videos", videos, 0)):
        check_least(f"--{flag}", value, least)
    out = default_out({"metrics": metrics}) if out is None else out
    names, mine = words(metrics), METRICS["psnr"].metrics
    for name in names:
        if name not in mine:
            raise UserError(f"unknown metric '{name}'", choose_from(name, mine))
    needs = {need for name in names for need in mine[name]}
    finder = Finder(last=True)
    idm = idm or (finder.find(IDM) if "--idm" in needs else "")
    probe = probe or (finder.find(STATE_PROBE) if "--probe" in needs else "")
    policy = policy or (finder.find(RL) if "--policy" in needs else "")
    frames = numbers("horizons", horizons, int)
    if not frames or min(frames) < 2:
        raise UserError(f"--horizons is '{horizons}'", "give numbers from 2 on, e.g. 16,32,64")
    levels = numbers("sigmas", sigmas, float)
    store = EpisodeStore(*words(data))
    checkpoints = name_checkpoints(words(world_model)) or {"": world_model}
    if len(checkpoints) > 1 and FPS not in names:
        names.append(FPS)
    shared = {
        "data": store.fingerprint,
        "metrics": names,
        "horizons": frames,
        "episodes": episodes,
        "idm": network_fingerprint(Path(idm), InverseDynamics) if idm else None,
        "probe": network_fingerprint(Path(probe), StateProbe) if probe else None,
        "policy": policy_name(policy) if policy else None,
        "env": env,
        "env_args": env_args or {},
        "sigmas": levels,
        "precision": precision,
        "seed": seed,
        "videos": videos,
    }
    marks = {name: network_fingerprint(Path(path), WorldModel) for name, path in checkpoints.items()}

    def measure(path: str, into: Path, *held: Results) -> None:
        chosen = choose_device(device)
        instruments = Instruments(
            weights_folder(weights),
            idm=Path(idm) if idm else None,
            probe=Path(probe) if probe else None,
            policy=Path(policy) if policy else None,
        )
        measurement = Measurement(
            *(names, frames, instruments, batch_size, seed, videos, count_workers(workers), chosen),
            *(env, env_args or {}),
        )
        model = load_world_model(path).to(chosen)
        check_data(model, store, Path(path))
        held_out = HeldOutEpisodes(store, frames, episodes)
        fetch_missing(names, weights_folder(weights))
        make_rows(measurement, store)  # so that what is missing is said before anything is imagined
        maker = ImaginedRollouts(Imagination(model, levels or None, precision))
        notes = _same_data_notes(store, {"world model": path, "--idm": idm, "--probe": probe})
        for results in held:
            results.begin()
        values = measure_quality(maker, held_out, measurement, into)
        values["notes"] = notes + values["notes"]
        held[0].keep({"world_model": values})

    if len(checkpoints) == 1:
        (name,) = checkpoints
        results = Results(out, {"world_model": marks[name], **shared})
        if not results.are_there():
            measure(checkpoints[name], out, results)
        table_console().print(quality_table(results.of("world_model")))
        return
    results = Results(out, {"world_model": marks, **shared})
    if not results.are_there():
        compared = {}
        for name, path in checkpoints.items():  # all of them before any of them is measured, which takes long
            model = load_world_model(path)
            check_data(model, store, Path(path))
            compared[name] = {"name": name, **describe(model, Path(path))}
        for name, path in checkpoints.items():
            print(f"{name}: {path}", flush=True)
            own = Results(out / name, {"world_model": marks[name], **shared})
            if not own.are_there():
                measure(path, out / name, own, results)
            compared[name] |= own.of("world_model")
        results.keep({"world_models": list(compared.values())})  # in the order given
    table_console().print(comparison_table(results.of("world_models")))


def fetch_missing(metrics: Sequence[str], folder: Path) -> None:
    """Fetch the weights that metrics need and that are not at hand.

    Raises:
        UserError: They cannot be fetched.
    """
    for metric in metrics:
        for need in METRICS[metric].metrics[metric]:
            name = need.removeprefix("weights ")
            if name == need or has_weights(name, folder):
                continue
            try:
                fetch_shown(name, folder)
            except UserError as error:
                raise UserError(str(error), f"or measure the stand-in {metric}[idm]") from error


class ImaginedRollouts:
    """Rollouts of a world model, whole chunks at a time; the last chunk is filled up by repeating the last action.

    Args:
        imagination: The world model with its sampler.
    """

    def __init__(self, imagination: Imagination) -> None:
        self.imagination = imagination

    @torch.no_grad()
    def __call__(
        self, reference: Tensor, signals: Mapping[str, Tensor], actions: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """See `RolloutMaker`."""
        chunk, count = self.imagination.model.chunk, actions.shape[1]
        missing = -count % chunk
        actions = torch.cat([actions, actions[:, -1:].expand(-1, missing, -1)], dim=1)
        self.imagination.start(reference, signals=signals, seeds=seeds)
        frames = [self.imagination.step(part) for part in actions.split(chunk, dim=1)]
        return torch.cat(frames, dim=1)[:, :count]


def check_data(model: WorldModel, store: EpisodeStore, path: Path) -> None:
    """Compare a world model with the episodes it is to replay.

    Raises:
        UserError: Other actions, their range included, or pictures of another size than it was trained on.
    """
    if model.action_dim != store.action_dim:
        raise UserError(
            f"{path}: takes actions of {model.action_dim} dimensions, those of {store.folders[0]} have "
            f"{store.action_dim}",
            "give episodes of the robot it was trained on",
        )
    check_image_size(path, store.image_size, f"those of {store.folders[0]} have")
    check_trained_range(path, data_record(path), store.folders[0], store.action_range)
    check_trained_repeat(path, data_record(path), store.folders[0], store.action_repeat)


def _same_data_notes(store: EpisodeStore, checkpoints: Mapping[str, str]) -> list[str]:
    """A note for every network that was trained on the very episodes it is measured on."""
    return [
        f"{name}: trained on these same episodes, which are not held out"
        for name, path in checkpoints.items()
        if path and data_record(Path(path)).get("fingerprint") == store.fingerprint
    ]
