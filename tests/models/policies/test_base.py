from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.policies.small import observe, small_policy
from wovr.errors import UserError
from wovr.models.policies.base import ActionTokenizer, gumbel_noise, image_tensor
from wovr.types import Observation


def test_default_bins_hold_zero_and_the_ends_exactly() -> None:
    tokenizer = ActionTokenizer()
    exact = torch.tensor([-1.0, 0.0, 1.0, 0.5])
    assert torch.equal(tokenizer.decode(tokenizer.encode(exact)), exact)
    assert tokenizer.encode(exact).tolist() == [0, 16, 32, 24]


@pytest.mark.parametrize("bins", [2, 33, 256])
def test_round_trips_of_actions_and_tokens(bins: int) -> None:
    tokenizer = ActionTokenizer(bins)
    actions = torch.linspace(-1, 1, 1001)
    assert (tokenizer.decode(tokenizer.encode(actions)) - actions).abs().max() <= 1 / (bins - 1) + 1e-6
    tokens = torch.arange(bins)
    assert torch.equal(tokenizer.encode(tokenizer.decode(tokens)), tokens)
    # beyond the range: the outer bins
    assert tokenizer.encode(torch.tensor([-3.0, 3.0])).tolist() == [0, bins - 1]


def test_targets_are_distributions_around_the_action() -> None:
    tokenizer = ActionTokenizer(33)
    actions = torch.tensor([[-1.0, 0.02], [0.3, 1.0]])
    hard = tokenizer.targets(actions, 0)
    assert torch.equal(hard.argmax(-1), tokenizer.encode(actions))
    assert hard.max(-1).values.eq(1).all()
    soft = tokenizer.targets(actions, 0.1)
    centres = np.linspace(-1, 1, 33)
    reference = np.exp(-((centres - actions.numpy()[..., None]) ** 2) / (2 * 0.1**2))
    np.testing.assert_allclose(soft, reference / reference.sum(-1, keepdims=True), rtol=1e-4, atol=1e-7)


def test_images_become_floats_between_minus_one_and_one() -> None:
    image = np.zeros((1, 8, 16, 3), np.uint8)
    image[0, 0, 1, 2] = 255
    tensor = image_tensor(image, torch.device("cpu"))
    assert tensor.shape == (1, 3, 8, 16)
    assert tensor[0, 2, 0, 1] == 1
    assert tensor.min() == -1
    assert torch.equal(image_tensor(torch.from_numpy(image), torch.device("cpu")), tensor)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 3, 8, 8), np.uint8)]
)
def test_other_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(UserError, match="uint8"):
        image_tensor(image, torch.device("cpu"))


def test_the_same_noise_gives_the_same_actions() -> None:
    policy, observation = small_policy(), observe(4)
    noise = gumbel_noise(4, 3, 2, 9, generator=torch.Generator().manual_seed(3))
    one, two = (policy.act(observation, noise=noise) for _ in range(2))
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.log_probs, two.log_probs)
    other = policy.act(observation, noise=gumbel_noise(4, 3, 2, 9, generator=torch.Generator().manual_seed(4)))
    assert not torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.actions, policy.tokenizer.decode(one.tokens))
    assert one.actions.dtype == torch.float32
    assert one.tokens.dtype == torch.int64


def test_temperature_zero_takes_the_likeliest_token() -> None:
    policy, observation = small_policy(), observe(4)
    chunk = policy.act(observation, temperature=0)
    log_distribution = policy(observation.image, observation.instruction)
    assert torch.equal(chunk.tokens, log_distribution.argmax(-1))
    torch.testing.assert_close(chunk.log_probs, log_distribution.max(-1).values.detach())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
def test_log_prob_agrees_with_act(temperature: float) -> None:
    policy, observation = small_policy(), observe(6)
    chunk = policy.act(observation, temperature=temperature)
    again = policy.train().log_prob(observation, chunk.tokens.numpy(), temperature=temperature)
    torch.testing.assert_close(again.log_probs.detach(), chunk.log_probs, rtol=0, atol=1e-5)
    # an independent way to the same numbers
    with torch.no_grad():
        logits = policy.logits(image_tensor(observation.image, torch.device("cpu")), observation.instruction)
    distribution = torch.distributions.Categorical(logits=logits / temperature)
    torch.testing.assert_close(distribution.log_prob(chunk.tokens), chunk.log_probs, rtol=0, atol=1e-5)
    torch.testing.assert_close(distribution.entropy(), again.entropy.detach(), rtol=0, atol=1e-5)


def test_gumbel_noise_samples_the_distribution() -> None:
    policy = small_policy()
    one = observe(1)
    many = Observation(np.repeat(one.image, 1500, axis=0), one.instruction * 1500)
    generator = torch.Generator().manual_seed(0)
    tokens = policy.act(many, temperature=0.3, noise=gumbel_noise(1500, 3, 2, 9, generator=generator)).tokens
    frequency = torch.nn.functional.one_hot(tokens, 9).float().mean(0)
    expected = policy(one.image, one.instruction, 0.3).exp()[0]
    assert (frequency - expected).abs().max() < 0.05


@pytest.mark.parametrize("temperature", [-1.0, float("nan")])
def test_bad_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        small_policy().act(observe(1), temperature=temperature)
