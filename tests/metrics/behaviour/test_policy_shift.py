from __future__ import annotations

import pytest
import torch

from tests.metrics.painted import noisy, painted_batch
from wovr.errors import UserError
from wovr.metrics.behaviour.policy_shift import PolicyShift
from wovr.metrics.rollouts import ImaginedBatch
from wovr.models.policies.base import image_tensor
from wovr.models.policies.tiny_vla import TinyVLA

TOLD = ["push the red cube", "open the drawer", "push the red cube"]


@pytest.fixture(scope="module")
def policy() -> TinyVLA:
    torch.manual_seed(0)
    made = TinyVLA(chunk=2, action_dim=2, bins=5, channels=(8, 8), width=16, layers=1, text_width=8, buckets=64)
    torch.nn.init.normal_(made.head.weight, std=1.0)
    return made.eval()


def told(lengths: tuple[int, ...] = (9, 9, 6)) -> ImaginedBatch:
    batch = painted_batch(lengths)
    batch.imagined = noisy(batch.real, 60)
    batch.instructions = TOLD[: len(lengths)]
    return batch


def test_it_is_the_divergence_of_the_tokens_frame_by_frame(policy: TinyVLA) -> None:
    batch = told()
    metric = PolicyShift([4, 8], policy)
    metric.update(batch)
    score = metric.compute()["policy_shift"]
    found: dict[int, list[float]] = {}
    for row, sentence in enumerate(TOLD):
        for t in range(1, int(batch.lengths[row])):
            real, imagined = (
                policy.logits(image_tensor(frames[row, t : t + 1].numpy(), torch.device("cpu")), [sentence]).softmax(-1)
                for frames in (batch.real, batch.imagined)
            )
            found.setdefault(t, []).append(float((real * (real / imagined).log()).sum(-1).mean()))
    assert score.by_frame is not None
    for t in range(1, 8):
        assert score.by_frame[t] == pytest.approx(sum(found[t]) / len(found[t]), rel=1e-4)
    first = [value for t in (1, 2, 3) for value in found[t]]
    assert score.by_horizon[4] == pytest.approx(sum(first) / len(first), rel=1e-4)
    assert score.by_horizon[4] > 1e-3


def test_none_on_the_same_frames_and_another_for_other_instructions(policy: TinyVLA) -> None:
    batch, values = told(), []
    for imagined in (batch.real, batch.imagined):
        metric = PolicyShift([6], policy)
        other = batch.with_imagined(imagined, None)
        metric.update(other)
        values.append(metric.compute()["policy_shift"].by_horizon[6])
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1] > 1e-3
    metric = PolicyShift([6], policy)
    batch.instructions = [TOLD[1]] * 3
    metric.update(batch)
    assert metric.compute()["policy_shift"].by_horizon[6] != pytest.approx(values[1], rel=1e-3)


def test_instructions_are_needed(policy: TinyVLA) -> None:
    batch = told()
    batch.instructions = None
    with pytest.raises(UserError, match="policy_shift needs the episodes' instructions"):
        PolicyShift([6], policy).update(batch)
