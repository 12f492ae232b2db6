"""`wovr evaluate --metrics hallucination`: is imagined success real (paper, sections 4.2 and 5.2)?

Rollouts of a policy are imagined from stored start states; then their actions are executed in the simulator from the
very states. False-success rate first: a policy that is optimised in imagination finds what the classifier takes for
success.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.commands.arguments import numbers, words
from wovr.commands.evaluate.imagined_and_real import PairReport, Replaying, replayed_pairs
from wovr.commands.evaluate.results import Results
from wovr.commands.places import HELD_OUT, REWARD, RL, WORLD_MODEL
from wovr.commands.terminal import table_console
from wovr.data.keyframes.start_states import StartStates
from wovr.data.keyframes.store import LIST_FILE
from wovr.envs.actors.names import make_actor, policy_name
from wovr.envs.imagined.env import make_imagined_env
from wovr.errors import check_least
from wovr.models.checkpoint import network_fingerprint
from wovr.models.reward import SuccessClassifier
from wovr.models.world_model.model import WorldModel
from wovr.runs import file_sha256

NAME = "hallucination"
"""The metric's name in `--metrics` and metrics.json."""

_SHOWN_FRAMES = (8, 16, 32, 64, 128, 256, 511)


def evaluate_hallucination(
    policy: str = RL,
    world_model: str = WORLD_MODEL,
    reward: str = REWARD,
    data: str = HELD_OUT,
    episodes: int = 5,
    out: Path = Path("runs/evaluate/hallucination"),
    metrics: str = NAME,
    env: str = "tabletop",
    suite: str = "",
    tasks: str = "",
    keyframes: str = "",
    keyframe_share: float = 0.0,
    horizon: int = 0,
    uncertainty_seeds: int = 3,
    grace: int = 8,
    seed: int = 0,
    temperature: float = 1.0,
    sigmas: str = "",
    precision: str = "fp32",
    videos: int = 4,
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    device: str = "auto",
) -> None:
    """Measure how much of a policy's imagined success is real.

    Writes OUT/metrics.json and OUT/videos (real | imagined | difference), and prints tables. The same command again
    prints what was measured.

    Args:
        policy: Who acts: random, or the path of a policy's checkpoint.
        world_model: Checkpoint of a world model.
        reward: Checkpoint of a success classifier.
        data: Folder of episodes with sim_state, whose first frames are the start states; several as a comma list.
        episodes: Rollouts of each task.
        out: Folder of the results.
        metrics: hallucination, which is measured on its own.
        env: Environment to replay in, that which the episodes come from: tabletop, metaworld, libero, gym, or an import
            path like my_robot:FrankaEnv. What the episodes say of theirs is compared with it, never followed.
        suite: Comma list of suites; empty for all there are episodes of.
        tasks: Comma list of task indices; empty for all.
        keyframes: Folder of keyframes of these episodes, see wovr data keyframes.
        keyframe_share: Share of the rollouts that start at keyframes, in [0, 1].
        horizon: Actions of a rollout from a first frame; 0 for each task's longest stored episode.
        uncertainty_seeds: Other noises under which every chunk is imagined too, for the spread of the probability.
        grace: Frames that reality goes on after an imagined success, standing still, so that success that comes a
            moment later counts.
        seed: Seed of the choice of start states and of all sampling.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        sigmas: Comma list of noise levels of the sampler, falling from 1; empty for the world model's own.
        precision: fp32, or bf16 for matrix products of the world model in bfloat16.
        videos: False successes, and false failures, to keep as videos.
        env_args: Arguments of the environment: those the episodes were collected with, which are compared with these
            and never followed.
        num_envs: Rollouts side by side, imagined and real; part of what decides the result.
        workers: Simulator processes; 0 for one a processor core.
        device: Where to compute: auto, cpu, cuda.
    """
    bounds = (
        *(("episodes", episodes, 1), ("num_envs", num_envs, 1), ("videos", videos, 0), ("grace", grace, 0)),
        *(("uncertainty_seeds", uncertainty_seeds, 0), ("horizon", horizon, 0)),
    )
    for flag, value, least in bounds:
        check_least(f"--{flag}", value, least)
    levels, indices = numbers("sigmas", sigmas, float), numbers("tasks", tasks, int)
    folders = [Path(folder) for folder in words(data)]
    pool = StartStates(
        folders, keyframes or None, keyframe_share, suites=words(suite), tasks=indices, horizon=horizon or None
    )
    inputs = {
        "policy": policy_name(policy),
        "world_model": network_fingerprint(Path(world_model), WorldModel),
        "reward": network_fingerprint(Path(reward), SuccessClassifier),
        "data": pool.fingerprint,
        "keyframes": file_sha256(Path(keyframes) / LIST_FILE) if keyframes else None,
        "keyframe_share": keyframe_share,
        "episodes": episodes,
        "metrics": [NAME],
        "env": env,
        "suite": suite,
        "tasks": indices,
        "horizon": horizon,
        "uncertainty_seeds": uncertainty_seeds,
        "grace": grace,
        "seed": seed,
        "temperature": temperature,
        "sigmas": levels,
        "precision": precision,
        "videos": videos,
        "env_args": env_args or {},
        "num_envs": num_envs,
    }
    results = Results(out, inputs)
    if not results.are_there():
        imagined = make_imagined_env(
            *(Path(world_model), Path(reward), pool, num_envs),
            sigmas=levels or None,
            precision=precision,
            device=device,
            uncertainty_seeds=uncertainty_seeds,
        )
        actor = make_actor(policy, imagined, temperature, device)
        starts = pool.draw(episodes * len(pool.tasks), np.random.default_rng(seed))
        report = PairReport(out, pool.tasks, videos, pool.fps)
        replaying = Replaying(env, env_args or {}, workers, grace, seed)
        for pair in replayed_pairs(imagined, actor, starts, replaying, results.begin):
            report.add(pair)
        notes = pool.origin.differences(env, env_args or {})
        results.keep({NAME: report.values() | {"notes": notes}})
    table_console().print(hallucination_table(results.of(NAME)))


