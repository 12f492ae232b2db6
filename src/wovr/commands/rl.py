"""`wovr rl`: improve a policy by masked GRPO on its own rollouts, imagined (`--env imagined`) or in a simulator.

A run owns a folder, like that of `wovr fit`:

    OUT/config.yaml             every option, resolved
    OUT/checkpoints/last.ckpt   where the same command goes on
    OUT/checkpoints/best.ckpt   the best policy, by real evaluation (`--eval_env`), else by rollouts that succeed again
    OUT/tensorboard/            curves
    OUT/metrics.json            the curve: a row an update; rollouts, real episodes, seconds
    OUT/DONE                    there when the run is finished
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from wovr.callbacks.best import KeepBest, RealEvaluation
from wovr.callbacks.offload import CollocatedPlacement
from wovr.callbacks.seeding import SeedSteps
from wovr.callbacks.updates import KeepCurve, SaveUpdates, UpdateTable
from wovr.commands.arguments import words
from wovr.commands.fit import FitCLI, run
from wovr.commands.rollout_options import RolloutOptions
from wovr.commands.run_options import take_processes
from wovr.commands.suites import only_suite, suites_of_data, suites_of_policy
from wovr.data.keyframes.start_states import StartStates
from wovr.data.store.dataset import check_replayed_repeat, check_trained_range, check_trained_repeat, read_range
from wovr.envs.actors.policy import PolicyActor, check_fit
from wovr.envs.base import ChunkVectorEnv
from wovr.envs.confirmation import confirmed_successes
from wovr.envs.cut_simulators import CutSimulators
from wovr.envs.episodes import plan_episodes
from wovr.envs.grpo_rollouts import DrawnStarts, PlannedStarts, RolloutCollector, StartSource
from wovr.envs.imagined.env import ImaginedVectorEnv, make_imagined_env
from wovr.envs.imagined.open_starts import keep_open_starts
from wovr.envs.imagined.parts import check_chunk, load_value
from wovr.envs.making import IMAGINED
from wovr.envs.registry import choose_tasks
from wovr.envs.workers.vector import WorkerVectorEnv, count_workers
from wovr.errors import UserError
from wovr.models.checkpoint import data_record, network_fingerprint
from wovr.models.policies.base import Policy
from wovr.models.policies.loading import load_policy, policy_fingerprint
from wovr.models.reward import SuccessClassifier
from wovr.models.trust.model import Trust
from wovr.models.world_model.model import WorldModel
from wovr.tasks.grpo.training import GRPOTraining
from wovr.types import MAX_FRAMES


class RlCLI(FitCLI):
    """Parses and builds a run of policy optimisation; see FitCLI."""

    verb: ClassVar[str] = "rl"
    description: ClassVar[str] = "Improve a policy by GRPO on its own rollouts."

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The trainer's options, and those of GRPO but the policy, which is `--policy`."""
        parser.add_lightning_class_args(Trainer, "trainer")
        defaults = {"max_epochs": 1, "log_every_n_steps": 1, **self.trainer_defaults}
        parser.set_defaults({f"trainer.{name}": value for name, value in defaults.items() if name != "callbacks"})
        parser.add_class_arguments(GRPOTraining, "model", skip={"policy"}, instantiate=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options beside model and trainer."""
        self.add_run_arguments(parser)
        parser.add_class_arguments(RolloutOptions, instantiate=False)

    def before_instantiate_classes(self) -> None:
        """Check the options and compare them with what the folder holds already."""
        self._read_rollouts().check()
        self.find_inputs()
        if self.config.suite is None:
            self.config.suite = self._find_suite()
        take_processes(self.config.trainer)
        self.rollouts, self.suite = self._read_rollouts(), str(self.config.suite)
        self.open_folder()

    def _read_rollouts(self) -> RolloutOptions:
        return RolloutOptions(**{field.name: self.config[field.name] for field in fields(RolloutOptions)})

    def _find_suite(self) -> str:
        """The suite of the data, else of the policy's demonstrations.

        Raises:
            UserError: There are several.
        """
        data, policy = self.config.data, self.config.policy
        if data:
            return only_suite(suites_of_data(words(data)), f"--data {data}")
        return only_suite(suites_of_policy(policy), f"--policy {policy}")

    def instantiate_classes(self) -> None:
        """Build environment, policy and trainer, unless the run is finished."""
        self.config_init = self.parser.instantiate_classes(self.config)
        given = self.rollouts
        starts = self._start_states() if given.data else None
        inputs: dict[str, Any] = {"policy": policy_fingerprint(Path(given.policy))}
        if given.world_model:
            inputs["world_model"] = network_fingerprint(Path(given.world_model), WorldModel)
        if given.reward:
            inputs["reward"] = network_fingerprint(Path(given.reward), SuccessClassifier)
        if starts is not None:
            inputs["data"] = starts.fingerprint
        if given.value:
            inputs["value"] = network_fingerprint(Path(given.value), SuccessClassifier)
        if given.trust:
            inputs["trust"] = network_fingerprint(Path(given.trust), Trust)
        if self.is_finished(inputs):
            return
        if starts is not None and given.value and given.start_value is not None:
            print(keep_open_starts(starts, load_value(Path(given.value), starts), given.start_value))
        policy = load_policy(Path(given.policy))
        self.model = GRPOTraining(policy, **self.config_init.model)
        self.model.carried = self._carried()
        if given.value is None and self.model.gae_lambda is not None:
            raise UserError("model.gae_lambda without --value", "give both, or neither")
        uses = (given.cut_after, given.start_value, given.trust_threshold, self.model.gae_lambda)
        if given.value is not None and all(use is None for use in uses):
            raise UserError("--value without --cut_after", "give both, or neither")
        actor = PolicyActor(policy, inputs["policy"], self.model.temperature, self.model.coherence)
        seed = self._seed()
        env: ChunkVectorEnv
        source: StartSource
        if given.env == IMAGINED:
            assert starts is not None
            env = self._imagined(starts)
        else:
            after_success = 0 if self.model.mask == "success" else MAX_FRAMES
            env = simulators = self._simulators(
                given.env, given.num_envs, given.env_args, after_success, every_frame=self._foresees()
            )
            if given.value and starts is not None and self._foresees():
                env = CutSimulators(simulators, load_value(Path(given.value), starts), given.cut_after)
        if starts is not None:
            if given.env != IMAGINED:
                check_replayed_repeat(starts.action_repeat, simulators.action_repeat)
            source = DrawnStarts(starts, self.suite, seed)
        else:
            tasks = choose_tasks(simulators.suites, given.env, self.suite, given.tasks)
            source = PlannedStarts(tasks, given.init_states, given.groups, seed)
        check_policy(policy, env, given.policy)
        self.placement: list[nn.Module] = []
        if isinstance(env, ImaginedVectorEnv):
            self.placement = [env.imagination.model]
            judges: tuple[object, ...] = (env.classifier, env.value, env.trust)
            self.placement += [judge for judge in judges if isinstance(judge, nn.Module)]
        self.collector = RolloutCollector(
            env,
            actor,
            source,
            given.groups,
            given.group_size,
            given.updates,
            seed,
            shared_noise=given.shared_noise,
            max_rollouts=given.max_real_episodes,
            real=given.env != IMAGINED,
            trust_weight=given.trust_weight,
            phase=self.model.acting,
        )
        self.best = self._best(policy, inputs["policy"], env, seed)
        self.trainer = self.instantiate_trainer()
        if self.trainer.max_epochs != 1 or self.trainer.max_steps != -1:
            raise UserError("trainer.max_epochs and trainer.max_steps say nothing here", "use --updates")
        self.collector.share_out(self.trainer.global_rank, self.trainer.world_size)

    def _foresees(self) -> bool:
        """Whether the value function looks at rollouts, at several frames in a row."""
        uses = (self.rollouts.cut_after, self.rollouts.trust_threshold, self.model.gae_lambda)
        return any(use is not None for use in uses)

    def _carried(self) -> dict[str, Any]:
        """What the policy's checkpoints go on saying of its demonstrations: their suites, the range of their actions.

        Raises:
            UserError: The world model was trained on actions of another range.
        """
        given, name = self.rollouts, "action_range"
        mine = data_record(Path(given.policy))
        if given.world_model and (other := data_record(Path(given.world_model)).get(name)) is not None:
            check_trained_range(Path(given.policy), mine, given.world_model, read_range(other, given.world_model))
        return {key: mine[key] for key in (name, "action_repeat", "suites") if mine.get(key) is not None}

    def callbacks(self) -> list[Callback]:
        """See FitCLI.callbacks."""
        self.curve = KeepCurve()
        callbacks: list[Callback] = [
            SeedSteps(self._seed()),
            self.seconds,
            self.best,
            self.curve,
            CollocatedPlacement(self.placement, self.rollouts.offload),
            SaveUpdates(self.last, self.rollouts.save_every),
        ]
        if self.config.trainer.enable_progress_bar is not False:
            callbacks.append(UpdateTable(self.collector.updates, isinstance(self.best, RealEvaluation)))
        return callbacks

    def train(self, resume: Path | None) -> dict[str, Any]:
        """Optimise; see FitCLI.train. `curve` has a row an update."""
        self.trainer.fit(
            self.model, train_dataloaders=self.collector, ckpt_path=resume, weights_only=True if resume else None
        )
        rows = self.curve.rows
        made = int(rows[-1]["rollouts"]) if "rollouts" in rows[-1] else 0
        metrics = {name: value for name, value in rows[-1].items() if name.startswith(("success", "eval"))}
        metrics["best"] = self.best.best or 0.0
        return {
            "metrics": metrics,
            "curve": rows,
            "updates": int(rows[-1]["update"]),
            "steps": self.trainer.global_step,
            "rollouts": made,
            "real_episodes": made if self.collector.real else 0,
            "evaluation_episodes": self.best.rollouts if isinstance(self.best, RealEvaluation) else 0,
            "best": {"success_rate": self.best.best, "update": self.best.update, "by_real": self.best.real},
        }

    def _seed(self) -> int:
        seed = self.config.seed_everything
        if isinstance(seed, bool):
            raise UserError(f"seed_everything is {str(seed).lower()}", "give a number: all rollouts are drawn from it")
        return int(seed)

    def _start_states(self) -> StartStates:
        given = self.rollouts
        tasks = words(given.tasks)
        if any(not word.isdigit() for word in tasks):
            raise UserError(f"--tasks {given.tasks}", "give indices, as 0,3: stored episodes know no names of tasks")
        assert given.data
        return StartStates(
            [Path(word.strip()) for word in given.data.split(",")],
            Path(given.keyframes) if given.keyframes else None,
            given.keyframe_share,
            suites=[self.suite],
            tasks=[int(word) for word in tasks],
            horizon=given.horizon,
        )

    def _imagined(self, starts: StartStates) -> ImaginedVectorEnv:
        given = self.rollouts
        assert given.world_model
        assert given.reward
        options: dict[str, Any] = {"device": "cpu", **(given.env_args or {})}  # CollocatedPlacement moves it
        options["stop_at_success"] = self.model.mask == "success"  # without masking there must be steps after it
        if given.value and self._foresees():
            options |= {"value": Path(given.value), "cut_after": given.cut_after}
        if given.trust:
            options |= {"trust": Path(given.trust), "trust_threshold": given.trust_threshold}
        try:
            env = make_imagined_env(Path(given.world_model), Path(given.reward), starts, given.num_envs, **options)
        except TypeError as error:
            raise UserError(f"--env_args: {error}", "see wovr.envs.imagined.env.ImaginedVectorEnv") from error
        self.resources.callback(env.close)
        return env

    def _simulators(
        self,
        name: str,
        num_envs: int,
        arguments: dict[str, Any] | None,
        steps_after_success: int = 0,
        *,
        every_frame: bool = False,
    ) -> WorkerVectorEnv:
        workers = count_workers(self.rollouts.workers)
        env = WorkerVectorEnv(
            name, num_envs, workers, arguments, steps_after_success=steps_after_success, every_frame=every_frame
        )
        self.resources.callback(env.close)
        return env

    def _best(self, policy: Policy, name: str, env: ChunkVectorEnv, seed: int) -> KeepBest:
        """What keeps the best checkpoint."""
        given, path = self.rollouts, self.folder / "checkpoints" / "best.ckpt"
        if given.eval_env is None:
            actions_of = partial(_actions_of, policy)
            return KeepBest(
                path,
                given.patience,
                partial(confirmed_successes, env, actions_of=actions_of, seed=seed) if given.env == IMAGINED else None,
            )
        simulators = self._simulators(given.eval_env, given.eval_num_envs, given.eval_env_args)
        check_policy(policy, simulators, given.policy)
        tasks = choose_tasks(simulators.suites, given.eval_env, self.suite, given.tasks)
        episodes = plan_episodes(tasks, given.eval_episodes, given.eval_init_states, seed)
        actor = PolicyActor(policy, name, given.eval_temperature)
        return RealEvaluation(
            simulators,
            actor,
            episodes,
            seed,
            given.eval_every,
            self.collector.updates,
            path,
            given.patience,
            self.model.acting,
        )


def _actions_of(policy: Policy, tokens: np.ndarray) -> np.ndarray:
    """(..., A) int64 to (..., A) float32."""
    return policy.tokenizer.decode(torch.from_numpy(tokens)).numpy()


def check_policy(policy: Policy, env: ChunkVectorEnv, checkpoint: str) -> None:
    """Compare a policy with where it is to act.

    Raises:
        UserError: Other actions, actions executed another number of times, or another chunk than a world model's.
    """
    check_fit(policy, env, checkpoint)
    whose = "the imagined environment" if isinstance(env, ImaginedVectorEnv) else "the environment"
    check_trained_repeat(Path(checkpoint), data_record(Path(checkpoint)), whose, env.action_repeat)
    if isinstance(env, ImaginedVectorEnv):
        check_chunk(policy, env.chunk, checkpoint)


def main(args: list[str]) -> None:
    """Run the verb, by conf/rl.yaml unless another configuration is given.

    Raises:
        UserError: Wrong options, parts that do not fit each other, a folder that holds another run, a ratio that is
            not finite.
    """
    given = any(word.partition("=")[0] in ("--config", "-c") for word in args)
    run(RlCLI, args if given else ["--config", "rl", *args])
