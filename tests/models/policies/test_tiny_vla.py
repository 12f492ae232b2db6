from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.models.policies.small import observe, small_policy
from wovr.errors import UserError
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.types import Observation


def log_distribution(policy: TinyVLA, observation: Observation) -> torch.Tensor:
    with torch.no_grad():
        return policy(observation.image, observation.instruction)


def test_default_size_fits_the_budget_of_two_cores() -> None:
    policy = TinyVLA()
    assert sum(parameter.numel() for parameter in policy.parameters()) < 1.3e6
    observation = observe(1, (64, 64))
    with FlopCounterMode(display=False) as counter:
        distribution = policy(observation.image, observation.instruction)
    assert distribution.shape == (1, 8, 4, 33)
    assert counter.get_total_flops() < 60e6


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (128, 96)])
def test_any_multiple_of_eight_is_a_picture(size: tuple[int, int]) -> None:
    assert log_distribution(small_policy(), observe(2, size)).shape == (2, 3, 2, 9)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"60 x 64.*multiples of 8"):
        small_policy().act(observe(1, (60, 64)))


def test_sharpness_divides_the_temperature_of_each_dimension() -> None:
    policy, observation = small_policy(), observe(3)
    before = log_distribution(policy, observation)
    with torch.no_grad():
        policy.log_sharpness[1] = torch.tensor(2.0).log()
        colder = policy(observation.image, observation.instruction, temperature=0.5)
        found = log_distribution(policy, observation)
    torch.testing.assert_close(found[:, :, 0], before[:, :, 0], rtol=0, atol=0)
    with torch.no_grad():
        policy.log_sharpness.zero_()
        expected = policy(observation.image, observation.instruction, temperature=0.5)
    torch.testing.assert_close(found[:, :, 1], expected[:, :, 1])
    torch.testing.assert_close(colder[:, :, 0], expected[:, :, 0])


def test_gradient_reaches_every_parameter() -> None:
    policy = small_policy().train()
    observation = observe(6)
    tokens = torch.randint(0, 9, (6, 3, 2))
    policy.log_prob(observation, tokens).log_probs.sum().backward()
    without = [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_permuting_the_batch_permutes_the_output() -> None:
    policy, observation = small_policy(), observe(7)
    order = [3, 0, 6, 1, 5, 2, 4]
    permuted = Observation(observation.image[order], [observation.instruction[i] for i in order])
    torch.testing.assert_close(log_distribution(policy, permuted), log_distribution(policy, observation)[order])


def test_rows_do_not_see_each_other() -> None:
    policy, observation = small_policy(), observe(5)
    alone = Observation(observation.image[2:3], observation.instruction[2:3])
    torch.testing.assert_close(log_distribution(policy, alone)[0], log_distribution(policy, observation)[2])


def test_instruction_and_place_of_things_both_matter() -> None:
    policy, observation = small_policy(), observe(1)
    base = log_distribution(policy, observation)
    told = log_distribution(policy, Observation(observation.image, ["open the drawer, then close it"]))
    moved = log_distribution(policy, Observation(observation.image[:, :, ::-1], observation.instruction))
    assert (told - base).abs().max() > 1e-4
    assert (moved - base).abs().max() > 1e-4


def test_unseen_instruction_acts() -> None:
    chunk = small_policy().act(observe(2, text=["schiebe den Würfel nach links", ""]))
    assert chunk.actions.shape == (2, 3, 2)
    assert chunk.log_probs.isfinite().all()


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        TinyVLA(channels=(16, 12))
    with pytest.raises(ValueError, match="not a multiple of heads"):
        TinyVLA(width=30)


def test_an_instruction_met_in_inference_can_be_trained_on() -> None:
    policy, observation = small_policy(), observe(1, text=["a sentence no other test has"])
    with torch.inference_mode():
        tokens = policy.act(observation, temperature=0).tokens
    policy.log_prob(observation, tokens.clone()).log_probs.sum().backward()
    assert policy.text.embedding.weight.grad is not None
