"""`wovr evaluate --metrics trust`: does trust tell false successes and wrong chunks, and what is left when it acts?

Rollouts of a policy are imagined with a trust looking on, then their actions are executed in the simulator from the
very states, as for `hallucination`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.commands.arguments import numbers, words
from wovr.commands.evaluate.imagined_and_real import Pair, Replaying, replayed_pairs
from wovr.commands.evaluate.results import Results
from wovr.commands.places import HELD_OUT, REWARD, RL, TRUST, WORLD_MODEL
from wovr.commands.terminal import table_console
from wovr.data.keyframes.start_states import StartStates
from wovr.envs.actors.names import make_actor, policy_name
from wovr.envs.imagined.env import make_imagined_env
from wovr.errors import UserError, check_least
from wovr.metrics.behaviour.trust import JudgedRollout, score_trust
from wovr.models.checkpoint import network_fingerprint
from wovr.models.reward import SuccessClassifier
from wovr.models.trust.critic import error_of_psnr, frame_error
from wovr.models.trust.model import Trust
from wovr.models.world_model.model import WorldModel

NAME = "trust"
"""The metric's name in `--metrics` and metrics.json."""


def evaluate_trust(
    policy: str = RL,
    world_model: str = WORLD_MODEL,
    reward: str = REWARD,
    trust: str = TRUST,
    data: str = HELD_OUT,
    episodes: int = 20,
    out: Path = Path("runs/evaluate/trust"),
    metrics: str = NAME,
    env: str = "tabletop",
    suite: str = "",
    tasks: str = "",
    horizon: int = 0,
    keep: float = 0.7,
    uncertainty_seeds: int = 0,
    grace: int = 8,
    seed: int = 0,
    temperature: float = 1.0,
    sigmas: str = "",
    precision: str = "fp32",
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    device: str = "auto",
) -> None:
    """Measure how well a trust tells what imagination gets wrong.

    Writes OUT/metrics.json and prints tables: how well trust, and each signal behind it, tells false successes among
    the imagined ones (a rollout is believed as far as its least trusted chunk) and chunks whose last frame is far from
    the real one; whether it is calibrated; and how much of imagined success is false when what is not trusted does not
    count. The same command again prints what was measured.

    Args:
        policy: Who acts: random, or the path of a policy's checkpoint.
        world_model: Checkpoint of a world model.
        reward: Checkpoint of a success classifier.
        trust: Checkpoint of a trust, see conf/trust.yaml.
        data: Folder of episodes with sim_state, whose first frames are the start states; several as a comma list.
        episodes: Rollouts of each task.
        out: Folder of the results.
        metrics: trust, which is measured on its own.
        env: Environment to replay in, that which the episodes come from: tabletop, metaworld, libero, gym, or an import
            path like my_robot:FrankaEnv. What the episodes say of theirs is compared with it, never followed.
        suite: Comma list of suites; empty for all there are episodes of.
        tasks: Comma list of task indices; empty for all.
        horizon: Actions of a rollout; 0 for each task's longest stored episode.
        keep: Share of the true imagined successes that the threshold of trust is to keep, in (0, 1].
        uncertainty_seeds: Other noises under which every chunk is imagined too; how far the success probability
            scatters over them is then one more signal.
        grace: Frames that reality goes on after an imagined success, standing still, so that success that comes a
            moment later counts.
        seed: Seed of the choice of start states, of all sampling and of the bootstrap.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        sigmas: Comma list of noise levels of the sampler, falling from 1; empty for the world model's own.
        precision: fp32, or bf16 for matrix products of the world model in bfloat16.
        env_args: Arguments of the environment: those the episodes were collected with, which are compared with these
            and never followed.
        num_envs: Rollouts side by side, imagined and real; part of what decides the result.
        workers: Simulator processes; 0 for one a processor core.
        device: Where to compute: auto, cpu, cuda.
    """
    bounds = (("episodes", episodes, 1), ("num_envs", num_envs, 1), ("grace", grace, 0), ("horizon", horizon, 0))
    for flag, value, least in (*bounds, ("uncertainty_seeds", uncertainty_seeds, 0)):
        check_least(f"--{flag}", value, least)
    if not 0 < keep <= 1:
        raise UserError(f"--keep is {keep}", "give a share above 0, at most 1")
    levels, indices = numbers("sigmas", sigmas, float), numbers("tasks", tasks, int)
    folders = [Path(folder) for folder in words(data)]
    pool = StartStates(folders, suites=words(suite), tasks=indices, horizon=horizon or None)
    inputs = {
        "policy": policy_name(policy),
        "world_model": network_fingerprint(Path(world_model), WorldModel),
        "reward": network_fingerprint(Path(reward), SuccessClassifier),
        "trust": network_fingerprint(Path(trust), Trust),
        "data": pool.fingerprint,
        "episodes": episodes,
        "metrics": [NAME],
        "env": env,
        "suite": suite,
        "tasks": indices,
        "horizon": horizon,
        "keep": keep,
        "uncertainty_seeds": uncertainty_seeds,
        "grace": grace,
        "seed": seed,
        "temperature": temperature,
        "sigmas": levels,
        "precision": precision,
        "env_args": env_args or {},
        "num_envs": num_envs,
    }
    results = Results(out, inputs)
    if not results.are_there():
        imagined = make_imagined_env(
            *(Path(world_model), Path(reward), pool, num_envs),
            trust=Path(trust),
            sigmas=levels or None,
            precision=precision,
            device=device,
            uncertainty_seeds=uncertainty_seeds,
        )
        actor = make_actor(policy, imagined, temperature, device)
        starts = pool.draw(episodes * len(pool.tasks), np.random.default_rng(seed))
        replaying = Replaying(env, env_args or {}, workers, grace, seed)
        network = imagined.trust
        assert network is not None
        pairs = replayed_pairs(imagined, actor, starts, replaying, results.begin)
        judged = [judged_rollout(pair, network) for pair in pairs]
        notes = pool.origin.differences(env, env_args or {})
        results.keep({NAME: score_trust(judged, keep, seed) | {"right_psnr": network.right_psnr, "notes": notes}})
    table_console().print(trust_table(results.of(NAME)))


