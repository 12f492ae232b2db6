from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.tiny_world import pictures, random_actions, tiny_world
from wovr.data.world_model_data import WorldModelBatch
from wovr.errors import UserError
from wovr.models.context import EncodedWindow
from wovr.models.world_model import WorldModel
from wovr.tasks.occlusion import LENGTH, STROKES, THICKNESS, Strokes, draw_strokes, paint
from wovr.tasks.world_model import WorldModelTraining

BATCH = 3


def batch_of() -> WorldModelBatch:
    return WorldModelBatch(
        frames=pictures(BATCH, 13),
        actions=random_actions(BATCH, 12),
        known=torch.ones(BATCH, 12, dtype=torch.bool),
        start=torch.tensor([4, 9, 30]),
        keys=["one"] * BATCH,
        proprio=torch.zeros(BATCH, 9, 0),
        memory_proprio=torch.zeros(BATCH, 4, 0),
    )


def window_of(world: WorldModel) -> EncodedWindow:
    return WorldModelTraining(world)._encode(batch_of())


def strokes_of(size: int) -> Strokes:
    """Two a window that overlap; the first is in the memory too, the second in the reference only."""
    inside = torch.zeros(BATCH, 2, size, size, dtype=torch.bool)
    inside[:, 0, 1:3, :5] = True
    inside[1:, 1, 2:6, 3:4] = True
    colours = torch.randint(0, 256, (2, BATCH, 2, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    return Strokes(inside, colours[0], colours[1], torch.tensor([[True, False]] * BATCH))


def test_strokes_cover_what_is_shown_and_not_what_is_drawn() -> None:
    """Against the pictures painted pixel by pixel and encoded again."""
    world = tiny_world()
    window = window_of(world)
    strokes = strokes_of(window.context.reference.shape[1])
    found = paint(world, window, strokes)
    reference, memory = window.context.reference.clone(), window.context.memory.clone()
    for b in range(BATCH):
        for s in range(2):
            for y, x in strokes.inside[b, s].nonzero().tolist():
                reference[b, y, x] = strokes.reference[b, s]
                if strokes.remembered[b, s]:
                    memory[b, :, y, x] = strokes.memory[b, s]
    assert not torch.equal(memory, window.context.memory)
    assert torch.equal(found.context.reference, reference)
    assert torch.equal(found.context.memory, memory)
    expected = world.encode_context(reference, memory, window.context.actions, window.context.age)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found.context, name), value), name
    assert torch.equal(found.new, window.new)
    assert torch.equal(found.actions, window.actions)


@pytest.mark.parametrize("memory", [1, 4])
def test_nothing_changes_without_strokes(memory: int) -> None:
    world = tiny_world(memory=memory)
    window = window_of(world)
    found = paint(world, window, draw_strokes(window.context.memory[:, -1], 0.0))
    for name, value in vars(window.context).items():
        torch.testing.assert_close(getattr(found.context, name), value)


def test_strokes_are_as_thick_as_fingers_and_of_two_kinds_of_colours() -> None:
    torch.manual_seed(0)
    colour = torch.tensor([10, 200, 30], dtype=torch.uint8)
    strokes = draw_strokes(colour.expand(400, 64, 96, 3), 0.4)
    shown = strokes.inside.flatten(1).any(1)
    assert 0.33 < shown.float().mean() < 0.47
    sides = torch.stack([strokes.inside[shown].any(dim).sum(-1) for dim in (3, 2)])  # height and width in pixels
    whole = sides[:, (sides > 64 * LENGTH[0] + 1).any(0) & (sides.amin(0) > 0)]  # not cut off by the border
    thin, long = whole.amin(0), whole.amax(0)
    assert 64 * THICKNESS[0] - 1 < thin.float().mean() < 64 * THICKNESS[1] + 1
    assert long.max() <= 64 * LENGTH[1] + 1
    assert 0.4 < (whole[0] > whole[1]).float().mean() < 0.6
    for colours in (strokes.reference, strokes.memory):
        of_picture = (colours == colour).all(-1)
        assert 0.4 < of_picture.float().mean() < 0.6
        assert (colours[~of_picture] == colours[~of_picture][:, :1]).all(), "the others are grey"
    assert strokes.remembered.shape == (400, STROKES)
    assert 0.6 < strokes.remembered.float().mean() < 0.73
    same = (strokes.reference == strokes.memory).all(-1)
    assert same[strokes.remembered].float().mean() > same[~strokes.remembered].float().mean() + 0.25


def test_training_paints_and_validation_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(noisy_context=0.0)
    task = WorldModelTraining(world, occlusion=1.0)
    seen: list[Tensor] = []
    predict = world.predict

    def spy(noisy: Tensor, sigma: Tensor, context: object, *more: object) -> Tensor:
        seen.append(context.reference)  # type: ignore[attr-defined]
        return predict(noisy, sigma, context, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(world, "predict", spy)
    monkeypatch.setattr(task, "log_metrics", lambda *_: None)
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    batch = batch_of()
    torch.manual_seed(0)
    task.training_step(batch, 0)
    task.validation_step(batch, 0)
    assert not torch.equal(seen[0], batch.frames[:, 0])
    assert torch.equal(seen[1], batch.frames[:, 0])


def test_the_share_is_a_share() -> None:
    with pytest.raises(UserError, match=r"occlusion is 1.5; give a number in \[0, 1\]"):
        WorldModelTraining(tiny_world(), occlusion=1.5)
