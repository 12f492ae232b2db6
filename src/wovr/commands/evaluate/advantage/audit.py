"""`wovr evaluate --metrics advantage`: is what GRPO takes for advantage right, and how much of its gradient is noise?

Groups of rollouts are played for a few chunks in the simulator; many continuations from where each of them is then tell
its true chance of success. What an update could take for the return instead is held against that: one outcome, the
value function on the real frames, or, as `wovr rl` does, on imagined ones.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wovr.commands.arguments import choose_device, numbers, words
from wovr.commands.evaluate.advantage.recipes import find_returns
from wovr.commands.evaluate.advantage.scores import advantage_table, score_returns
from wovr.commands.evaluate.imagined_and_real import check_replay
from wovr.commands.evaluate.results import Results
from wovr.commands.places import BASE, POLICY
from wovr.commands.suites import only_suite, suites_of_data
from wovr.commands.terminal import table_console
from wovr.data.keyframes.start_states import StartStates
from wovr.data.keyframes.store import LIST_FILE
from wovr.envs.actors.base import Actor
from wovr.envs.actors.names import make_actor, policy_name
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.continuations import count_open, play_beginnings, play_continuations
from wovr.envs.imagined.env import ImaginedVectorEnv, make_imagined_env
from wovr.envs.imagined.parts import load_value
from wovr.envs.progress import ActingProgress
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import UserError, check_least
from wovr.models.checkpoint import network_fingerprint
from wovr.models.reward import SuccessClassifier
from wovr.models.world_model.model import WorldModel
from wovr.runs import file_sha256
from wovr.types import MAX_FRAMES

NAME = "advantage"
"""The metric's name in `--metrics` and metrics.json."""


