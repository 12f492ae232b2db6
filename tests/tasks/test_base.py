from __future__ import annotations

import itertools
import math

import pytest

from tests.models.policies.small import small_policy
from wovr.errors import UserError
from wovr.tasks.base import check_equal, warmup_cosine
from wovr.tasks.behaviour_cloning import BehaviourCloningTraining


def test_learning_rate_rises_then_falls_along_a_cosine() -> None:
    factors = [warmup_cosine(step, 10, 110, 0.1) for step in range(111)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[110] == pytest.approx(0.1)
    assert factors[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert all(one >= two for one, two in itertools.pairwise(factors[10:]))
    assert warmup_cosine(200, 10, 110, 0.1) == pytest.approx(0.1)
    assert warmup_cosine(10**6, 10, math.inf, 0.1) == 1


def test_numbers_of_model_and_data_must_agree() -> None:
    check_equal("chunk", 8, 8, "")
    with pytest.raises(UserError, match="chunk is 8 in the model and 4 in the data; do it"):
        check_equal("chunk", 8, 4, "do it")


def test_networks_are_found_by_attribute() -> None:
    module = BehaviourCloningTraining(small_policy())
    assert list(module.networks()) == ["policy"]
