"""GRPO as a task: the ratio starts at one, what is masked has no gradient, parts and processes add up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from tests.envs.test_rollout import POINT, make_policy
from tests.models.policies.small import small_policy
from tests.tasks.grpo.batches import made_up_batch, share
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.grpo_rollouts import PlannedStarts, RolloutBatch, RolloutCollector
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.functional.grpo import clipped_loss, group_advantages, step_weights
from wovr.models.checkpoint import KEY
from wovr.models.policies.base import Policy, TokenLogProbs
from wovr.models.policies.loading import load_policy
from wovr.tasks.grpo.training import GRPOTraining
from wovr.tasks.grpo.update import ChunkSamples, Update, recompute_log_probs
from wovr.types import Observation


class Batches:
    """A loader of given batches; each process gets its share of them."""

    def __init__(self, batches: list[RolloutBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[RolloutBatch]:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        return (share(batch, rank, ranks) for batch in self.batches)


class PlainSteps(GRPOTraining):
    """With SGD a step is the gradient."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.policy.parameters(), lr=self.lr)


def fit(task: GRPOTraining, batches: Any, **arguments: Any) -> Trainer:
    settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    trainer = Trainer(**settings | arguments)
    trainer.fit(task, batches)
    return trainer


def gradient(task: GRPOTraining, update: Update, micro_batch: int = 100) -> list[torch.Tensor]:
    """Of one minibatch with everything in it."""
    task.micro_batch = micro_batch
    task.zero_grad()
    weight = step_weights(update.mask, len(update.trajectories))
    for samples in task.samples(update, update.used.tolist(), weight):
        task.loss(samples)[0].backward()
    return [parameter.grad.clone() for parameter in task.policy.parameters() if parameter.grad is not None]


def test_the_ratio_is_one_before_the_first_step() -> None:
    env = WorkerVectorEnv(POINT, 11, 1, {"size": 16, "wind": 0.6})
    policy = make_policy()
    plan = PlannedStarts(env.suites["spatial"], ":", 8, 0)
    batch = RolloutCollector(env, PolicyActor(policy, "p", 1.3), plan, 8, 4, 1, 0).collect(0)
    env.close()
    assert {len(trajectory.success) % 8 for trajectory in batch.trajectories} == {0}
    assert any(trajectory.length % 8 for trajectory in batch.trajectories), "one ends inside a chunk"
    task = GRPOTraining(policy, temperature=1.3, kl_coefficient=0.1)
    task.train()
    task.on_train_start()
    update = task.prepare(batch)
    weight = step_weights(update.mask, len(update.trajectories))
    for samples in task.samples(update, range(len(batch.trajectories)), weight):
        found = task.policy.log_prob(samples.observation, samples.tokens, temperature=1.3)
        ratio = (found.log_probs - samples.log_probs).exp()[samples.weight > 0]
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-5, atol=1e-5)
        _, watched = task.loss(samples)
        assert float(watched["clip_fraction"]) == 0
        assert abs(float(watched["approx_kl"])) < 1e-6
        assert abs(float(watched["kl_reference"])) < 1e-6
        assert float(watched["entropy"]) > 0