def hallucination_table(values: Mapping[str, Any]) -> RenderableType:
    """What `PairReport.values` returned, as tables."""
    scores = values["scores"]
    confusion = Table("", "really succeeds", "really fails", title="imagined against real success, rollouts")
    confusion.add_row(
        "imagined to succeed", str(scores["true_success"]), f"{scores['false_success']} (false successes)"
    )
    confusion.add_row("imagined to fail", f"{scores['false_failure']} (false failures)", str(scores["true_failure"]))
    table = Table("score", "value", "what it is")
    table.add_row("false successes", _percent(scores["false_success_rate"]), "of the imagined successes")
    table.add_row("", _percent(scores["false_success_of_failures"]), "of the real failures", end_section=True)
    for name, what in (
        ("precision", "of the imagined successes, those that are real"),
        ("recall", "of the real successes, those that are imagined"),
        ("agreement", "of all rollouts, those with the same outcome"),
    ):
        table.add_row(name, _percent(scores[name]), what)
    for name in ("imagined", "real"):
        rate = values[name]
        table.add_row(
            f"{name} SR",
            _percent(rate["success_rate"]),
            f"95 % Wilson interval {100 * rate['low']:.1f} - {100 * rate['high']:.1f}",
        )
    table.add_section()
    for name, what in (
        ("confidence_auroc", "false among imagined successes told by a low probability of success"),
        ("spread_auroc", "the same, by its spread over several noises"),
    ):
        table.add_row(name, "-" if scores[name] is None else f"{scores[name]:.2f}", what)
    for kind, parting in values["parting"].items():
        if parting["rollouts"]:
            count = f"median of {parting['rollouts']} rollouts ({kind})"
            table.add_row("parting frame", f"{parting['median_frame']:.0f}", count)
    psnr = values["psnr_by_frame"]
    shown = [f"{frame}: {psnr[frame - 1]:.1f}" for frame in _SHOWN_FRAMES if frame <= len(psnr)]
    table.add_row("PSNR, dB", "", "median at frame " + (", ".join(shown) or f"1: {psnr[0]:.1f}"))
    return Group(confusion, table, *(Text(note) for note in values.get("notes", ())))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
