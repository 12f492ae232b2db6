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


@pytest.mark.parametrize("coherence", [0.0, 0.6])
def test_tokens_drawn_alike_have_the_log_probs_that_are_said_of_them(coherence: float) -> None:
    policy, observation = small_policy(), observe(6)
    torch.manual_seed(0)
    chunk = policy.act(observation, temperature=0.7, coherence=coherence)
    again = policy.log_prob(observation, chunk.tokens, temperature=0.7, coherence=coherence)
    torch.testing.assert_close(again.log_probs.detach(), chunk.log_probs, rtol=0, atol=1e-5)
    greedy = policy.act(observation, temperature=0, coherence=coherence)
    assert torch.equal(greedy.log_probs, policy.act(observation, temperature=0).log_probs)


def test_tokens_drawn_alike_are_as_frequent_as_their_log_probs_say() -> None:
    policy, one = small_policy(), observe(1)
    many = Observation(np.repeat(one.image, 6000, axis=0), one.instruction * 6000)
    torch.manual_seed(1)
    tokens = policy.act(many, temperature=0.3, coherence=1.5).tokens[:, :2, 0]  # two steps of a dimension
    values = policy.tokenizer.decode(tokens)
    apart = policy.tokenizer.decode(policy.act(many, temperature=0.3).tokens[:, :2, 0])
    assert np.corrcoef(values.T)[0, 1] > 0.3 > 0.1 > abs(np.corrcoef(apart.T)[0, 1])
    pairs, counts = tokens.unique(dim=0, return_counts=True)
    often = counts > 200
    seen = Observation(np.repeat(one.image, len(pairs), axis=0), one.instruction * len(pairs))
    chunks = torch.zeros(len(pairs), policy.chunk, policy.action_dim, dtype=torch.int64)
    chunks[:, :2, 0] = pairs
    said = policy.log_prob(seen, chunks, temperature=0.3, coherence=1.5).log_probs[:, :2, 0].sum(1).exp()
    np.testing.assert_allclose(counts[often] / 6000, said.detach()[often], atol=0.02)


def test_tokens_taken_together_have_one_log_prob_a_dimension() -> None:
    policy, observation = small_policy(), observe(4)
    tokens = policy.act(observation).tokens
    summed = torch.ones(4, policy.chunk, dtype=torch.bool)
    summed[1, 1:] = False  # one token is its own sum
    found = policy.log_prob(observation, tokens, summed=summed)
    apart = policy.log_prob(observation, tokens)
    assert found.log_probs.shape == apart.log_probs.shape
    assert torch.equal(found.log_probs[:, :1].expand(-1, policy.chunk, -1), found.log_probs)
    torch.testing.assert_close(found.log_probs[1, 0], apart.log_probs[1, 0], rtol=1e-4, atol=1e-5)
    assert (found.log_probs[0, 0] >= apart.log_probs[0].sum(0) - 1e-5).all()  # one way of many to that sum
    assert torch.equal(found.entropy, apart.entropy)