def test_the_loss_of_an_update_is_that_of_its_rollouts_one_by_one() -> None:
    policy, batch = small_policy(1), made_up_batch(["mixed", "succeed", "fail", "mixed"])
    task = GRPOTraining(policy, reward_coefficient=2.0, discount=0.9)
    found = gradient(task, task.prepare(batch))
    policy.zero_grad()
    wins = [trajectory.succeeded for trajectory in batch.trajectories]
    lengths = [trajectory.length - won for trajectory, won in zip(batch.trajectories, wins, strict=True)]
    gained = torch.tensor([2 * 0.9 ** (n - 1) if won else 0.0 for n, won in zip(lengths, wins, strict=True)])
    advantage = group_advantages(gained.view(-1, 4)).advantage.flatten()
    for trajectory, length, value in zip(batch.trajectories, lengths, advantage, strict=True):
        seen = Observation(trajectory.images, [trajectory.instruction] * len(trajectory.images))
        now = policy.log_prob(seen, trajectory.tokens).log_probs.flatten(0, 1)[:length]
        old = torch.from_numpy(trajectory.log_probs).flatten(0, 1)[:length]
        weight = torch.full((length,), 1 / length / len(wins))
        clipped_loss(now, old, value.expand(length), weight).loss.backward()
    expected = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_rollout_that_was_cut_goes_on_with_its_value() -> None:
    batch = made_up_batch(["mixed", "fail"])
    values = [0.5, 0.25, 0.75, 0.0, 0.2, 0.2, 0.2, 0.2]
    for trajectory, value in zip(batch.trajectories, values, strict=True):
        trajectory.value = value  # of those that succeeded it says nothing
    task = GRPOTraining(small_policy(1), reward_coefficient=2.0, discount=0.9, success_filter=(0.0, 0.5))
    gained = []
    for trajectory in batch.trajectories:
        if trajectory.succeeded:
            gained.append(2 * 0.9 ** int(trajectory.success.argmax()))
        else:
            gained.append(2 * 0.9**trajectory.length * trajectory.value)
    expected = torch.tensor(gained).view(2, 4) - torch.tensor(gained).view(2, 4).mean(1, keepdim=True)
    update = task.prepare(batch)
    torch.testing.assert_close(update.advantage[:, 0], expected.flatten())
    assert (update.advantage == update.advantage[:, :1]).all()
    assert update.totals["successes"] == pytest.approx(2 + 0.25 + 4 * 0.2)
    assert update.totals["groups_without_signal"] == 0, "rollouts of different lengths are worth different values"
    assert not update.mask[:4].any(), "2.25 of 4 is beyond the filter's 0.5"
    assert update.mask[4:].any()


