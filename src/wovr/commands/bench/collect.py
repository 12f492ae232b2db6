"""`wovr bench collect`: collecting with a policy in the loop and pictures stored, beside render and physics alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from wovr.data.store.shards import finish_dataset
from wovr.envs.actors.names import make_actor
from wovr.envs.episodes import plan_episodes
from wovr.envs.recording import RecordingPlan, record
from wovr.envs.registry import choose_tasks
from wovr.envs.replay import RecordedActions, replay_seconds
from wovr.envs.rollout import Rollout
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import check_least


def bench_collect(
    policy: str = "random",
    suite: str = "spatial",
    episodes: int = 128,
    env: str = "tabletop",
    tasks: str = "",
    init_states: str = ":-10",
    seed: int = 0,
    temperature: float = 1.0,
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    shard_episodes: int = 64,
    device: str = "auto",
    repeats: int = 3,
) -> None:
    """Collecting with a policy in the loop and pictures stored, beside physics and rendering of the same actions alone.

    Collecting is simulation, policy, video encoding and shards on disk; starting processes and loading the policy is
    not counted. The ceiling is physics and rendering of the very same episodes, with nothing else going on.

    Args:
        policy: Who acts: expert, random, or the path of a policy's checkpoint.
        suite: Suite of the environment.
        episodes: Episodes of all chosen tasks together.
        env: Environment: tabletop, metaworld, libero, or an import path like my_robot:FrankaEnv.
        tasks: Comma list of task indices or names; empty for all.
        init_states: Initial states to start from, a slice START:STOP of each task's.
        seed: Seed of the initial states' order and of all sampling.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        env_args: Arguments of the environment, e.g. --env_args.size 128; action_repeat, how often each action is
            executed, is one of every simulator.
        num_envs: Simulators side by side.
        workers: Simulator processes; 0 for one a processor core.
        shard_episodes: Episodes a shard.
        device: Where a checkpoint computes: auto, cpu, cuda.
        repeats: Times both are measured, in turn.
    """
    for flag, value in (("episodes", episodes), ("shard_episodes", shard_episodes), ("repeats", repeats)):
        check_least(f"--{flag}", value)
    num_workers = count_workers(workers)
    ratios = []
    with closing(WorkerVectorEnv(env, num_envs, num_workers, env_args, record_states=True)) as simulators:
        plan = plan_episodes(choose_tasks(simulators.suites, env, suite, tasks), episodes, init_states, seed)
        actor = make_actor(policy, simulators, temperature, device)
        height, width = simulators.image_size
        print(f"{env}/{suite} at {height} x {width}, policy {actor.name}, {num_workers} simulator processes")
        for _ in range(repeats):
            played: list[RecordedActions] = []

            def keep(rollout: Rollout, played: list[RecordedActions] = played) -> None:
                played.append(RecordedActions(rollout.start, rollout.actions))

            with tempfile.TemporaryDirectory(prefix="wovr-bench-") as folder:
                recording = RecordingPlan(Path(folder), suite, plan, shard_episodes, seed, source=env)
                began = time.monotonic()
                record(recording, simulators, actor, threads=num_workers, on_rollout=keep)
                seconds = time.monotonic() - began
                megabytes = sum(shard["bytes"] for shard in finish_dataset(Path(folder))["shards"]) / 1e6
            steps = sum(len(episode.actions) for episode in played)
            ceiling = replay_seconds(env, env_args or {}, played, num_workers)
            ratios.append(ceiling / seconds)
            print(
                f"collect {steps / seconds:8,.0f} steps/s   ceiling {steps / ceiling:8,.0f} steps/s   "
                f"ratio {ratios[-1]:.2f}   ({steps:,} steps, {megabytes:.1f} MB stored)"
            )
    print(f"median ratio of collecting to render + physics alone: {statistics.median(ratios):.2f}")
