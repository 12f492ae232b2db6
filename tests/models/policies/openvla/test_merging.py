"""Adapters become part of the weights: the same policy, all of whose computed weights are trained."""

from __future__ import annotations

import torch

from tests.extras import needs
from tests.models.policies.openvla.tiny import needs_openvla, tiny
from tests.models.policies.small import observe

pytestmark = [*needs_openvla.marks, *needs("lora").marks]


def test_a_merged_policy_says_the_same() -> None:
    policy = tiny(lora_rank=2)
    for name, weight in policy.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    plain = tiny()
    seen = observe(2, (28, 28))
    before = policy(seen.image, seen.instruction)
    assert not torch.allclose(before, plain(seen.image, seen.instruction), atol=1e-3)
    policy.merge_adapters()
    torch.testing.assert_close(policy(seen.image, seen.instruction), before, rtol=1e-4, atol=1e-5)
    assert policy.state_dict().keys() == plain.state_dict().keys()
    assert policy.init_args["lora_rank"] == 0
    trained = [{name for name, weight in one.named_parameters() if weight.requires_grad} for one in (policy, plain)]
    assert trained[0] == trained[1]
    policy.merge_adapters()  # there are none left
