from __future__ import annotations

import pytest
import torch

from tests.models.policies.small import observe, small_policy
from wovr.data.training.demonstrations import DemonstrationBatch
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.tasks.behaviour_cloning import BehaviourCloningTraining, masked_mean


def make_batch(num: int, chunk: int = 3, action_dim: int = 2, seed: int = 0) -> DemonstrationBatch:
    observation = observe(num, seed=seed)
    actions = torch.rand(num, chunk, action_dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    mask = torch.ones(num, chunk, dtype=torch.bool)
    mask[0, 1:] = False
    return DemonstrationBatch(torch.from_numpy(observation.image), list(observation.instruction), actions, mask)


def quiet(policy: TinyVLA, **options: float) -> BehaviourCloningTraining:
    module = BehaviourCloningTraining(policy, **{"shift": 0, "smoothing": 0.0} | options)  # type: ignore[arg-type]
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module


def test_loss_is_the_cross_entropy_of_the_actions_before_the_end() -> None:
    policy, batch = small_policy(), make_batch(4)
    log_p = policy(batch.image, batch.instruction)
    tokens = policy.tokenizer.encode(batch.actions)
    reference = torch.nn.functional.cross_entropy(log_p[batch.mask].flatten(0, 1), tokens[batch.mask].flatten())
    torch.testing.assert_close(quiet(policy).training_step(batch, 0), reference)


def test_smoothing_widens_the_target() -> None:
    policy, batch = small_policy(), make_batch(4)
    with torch.no_grad():
        policy.head.weight *= 100  # a policy with opinions
    losses = [quiet(policy, smoothing=s).training_step(batch, 0).item() for s in (0.0, 1e-3, 0.3)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    log_p = policy(batch.image, batch.instruction)
    target = policy.tokenizer.targets(batch.actions, 0.3)
    assert losses[2] == pytest.approx(-(target * log_p).sum(-1)[batch.mask].mean().item(), rel=1e-4)
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)


def test_what_is_past_the_end_does_not_count() -> None:
    batch = make_batch(4)
    one = quiet(small_policy()).training_step(batch, 0)
    batch.actions[0, 1:] = 0.7
    assert torch.equal(quiet(small_policy()).training_step(batch, 0), one)
    assert masked_mean(torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), torch.tensor([[True, False]])) == 2


def test_one_batch_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    policy = TinyVLA(4, 3, 33, channels=(16, 16), width=32, layers=1, heads=2, text_width=16, buckets=64)
    batch = make_batch(8, 4, 3)
    module = quiet(policy)
    optimizer = torch.optim.AdamW([weight for weight in policy.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    right = policy(batch.image, batch.instruction).argmax(-1) == policy.tokenizer.encode(batch.actions)
    assert right[batch.mask].float().mean() > 0.95
    assert not policy.log_sharpness.any(), "that is for reinforcement learning to decide"


def test_shift_moves_the_pictures_in_training_only() -> None:
    batch, seen = make_batch(4), []
    module = quiet(small_policy(), shift=3)
    module.policy.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    original = batch.image.clone()
    module.training_step(batch, 0)
    module.validation_step(make_batch(4), 0)
    assert not torch.equal(seen[0], original)
    assert torch.equal(seen[1], original)
