from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.policies.small import observe, small_policy
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, record
from wovr.models.policies.loading import load_policy, policy_fingerprint


def save(path: Path, kind: str = "policy") -> Path:
    policy = small_policy()
    found = record({"policy": policy}, {})
    found["networks"] = {kind: found["networks"]["policy"]}
    weights = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"state_dict": weights, KEY: found}, path)
    return path


def test_a_loaded_policy_acts_as_before(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt")
    policy, before = load_policy(path), small_policy()
    assert (policy.chunk, policy.action_dim, policy.bins, policy.training) == (3, 2, 9, False)
    observation = observe(3)
    torch.testing.assert_close(
        policy.act(observation, temperature=0).log_probs,
        before.act(observation, temperature=0).log_probs,
        rtol=0,
        atol=0,
    )
    assert policy_fingerprint(path) == policy_fingerprint(save(tmp_path / "b.ckpt"))


def test_a_checkpoint_from_before_a_weight_was_added_is_the_policy_it_was(tmp_path: Path) -> None:
    path = save(tmp_path / "new.ckpt")
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["policy.log_sharpness"]
    torch.save(content, tmp_path / "old.ckpt")
    observation = observe(3)
    new, old = (load_policy(tmp_path / name).act(observation, temperature=0) for name in ("new.ckpt", "old.ckpt"))
    torch.testing.assert_close(old.log_probs, new.log_probs, rtol=0, atol=0)
    del content["state_dict"]["policy.head.bias"]
    torch.save(content, tmp_path / "broken.ckpt")
    with pytest.raises(UserError, match="lacks 1 weights"):
        load_policy(tmp_path / "broken.ckpt")


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    for use in (load_policy, policy_fingerprint):
        with pytest.raises(UserError, match="holds world_model, not a policy"):
            use(save(tmp_path / "a.ckpt", "world_model"))
