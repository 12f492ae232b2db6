from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.world_model.tiny_world import CausalAutoencoder, linear_world, pictures, random_actions, tiny_world
from wovr.errors import UserError
from wovr.models.world_model.rollout import Imagination, chunk_noise


def started(count: int = 3, **arguments: object) -> Imagination:
    imagination = Imagination(tiny_world(), sigmas=[1.0, 0.6])
    imagination.start(pictures(count), seeds=range(10, 10 + count), **arguments)  # type: ignore[arg-type]
    return imagination


def test_frames_of_a_chunk_do_not_depend_on_later_actions() -> None:
    first, second, other = (random_actions(3, 8, seed=seed) for seed in (1, 2, 3))
    one, two = started(), started()
    a1, a2 = one.step(first), one.step(second)
    b1, b2 = two.step(first), two.step(other)
    assert a1.shape == (3, 8, 16, 16, 3)
    assert a1.dtype == torch.uint8
    assert torch.equal(a1, b1)
    assert not torch.equal(a2, b2)


def test_noise_does_not_depend_on_who_is_beside() -> None:
    together = started()
    together.step(random_actions(3, 8))
    alone = Imagination(tiny_world(), sigmas=[1.0, 0.6])
    alone.start(pictures(3)[1:2], seeds=[11])
    alone.step(random_actions(3, 8)[1:2])
    assert torch.equal(alone.noise()[0], together.noise()[1])
    frames = together.step(random_actions(3, 8, seed=4))
    frames_alone = alone.step(random_actions(3, 8, seed=4)[1:2])
    # Sums in matrix products may be taken in another order, so frames are the same but for rounding.
    assert (frames[1:2].int() - frames_alone.int()).abs().max() <= 1


def test_noise_is_new_in_every_chunk_and_shared_by_a_seed() -> None:
    imagination = Imagination(tiny_world())
    imagination.start(pictures(3), seeds=[5, 5, -6])
    before = imagination.noise()
    assert torch.equal(before[0], before[1])
    assert not torch.equal(before[0], before[2])
    imagination.step(random_actions(3, 8))
    assert not torch.equal(imagination.noise(), before)
    many = torch.stack([chunk_noise(seed, 0, (64,)) for seed in range(200)])
    assert many.mean().abs() < 0.03
    assert many.std() == pytest.approx(1, abs=0.03)
    assert np.abs(np.corrcoef(many.numpy()) - np.eye(200)).max() < 0.6


def test_keep_drops_rollouts_and_changes_nothing_else() -> None:
    whole, part = started(), started()
    actions = random_actions(3, 8)
    whole.step(actions)
    part.step(actions)
    part.keep(np.array([True, False, True]))
    assert len(part) == 2
    assert torch.equal(part.noise(), whole.noise()[[0, 2]])
    expected = whole.step(actions)[[0, 2]]
    assert (part.step(actions[[0, 2]]).int() - expected.int()).abs().max() <= 1


def test_a_restored_snapshot_goes_on_exactly() -> None:
    imagination = started()
    imagination.step(random_actions(3, 8))
    snapshot = imagination.snapshot()
    first = [imagination.step(random_actions(3, 8, seed=seed)) for seed in (1, 2)]
    imagination.keep(torch.tensor([True, False, False]))
    imagination.restore(snapshot)
    assert all(
        torch.equal(imagination.step(random_actions(3, 8, seed=seed)), frames)
        for seed, frames in zip((1, 2), first, strict=True)
    )
    elsewhere = Imagination(tiny_world(), sigmas=[1.0, 0.6])
    elsewhere.restore(snapshot)
    assert torch.equal(elsewhere.step(random_actions(3, 8, seed=1)), first[0])


def test_from_a_keyframe_it_goes_on_as_from_its_own_memory() -> None:
    """A rollout stopped after a chunk and begun again from the frames it had made is the same rollout."""
    for model in (tiny_world(), linear_world(autoencoder=CausalAutoencoder())):
        one, two = Imagination(model, [1.0]), Imagination(model, [1.0])
        one.start(pictures(2), seeds=[0, 1])
        actions = random_actions(2, 8)
        frames = one.step(actions)
        two.start(pictures(2).numpy(), frames[:, -6:].numpy(), actions[:, -6:].numpy(), age=np.array([8, 8]))
        noise = one.noise()
        assert torch.equal(two.step(actions, noise), one.step(actions))


def test_bfloat16_is_close() -> None:
    frames = {}
    for precision in ("fp32", "bf16"):
        imagination = Imagination(tiny_world(), [1.0], precision)
        imagination.start(pictures(2))
        frames[precision] = imagination.step(random_actions(2, 8)).int()
    difference = (frames["fp32"] - frames["bf16"]).abs().float()
    assert 0 < difference.mean() < 3


def test_what_cannot_be_imagined() -> None:
    with pytest.raises(UserError, match="no rollout was started"):
        Imagination(tiny_world()).step(random_actions(3, 8))
    with pytest.raises(UserError, match="precision is half"):
        Imagination(tiny_world(), precision="half")
    imagination = started()
    with pytest.raises(UserError, match=r"actions have shape \(3, 4, 3\), the world model takes \(3, 8, 3\)"):
        imagination.step(random_actions(3, 4))
    with pytest.raises(UserError, match="a mask of shape"):
        imagination.keep(np.array([True]))
    with pytest.raises(UserError, match="2 seeds for 3 rollouts"):
        imagination.start(pictures(3), seeds=[1, 2])
    with pytest.raises(UserError, match="images are 12 x 16"):
        imagination.start(pictures(3)[:, :12])
