from __future__ import annotations

import pytest
import torch

from tests.models.world_model.tiny_world import pictures, random_actions, tiny_world
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.models.world_model.context import Context
from wovr.tasks.robot.ghosting import Ghosting, Ghosts, add_ghosts, draw_ghosts
from wovr.tasks.world_model.training import WorldModelTraining

BATCH = 3


def context_of() -> Context:
    world = tiny_world()
    return world.encode_context(pictures(BATCH, 1)[:, 0], pictures(BATCH, 5)[:, 1:], random_actions(BATCH, 4))


def test_the_reference_shines_through_where_it_is_said_to() -> None:
    """Against the sum written out, place by place."""
    context = context_of()
    weight = torch.rand(BATCH, 2, 2, generator=torch.Generator().manual_seed(1))
    weight[0, 1, 0] = 0
    foreign = torch.tensor([False, True, False])
    ghostly = add_ghosts(context, Ghosts(weight, foreign)).latents
    clean = context.latents
    assert torch.equal(ghostly[:, :, 0], clean[:, :, 0]), "the reference itself is as it was"
    for b, other in enumerate([0, 0, 2]):
        for y in range(2):
            for x in range(2):
                share = weight[b, y, x].item()
                expected = (1 - share) * clean[b, :, 1, y, x] + share * clean[other, :, 0, y, x]
                torch.testing.assert_close(ghostly[b, :, 1, y, x], expected)
    assert torch.equal(ghostly[0, :, 1, 1, 0], clean[0, :, 1, 1, 0])


def test_ghosts_are_drawn_for_a_share_of_the_windows() -> None:
    torch.manual_seed(0)
    ghosts = draw_ghosts(torch.Size((4000, 5, 1, 6, 7)), 0.3, torch.device("cpu"))
    assert ghosts.weight.shape == (4000, 6, 7)
    assert ghosts.weight.min() == 0
    assert 0.99 < ghosts.weight.max() < 1
    haunted = ghosts.weight[ghosts.weight.amax((1, 2)) > 0]
    assert 0.27 < len(haunted) / 4000 < 0.33
    covered = (haunted > 0).float().mean((1, 2))
    assert 0.45 < (covered == 1).float().mean() < 0.55, "half of them everywhere"
    assert 0.47 < covered[covered < 1].mean() < 0.53, "the others in half of the places"
    assert 0.47 < ghosts.foreign.float().mean() < 0.53
    strengths = haunted.amax((1, 2))
    assert strengths.mean().item() == pytest.approx(0.5, abs=0.03)


def test_training_puts_them_in_and_validation_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(noisy_context=0.0)
    task = WorldModelTraining(world, augmentations=[Ghosting(1.0)])
    batch = WorldModelBatch(
        frames=pictures(BATCH, 13), actions=random_actions(BATCH, 12), known=torch.ones(BATCH, 12, dtype=torch.bool),
        start=torch.zeros(BATCH), keys=["one"] * BATCH, signals={}, chunk=8,
    )  # fmt: skip
    clean = task._encode(batch).context
    seen: list[torch.Tensor] = []

    def predict(noisy: torch.Tensor, sigma: torch.Tensor, context: Context, actions: torch.Tensor) -> torch.Tensor:
        seen.append(context.latents)
        return noisy

    monkeypatch.setattr(world, "predict", predict)
    for name in ("log", "log_metrics", "_log_by_level", "huber_scale_at"):
        monkeypatch.setattr(task, name, lambda *_, **__: None)
    torch.manual_seed(3)
    task.training_step(batch, 0)
    torch.manual_seed(3)
    expected = add_ghosts(clean, draw_ghosts(clean.latents[:, :, 1:].shape, 1.0, torch.device("cpu")))
    assert torch.equal(seen.pop(), expected.latents)
    assert not torch.equal(expected.latents, clean.latents)
    task.validation_step(batch, 0)
    assert torch.equal(seen.pop(), clean.latents)


def test_a_share_that_is_none() -> None:
    with pytest.raises(UserError, match=r"share of Ghosting is 1.5; give a number in \[0, 1\]"):
        Ghosting(1.5)