def test_micro_batches_and_masked_steps_change_no_gradient() -> None:
    task, batch = GRPOTraining(small_policy(1)), made_up_batch(["mixed", "mixed"])
    update = task.prepare(batch)
    whole = gradient(task, update)
    for ours, theirs in zip(gradient(task, update, micro_batch=3), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for row, trajectory in enumerate(batch.trajectories):
        after = ~update.mask[row, : len(trajectory.success)].numpy()
        assert after.any() == trajectory.succeeded or trajectory.length % 3
        trajectory.tokens.reshape(-1, 2)[after] = 8
        trajectory.log_probs.reshape(-1, 2)[after] = np.nan
    for ours, theirs in zip(gradient(task, task.prepare(batch)), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_options_choose_what_counts() -> None:
    batch, policy = made_up_batch(["mixed", "succeed", "fail"]), small_policy()
    plain = GRPOTraining(policy).prepare(batch)
    valid = sum(trajectory.length - trajectory.succeeded for trajectory in batch.trajectories)
    assert int(plain.totals["valid_steps"]) == int(plain.mask.sum()) == valid
    assert plain.totals["groups_without_signal"] == 2
    assert plain.used.tolist() == [0, 1, 2, 3]
    everything = GRPOTraining(policy, mask="none").prepare(batch)
    assert int(everything.mask.sum()) == sum(trajectory.length for trajectory in batch.trajectories)
    beginnings = GRPOTraining(policy, first_steps=3).prepare(batch)
    assert torch.equal(beginnings.mask[:, :3], plain.mask[:, :3])
    assert not beginnings.mask[:, 3:].any()
    assert torch.equal(beginnings.advantage, plain.advantage)
    filtered = GRPOTraining(policy, success_filter=(0.1, 0.9)).prepare(batch)
    assert (filtered.totals["groups_filtered"], filtered.totals["kept"]) == (2, 4)
    assert not filtered.mask[4:].any()
    assert len(GRPOTraining(policy, entropy_coefficient=0.1).prepare(batch).used) == 12
    scaled = GRPOTraining(policy, advantage_scale="std").prepare(batch)
    assert float(scaled.advantage[:4, 0].std()) == pytest.approx(1, abs=1e-4)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    # Rank 1 has fewer rollouts with a signal in the first update and none at all in the second.
    batches = [made_up_batch(["mixed", "mixed", "mixed", "fail"]), made_up_batch(["mixed", "mixed", "fail", "fail"], 1)]
    arguments: dict[str, Any] = {"lr": 0.3, "warmup_steps": 0, "gradient_clip_val": 1e9, "minibatches": 1}
    alone, together = (PlainSteps(small_policy(1), micro_batch=4, **arguments) for _ in range(2))
    before = [parameter.detach().clone() for parameter in alone.policy.parameters()]
    fit(alone, Batches(batches))
    fit(together, Batches(batches), devices=2, strategy="ddp_spawn", default_root_dir=tmp_path)
    moved = 0.0
    for ours, theirs, start in zip(together.policy.parameters(), alone.policy.parameters(), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
        moved += float((theirs.detach() - start).abs().sum())
    assert moved > 1e-3


def test_the_policy_learns_what_succeeds(tmp_path: Path) -> None:
    policy = small_policy()
    batch = made_up_batch(["mixed"], policy=policy)
    task = GRPOTraining(policy, lr=3e-3, warmup_steps=0, epochs=8, minibatches=2, entropy_coefficient=1e-4)

    def likelihood(won: bool) -> float:
        chosen = [trajectory for trajectory in batch.trajectories if trajectory.succeeded == won]
        found = [
            policy.log_prob(Observation(t.images, [t.instruction] * len(t.images)), t.tokens).log_probs.mean()
            for t in chosen
        ]
        return float(torch.stack(found).mean())

    before = likelihood(True), likelihood(False)
    trainer = fit(task, Batches([batch]))
    assert likelihood(True) > before[0]
    assert likelihood(False) < before[1]
    assert trainer.global_step == 16
    assert task.metrics["success_rate_real"] == 0.5
    assert task.metrics["groups_without_signal"] == 0
    assert task.metrics["clip_fraction"] > 0
    assert {"approx_kl", "entropy", "loss", "gradient_norm", "valid_length", "seconds_optimisation"} <= set(
        task.metrics
    )
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    stored = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert set(stored[KEY]["networks"]) == {"policy"}
    again = load_policy(tmp_path / "x.ckpt").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in policy.state_dict().items())


def test_parts_of_the_policy_have_learning_rates_of_their_own() -> None:
    moved = {}
    for rate in (0.0, 1e-2):
        policy = small_policy()
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        fit(GRPOTraining(policy, lr=1e-4, part_lr={"head": rate}), Batches([made_up_batch(["mixed"], policy=policy)]))
        change = {name: float((value - before[name]).abs().max()) for name, value in policy.state_dict().items()}
        of_head = max(value for name, value in change.items() if name.startswith("head"))
        moved[rate] = of_head, max(value for name, value in change.items() if not name.startswith("head"))
    assert moved[0.0][0] == 0
    assert 0 < moved[0.0][1] < 1e-3 < moved[1e-2][0]
    task = GRPOTraining(small_policy(), part_lr={"tail": 1e-3})
    with pytest.raises(UserError, match="no weight of the policy begins with 'tail'; its parts are "):
        task.configure_optimizers()


def test_the_learning_rate_rises_and_falls() -> None:
    task, seen = GRPOTraining(small_policy(), lr=1e-3, warmup_steps=2, final_lr_fraction=0.1, minibatches=2), []
    optimise = task._optimise

    def watch(*arguments: Any) -> float:
        norm = optimise(*arguments)
        seen.append(task.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return norm

    task._optimise = watch  # type: ignore[method-assign]
    fit(task, Batches([made_up_batch(["mixed", "mixed"], seed) for seed in range(3)]))
    fall = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert seen == pytest.approx([0.5e-3, 1e-3, *(1e-3 * factor for factor in fall)])


def test_the_reference_holds_the_policy_back_and_is_not_stored() -> None:
    batch, moved = made_up_batch(["mixed"]), []
    for coefficient in (1e-6, 10.0):
        task = GRPOTraining(small_policy(), lr=3e-3, warmup_steps=0, epochs=12, kl_coefficient=coefficient)
        fit(task, Batches([batch]))
        moved.append(task.metrics["kl_reference"])
        assert all(name.startswith("policy.") for name in task.state_dict())
    assert 0 < moved[1] < moved[0]


def test_an_update_without_signal_changes_nothing() -> None:
    task = GRPOTraining(small_policy())
    before = [parameter.detach().clone() for parameter in task.policy.parameters()]
    trainer = fit(task, Batches([made_up_batch(["fail", "succeed"])]))
    assert trainer.global_step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, task.policy.parameters(), strict=True))
    assert task.metrics["groups_without_signal"] == 1
    assert "approx_kl" not in task.metrics


def test_a_ratio_that_is_not_finite_stops_the_run() -> None:
    batch = made_up_batch(["mixed"], update=6)
    batch.trajectories[0].log_probs[0, 0, 0] = -np.inf
    task = GRPOTraining(small_policy(), minibatches=1)
    before = [parameter.detach().clone() for parameter in task.policy.parameters()]
    with pytest.raises(UserError, match=r"update 6, minibatch 0: the ratio .* is not finite; .*model.lr"):
        fit(task, Batches([batch]))
    assert all(torch.equal(a, b) for a, b in zip(before, task.policy.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"lr": 0.0}, "model.lr is 0.0"),
        ({"discount": 1.5}, "model.discount is 1.5"),
        ({"success_filter": (0.9, 0.1)}, "model.success_filter"),
        ({"minibatches": 0}, "model.minibatches is 0"),
        ({"first_steps": 0}, "model.first_steps is 0"),
        ({"coherence": -0.1}, "model.coherence is -0.1"),
        ({"coherence": float("nan")}, "model.coherence is nan"),
        ({"final_lr_fraction": 1.5}, "model.final_lr_fraction is 1.5; give a number from 0 to 1"),
        ({"dual_clip": 1.2}, "model.dual_clip is 1.2; give more than"),
        ({"gae_lambda": 1.1}, "model.gae_lambda is 1.1"),
        ({"gae_lambda": 0.5, "advantage_scale": "std"}, "model.gae_lambda with advantage_scale std"),
    ],
)
def test_wrong_numbers_are_said(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        GRPOTraining(small_policy(), **arguments)


def test_a_mixed_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.precision is bf16-mixed"):
        fit(GRPOTraining(small_policy()), Batches([made_up_batch(["mixed"])]), precision="bf16-mixed")


class HalfPrecision(torch.nn.Module):
    """Stands in for a policy whose log-probabilities depend on how many rows are computed at once."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def log_prob(self, observation: Observation, tokens: torch.Tensor, **options: Any) -> TokenLogProbs:
        found = self.policy.log_prob(observation, tokens, **options)
        return TokenLogProbs(found.log_probs * (1 + 0.01 * len(tokens)), found.entropy)


def test_the_ratio_begins_at_one_where_kernels_depend_on_the_batch() -> None:
    policy, batch = small_policy(1), made_up_batch(["mixed", "mixed"])
    task = GRPOTraining(policy, micro_batch=5)
    task.on_train_start()
    task.policy = HalfPrecision(policy)  # type: ignore[assignment]
    task.policy.chunk = policy.chunk
    update = task.prepare(batch)
    weight = step_weights(update.mask, len(update.trajectories))
    passes = [update.used[:3].tolist(), [], update.used[3:].tolist()]
    before = [one.log_probs.copy() for one in batch.trajectories]

    def batches() -> Iterator[ChunkSamples]:
        return (samples for chosen in passes for samples in task.samples(update, chosen, weight))

    for samples in batches():
        assert float(task.loss(samples)[1]["approx_kl"]) > 1e-6 or not samples.weight.any(), (
            "acting was another function"
        )
    update.trajectories = recompute_log_probs(partial(task.log_probs, task.policy), batches(), update.trajectories)
    for samples in batches():
        found = task.policy.log_prob(samples.observation, samples.tokens).log_probs
        assert torch.equal(found[samples.weight.any(1)], samples.log_probs[samples.weight.any(1)])
    for one, kept in zip(batch.trajectories, before, strict=True):
        np.testing.assert_array_equal(one.log_probs, kept)


def test_in_float32_the_ratio_needs_no_recomputing_and_elsewhere_it_is_done() -> None:
    policy = small_policy(1)
    task = GRPOTraining(policy)
    task.on_train_start()
    assert task._acts_alike()
    batch = made_up_batch(["mixed"], policy=policy)
    one_by_one = [
        policy.act(Observation(trajectory.images[:1], [trajectory.instruction]), temperature=1.0, noise=None)
        for trajectory in batch.trajectories
    ]
    together = policy.log_prob(
        Observation(
            np.concatenate([trajectory.images[:1] for trajectory in batch.trajectories]),
            [trajectory.instruction for trajectory in batch.trajectories],
        ),
        torch.cat([choice.tokens for choice in one_by_one]),
    )
    ratio = (together.log_probs - torch.cat([choice.log_probs for choice in one_by_one])).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-5, atol=1e-5)
    assert not GRPOTraining(small_policy(1).to(torch.bfloat16))._acts_alike()