def evaluate_advantage(
    policy: str = POLICY,
    suite: str | None = None,
    data: str = BASE,
    out: Path = Path("runs/evaluate/advantage"),
    metrics: str = NAME,
    env: str = "tabletop",
    tasks: str = "",
    keyframes: str = "",
    keyframe_share: float = 1.0,
    groups: int = 40,
    group_size: int = 8,
    chunks: str = "1,2,4",
    continuations: int = 8,
    temperature: float = 1.0,
    coherence: float = 0.0,
    ratio: Literal["token", "chunk"] = "token",
    value: str = "",
    world_model: str = "",
    reward: str = "",
    sigmas: str = "",
    precision: str = "fp32",
    seed: int = 0,
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    device: str = "auto",
) -> None:
    """Measure what GRPO takes for advantage against the truth in the simulator.

    Groups of rollouts begin as in wovr rl; from where each is after some chunks it is continued several times, whose
    mean outcome is its true chance of success. Writes OUT/metrics.json and prints tables: how well one outcome, the
    value of the real frame and the value of the imagined frame order the rollouts of a group, and how many rollouts it
    takes until the gradient that they give is no longer mostly noise. The same command again prints what was measured.

    Args:
        policy: Who acts: random, or the path of a policy's checkpoint.
        suite: Suite of the start states; that of the data unless given.
        data: Folder of episodes with sim_state, whose first frames are start states; several as a comma list.
        out: Folder of the results.
        metrics: advantage, which is measured on its own.
        env: Simulator that the episodes come from: tabletop, metaworld, libero, gym, or an import path like
            my_robot:FrankaEnv. What the episodes say of theirs is compared with it, never followed.
        tasks: Comma list of task indices; empty for all.
        keyframes: Folder of keyframes of these episodes, see wovr data keyframes.
        keyframe_share: Share of the groups that start at keyframes, in [0, 1]; without keyframes all start at first
            frames.
        groups: Groups, 2 or more.
        group_size: Rollouts of a group, 2 or more.
        chunks: Comma list of numbers of chunks after which rollouts are looked at.
        continuations: Rollouts that go on from each of them then, 2 or more.
        temperature: Sampling temperature of a checkpoint's action tokens, above 0.
        coherence: How far the tokens of a chunk are drawn alike, as model.coherence of wovr rl.
        ratio: Whose gradient the noise scale is of, token or chunk, as model.ratio of wovr rl.
        value: Checkpoint of a value function (conf/value.yaml); empty to look at outcomes only.
        world_model: Checkpoint of a world model, to see the value of imagined frames too; with --reward and --value.
        reward: Checkpoint of a success classifier; with --world_model.
        sigmas: Comma list of noise levels of the sampler, falling from 1; empty for the world model's own.
        precision: fp32, or bf16 for matrix products of the world model in bfloat16.
        seed: Seed of the choice of start states and of all sampling.
        env_args: Arguments of the environment: those the episodes were collected with, which are compared with these
            and never followed.
        num_envs: Rollouts side by side, real and imagined; part of what decides the result.
        workers: Simulator processes; 0 for one a processor core.
        device: Where to compute: auto, cpu, cuda.
    """
    counts = {"groups": groups, "group_size": group_size, "continuations": continuations}
    for flag, given, least in (*((name, number, 2) for name, number in counts.items()), ("num_envs", num_envs, 1)):
        check_least(f"--{flag}", given, least)
    if not temperature > 0:
        raise UserError(f"--temperature is {temperature}", "give a number above 0: rollouts of a group have to differ")
    if not 0 <= coherence < math.inf:
        raise UserError(f"--coherence is {coherence}", "give 0 or more")
    suite = only_suite(suites_of_data(words(data)), f"--data {data}") if suite is None else suite
    if len(words(suite)) != 1:
        raise UserError(f"--suite is '{suite}'", "give one suite")
    paths = {"world_model": world_model, "reward": reward, "value": value}
    for flag, needed in (("world_model", "reward"), ("reward", "world_model"), ("world_model", "value")):
        if paths[flag] and not paths[needed]:
            raise UserError(f"--{flag} without --{needed}", f"give --{needed} too, or leave --{flag} out")
    after = _chunk_numbers(chunks)
    levels, indices = numbers("sigmas", sigmas, float), numbers("tasks", tasks, int)
    share = keyframe_share if keyframes else 0.0
    pool = StartStates(
        [Path(folder) for folder in words(data)], keyframes or None, share, suites=words(suite), tasks=indices
    )
    inputs = {
        "policy": policy_name(policy),
        "value": network_fingerprint(Path(value), SuccessClassifier) if value else None,
        "world_model": network_fingerprint(Path(world_model), WorldModel) if world_model else None,
        "reward": network_fingerprint(Path(reward), SuccessClassifier) if reward else None,
        "data": pool.fingerprint,
        "keyframes": file_sha256(Path(keyframes) / LIST_FILE) if keyframes else None,
        "keyframe_share": share,
        **counts,
        "chunks": after,
        "metrics": [NAME],
        "env": env,
        "suite": words(suite)[0],
        "tasks": indices,
        "seed": seed,
        "temperature": temperature,
        "coherence": coherence,
        "ratio": ratio,
        "sigmas": levels,
        "precision": precision,
        "env_args": env_args or {},
        "num_envs": num_envs,
    }
    results = Results(out, inputs)
    if not results.are_there():
        place = choose_device(device)
        judge = _load_judge(value, pool).to(place) if value else None
        imagined = None
        if world_model:
            # The cut is set anew for each number of chunks.
            options: dict[str, Any] = {"sigmas": levels or None, "precision": precision, "device": device}
            parts = Path(world_model), Path(reward), pool, num_envs
            imagined = make_imagined_env(*parts, value=Path(value), cut_after=1, **options)
        rows = min(num_envs, groups * group_size)
        simulate = partial(WorkerVectorEnv, env, rows, count_workers(workers), env_args or {})
        drawn = pool.draw(groups, np.random.default_rng(seed))
        # Imagined rollouts from first frames have their task's longest episode for horizon: so do these.
        starts = [
            start if start.horizon is not None else replace(start, horizon=pool.horizon(start.suite, start.task))
            for start in drawn
        ]
        # Success ends no rollout here: imagination, which may not see it, is given the actions after it too.
        with closing(simulate(record_states=True, steps_after_success=MAX_FRAMES)) as simulators:
            check_replay(pool, simulators, starts)
            actor = make_actor(policy, simulators, temperature, device)
            if isinstance(actor, PolicyActor):
                actor.coherence = coherence
            _check_chunk(policy, actor, imagined)
            results.begin()
            with ActingProgress("rollouts", groups * group_size) as progress:
                window = 1 if judge is None else judge.window
                beginnings = play_beginnings(simulators, actor, starts, group_size, after, window, seed, progress)
        seconds = progress.seconds
        open_places = count_open(beginnings, actor.chunk, after)
        with (
            closing(simulate(every_frame=False)) as simulators,
            ActingProgress("continuations", open_places * continuations) as progress,
        ):
            outcomes = play_continuations(simulators, actor, beginnings, after, continuations, seed, progress)
        seconds += progress.seconds
        returns = find_returns(beginnings, outcomes, actor.chunk, judge, imagined, seed)
        scored = score_returns(beginnings, outcomes, returns, group_size, actor, seed, ratio)
        rollouts = len(beginnings) + open_places * continuations
        print(f"{rollouts:,} rollouts in the simulator, {seconds:.1f} s")
        values = {
            **counts,
            "chunk": actor.chunk,
            "from_keyframes": sum(start.memory is not None for start in starts),
            "rollouts": rollouts,
            "chunks": scored,
            "notes": pool.origin.differences(env, env_args or {}),
        }
        results.keep({NAME: values})
    table_console().print(advantage_table(results.of(NAME)))


def _chunk_numbers(chunks: str) -> list[int]:
    """The numbers of chunks behind `--chunks`, rising."""
    found = numbers("chunks", chunks, int)
    if not found or min(found) < 1 or max(found) > MAX_FRAMES or len(set(found)) < len(found):
        raise UserError(
            f"--chunks is '{chunks}'", f"give different numbers from 1 to {MAX_FRAMES}, separated by commas"
        )
    return sorted(found)


def _load_judge(value: str, pool: StartStates) -> SuccessClassifier:
    """The value function, which has to know the tasks of all start states."""
    judge = load_value(Path(value), pool)
    unknown = [(task.suite, task.index) for task in pool.tasks if (task.suite, task.index) not in judge.tasks]
    if unknown:
        raise UserError(
            f"--value {value}: was not trained for task {unknown[0][0]}/{unknown[0][1]}, which there are start states "
            "for",
            "train one on episodes of all tasks, or choose some with --tasks",
        )
    return judge


def _check_chunk(policy: str, actor: Actor, imagined: ImaginedVectorEnv | None) -> None:
    if imagined is not None and actor.chunk != imagined.chunk:
        raise UserError(
            f"{policy}: the policy's chunk is {actor.chunk} actions, the world model's {imagined.chunk}",
            "use models with chunks of one length",
        )
