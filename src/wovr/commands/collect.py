"""`wovr collect`: act in an environment and store the episodes as shards.

The folder fills shard by shard, so a collection that was stopped, by whatever, goes on where it was when the same
command is given again, and ends with the same bytes as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from wovr import __version__
from wovr.commands.arguments import alone_in_out, call
from wovr.commands.places import BASE, DEMOS, POLICY
from wovr.commands.suites import only_suite, suites_of_policy
from wovr.data.store.dataset import read_dataset
from wovr.data.store.seals import check_sums
from wovr.data.store.shards import DATASET_FILE, ShardRecord, finish_dataset
from wovr.envs.actors.names import make_actor, policy_name
from wovr.envs.episodes import plan_episodes
from wovr.envs.progress import ActingProgress
from wovr.envs.recording import RecordingPlan, record
from wovr.envs.registry import choose_tasks
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import UserError, check_least
from wovr.processes import launched_processes, wait_for
from wovr.runs import RunFolder
from wovr.types import SCHEMA_VERSION

INPUTS_FILE = "collect.json"
"""What a folder is being collected with, written before the first shard."""


def collect(
    episodes: int,
    policy: str = POLICY,
    suite: str | None = None,
    out: Path | None = None,
    env: str = "tabletop",
    tasks: str = "",
    init_states: str = ":-10",
    seed: int = 0,
    temperature: float = 1.0,
    steps_after_success: int = 8,
    env_args: dict[str, Any] | None = None,
    num_envs: int = 16,
    workers: int = 0,
    shard_episodes: int = 64,
    device: str = "auto",
) -> None:
    """Act in an environment and store the episodes as shards.

    The same command again finishes what is missing. The same seed gives the same bytes, whatever --workers is, and
    however many processes torchrun or Slurm has started of it: they take the shards in turn.

    Args:
        episodes: Episodes of all chosen tasks together; they take the tasks in turn.
        policy: Who acts: expert, random, or the path of a policy's checkpoint.
        suite: Suite of the environment; that of the policy's demonstrations unless given.
        out: Folder of the data set; data/demos for the expert, data/random at random, else data/base unless given.
        env: Environment: tabletop, metaworld, libero, or an import path like my_robot:FrankaEnv.
        tasks: Comma list of task indices or names; empty for all.
        init_states: Initial states to start from, a slice START:STOP of each task's (write --init_states=-10: with an
            equals sign). The default leaves the last ten to `wovr evaluate`.
        seed: Seed of the initial states' order and of all sampling.
        temperature: Sampling temperature of a checkpoint's action tokens; 0 takes the likeliest.
        steps_after_success: Steps an episode goes on after its first successful frame; more than one successful frame
            an episode helps the success classifier.
        env_args: Arguments of the environment, e.g. --env_args.size 128; action_repeat, how often each action is
            executed, is one of every simulator.
        num_envs: Simulators side by side; part of what decides the bytes.
        workers: Simulator processes; 0 for one a processor core.
        shard_episodes: Episodes a shard, which is what processes share out; best several times --num_envs, because
            each shard is run to its end.
        device: Where a checkpoint computes: auto, cpu, cuda.
    """
    for flag, value in (("episodes", episodes), ("num_envs", num_envs), ("shard_episodes", shard_episodes)):
        check_least(f"--{flag}", value)
    out = default_out({"policy": policy}) if out is None else out
    suite = only_suite(suites_of_policy(policy), f"--policy {policy}") if suite is None else suite
    inputs = {
        "policy": policy_name(policy),
        "env": env,
        "env_args": env_args or {},
        "suite": suite,
        "tasks": tasks,
        "episodes": episodes,
        "init_states": init_states,
        "seed": seed,
        "temperature": temperature,
        "steps_after_success": steps_after_success,
        "num_envs": num_envs,
        "shard_episodes": shard_episodes,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
    }
    run = RunFolder(out, inputs, begun=INPUTS_FILE)
    run.refuse_others()
    if run.is_done() and (out / DATASET_FILE).exists():
        dataset = read_dataset(out)
        if all((out / shard["file"]).exists() for shard in dataset["shards"]):
            check_sums((out / shard["file"], shard["sha256"]) for shard in dataset["shards"])
            if launched_processes().is_first:
                print(f"{out} is complete: {summary(dataset)}")
            return
    processes, num_workers = launched_processes(), count_workers(workers)
    with closing(
        WorkerVectorEnv(
            env, num_envs, num_workers, env_args, record_states=True, steps_after_success=steps_after_success
        )
    ) as simulators:
        chosen = choose_tasks(simulators.suites, env, suite, tasks)
        plan = plan_episodes(chosen, episodes, init_states, seed)
        recording = RecordingPlan(out, suite, plan, shard_episodes, seed, source=env)
        actor = make_actor(policy, simulators, temperature, device)
        repeated = episodes - len({(episode.start.task, episode.start.init_state) for episode in plan})
        if repeated and (policy == "expert" or temperature == 0):
            print(f"note: {repeated} of {episodes} episodes start where another one does and may be its copies")
        run.start()
        there = check_shards(recording)
        old = [episode for shard in there.values() for episode in shard.episodes]
        others = [index for index in range(len(recording.shards())) if not processes.takes(index)]
        theirs = sum(len(recording.shards()[index]) for index in others if index not in there)
        with ActingProgress(
            f"collect {suite}", episodes - theirs, len(old), sum(episode.succeeded for episode in old)
        ) as progress:
            record(
                recording,
                simulators,
                actor,
                threads=num_workers,
                skip=[*there, *others],
                on_steps=progress.steps,
                on_rollout=lambda rollout: progress.episode(rollout.succeeded),
            )
        if not processes.is_first:
            return
        wait_for(recording.paths())
        dataset = finish_dataset(out, collect=inputs, **_units(simulators))
        run.finish(success_rate=dataset["success_rate"])
    print(
        f"{out}: {summary(dataset)}; {episodes - theirs - len(old)} episodes now, {progress.seconds:.1f} s, "
        f"{progress.steps_per_second:,.0f} steps/s"
    )


def default_out(options: Mapping[str, Any]) -> Path:
    """Where the episodes of a policy go."""
    return Path({"expert": DEMOS, "random": "data/random"}.get(options["policy"], BASE))


def _units(simulators: WorkerVectorEnv) -> dict[str, Any]:
    """What -1 and 1 are in a robot's units, as a conversion says it; nothing for a simulator's actions."""
    found = simulators.action_range
    return {} if found is None else {"convert": {"action_range": found.to_json()}}


def summary(dataset: dict[str, Any]) -> str:
    """What is in a data set, in a few words."""
    return f"{dataset['episodes']} episodes, {dataset['frames']:,} frames, SR {dataset['success_rate']:.3f}"


def check_shards(recording: RecordingPlan) -> dict[int, ShardRecord]:
    """The shards that an earlier call of the same command has left, whole.

    Raises:
        UserError: One is damaged, or is none of this collection's.
    """
    there, shards = recording.complete(), recording.shards()
    for index, shard in there.items():
        expected = len(shards[index]) if index < len(shards) else 0
        if len(shard.episodes) != expected:
            raise UserError(
                f"{recording.folder / shard.file}: holds {len(shard.episodes)} episodes instead of {expected}",
                "remove this file and give the same command again",
            )
    return there


def main(args: Sequence[str]) -> None:
    """Run the verb."""
    call(alone_in_out(collect, default_out), args, "collect")
