"""OpenVLA's action tokens against numpy's digitize, and the statistics that undo the normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.policies.openvla.tiny import STATISTICS
from wovr.errors import UserError
from wovr.models.policies.openvla.actions import OpenVLATokenizer, action_statistics

TOY = action_statistics(STATISTICS, "toy_no_noops", "file.json")


def test_tokens_are_those_of_the_released_discretisation() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (2000, 3)).astype(np.float32)
    actions[:4] = [[-1, 1, 0], [1, -1, 0.5], [0, 0, 0], [2, -2, 0.999999]]
    tokenizer = OpenVLATokenizer(256, 3, None, "as_stored")
    tokens = tokenizer.encode(torch.from_numpy(actions))
    # The released code: bins = linspace(-1, 1, 256), id = vocabulary - digitize(action), centre[digitize - 1] back.
    edges = np.linspace(-1, 1, 256)
    digits = np.digitize(np.clip(actions, -1, 1), edges)
    ids = 32000 - digits
    assert np.array_equal(31999 - tokens.numpy(), ids)
    centres = (edges[:-1] + edges[1:]) / 2
    read_back = centres[np.clip(32000 - ids - 1, 0, 254)]
    np.testing.assert_allclose(tokenizer.decode(tokens).numpy(), read_back, atol=1e-6)
    assert np.abs(read_back - np.clip(actions, -1, 1)).max() <= 1 / 255 + 1e-6


def test_statistics_undo_the_normalisation_where_the_mask_says_so() -> None:
    tokenizer = OpenVLATokenizer(256, 3, TOY, "as_stored")
    tokens = torch.tensor([[0, 0, 127], [255, 255, 255], [127, 127, 254]])
    # 0.5 * (x + 1) * (q99 - q01) + q01 in masked dimensions, x as it is in the last.
    x = np.array([-1 + 1 / 255, 1 - 1 / 255, 0.0])
    expected = np.stack(
        [0.5 * (x + 1) * 1.0 - 0.5, 0.5 * (x + 1) * 1.0 - 0.25, [0.0, 1 - 1 / 255, 1 - 1 / 255]], axis=1
    )
    np.testing.assert_allclose(tokenizer.decode(tokens).numpy(), expected, atol=1e-6)
    actions = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    actions[:, 1] += 0.25
    back = tokenizer.decode(tokenizer.encode(actions))
    assert (back - actions).abs().max() <= 1 / 255 + 1e-5
    assert (back - actions)[:, :2].abs().max() <= 0.5 / 255 + 1e-5


def test_liberos_gripper_is_turned_round() -> None:
    tokenizer = OpenVLATokenizer(256, 3, TOY, "libero")
    tokens = tokenizer.encode(torch.tensor([[0.1, 0.1, -1.0], [0.1, 0.1, 1.0]]))
    assert tokens[:, 2].tolist() == [255, 127]  # open is 1 in the data set, closed 0
    assert tokenizer.decode(tokens)[:, 2].tolist() == [-1.0, 1.0]
    assert tokenizer.decode(torch.tensor([[0, 0, 180], [0, 0, 200]]))[:, 2].tolist() == [1.0, -1.0]


def test_targets_are_distributions_around_the_action() -> None:
    tokenizer = OpenVLATokenizer(256, 3, TOY, "as_stored")
    action = torch.tensor([[0.2, 0.3, 0.7]])
    hard = tokenizer.targets(action, 0.0)
    assert torch.equal(hard.argmax(-1), tokenizer.encode(action))
    soft = tokenizer.targets(action, 0.05)
    assert soft.shape == (1, 3, 256)
    torch.testing.assert_close(soft.sum(-1), torch.ones(1, 3))
    middle = tokenizer.denormalise((2 * torch.arange(256.0)[:, None].expand(-1, 3) + 1) / 255 - 1)  # (256, 3)
    torch.testing.assert_close((soft[0].T * middle).sum(0), action[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({}, "file.json: no statistics for the data set 'toy'; it has no data set; set dataset to one"),
        ({"a": {}, "b": {}}, "file.json: no statistics for the data set 'toy'; it has a, b"),
        ({"toy": {"action": {"q01": [0.0]}}}, "key 'toy.action' has no usable q01, q99 and mask"),
        ({"toy": {"action": {"q01": [0.0], "q99": [1.0, 2.0]}}}, "q01, q99 and mask have 1, 2 and 1 numbers"),
        ({"toy": []}, "key 'toy.action' has no usable q01"),
    ],
)
def test_statistics_that_cannot_be_used(statistics: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        action_statistics(statistics, "toy", "file.json")


def test_statistics_of_another_action_dimension() -> None:
    with pytest.raises(UserError, match="action_dim is 7, the statistics are of 3 dimensions; set action_dim to 3"):
        OpenVLATokenizer(256, 7, TOY, "as_stored")


@pytest.mark.parametrize("value", [0.7, -0.35, 3.0, 0.0])
@pytest.mark.parametrize("moves", [0.0, 1e-9, 1e-7])
def test_a_dimension_that_never_moves_has_finite_tokens(value: float, moves: float) -> None:
    statistics = {"q01": [-0.5, value], "q99": [0.5, value + moves], "mask": [True, True]}
    tokenizer = OpenVLATokenizer(256, 2, statistics, "as_stored")
    actions = torch.tensor([[0.1, value], [0.2, value + 0.01], [0.3, value - 0.01]])
    tokens = tokenizer.encode(actions)
    assert tokenizer.normalise(actions).isfinite().all()
    assert tokenizer.targets(actions, 0.02).isfinite().all()
    assert (tokens >= 0).all()
    assert (tokens < 256).all()
    if moves == 0.0:
        assert tokens[:, 1].tolist() == [127] * 3, "one action, in the middle"
    read_back = tokenizer.decode(tokens)[:, 1]
    np.testing.assert_allclose(read_back.numpy(), np.clip(value, -1, 1), atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (float("nan"), 1.0), (0.0, float("inf"))])
def test_quantiles_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match=r"f.json: key 'toy.action': a q01 is above its q99, or one is not finite"):
        action_statistics({"toy": {"action": {"q01": [low], "q99": [high]}}}, "toy", "f.json")
