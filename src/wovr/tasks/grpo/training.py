"""Masked GRPO (paper section 4.2, Eq. 9 to 11): a policy improved by its own rollouts, imagined or real.

What differs from the equations is said in `wovr.functional.grpo`. Beyond that: rollouts whose group has no signal are
left out of the computation; where rollouts are cut before their horizon, the value of the last frame is their rest.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wovr.envs.grpo_rollouts import RolloutBatch
from wovr.errors import UserError, check_least
from wovr.functional.grpo import (
    chunk_advantages,
    clipped_loss,
    executed_steps,
    group_advantages,
    k3,
    returns,
    step_weights,
    valid_steps,
)
from wovr.models.policies.base import Policy, TokenLogProbs
from wovr.models.sharding import gathered, is_sharded, shard
from wovr.tasks.base import TrainingModule, warmup_cosine
from wovr.tasks.grpo.update import ChunkSamples, Update, recompute_log_probs, worth_after_chunks
from wovr.tasks.grpo.waiting import wait_for_all
from wovr.types import Observation

Sums = dict[str, float]


class GRPOTraining(TrainingModule):
    """Group relative policy optimisation of a policy; several optimiser steps an update.

    Args:
        policy: The policy; its state here is the reference policy of the KL term.
        lr: Learning rate after the warm-up.
        weight_decay: AdamW's weight decay.
        warmup_steps: Optimiser steps of linear warm-up: Adam's first steps are of full size whatever the gradient.
        final_lr_fraction: Learning rate at the last step as a fraction of the highest, to which it falls along a cosine
            (1 for a constant one): a policy that has become sharp bears smaller steps than it began with.
        gradient_clip_val: Largest norm of the gradient.
        clip_low: The ratio is clipped below at 1 - clip_low.
        clip_high: The ratio is clipped above at 1 + clip_high.
        dual_clip: Where the advantage is negative, the ratio is bounded above at this too, see
            `wovr.functional.grpo.clipped_loss`; null for no bound, Eq. 11.
        temperature: Sampling temperature of the policy in rollouts, and in the ratio.
        coherence: How far the tokens of a chunk are drawn alike, in standard deviations of their distributions, see
            `wovr.functional.coherent`; 0 for independent tokens.
        ratio: Of what the ratio is: `token`, each token, as in the authors' code; or `chunk`, the sum of a chunk's
            tokens in each dimension, see `wovr.functional.chunk_sums`.
        discount: Factor a step of the return; below 1, earlier success is better.
        reward_coefficient: Reward of the first successful frame.
        advantage_scale: `none` as in Eq. 10, or `std`: divided by the group's standard deviation.
        gae_lambda: null: every chunk has its rollout's advantage, Eq. 10. From 0 to 1: its own, by generalised
            advantage estimation with this lambda from one chunk's end to the next; needs --value.
        normalise: `trajectory`: each rollout is divided by its own valid length, Eq. 11; `batch`: all valid steps of
            the update count the same (ablation).
        mask: `success`: steps after the first success do not count; `none`: all executed steps do (ablation).
        first_steps: Steps from a rollout's start that are learned from (the first chunk saw real frames); null for all.
        success_filter: Groups whose success rate is outside these two bounds are dropped (WMPO: [0.1, 0.9]); null for
            no filter.
        kl_coefficient: Weight of the KL divergence from the reference policy, k3 estimator.
        entropy_coefficient: Weight of the tokens' entropy, which is added to the objective.
        epochs: Passes over the rollouts of an update.
        minibatches: Optimiser steps a pass; a minibatch is made of whole rollouts.
        micro_batch: Chunks computed at a time, which is a matter of memory only.
        merge_adapters: Put the policy's low-rank adapters into its weights first, and train all of them.
        part_lr: Other learning rates for weights whose names begin so, e.g. {head: 0.006}; 0 freezes them.
    """

    def __init__(
        self,
        policy: Policy,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 10,
        final_lr_fraction: float = 1.0,
        gradient_clip_val: float = 1.0,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        dual_clip: float | None = None,
        temperature: float = 1.0,
        coherence: float = 0.0,
        ratio: Literal["token", "chunk"] = "token",
        discount: float = 1.0,
        reward_coefficient: float = 1.0,
        advantage_scale: Literal["none", "std"] = "none",
        gae_lambda: float | None = None,
        normalise: Literal["trajectory", "batch"] = "trajectory",
        mask: Literal["success", "none"] = "success",
        first_steps: int | None = None,
        success_filter: tuple[float, float] | None = None,
        kl_coefficient: float = 0.0,
        entropy_coefficient: float = 0.0,
        epochs: int = 1,
        minibatches: int = 4,
        micro_batch: int = 256,
        merge_adapters: bool = False,
        part_lr: dict[str, float] | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, final_lr_fraction)
        self.automatic_optimization = False
        check_ranges(locals())
        if merge_adapters:
            policy.merge_adapters()
        self.policy = policy
        self.compute = policy.dtype
        self.gradient_clip_val = gradient_clip_val
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.temperature, self.discount, self.reward_coefficient = temperature, discount, reward_coefficient
        self.coherence, self.ratio, self.gae_lambda = coherence, ratio, gae_lambda
        self.advantage_scale, self.normalise, self.mask = advantage_scale, normalise, mask
        self.first_steps, self.success_filter, self.part_lr = first_steps, success_filter, part_lr or {}
        self.kl_coefficient, self.entropy_coefficient = kl_coefficient, entropy_coefficient
        self.epochs, self.minibatches, self.micro_batch = epochs, minibatches, micro_batch
        # In a tuple, so that it is no submodule: it is neither trained nor stored, the starting checkpoint holds it.
        self._reference = (copy.deepcopy(policy).requires_grad_(False).eval(),) if kl_coefficient else ()
        self.metrics: dict[str, float] = {}

    def setup(self, stage: str) -> None:
        """Check the precision.

        Raises:
            UserError: A mixed one: the ratio would compare rollouts in one precision with a loss in another.
        """
        if str(self.trainer.precision).endswith("-mixed"):
            raise UserError(
                f"trainer.precision is {self.trainer.precision}",
                "use 32-true; a policy has a dtype of its own",
            )

    def configure_model(self) -> None:
        """Share the policy's weights out over the processes, where the strategy is one that does so (FSDP2).

        Raises:
            UserError: Only adapters of it are trained; or its weights would be trained in half precision, in which most
                small steps of RL are lost.
        """
        if is_sharded(self.policy):
            return
        types = {weight.dtype for weight in self.policy.parameters() if weight.requires_grad}
        if self.device_mesh is None:
            if types & {torch.bfloat16, torch.float16}:
                raise UserError(
                    "the policy's weights are in half precision, in which RL's small steps are lost",
                    "share them out, float32, by trainer.strategy ModelParallelStrategy (conf/paper/rl.yaml), or train "
                    "adapters (lora_rank)",
                )
            return
        trained = sum(weight.numel() for weight in self.policy.parameters() if weight.requires_grad)
        if 2 * trained < sum(weight.numel() for weight in self.policy.parameters()):
            raise UserError(
                "the policy's adapters are few enough for every process, its other weights are not trained",
                "give trainer.strategy ddp, or model.merge_adapters true",
            )
        shard(self.policy, self.policy.layers, self.device_mesh["data_parallel"], self.compute)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The policy as it is while rollouts are made: whole on every device, put together once.

        Processes act different numbers of times, so nothing may be exchanged in between; at the end they wait for each
        other.
        """
        with gathered(self.policy):
            yield
            wait_for_all()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the warm-up is in the steps themselves."""
        parts = self.policy.split_weights(list(self.part_lr))
        groups = [{"params": weights, "lr": self.part_lr.get(prefix, self.lr)} for prefix, weights in parts.items()]
        # With the default eps, 1e-8: most gradients are smaller than the 1e-5 that is customary in RL, which would make
        # the steps depend on the scale of the reward and leave those weights where they are.
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the rollouts on the host: micro-batches go to the device one by one."""
        return batch

    def on_train_start(self) -> None:
        """Keep the policy in evaluation mode: what acted and what is trained must be the same function."""
        self.policy.eval()
        for reference in self._reference:
            reference.to(self.device)

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Optimise on the rollouts of an update.

        Raises:
            UserError: A ratio or the loss is not finite.
        """
        began = time.monotonic()
        update = self.prepare(batch)
        totals = self._sum_over_processes(update.totals)
        count = totals["kept"] if self.normalise == "trajectory" else totals["kept_steps"]
        sums = dict.fromkeys(("loss", "approx_kl", "clip_fraction", "entropy", "kl_reference", "weight"), 0.0)
        norms = []
        minibatches = min(self.minibatches, round(totals["used"]))
        passes = [self._minibatches(update.used, minibatches) for _ in range(self.epochs if minibatches else 0)]
        # Times the processes, because gradients are averaged over them, not summed.
        scale = minibatches * self.trainer.world_size
        weight = step_weights(update.mask, max(1.0, count) / max(1, scale), self.normalise == "trajectory")
        # What a chunk's sum is, is known only now: an episode may have ended within it.
        if passes and not (self.ratio == "token" and self._acts_alike()):
            batches = (samples for chosen in passes[0] for samples in self.as_many(update, chosen, weight))
            update.trajectories = recompute_log_probs(
                partial(self.log_probs, self.policy), batches, update.trajectories
            )
        for chosen_in_turn in passes:
            for number, chosen in enumerate(chosen_in_turn):
                norms.append(self._optimise(update, chosen, weight, sums, f"update {batch.update}, minibatch {number}"))
        sums = self._sum_over_processes(sums)
        self._report(batch, totals, sums, norms, time.monotonic() - began)

    def prepare(self, batch: RolloutBatch) -> Update:
        """Advantages and masks of an update's rollouts.

        A rollout that does not count (`Trajectory.weight` 0) is left out of its group's mean and has no step in Eq. 11.

        Raises:
            UserError: None counts.
        """
        trajectories, size = batch.trajectories, batch.group_size
        length = torch.tensor([trajectory.length for trajectory in trajectories])
        success = torch.zeros(len(trajectories), max(len(trajectory.success) for trajectory in trajectories)).bool()
        for row, trajectory in enumerate(trajectories):
            success[row, : len(trajectory.success)] = torch.from_numpy(trajectory.success)
        valid = valid_steps(success, length)  # (N, T)
        gained = returns(self.reward_coefficient * success.float(), valid, self.discount)  # (N,)
        outcome = torch.tensor([trajectory.outcome for trajectory in trajectories])
        # Of rollouts that were cut: R + discount^T V(o_T).
        gained += self.reward_coefficient * self.discount**length * outcome.masked_fill(success.any(dim=1), 0.0)
        weight = torch.tensor([trajectory.weight for trajectory in trajectories])  # (N,)
        counts = weight > 0
        if not counts.any():
            raise UserError(
                f"update {batch.update}: not one of {len(trajectories)} rollouts has a chunk that is trusted",
                "lower --trust_threshold",
            )
        weighed = None if bool((weight == 1).all()) else weight
        groups = group_advantages(
            gained.unflatten(0, (-1, size)),
            self.advantage_scale,
            None if weighed is None else weighed.unflatten(0, (-1, size)),
        )
        chunk = self.policy.chunk
        advantage = groups.advantage.flatten()[:, None].expand(-1, success.shape[1] // chunk)  # (N, C)
        without_signal = groups.without_signal
        if self.gae_lambda is not None:
            worth = worth_after_chunks(trajectories, success, gained, chunk, self.reward_coefficient, self.discount)
            advantage = chunk_advantages(worth, size, self.gae_lambda, weighed)
            without_signal = (advantage == 0).all(dim=1).unflatten(0, (-1, size)).all(dim=1)
        known = counts.unflatten(0, (-1, size)).sum(dim=1)  # (groups,)
        rate = outcome.unflatten(0, (-1, size)).sum(dim=1) / known.clamp(min=1)  # (groups,), outcome 0 where not known
        low, high = self.success_filter or (0.0, 1.0)
        kept = (rate >= low) & (rate <= high)
        # With a KL or entropy term, rollouts without an advantage have a gradient too.
        used = kept & (~without_signal | bool(self.kl_coefficient or self.entropy_coefficient))
        mask = valid if self.mask == "success" else executed_steps(length, success.shape[1])
        learned = kept.repeat_interleave(size) & counts  # (N,)
        mask = mask & learned[:, None]
        mask[:, self.first_steps :] &= self.first_steps is None
        keyframe = torch.tensor([one.from_keyframe for one in trajectories]) & counts
        trusts = [one.trust for one in trajectories if one.trust is not None]
        totals: Sums = {
            "rollouts": len(trajectories),
            "known": int(counts.sum()),
            "successes": float(outcome.sum()),
            "keyframe_rollouts": int(keyframe.sum()),
            "keyframe_successes": float(outcome[keyframe].sum()),
            "groups": len(rate),
            "groups_without_signal": int(without_signal.sum()),
            "groups_filtered": int((~kept).sum()),
            "valid_steps": int(valid.sum()),
            "executed_steps": int(length.sum()),
            "kept": int(learned.sum()),
            "kept_steps": int(mask.sum()),
            "used": int((used.repeat_interleave(size) & counts).sum()),
            "taken_back": sum(one.taken_back for one in trajectories),
            "trusted": len(trusts),
            "trust": sum(trusts),
        }
        positions = np.flatnonzero((used.repeat_interleave(size) & counts).numpy())
        return Update(trajectories, advantage, mask, positions, totals)

    def loss(self, samples: ChunkSamples) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some chunks and what is watched beside it, all sums under the steps' weights.

        Returns:
            () float with gradient; and by name: `loss`, `approx_kl`, `clip_fraction`, `entropy`, `kl_reference`,
            `weight` (sum of the weights) and `finite` (() bool).
        """
        found = self.log_probs(self.policy, samples)
        clipped = clipped_loss(
            found.log_probs,
            samples.log_probs,
            samples.advantage[:, None],
            samples.weight,
            self.clip_low,
            self.clip_high,
            self.dual_clip,
        )
        loss, entropy = clipped.loss, (samples.weight * found.entropy.mean(-1)).sum()
        divergence = loss.new_zeros(())
        for reference in self._reference:
            with torch.no_grad():
                by_reference = self.log_probs(reference, samples)
            divergence = (samples.weight * k3(by_reference.log_probs - found.log_probs).mean(-1)).sum()
        if self.kl_coefficient:
            loss = loss + self.kl_coefficient * divergence
        if self.entropy_coefficient:
            loss = loss - self.entropy_coefficient * entropy
        return loss, {
            "loss": loss.detach(),
            "approx_kl": clipped.approx_kl,
            "clip_fraction": clipped.clip_fraction,
            "entropy": entropy.detach(),
            "kl_reference": divergence.detach(),
            "weight": clipped.weight,
            "finite": clipped.finite & loss.detach().isfinite(),
        }

    def log_probs(self, policy: Policy, samples: ChunkSamples) -> TokenLogProbs:
        """Log-probabilities that the ratio compares: (B, K, A) each."""
        return policy.log_prob(
            samples.observation,
            samples.tokens,
            temperature=self.temperature,
            coherence=self.coherence,
            summed=samples.weight > 0 if self.ratio == "chunk" else None,
        )

    def samples(self, update: Update, chosen: Sequence[int], weight: Tensor) -> Iterator[ChunkSamples]:
        """Micro-batches of the chunks of some rollouts that have a step with weight; one at least.

        Args:
            update: The rollouts.
            chosen: Which of them; where there is none, a chunk without weight is given, so that every process has one.
            weight: (N, T) float32.
        """
        chunk = self.policy.chunk
        places = [
            (row, first)
            for row in chosen
            for first in range(0, update.trajectories[row].length, chunk)
            if weight[row, first : first + chunk].any()
        ]
        if not places:
            some = next(row for row, trajectory in enumerate(update.trajectories) if trajectory.length)
            places, weight = [(some, 0)], torch.zeros_like(weight)
        for begin in range(0, len(places), self.micro_batch):
            part = places[begin : begin + self.micro_batch]
            picked = [(update.trajectories[row], first // chunk) for row, first in part]
            yield ChunkSamples(
                Observation.join([trajectory.observation(place) for trajectory, place in picked]),
                self._tensor([trajectory.tokens[place] for trajectory, place in picked]),
                self._tensor([trajectory.log_probs[place] for trajectory, place in picked]),
                torch.stack([update.advantage[row, first // chunk] for row, first in part]).to(self.device),
                torch.stack([weight[row, first : first + chunk] for row, first in part]).to(self.device),
                [(row, first // chunk) for row, first in part],
            )

    def as_many(self, update: Update, chosen: Sequence[int], weight: Tensor) -> list[ChunkSamples]:
        """`samples`, as many in every process where weights are put together for each of them."""
        parts = list(self.samples(update, chosen, weight))
        if is_sharded(self.policy):
            most = torch.tensor(len(parts), device=self.device)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            if more := int(most) - len(parts):
                parts += more * list(self.samples(update, (), weight))
        return parts

    def _acts_alike(self) -> bool:
        """Whether log-probabilities do not depend on how many rows are computed at once: in float32 on a CPU, 1e-5."""
        return self.device.type == "cpu" and self.compute == torch.float32

    def _optimise(
        self, update: Update, chosen: Sequence[int], weight: Tensor, sums: dict[str, float], name: str
    ) -> float:
        """One optimiser step.

        Returns:
            Norm of the gradient before clipping.

        Raises:
            UserError: A ratio or the loss is not finite; the weights are as before the step.
        """
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        finite = True
        parts = self.as_many(update, chosen, weight)
        for number, samples in enumerate(parts):
            # Micro-batches differ in number between processes: gradients are averaged with the last one only.
            with nullcontext() if number == len(parts) - 1 else self._without_sync():
                loss, watched = self.loss(samples)
                self.manual_backward(loss)
            finite = finite and bool(watched.pop("finite"))
            for key, value in watched.items():
                sums[key] += float(value)
        norm: Any = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.gradient_clip_val)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        finite = finite and bool(norm.isfinite())
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise UserError(
                f"{name}: the ratio of new to old action probabilities or its gradient is not finite",
                "the last checkpoint is from before; lower model.lr or raise model.minibatches",
            )
        # As many steps as there can be: an update without signal takes none.
        steps = self.trainer.num_training_batches * self.epochs * self.minibatches
        rate = warmup_cosine(self.global_step, self.warmup_steps, steps, self.final_lr_fraction)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate
        optimizer.step()
        return float(norm)

    def _minibatches(self, used: np.ndarray, count: int) -> list[list[int]]:
        """Rollouts of a pass in random order, cut into `count` parts, some of which may be empty."""
        order = used[torch.randperm(len(used)).numpy()]
        parts = [part.tolist() for part in np.array_split(order, count)]
        first = self.trainer.global_rank % count  # the longer parts come first: not in the same step everywhere
        return parts[first:] + parts[:first]

    def _without_sync(self) -> AbstractContextManager[Any]:
        strategy: Any = self.trainer.strategy
        return strategy.block_backward_sync() if hasattr(strategy, "block_backward_sync") else nullcontext()

    def _sum_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.trainer.world_size == 1:
            return dict(values)
        total = self.trainer.strategy.reduce(
            torch.tensor(list(values.values()), dtype=torch.float64, device=self.device), reduce_op="sum"
        )
        return dict(zip(values, total.tolist(), strict=True))

    def _tensor(self, arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def _report(self, batch: RolloutBatch, totals: Sums, sums: Sums, norms: Sequence[float], seconds: float) -> None:
        """Log the update; `metrics` keeps it for callbacks."""
        world = "real" if batch.real else "imagined"
        weight = max(sums["weight"], 1e-12)
        starts = totals["known"] - totals["keyframe_rollouts"]
        metrics = {
            "rollouts": float(batch.rollouts_so_far),
            f"success_rate_{world}": totals["successes"] / totals["known"],
            "groups_without_signal": totals["groups_without_signal"] / totals["groups"],
            "valid_length": totals["valid_steps"] / totals["rollouts"],
            "rollout_frames": totals["executed_steps"],
        }
        if totals["keyframe_rollouts"] and starts:
            metrics[f"success_rate_{world}_from_keyframes"] = totals["keyframe_successes"] / totals["keyframe_rollouts"]
            metrics[f"success_rate_{world}_from_start"] = (totals["successes"] - totals["keyframe_successes"]) / starts
        if totals["trusted"]:
            metrics["trust"] = totals["trust"] / totals["trusted"]
            metrics["rollouts_taken_back"] = totals["taken_back"] / totals["rollouts"]
        if self.success_filter is not None:
            metrics["groups_filtered"] = totals["groups_filtered"] / totals["groups"]
        watched = ["approx_kl", "clip_fraction", "entropy"] + ["kl_reference"] * bool(self._reference)
        if norms:
            metrics |= {name: sums[name] / weight for name in watched}
            metrics |= {"loss": sums["loss"] / weight, "gradient_norm": sum(norms) / len(norms)}
        metrics |= {"seconds_rollouts": batch.seconds, "seconds_optimisation": seconds}
        self.metrics = metrics
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=1)


def check_ranges(given: Mapping[str, Any]) -> None:
    """Check the arguments of GRPOTraining.

    Raises:
        UserError: A number out of its range.
    """
    for name, least in (("epochs", 1), ("minibatches", 1), ("micro_batch", 1), ("warmup_steps", 0), ("first_steps", 1)):
        check_least(f"model.{name}", given[name], least)
    if not given["coherence"] >= 0:
        raise UserError(f"model.coherence is {given['coherence']}", "give 0 or more")
    for name in ("lr", "gradient_clip_val", "temperature", "discount", "reward_coefficient", "clip_high"):
        if not given[name] > 0:
            raise UserError(f"model.{name} is {given[name]}", "give a number above 0")
    for name, most in (("discount", 1), ("clip_low", 1)):
        if not 0 < given[name] <= most:
            raise UserError(f"model.{name} is {given[name]}", f"give a number above 0, at most {most}")
    if given["dual_clip"] is not None and not given["dual_clip"] > 1 + given["clip_high"]:
        raise UserError(
            f"model.dual_clip is {given['dual_clip']}",
            f"give more than 1 + clip_high, {1 + given['clip_high']:g}, or null",
        )
    if not 0 <= given["final_lr_fraction"] <= 1:
        raise UserError(f"model.final_lr_fraction is {given['final_lr_fraction']}", "give a number from 0 to 1")
    if given["gae_lambda"] is not None and not 0 <= given["gae_lambda"] <= 1:
        raise UserError(f"model.gae_lambda is {given['gae_lambda']}", "give a number from 0 to 1, or null")
    if given["gae_lambda"] is not None and given["advantage_scale"] != "none":
        raise UserError("model.gae_lambda with advantage_scale std", "leave one of them out")
    bounds = given["success_filter"]
    if bounds is not None and not 0 <= bounds[0] <= bounds[1] <= 1:
        raise UserError(f"model.success_filter is {list(bounds)}", "give two rates such as [0.1, 0.9]")