def judged_rollout(pair: Pair, trust: Trust) -> JudgedRollout:
    """A pair as what was thought of its chunks, and whether they were wrong."""
    rollout = pair.imagined
    begins = np.arange(0, len(rollout.actions), trust.chunk)
    ends = np.minimum(begins + trust.chunk, min(len(rollout.frames), len(pair.real.frames)) - 1)
    imagined, real = (torch.from_numpy(frames[ends]) for frames in (rollout.frames, pair.real.frames))
    signals = {name: rollout.info["distrust"][begins, place] for place, name in enumerate(trust.names)}
    if "uncertainty" in rollout.info:
        signals["redrawn"] = np.maximum.reduceat(rollout.info["uncertainty"], begins)
    return JudgedRollout(
        imagined=rollout.succeeded,
        real=pair.really_succeeded,
        trust=rollout.info["trust"][begins],
        signals=signals,
        wrong=(frame_error(imagined, real) > error_of_psnr(trust.right_psnr)).numpy(),
    )


def trust_table(values: Mapping[str, Any]) -> RenderableType:
    """What `score_trust` returned, as tables."""
    roc = Table(
        "signal",
        "false success",
        "wrong chunk",
        title="area under the ROC, 95 % bootstrap interval (0.5 is chance)",
        title_justify="left",
    )
    for name, found in values["signals"].items():
        roc.add_row(name, *(_interval(found[what], 1, ".2f") for what in ("false_success", "wrong_chunk")))
    bins = Table("trust", "chunks", "mean trust", "right", title="reliability", title_justify="left")
    for row in values["calibration"]:
        cells = [f"{row['frames']:,}", *("-" if row[name] is None else f"{row[name]:.2f}" for name in _OF_BIN)]
        bins.add_row(f"{row['low']:.1f} - {row['high']:.1f}", *cells)
    acting = values["acting"]
    lines = [
        f"{values['rollouts']} rollouts, {values['chunks']:,} chunks, of which {100 * values['wrong_chunks']:.1f} % "
        f"are wrong (last frame less than {values['right_psnr']:g} dB like the real one)",
        f"expected calibration error {values['calibration_error']:.3f}",
        f"{values['imagined_successes']} imagined successes, {values['false_successes']} of them false",
    ]
    if acting["threshold"] is None:
        lines.append("no imagined success is true: there is no threshold that keeps some")
    else:
        lines += [
            f"trusted from {acting['threshold']:.3f} on, which keeps {_percent(acting['kept']['true_successes'])} of "
            f"true successes and {_percent(acting['kept']['rollouts'])} of all rollouts:",
            f"of the imagined successes {_interval(acting['false_share'], 100, '.1f')} % are false, without trust "
            f"{_interval(acting['without'], 100, '.1f')} %, difference {_interval(acting['difference'], 100, '.1f')}",
        ]
    return Group(roc, bins, *(Text(line) for line in (*lines, *values.get("notes", ()))))


_OF_BIN = ("probability", "frequency")


def _interval(found: Mapping[str, float | None], factor: float, form: str) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{factor * value:{form}} ({factor * low:{form}} to {factor * high:{form}})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
