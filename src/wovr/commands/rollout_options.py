"""Options of `wovr rl` about rollouts: where they are made and begin, how many, and how the policy is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wovr.envs.making import IMAGINED
from wovr.errors import UserError, check_least


@dataclass
class RolloutOptions:
    """Where rollouts are made and how many.

    Args:
        policy: Checkpoint of the policy to improve.
        suite: Suite of the start states; null for that of --data, else of the policy's demonstrations.
        env: imagined, or a simulator (tabletop, metaworld, libero, or an import path like my_robot:FrankaEnv): online
            GRPO.
        tasks: Comma list of tasks, indices or (in a simulator) names; empty for all.
        world_model: Checkpoint of the world model; for imagined.
        reward: Checkpoint of the success classifier; for imagined.
        value: Checkpoint of a value function (conf/value.yaml), which tells what becomes of rollouts that are cut
            (--cut_after), what each chunk changed (model.gae_lambda) and where to start (--start_value); with --data.
        cut_after: Actions after which a rollout is cut and its value takes the place of the rest: as long as
            imagination can be trusted. null for whole rollouts.
        trust: Checkpoint of a trust (conf/trust.yaml), which says how far each imagined chunk may be believed; for
            imagined.
        trust_threshold: Chunks with less trust are taken back, from 0 to 1: the rollout ends before the first of them,
            with what --value says of the frame there; without --value, or where it is the very first chunk, nothing is
            known of the rollout and it is left out of its group. null for none.
        trust_weight: Each rollout counts in its group as much as the least trusted of its chunks.
        data: Comma list of folders of episodes, whose first frames are start states; in a simulator they take the place
            of --init_states.
        keyframes: Folder of keyframes, made by `wovr data keyframes` from the data.
        keyframe_share: Share of the groups that start at keyframes, 0 to 1.
        start_value: Two probabilities, as [0.1, 0.9]: groups start only where --value foresees a success between them,
            for where an outcome is decided nothing can be learned. null for everywhere.
        horizon: Actions of an imagined rollout from a first frame; null for the task's longest stored episode.
        init_states: Initial states to start from, a slice START:STOP of each task's; for a simulator without --data.
            The default leaves the last ten to evaluation.
        env_args: Arguments of the environment: of the simulator's class, or, imagined, of
            wovr.envs.imagined.env.ImaginedVectorEnv (sigmas, precision, batch_size).
        groups: Groups of an update, over all processes.
        group_size: Rollouts of a group; all start from one state.
        updates: Updates of the run.
        max_real_episodes: Stop at exactly so many rollouts in a simulator; null for no limit.
        shared_noise: Give the rollouts of a group the same noise of the environment.
        num_envs: Rollouts side by side.
        workers: Simulator processes; 0 for one a processor core.
        offload: Keep the world model in host memory while the policy is optimised; nothing moves on a CPU.
        eval_env: Simulator to evaluate in; null where no real evaluation is allowed.
        eval_every: Updates between two evaluations.
        eval_episodes: Episodes of an evaluation, of all tasks together.
        eval_init_states: Initial states of the evaluation, a slice.
        eval_temperature: Sampling temperature in evaluations; 0 takes the likeliest tokens.
        eval_num_envs: Simulators side by side in evaluations.
        eval_env_args: Arguments of the simulator's class in evaluations.
        patience: Stop after so many evaluations (updates, without --eval_env) in a row without a new best; 0 for never.
        save_every: Updates between two checkpoints.
    """

    policy: str
    suite: str | None = None
    env: str = IMAGINED
    tasks: str = ""
    world_model: str | None = None
    reward: str | None = None
    value: str | None = None
    cut_after: int | None = None
    trust: str | None = None
    trust_threshold: float | None = None
    trust_weight: bool = False
    data: str | None = None
    keyframes: str | None = None
    keyframe_share: float = 0.0
    start_value: tuple[float, float] | None = None
    horizon: int | None = None
    init_states: str = ":-10"
    env_args: dict[str, Any] | None = None
    groups: int = 16
    group_size: int = 8
    updates: int = 100
    max_real_episodes: int | None = None
    shared_noise: bool = False
    num_envs: int = 64
    workers: int = 0
    offload: bool = True
    eval_env: str | None = None
    eval_every: int = 10
    eval_episodes: int = 100
    eval_init_states: str = "-10:"
    eval_temperature: float = 1.0
    eval_num_envs: int = 16
    eval_env_args: dict[str, Any] | None = None
    patience: int = 0
    save_every: int = 1

    def check(self) -> None:
        """Check what can be checked before anything is loaded.

        Raises:
            UserError: Numbers out of their ranges, options that are missing or have no effect here.
        """
        for name in ("eval_every", "eval_episodes", "save_every", "num_envs", "eval_num_envs"):
            check_least(f"--{name}", getattr(self, name))
        if self.patience < 0:
            raise UserError(f"--patience is {self.patience}", "give 0 for never, or more")
        if self.cut_after is not None and self.value is None:
            raise UserError("--cut_after without --value", "give both, or neither")
        if self.start_value is not None and self.value is None:
            raise UserError("--start_value without --value", "give both, or neither")
        acts = {"trust_threshold": self.trust_threshold is not None, "trust_weight": self.trust_weight}
        uses = [name for name, does in acts.items() if does]
        if (self.trust is None) != (not uses):
            there, missing = ("trust", "trust_threshold (or --trust_weight true)") if self.trust else (uses[0], "trust")
            raise UserError(f"--{there} without --{missing}", "give both, or neither")
        if self.trust_threshold is not None and not 0 <= self.trust_threshold <= 1:
            raise UserError(f"--trust_threshold is {self.trust_threshold}", "give a number from 0 to 1")
        if self.env == IMAGINED:
            for name in ("world_model", "reward", "data"):
                if not getattr(self, name):
                    raise UserError(f"--env imagined without --{name}", f"give --{name}, or --env tabletop")
            if self.max_real_episodes is not None:
                raise UserError("--max_real_episodes with --env imagined", "leave it out, or name a simulator")
            return
        for name in ("world_model", "reward", "horizon", "trust"):
            if getattr(self, name):
                raise UserError(f"--{name} with --env {self.env}", "leave it out, or use --env imagined")
        for name in ("value", "keyframes", "keyframe_share"):
            if getattr(self, name) and not self.data:
                raise UserError(f"--{name} with --env {self.env} and without --data", "give --data, or leave it out")
        if self.data and self.init_states != ":-10":
            raise UserError(f"--init_states {self.init_states} with --data", "leave one of them out")
